"""What train_mlm.py can be told."""

from dataclasses import dataclass

from minitransformer.training.recipe import option
from recipes import common


@dataclass(frozen=True)
class Task:
    train: str = option("demo", "training documents: text, SQuAD .json or .json.gz, or demo")
    valid: str = option("demo", "validation documents, likewise; empty: none")
    limit_train: int = option(0, "only the first N documents; 0: all", at_least=0)
    limit_valid: int = option(0, "only the first N documents; 0: all", at_least=0)
    weights: str = option("", "checkpoint to continue from, with its tokenizer and sizes; empty: a new model")
    # a new tokenizer and a new model
    architecture: str = option("bert", "architecture of the new model", choices=("bert", "albert"))
    vocabulary: int = option(2000, "tokens of the vocabulary, at most", at_least=6)
    width: int = option(128, "width of the hidden states", at_least=1)
    embedding_width: int = option(128, "width of ALBERT's token table", at_least=1)
    layers: int = option(4, "Transformer layers; ALBERT applies one as often", at_least=1)
    heads: int = option(4, "attention heads", at_least=1)
    ffn_width: int = option(512, "width of the feed-forward part", at_least=1)
    positions: int = option(512, "longest input that the model can take", at_least=1)
    dropout: float = option(0.1, "of hidden states and attention weights", at_least=0.0, at_most=1.0)
    initializer_range: float = option(0.02, "standard deviation of fresh weights", at_least=0.0)
    sines: bool = option(False, "the position table starts as sine waves, so that 'one to the left' is easy to find")
    # masking (section 3.1 of BERT)
    mask_rate: float = option(0.15, "fraction of the words to predict", at_least=0.0, at_most=1.0)
    whole_words: bool = option(True, "mask all pieces of a word together")
    # training
    max_length: int = option(512, "longest input in tokens; longer documents are cut into several", at_least=3)
    shuffle: bool = option(True, "a new order in each epoch; otherwise the order of the file")
    epochs: int = option(1, "passes over the documents", at_least=0)
    max_steps: int = option(0, "stop after N steps; 0: after the epochs", at_least=0)
    batch_size: int = option(32, "documents per step", at_least=1)
    micro_batch: int = option(0, "documents per forward pass; gradients accumulate; 0: the whole batch", at_least=0)
    learning_rate: float = option(1e-3, "of AdamW, at its highest", at_least=0.0)
    beta2: float = option(0.999, "of AdamW: memory of the squared gradient", at_least=0.0, at_most=1.0)
    weight_decay: float = option(0.01, "of AdamW; biases and norms are left alone", at_least=0.0)
    warmup: float = option(
        0.05, "fraction of the steps in which the rate rises; then it falls", at_least=0.0, at_most=1.0
    )
    clip_norm: float = option(1.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    half: bool = option(False, "write the finished model in float16, half the size")


@dataclass(frozen=True)
class Recipe(common.Run, common.Machine, Task):
    """All fields, of the last base first."""
