"""Is it the same as Hugging Face's? Our models (models.py), and a layer of your own (own_layer.py), part by part.

transformers is needed here and nowhere else (pip install transformers).
"""

from weights.compare.models import compare, compare_models, first_difference, our_dropout, random_inputs, table
from weights.compare.own_layer import assert_same_as_hf

__all__ = [
    "assert_same_as_hf",
    "compare",
    "compare_models",
    "first_difference",
    "our_dropout",
    "random_inputs",
    "table",
]
