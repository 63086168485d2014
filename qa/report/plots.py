"""The report's two pictures of a training run."""

from itertools import accumulate
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def plot_losses(losses: list[float], every: int, folder: Path) -> None:
    """loss-line.png: the running mean and the loss of every `every`-th batch; loss-scatter.png: of all batches."""
    steps = range(1, len(losses) + 1)
    means = [sum_ / step for step, sum_ in zip(steps, accumulate(losses), strict=True)]

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    every = every if len(losses) >= 2 * every else 1  # else there is no line
    shown = slice(every - 1, None, every)
    name = f"one batch in {every}" if every > 1 else "every batch"
    axes.plot(steps[shown], losses[shown], marker="o", markersize=3, linewidth=1, label=name)
    axes.plot(steps, means, linewidth=2, label="mean since the start")
    axes.set(title="Training loss", xlabel="step", ylabel="cross-entropy, nats")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(folder / "loss-line.png", dpi=120)
    pyplot.close(figure)

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    axes.scatter(steps, losses, s=6, alpha=0.6)
    axes.set(title="Training loss of every batch", xlabel="step", ylabel="cross-entropy, nats")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "loss-scatter.png", dpi=120)
    pyplot.close(figure)
