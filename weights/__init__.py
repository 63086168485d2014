"""Pretrained weights in and out: `from weights import load_pretrained, save_pretrained, load_tokenizer`."""

from minitransformer.system.errors import WeightsError
from weights.load import load_pretrained
from weights.save import save_pretrained
from weights.tokenizer import load_tokenizer

__all__ = ["WeightsError", "load_pretrained", "load_tokenizer", "save_pretrained"]
