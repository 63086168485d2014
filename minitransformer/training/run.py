"""A run in progress: what stands around every training loop besides the training.

    with Run(folder, job, model, optimizer, world, precision, steps, unit="tokens") as run:
        for step in range(run.done, steps):
            ...                                              # batch -> logits -> loss -> step: the loop's own
            run.record(step, epoch, batch_number, loss, rate, count)
            run.save(step, validate)

It keeps log.csv, shows progress, resumes, saves checkpoints, and ends the run well on Ctrl-C and SIGTERM.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitransformer.system.progress import be_quiet, progress, say
from minitransformer.training import checkpoint, parallel
from minitransformer.training.device import choose_device, compile_layers, seed_all
from minitransformer.training.log import Log
from minitransformer.training.order import due
from minitransformer.training.parallel import World
from minitransformer.training.precision import Precision
from minitransformer.training.run_folder import resume
from minitransformer.training.stop import Stop


def start(job: Any) -> tuple[World, Precision]:
    """Meet the other processes, choose device and precision, seed every random generator. job: a recipe."""
    be_quiet(job.quiet)
    world = parallel.join(job.device)
    precision = Precision(job.precision, choose_device(job.device), job.tf32)
    seed_all(job.seed, job.deterministic)
    return world, precision


class Run:
    """Everything of a run that is not the training itself. job: a recipe, of which the fields of recipes/common.py."""

    def __init__(
        self,
        folder: Path,
        job: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        precision: Precision,
        steps: int,
        unit: str,
        window: int = 0,
        extra: Sequence[str] = (),
    ) -> None:
        """Resume, or begin. steps: of the whole run. unit, window, extra: as in `Log`.

        Raises RunError where the run cannot be resumed.
        """
        torch.manual_seed(job.seed + world.rank)  # dropout and augmentation differ between processes
        self.job, self.model, self.steps, self.window = job, model, steps, window
        self.world = world
        self.held = model, optimizer, world, precision.scaler  # what a checkpoint holds
        self.checkpoints = folder / "checkpoints"
        self.done = resume(folder, job, *self.held)
        every = 1 if precision.device.type == "cpu" else job.print_every
        self.log = Log(folder, unit, every, window, extra, resume_step=self.done, writes=world.first)
        if job.compile:
            compile_layers(model)
        model.train()

    def __enter__(self) -> "Run":
        self.stop = Stop().__enter__()
        self.bar = progress(total=self.steps, initial=self.done, unit="step", desc="training", shown=self.world.first)
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self.stop.__exit__()
        self.bar.close()
        if kind is None:
            self.log.close()
            if self.job.validate_every and self.steps:
                checkpoint.load_best(self.checkpoints, self.model, self.world)

    def record(
        self, step: int, epoch: int, batch_number: int, loss: Tensor, rate: float, count: int, **extra: Tensor
    ) -> None:
        """Write a step's line of log.csv; now and then print the running mean, as the report does.

        step, epoch, batch_number: from 0. count: of the units that the step took. loss, extra: () tensors.
        Raises RunError where a loss is not finite.
        """
        self.bar.update()
        self.stopping = False
        if not self.log.add(step=step + 1, epoch=epoch + 1, loss=loss, lr=rate, count=count, **extra):
            return
        self.bar.set_postfix_str(str(self.log), refresh=False)
        # A mean over a window is due every so many steps of the run, one over the epoch so many of the epoch.
        if due(step + 1 if self.window else batch_number + 1, self.job.print_every):
            say(f"Epoch [{epoch + 1}] Batch [{batch_number + 1}] - Loss = {self.log.running_mean:.4f}")
        self.stopping = self.world.any(self.stop.signal)

    def save(self, step: int, validate: Callable[[], float] | None) -> None:
        """Validate and save a checkpoint where they are due after `step`. Raises Stopped after a signal, saved.

        validate: how good the model is now, more is better.
        """
        validating = due(step + 1, self.job.validate_every, self.steps)
        if not (self.stopping or validating or due(step + 1, self.job.checkpoint_every)):
            return
        self.log.sync()
        score = validate() if validating and validate else None
        self.model.train()  # which a validation ends
        saved = checkpoint.save_checkpoint(self.checkpoints, step + 1, *self.held, score=score)
        if self.stopping:
            self.stop.stop(step + 1, saved)

    @property
    def losses(self) -> list[float]:
        """Of every step so far."""
        return self.log.losses.tolist()
