"""The report's two pictures of a training run."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure


def plot_losses(losses: Sequence[float], every: int, folder: Path) -> None:
    """Write both: loss-line.png and loss-scatter.png."""
    loss_line(losses, every).savefig(folder / "loss-line.png", dpi=120)
    loss_scatter(losses).savefig(folder / "loss-scatter.png", dpi=120)


def loss_line(losses: Sequence[float], every: int) -> Figure:
    """The running mean, and the loss of every `every`-th batch."""
    steps = range(1, len(losses) + 1)
    means = [sum_ / step for step, sum_ in zip(steps, accumulate(losses), strict=True)]
    every = every if len(losses) >= 2 * every else 1  # else there is no line
    shown = slice(every - 1, None, every)
    name = f"one batch in {every}" if every > 1 else "every batch"
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps[shown], losses[shown], marker="o", markersize=3, linewidth=1, label=name)
    axes.plot(steps, means, linewidth=2, label="mean since the start")
    axes.set(title="Training loss", xlabel="step", ylabel="cross-entropy, nats")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def loss_scatter(losses: Sequence[float]) -> Figure:
    """The losses of all batches."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(range(1, len(losses) + 1), losses, s=6, alpha=0.6)
    axes.set(title="Training loss of every batch", xlabel="step", ylabel="cross-entropy, nats")
    axes.grid(alpha=0.3)
    return figure
