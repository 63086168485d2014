"""The device that computes: choosing it, seeding it, feeding it, compiling for it."""

import os
import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from minitransformer import bert, vit
from minitransformer.attention import SelfAttention
from minitransformer.system.errors import RunError

T = TypeVar("T")
Tensors = TypeVar("Tensors", bound=Iterable[Tensor] | None)


def choose_device(name: str) -> torch.device:
    """The device called `name`. RunError when this machine or this build of torch has none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: torch sees no GPU here; use --device cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise RunError("--device mps: torch sees no Apple GPU here; use --device cpu")
    return torch.device(name)


def seed_all(seed: int, deterministic: bool = False) -> None:
    """Seed every random generator: torch's, and those of Python and numpy, which checkpoints hold too.

    seed: below 2**32. deterministic: a GPU too gives the same bits every time; an operation that cannot, fails.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add in any order
    torch.use_deterministic_algorithms(deterministic)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the one that is global
    torch.manual_seed(seed)


def move(batch: Tensors, device: torch.device) -> Tensors:
    """A NamedTuple of tensors, a Packing, or None, on the device. Pinned memory is copied while the loop goes on."""
    if device.type == "cpu" or batch is None:
        return batch
    # pyrefly: ignore[not-iterable] - it is not None here
    tensors = (tensor.pin_memory() if device.type == "cuda" else tensor for tensor in batch)
    return type(batch)(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def ahead(batches: Iterator[T], device: torch.device) -> Iterator[T]:
    """The same batches, made by a thread while a GPU computes. On a CPU it would only take the time of the others."""
    if device.type == "cpu":
        yield from batches
        return
    with ThreadPoolExecutor(max_workers=1) as worker:
        coming = deque(worker.submit(next, batches, None) for _ in range(2))
        while (batch := coming.popleft().result()) is not None:
            coming.append(worker.submit(next, batches, None))
            yield batch


def compile_layers(model: nn.Module) -> None:
    """torch.compile every layer, once for all numbers of rows.

    How rows belong together changes with every batch, and attention has kernels of its own, so it is left out.
    """
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.attend = torch.compiler.disable(module.attend)
        if isinstance(module, bert.Layer | vit.Block):
            module.compile(dynamic=True)
