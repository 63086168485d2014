"""Multi-head self-attention: the formula, and faster implementations of it.

B batch, T tokens, N packed tokens (see packing.py), C width, H heads, D = C / H head size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.dropout import dropout
from minitransformer.packing import Packing


def attention(query: Tensor, key: Tensor, value: Tensor, keep: Tensor, drop: float = 0.0) -> Tensor:
    """Scaled dot-product attention, Vaswani et al. 2017, section 3.2.1.

    query, key, value: (B, H, T, D); keep: (B, 1, 1, T) bool, True where a key is a real token.
    Returns (B, H, T, D). `fast_attention` computes the same, faster.
    """
    score = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (B, H, T, T)
    score = score.masked_fill(~keep, torch.finfo(score.dtype).min)  # padding gets no weight
    weight = dropout(score.softmax(-1), drop)
    return weight @ value


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, drop: float) -> Tensor:
    """The formula above on packed rows, by way of the padded batch. All tensors (N, H, D)."""
    query, key, value = (packing.unpack(x).transpose(1, 2) for x in (query, key, value))  # (B, H, T, D)
    mixed = attention(query, key, value, packing.keep[:, None, None, :], drop)
    return packing.pack(mixed.transpose(1, 2))


def fast_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, drop: float) -> Tensor:
    """The fastest implementation for these tensors, all (N, H, D). This function alone chooses it.

    On a CPU padding costs more than a loop over the texts. On a GPU the flash kernel knows packed rows, but not always;
    else the padded batch goes through torch's own choice of kernels.
    """
    if not query.is_cuda:
        return attention_by_text(query, key, value, packing, drop)
    if has_flash_kernel(query):
        return flash_attention(query, key, value, packing, drop)
    return padded_attention(query, key, value, packing, drop)


def flash_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, drop: float) -> Tensor:
    """The flash kernel on packed rows (Dao 2023, FlashAttention-2). All tensors (N, H, D), in 16 bits, on a GPU.

    torch's public function for packed rows, varlen_attn, has no dropout; the operation below it has. The padded batch
    would go to cuDNN, which plans anew for every length of the longest text: a tenth of a second each time.
    """
    rows, longest = packing.cumulative, packing.keep.size(1)
    flash = torch.ops.aten._flash_attention_forward
    return flash(query, key, value, rows, rows, longest, longest, drop, False, False)[0]


def has_flash_kernel(query: Tensor) -> bool:
    """Whether the flash kernel takes packed queries (N, H, D): in 16 bits, in heads of a size that fits its tiles, and
    on GPUs from Ampere on (2020); those before it have float16 too."""
    size = query.size(-1)
    fits = query.dtype in (torch.float16, torch.bfloat16) and size % 8 == 0 and size <= 256
    return fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def attention_by_text(query: Tensor, key: Tensor, value: Tensor, packing: Packing, drop: float) -> Tensor:
    """Attention without padding, text by text. All tensors (N, H, D).

    A score matrix of t x t per text costs sum(t^2) where the padded batch costs B * T^2. Without dropout torch's
    fused kernel does not even write it down; with dropout on the weights that kernel does not exist on a CPU.
    """
    if drop:
        query = query / math.sqrt(query.size(-1))  # cheaper than dividing every score
    texts = zip(*(x.split(packing.lengths) for x in (query, key, value)), strict=True)
    mixed = []
    for q, k, v in texts:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))  # (H, t, D)
        if drop:
            weight = dropout((q @ k.transpose(1, 2)).softmax(-1), drop)  # (H, t, t)
            mixed.append((weight @ v).transpose(0, 1))
        else:
            mixed.append(F.scaled_dot_product_attention(q[None], k[None], v[None])[0].transpose(0, 1))
    return torch.cat(mixed)  # (N, H, D)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, drop: float) -> Tensor:
    """torch's kernels for a padded batch with a mask. All tensors (N, H, D)."""
    query, key, value = (packing.unpack(x).transpose(1, 2) for x in (query, key, value))  # (B, H, T, D)
    keep = packing.keep[:, None, None, :]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keep, dropout_p=drop)
    return packing.pack(mixed.transpose(1, 2))


class SelfAttention(nn.Module):
    """Every token looks at every token of its own text, or image, with H heads of size D = C / H."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool = True) -> None:
        """bias: whether queries, keys and values have one."""
        super().__init__()
        self.heads = heads
        self.dropout = dropout  # on the attention weights
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width)
        self.attend = fast_attention  # or explicit_attention: the formula, same results

    def extra_repr(self) -> str:
        return f"heads={self.heads}, dropout={self.dropout}"

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """Packed texts (N, C) -> (N, C); without a packing images (B, T, C) -> (B, T, C), which have no padding."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1))  # (..., C) -> (..., H, D)
            for project in (self.query, self.key, self.value)
        )
        drop = self.dropout if self.training else 0.0
        if packing is None:
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # (B, H, T, D)
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=drop).transpose(1, 2)
        else:
            mixed = self.attend(query, key, value, packing, drop)
        return self.output(mixed.flatten(-2))  # (..., H, D) -> (..., C)
