"""log.csv, the diary of a run."""

import csv
import os
import time
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from minitransformer.system import files
from minitransformer.system.errors import RunError
from minitransformer.training import checkpoint
from minitransformer.training.optim import check_loss


class Log:
    """log.csv: a line per step, the whole precision of the loss, so that a resumed run reads its past from here.

    A GPU works behind the loop's back, and to read a loss is to wait for it. So losses stay tensors until `every` steps
    have gathered, and are then read all at once; on a CPU nothing is gained by waiting, and `every` is 1.
    """

    def __init__(
        self,
        folder: Path,
        unit: str,
        every: int = 1,
        window: int = 0,
        extra: Sequence[str] = (),
        resume_step: int | None = None,
        writes: bool = True,
    ) -> None:
        """unit: what `count` counts, "tokens" or "images". window: steps in the running mean; 0: those of the epoch.

        extra: names of further columns. resume_step: keep the lines up to this step, and drop what came after the
        checkpoint. writes: False in all processes but the first, which remember and write nothing.
        """
        path = folder / "log.csv"
        self.columns = ["step", "epoch", "loss", *extra, "running_mean", "lr", f"{unit}_per_second"]
        rows = _read_log(path, self.columns, resume_step) if resume_step else []
        self.losses = array("d", (row["loss"] for row in rows))  # of every step; all else stays on the disk
        self.last = rows[-1] if rows else {}  # the last step's line
        self._recent = deque(maxlen=window)  # losses of the window
        self._epoch, self._total, self._count = 0, 0.0, 0  # without one: of the epoch so far
        for row in rows:
            if self._remember(int(row["epoch"]), row["loss"]) != row["running_mean"]:
                raise RunError(
                    f"{path}: the running mean of step {row['step']:.0f} is not that of its losses: somebody changed "
                    "the file; the run cannot be resumed"
                )
        self._folder, self._unit, self._every, self._waiting = folder, unit, every, []
        self._since = time.monotonic()
        self._file: TextIO | None = None
        if writes:
            lines = [",".join(self.columns), *map(self._line, rows)]
            files.write_text(path, "\n".join(lines) + "\n")
            self._file = path.open("a", encoding="utf-8", buffering=1)

    def add(self, step: int, epoch: int, loss: Tensor, lr: float, count: int, **extra: Tensor) -> bool:
        """One step's line. Returns whether all lines are written now, so that their numbers may be shown.

        loss, extra: () tensors. Raises RunError where a loss is NaN or infinite.
        """
        self._waiting.append((step, epoch, lr, count, {"loss": loss, **extra}))
        if len(self._waiting) < self._every:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Read the losses that are still tensors, and write their lines."""
        if not self._waiting:
            return
        names = list(self._waiting[0][-1])
        read = torch.stack([values[name].double() for *_, values in self._waiting for name in names]).view(
            -1, len(names)
        )
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        speed = sum(count for *_, count, _ in self._waiting) / seconds
        for (step, epoch, lr, _, _), numbers in zip(self._waiting, read.tolist(), strict=True):
            values = dict(zip(names, numbers, strict=True))
            saved = checkpoint.whole_checkpoints(self._folder / "checkpoints")
            check_loss(values["loss"], step, checkpoint.last_good(saved, step - 1))
            mean = self._remember(epoch, values["loss"])
            row = {"step": step, "epoch": epoch, **values, "running_mean": mean, "lr": lr, self.columns[-1]: speed}
            self.losses.append(values["loss"])
            self.last = row
            if self._file:
                _write(self._file, self._line(row) + "\n")
        self._waiting = []

    def sync(self) -> None:
        """Make every line so far durable."""
        self.flush()
        if self._file:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        if self._file:
            self._file.close()

    @property
    def running_mean(self) -> float:
        return self.last["running_mean"]

    def __str__(self) -> str:
        """The state of things, for a progress bar."""
        return f"loss {self.running_mean:.3f}, {self.last[self.columns[-1]]:,.0f} {self._unit}/s"

    def _remember(self, epoch: int, loss: float) -> float:
        """The running mean with this loss in it."""
        if self._recent.maxlen:
            self._recent.append(loss)
            return sum(self._recent) / len(self._recent)
        if epoch != self._epoch:
            self._epoch, self._total, self._count = epoch, 0.0, 0
        self._total += loss
        self._count += 1
        return self._total / self._count

    def _line(self, row: dict[str, float]) -> str:
        return ",".join(_number(row[name]) for name in self.columns)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _read_log(path: Path, columns: list[str], steps: int) -> list[dict[str, float]]:
    """The lines of the first `steps` steps. What follows them, a last line cut short perhaps, is not looked at."""
    try:
        files.check_regular(path)
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            lines = islice(csv.DictReader(file), steps)
            rows = [{name: float(line[name]) for name in columns} for line in lines]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path}: cannot be read ({error}); the run cannot be resumed without it") from error
    if [row["step"] for row in rows] != list(range(1, steps + 1)):
        raise RunError(f"{path}: it does not hold the {steps} steps before the checkpoint; the run cannot be resumed")
    return rows


def _write(file: TextIO, line: str) -> None:
    try:
        file.write(line)
    except OSError as error:  # of a full disk, which the system reports without a name
        raise OSError(error.errno, error.strerror, file.name) from error
