"""Dropout (Srivastava et al. 2014) whose random numbers do not cost more than the layer they follow.

On a CPU torch draws one 32-bit random number per element, on one core: for attention weights that takes over ten
times as long as the matrix product they go into. Sixteen bits decide as well, and a 64-bit draw holds four of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16  # p is rounded to 1 / LEVELS, and the scale uses the rounded p


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability p, scale the rest by 1 / (1 - p). Any shape. Draws from torch's generator."""
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = round(p * LEVELS)
    if dropped == 0:
        return x
    if dropped == LEVELS:
        return x * 0.0
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    uniform = bits.view(torch.int16)[: x.numel()].view(x.shape)  # -LEVELS / 2 ... LEVELS / 2 - 1
    return _Dropped.apply(x, uniform, dropped - LEVELS // 2, LEVELS / (LEVELS - dropped))


class _Dropped(torch.autograd.Function):
    """x where uniform >= least, scaled; else 0. The backward pass needs the draws alone, two bytes an element."""

    @staticmethod
    def forward(ctx, x: Tensor, uniform: Tensor, least: int, scale: float) -> Tensor:
        ctx.save_for_backward(uniform)
        ctx.constants = least, scale
        return _drop(x, uniform, least, scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:  # pyrefly: ignore[bad-override] - as torch's own examples have it
        (uniform,) = ctx.saved_tensors
        return _drop(gradient, uniform, *ctx.constants), None, None, None


def _drop(x: Tensor, uniform: Tensor, least: int, scale: float) -> Tensor:
    keep = torch.empty_like(x)
    torch.ge(uniform, least, out=keep)  # 0 or 1 in x's type: to multiply by a bool takes torch seven times as long
    return keep.mul_(x).mul_(scale)


class Dropout(nn.Module):
    """`dropout` in training mode, nothing in evaluation mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"
