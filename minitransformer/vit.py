"""ViT: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", and DeiT: Touvron et al. 2021, "Training
data-efficient image transformers & distillation through attention".

An image is cut into patches, each patch becomes a token, and a Transformer reads the tokens; [CLS] stands before them
and is what gets classified. DeiT adds a second such token, which a teacher taught during pre-training (section 4).

B batch, H, W height and width in pixels, P patch, C width, T tokens: [CLS], in DeiT the distillation token, and
H/P * W/P patches; K classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.attention import SelfAttention
from minitransformer.bert import ACTIVATIONS
from minitransformer.dropout import Dropout


@dataclass(frozen=True)
class VitConfig:
    """Sizes and constants of a ViT or DeiT. The defaults are those of the base model, as in transformers."""

    image_size: int = 224  # of the position table; other sizes are interpolated
    patch: int = 16
    channels: int = 3
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn_width: int = 3072
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    norm_eps: float = 1e-12
    qkv_bias: bool = True
    initializer_range: float = 0.02
    distilled: bool = False  # DeiT: a distillation token after [CLS]
    classes: int = 2

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return 2 if self.distilled else 1

    @property
    def tokens(self) -> int:
        """Tokens of an image of `image_size`, T."""
        return self.prefix + (self.image_size // self.patch) ** 2


class Embeddings(nn.Module):
    """Patches as tokens, the prefix before them, positions added. (B, 3, H, W) -> (B, T, C)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.side = config.image_size // config.patch  # patches along a side of the position table
        self.patches = nn.Conv2d(config.channels, config.width, kernel_size=config.patch, stride=config.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.distillation = nn.Parameter(torch.zeros(1, 1, config.width)) if config.distilled else None
        self.position = nn.Parameter(torch.zeros(1, config.prefix + self.side**2, config.width))
        self.dropout = Dropout(config.dropout)

    def forward(self, pixel_values: Tensor) -> Tensor:
        grid = self.patches(pixel_values)  # (B, C, H/P, W/P): a patch times a matrix, patch by patch
        tokens = grid.flatten(2).transpose(1, 2)  # row by row
        prefix = [part.expand(len(tokens), -1, -1) for part in (self.cls, self.distillation) if part is not None]
        x = torch.cat([*prefix, tokens], dim=1)  # (B, T, C)
        return self.dropout(x + self.positions(*grid.shape[2:]))

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position table for an image of rows * columns patches, (1, T, C), by bicubic interpolation."""
        if (rows, columns) == (self.side, self.side):
            return self.position
        prefix, table = self.position.split([self.position.size(1) - self.side**2, self.side**2], dim=1)
        table = table.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)  # (1, C, side, side)
        table = F.interpolate(table, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([prefix, table.flatten(2).transpose(1, 2)], dim=1)


class Block(nn.Module):
    """A pre-norm Transformer block: x = x + f(norm(x)), so that x itself runs through all blocks untouched.

    BERT's layers norm after the sum. (B, T, C) -> (B, T, C).
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = SelfAttention(config.width, config.heads, config.attention_dropout, config.qkv_bias)
        self.ffn_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.ffn_up = nn.Linear(config.width, config.ffn_width)
        self.ffn_down = nn.Linear(config.ffn_width, config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.ffn_down(self.activation(self.ffn_up(self.ffn_norm(x)))))


class Vit(nn.Module):
    """The encoder: patches, L blocks, a last norm. (B, 3, H, W) -> (B, T, C)."""

    block_type: type[Block] = Block

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(self.block_type(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (B, channels, H, W), normalised as the checkpoint's preprocessing says.

        Raises ValueError where the channels are not the model's, or H and W no multiples of the patch.
        """
        config = self.config
        channels, height, width = pixel_values.shape[1:]
        if channels != config.channels or height % config.patch or width % config.patch or not height * width:
            raise ValueError(
                f"{channels} channels of {height} x {width} pixels, but the model takes {config.channels} channels "
                f"and sides that are multiples of {config.patch}"
            )
        x = self.embeddings(pixel_values)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


CPU_CACHE = 5_000_000  # bytes of a block's widest tensor, (B, T, F) float32, that a CPU's cache should hold


def images_at_once(config: VitConfig, size: tuple[int, int], device: torch.device, most: int) -> int:
    """How many images a forward pass should take: `most` on a GPU, on a CPU what its cache holds of them.

    size: height and width of an image. Larger batches go to memory between the products, and DeiT-small takes half as
    long again for an image.
    """
    tokens = config.prefix + (size[0] // config.patch) * (size[1] // config.patch)
    in_cache = CPU_CACHE // (4 * tokens * config.ffn_width)
    return max(1, min(most, in_cache)) if device.type == "cpu" else most


class VitForImageClassification(nn.Module):
    """Encoder -> Linear(C, K) on [CLS]. A distillation token runs along and is not asked."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Vit(config)
        self.classifier = nn.Linear(config.width, config.classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, K)"""
        return self.classifier(self.encoder(pixel_values)[:, 0]).float()


class DeitWithTeacher(nn.Module):
    """Two classifiers, on [CLS] and on the distillation token; their mean is DeiT's answer (section 4, "fusion")."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Vit(config)
        self.classifier = nn.Linear(config.width, config.classes)
        self.distillation_classifier = nn.Linear(config.width, config.classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, K)"""
        x = self.encoder(pixel_values)
        return ((self.classifier(x[:, 0]) + self.distillation_classifier(x[:, 1])) / 2).float()


def initialise(model: VitForImageClassification, std: float) -> None:
    """A new model's weights: normal with `std`, as DeiT's code has it; biases 0, norms 1 and 0."""
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.constant_(parameter, float(name.endswith("weight")))
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=std)
