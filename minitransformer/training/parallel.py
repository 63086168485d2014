"""Several processes at one job: data parallel training, by hand.

    torchrun --nproc-per-node 2 train_qa.py ...

torchrun starts the script N times. Every process holds the whole model and takes its share of each batch; before the
optimizer steps, the gradients of all shares are added up, so that all processes step alike and stay equal. With one
process there is nothing to add, and nothing here does anything.

torch's DistributedDataParallel averages over processes. That is the average over examples only where all shares are of
one size; the sum over shares, each divided by the size of the whole batch, always is. What is given up is that it sends
some gradients while others are still being computed.
"""

import atexit
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minitransformer.system.errors import RunError

T = TypeVar("T")


class World(NamedTuple):
    """The processes of a run, as one of them sees them."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files, and whose prints are seen."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of what all of them hold: every item goes to one process, the order stays."""
        return items[self.rank :: self.size]

    def sum_gradients(self, parameters: Iterable[nn.Parameter], numbers: Tensor) -> Tensor:
        """Add up the gradients of all processes, in place, and `numbers`, which are returned. One message for all.

        numbers: what the log wants to know, the loss say; of any shape.
        """
        if self.size == 1:
            return numbers
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # this process had no example
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]  # all of them
        flat = torch.cat([numbers.flatten(), *(gradient.flatten() for gradient in gradients)])
        self._talk(dist.all_reduce, flat)
        total, *sums = flat.split([numbers.numel(), *(gradient.numel() for gradient in gradients)])
        for gradient, summed in zip(gradients, sums, strict=True):
            gradient.copy_(summed.view_as(gradient))
        return total.view_as(numbers)

    def gather(self, thing: T) -> list[T]:
        """What each process holds, by rank. Tensors must lie on the CPU."""
        if self.size == 1:
            return [thing]
        things: list = [None] * self.size
        self._talk(dist.all_gather_object, things, thing)
        return things

    def any(self, flag: object) -> bool:
        """Whether the flag of any process is true. All must ask."""
        return any(self.gather(bool(flag)))

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first process, where alone it is called."""
        box: list = [make() if self.first else None]
        if self.size > 1:
            self._talk(dist.broadcast_object_list, box)
        return box[0]

    def _talk(self, collective: Callable, *arguments: object) -> None:
        try:
            collective(*arguments)
        except RuntimeError as error:  # how torch says that another process has gone
            reason = re.sub(r"^\[[^]]*\] ", "", _first_line(error)).split(". ")[0]  # without gloo's place and advice
            raise RunError(
                f"process {self.rank}: another process has gone ({reason}); the last checkpoint stays: "
                "see what it said, then go on by the same command with --resume"
            ) from error


ALONE = World()


def join(device: str) -> World:
    """Meet the other processes that torchrun started, if it did. RunError where they cannot be found.

    device: "cpu" or "cuda"; on GPUs each process of a machine takes its own. What the others than the first print on
    stdout goes nowhere from here on; errors, on stderr, are everybody's.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if device == "cuda":
        local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= here:
            raise RunError(f"--device cuda: {local + 1} processes or more, and torch sees {here} GPUs here; "
                           "start one process for each GPU")  # fmt: skip
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the processes cannot meet ({_first_line(error)}); start them with torchrun") from error
    atexit.register(dist.destroy_process_group)
    world = World(dist.get_rank(), size)
    if not world.first:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open until the process ends
    return world


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
