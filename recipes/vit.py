"""What train_vit.py can be told."""

from dataclasses import dataclass

from minitransformer.training.recipe import option
from recipes import common


@dataclass(frozen=True)
class Task:
    weights: str = option("demo-deit", "checkpoint: a folder in Hugging Face layout, or a name; new: a random DeiT")
    data: str = option("demo", "images: demo, demo-pretrain, a CIFAR-10 archive or folder, or a folder of classes")
    only_classes: str = option("", "classes to use, separated by commas or spaces; empty: all")
    limit_train: int = option(0, "N random training images; 0: all", at_least=0)
    limit_valid: int = option(0, "N random validation images; 0: all", at_least=0)
    # the sizes of a new model
    image_size: int = option(48, "pixels of a side", at_least=1, at_most=2_048)
    patch: int = option(8, "pixels of a patch's side", at_least=1, at_most=2_048)
    width: int = option(128, "width of the hidden states", at_least=1)
    layers: int = option(6, "blocks", at_least=1)
    heads: int = option(4, "attention heads", at_least=1)
    ffn_width: int = option(512, "width of the feed-forward part", at_least=1)
    initializer_range: float = option(0.02, "standard deviation of fresh weights", at_least=0.0)
    # what trains, and how its input comes about
    trainable: str = option("blocks.11 classifier", "modules to train, separated by spaces; all: every parameter")
    augment: bool = option(False, "mirror and shift the training images at random")
    trunk_cache: bool = option(True, "compute the frozen blocks once and cache their output, where that is exact")
    cache_gb: float = option(4.0, "GB of that cache to hold in memory; a larger one goes to a file", at_least=0.0)
    # training
    epochs: int = option(10, "passes over the training images", at_least=0)
    max_steps: int = option(0, "stop after N steps; 0: after the epochs", at_least=0)
    batch_size: int = option(512, "images per step", at_least=1)
    micro_batch: int = option(64, "images per forward pass; gradients accumulate", at_least=1)
    learning_rate: float = option(1e-4, "of AdamW, at its highest", at_least=0.0)
    beta2: float = option(0.999, "of AdamW: memory of the squared gradient", at_least=0.0, at_most=1.0)
    weight_decay: float = option(0.0, "of AdamW", at_least=0.0)
    decay_all: bool = option(False, "decay biases and norms too")
    schedule: str = option(
        "linear", "how the rate falls to 0: in a line, or as half a cosine", choices=("linear", "cosine")
    )
    warmup: float = option(
        0.0, "fraction of the steps in which the rate rises; then it falls", at_least=0.0, at_most=1.0
    )
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    label_smoothing: float = option(0.0, "fraction of the target spread over all classes", at_least=0.0, at_most=1.0)
    half: bool = option(False, "write the finished model in float16, half the size")
    cache_dir: str = option("runs/trunk-cache", "folder of the cache file; later runs reuse it", passing=True)


@dataclass(frozen=True)
class Recipe(common.Run, common.Machine, Task):
    """All fields, of the last base first."""
