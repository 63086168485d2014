"""Which examples come when: steps, epochs, batches."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Items = TypeVar("Items", Sequence, Tensor)


def count_steps(examples: int, batch_size: int, epochs: int, most: int) -> tuple[int, int]:
    """Steps of an epoch, the last perhaps on fewer examples, and of the run. most: in all; 0: as many as there are."""
    steps_per_epoch = -(-examples // batch_size)
    steps = epochs * steps_per_epoch
    return steps_per_epoch, min(steps, most) if most else steps


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """A permutation of 0 ... count - 1 that seed and epoch alone decide, so that a resumed run finds it again."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def chunks(items: Items, size: int) -> Iterator[Items]:
    """Runs of `size` items, the last perhaps shorter; of all items if size is 0. No items make no run."""
    for first in range(0, len(items), size or max(1, len(items))):
        yield items[first : first + (size or len(items))]


def due(step: int, every: int, last: int = 0) -> bool:
    """Whether something done every so many steps, and after the last one, is due after `step`. every 0: never."""
    return bool(every) and (step % every == 0 or step == last)
