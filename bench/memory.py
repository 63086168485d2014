"""Does a long run keep its size? Resident memory and open files step by step, and the share of time that saving takes.

python -m bench.memory [FLAGS OF train_qa.py]

Trains the demo for 20,000 steps of two questions, with a checkpoint every 5,000, as long runs have them; flags given
win. With PYTHONTRACEMALLOC=1 in the environment it also says how much Python's own objects take.
"""

import os
import resource
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import train_qa
from bench.common import machine, table
from minitransformer.system.errors import command_line
from minitransformer.training import checkpoint, recipe
from minitransformer.training.log import Log

DEFAULTS = "--recipe demo-qa --epochs 1000 --max-steps 20000 --batch-size 2 --limit-valid 20 --checkpoint-every 5000"
SAMPLES = 20


class Sample(NamedTuple):
    step: int
    memory: int  # bytes, resident
    files: int  # that are open
    traced: int  # bytes of Python's objects; 0 without PYTHONTRACEMALLOC=1


def sample(step: int) -> Sample:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    traced, _ = tracemalloc.get_traced_memory()
    return Sample(step, pages * resource.getpagesize(), len(os.listdir("/proc/self/fd")), traced)


@command_line
def main() -> None:
    flags = [*DEFAULTS.split(), *sys.argv[1:]]
    _, job = recipe.parse(train_qa.Recipe, "demo-qa", __doc__, flags)  # refuses wrong flags at once
    every = max(1, job.max_steps // SAMPLES)
    samples, saving, times = [], [], []
    add, save = Log.add, checkpoint.save_checkpoint

    def add_and_sample(log: Log, step: int, **row: object) -> bool:
        times.append(time.monotonic())
        if step % every == 0:
            samples.append(sample(step))
        return add(log, step=step, **row)

    def save_and_time(*given: object, **score: float | None) -> Path:
        began = time.monotonic()
        path = save(*given, **score)
        saving.append(time.monotonic() - began)
        return path

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["train_qa.py", "--out", str(Path(folder) / "run"), *flags]
        with (
            mock.patch.object(Log, "add", add_and_sample),
            mock.patch.object(checkpoint, "save_checkpoint", save_and_time),
        ):
            train_qa.main()
    rows = [
        [f"{one.step:,}", f"{one.memory / 2**20:.1f} MiB", f"{one.traced / 2**20:.2f} MiB", str(one.files)]
        for one in samples
    ]
    print(table(["step", "resident memory", "Python's objects", "open files"], *rows))
    if saving:
        share = sum(saving) / (times[-1] - times[0])
        print(
            f"\n{len(saving)} checkpoints, {sum(saving) / len(saving):.3f} s each: {share:.2%} of the time of training"
        )
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
