"""DINOv2: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision".

A ViT that has seen 142 million pictures and no label: a student, shown parts of a picture, learns to say of it what its
teacher, the mean of its own past, says of the whole. So the public checkpoints have no classifier, and what they know
of pictures is what one takes from them. The model is ViT, and three things differ:

- what a block adds is scaled, channel by channel, and there is no dropout in it;
- the classifier reads the patches too, as their mean beside [CLS];
- patches have 14 pixels a side, and the public checkpoints have positions for 518 x 518 pixels but are mostly asked
  at 224 x 224: the interpolation of `vit.Embeddings` is the rule.

What served the pre-training alone is not here: the token in place of hidden patches, which is dropped, and stochastic
depth, config.json's `drop_path_rate`, which is not looked at, since fine-tuning leaves it out (0 in the public
checkpoints). The gated feed-forward part of the giant model, `use_swiglu_ffn`, is refused.

B batch, H, W height and width in pixels, C width, T tokens: [CLS] and the patches; K classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from minitransformer.vit import Block, Vit, VitForImageClassification


@dataclass(frozen=True)
class Dinov2Config:
    """Sizes and constants of a DINOv2. The defaults are those of the base model, as in transformers."""

    image_size: int = 224  # of the position table; other sizes are interpolated
    patch: int = 14
    channels: int = 3
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn_ratio: int = 4
    activation: str = "gelu"
    dropout: float = 0.0  # of the embeddings
    attention_dropout: float = 0.0
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    initializer_range: float = 0.02
    classes: int = 2
    distilled: ClassVar[bool] = False  # the only token before the patches is [CLS]
    prefix: ClassVar[int] = 1

    @property
    def ffn_width(self) -> int:
        return self.ffn_ratio * self.width


class LayerScale(nn.Module):
    """A learnt factor for each channel (Touvron et al. 2021, "Going deeper with Image Transformers", section 2).

    Trained from nothing they begin small, so that each block adds little at first; here, at 1. (..., C) -> (..., C).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Dinov2Block(Block):
    """ViT's block with what each part adds scaled, and without dropout. (B, T, C) -> (B, T, C)."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__(config)  # pyrefly: ignore[bad-argument-type] - has all that a Block asks for
        self.attention_scale = LayerScale(config.width)
        self.ffn_scale = LayerScale(config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention_scale(self.attention(self.attention_norm(x)))
        return x + self.ffn_scale(self.ffn_down(self.activation(self.ffn_up(self.ffn_norm(x)))))


class Dinov2(Vit):
    """The encoder: patches, L blocks, a last norm. (B, 3, H, W) -> (B, T, C)."""

    block_type = Dinov2Block


class Dinov2ForImageClassification(nn.Module):
    """Encoder -> Linear(2 C, K) on [CLS] and the mean of the patches, side by side."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Dinov2(config)  # pyrefly: ignore[bad-argument-type] - and all that a Vit does
        self.classifier = nn.Linear(2 * config.width, config.classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, K)"""
        return self.classifier(self.read(self.encoder(pixel_values))).float()

    def read(self, x: Tensor) -> Tensor:
        """What the classifier sees of the tokens, (B, T, C) -> (B, 2 C)."""
        return torch.cat([x[:, 0], x[:, 1:].mean(1)], dim=1)


ImageClassifier = VitForImageClassification | Dinov2ForImageClassification
