"""AdamW's parameter groups, and the schedules of the learning rate."""

import math
from pathlib import Path

import torch
from torch import nn

from minitransformer.system.errors import RunError


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict]:
    """AdamW's groups (Loshchilov and Hutter 2019).

    decay_all: every parameter decays, as `AdamW(model.parameters(), weight_decay=...)` does. Otherwise biases and
    norms do not, as BERT's own optimizer has it.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_all:
        return [{"params": parameters, "weight_decay": weight_decay}]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def step_rate(step: int, steps_per_epoch: int, gamma: float) -> float:
    """Factor on the learning rate at step 0, 1, ...: times gamma after each epoch (StepLR, step_size 1)."""
    return gamma ** (step // steps_per_epoch)


def linear_rate(step: int, warmup: int, total: int) -> float:
    """Factor on the learning rate at step 0, 1, ...: rises from 0 over `warmup` steps, then falls to 0 at `total`."""
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine_rate(step: int, warmup: int, total: int) -> float:
    """The same rise, then half a cosine down to 0 (Loshchilov and Hutter 2017, without restarts)."""
    if step < warmup:
        return step / warmup
    return (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def check_loss(loss: float, step: int, last_checkpoint: Path | None) -> None:
    """RunError when the loss is NaN or infinite: what follows could not be trusted."""
    if not math.isfinite(loss):
        # The first step's loss owes nothing to the training.
        remedy = "lower the learning rate or raise the warm-up" if step > 1 else "the weights it began with are bad"
        raise RunError(
            f"loss is {loss} at step {step}: stopped; last good checkpoint: {last_checkpoint or 'none'}; {remedy}"
        )
