"""Fresh models of any size, to train from scratch."""

import math
from typing import Any

import torch
from torch import Tensor

from minitransformer.albert import AlbertConfig, AlbertForMaskedLM
from minitransformer.bert import BertConfig, BertForMaskedLM, initialise
from minitransformer.vit import VitConfig, VitForImageClassification
from minitransformer.vit import initialise as initialise_vit

MASKED_LM = {"bert": (BertForMaskedLM, BertConfig), "albert": (AlbertForMaskedLM, AlbertConfig)}


def new_masked_lm(architecture: str, sines: bool = False, **settings: Any) -> BertForMaskedLM:
    """A fresh masked language model.

    architecture: "bert" or "albert"; settings: fields of its configuration. sines: the position table starts as sine
    waves and not at random.
    """
    kind, config_type = MASKED_LM[architecture]
    config = config_type(**settings)
    model = kind(config)
    initialise(model, config.initializer_range)
    if sines:
        table = model.encoder.embeddings.position.weight
        table.data = sine_waves(*table.shape) * config.initializer_range
    return model


def new_classifier(**settings: Any) -> VitForImageClassification:
    """A fresh ViT or DeiT that classifies on [CLS]; settings: fields of VitConfig."""
    config = VitConfig(**settings)
    model = VitForImageClassification(config)
    initialise_vit(model, config.initializer_range)
    return model


def sine_waves(positions: int, width: int) -> Tensor:
    """Sine waves of falling frequency (Vaswani et al. 2017, section 3.5), (positions, width), of deviation 1.

    A step along the text is a rotation, the same at every place; a table of random rows has to learn each place.
    """
    frequency = 10_000.0 ** -(torch.arange(0, width, 2) / width)
    angle = torch.arange(positions)[:, None] * frequency
    return math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]
