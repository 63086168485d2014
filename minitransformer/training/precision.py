"""Mixed precision: matrix products in 16 bits, and weights, norms, softmax, losses and the optimizer in 32.

bfloat16 keeps float32's range with 8 bits of mantissa. Where a GPU lacks it, float16 has 11 bits but a narrow range:
small gradients would become 0, so the loss is scaled up before the backward pass (Micikevicius et al. 2018).
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class Precision:
    """How a run computes. `dtype` is that of the matrix products."""

    def __init__(self, name: str, device: torch.device, tf32: bool = False) -> None:
        """name: "float32" or "mixed". tf32: on a GPU, float32 products may round their factors to 10 bits."""
        self.device = device
        self.dtype = _sixteen_bits(device) if name == "mixed" else torch.float32
        self.name = str(self.dtype).removeprefix("torch.")
        self.remark = ""
        if name == "mixed" and self.dtype == torch.float32:
            lacking = "this CPU has no bfloat16 units" if device.type == "cpu" else "16 bits are for CPUs and for CUDA"
            self.remark = f"{lacking}: the run stays in float32"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass and its loss."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], clip_norm: float) -> None:
        """Unscale and, if clip_norm is above 0, clip the gradients, then let the optimizer step, then clear them.

        With float16 a step whose gradients are not finite is left out, and the next scale is smaller.
        """
        if clip_norm:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad()


def _sixteen_bits(device: torch.device) -> torch.dtype:
    """The 16-bit type that the device multiplies faster than float32, or float32 where there is none."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu":
        return torch.float32
    # torch has these two under private names only; a CPU without them emulates bfloat16, several times slower.
    units = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    has_units = any(getattr(torch.cpu, name, lambda: False)() for name in units)
    return torch.bfloat16 if has_units else torch.float32
