"""The pictures of a training run: loss, an image of the data, mistakes, the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from numpy import ndarray

READABLE = 30  # more classes than this have no room for names and numbers
GRID = 5  # rows and columns of mistakes


def plot_loss(losses: Sequence[float], steps_per_epoch: int, folder: Path) -> None:
    """loss.png: the loss of every step, and its mean in each epoch."""
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1, alpha=0.6, label="every step")
    starts = range(0, len(losses), steps_per_epoch)
    epochs = [losses[start : start + steps_per_epoch] for start in starts]
    middles = [start + (1 + len(epoch)) / 2 for start, epoch in zip(starts, epochs, strict=True)]
    means = [sum(epoch) / len(epoch) for epoch in epochs]
    axes.plot(middles, means, marker="o", markersize=4, linewidth=1.5, label="mean of each epoch")
    axes.set(title="Training loss", xlabel="step", ylabel="cross-entropy, nats")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, folder / "loss.png")


def plot_sample(picture: ndarray, label: str, folder: Path) -> None:
    """sample.png: an image (H, W, 3) uint8 under the name of its class."""
    figure, axes = pyplot.subplots(figsize=(4, 4.3), layout="constrained")
    axes.imshow(picture)
    axes.set_title(f"a random image: {label}")
    axes.axis("off")
    _save(figure, folder / "sample.png")


def plot_mistakes(pictures: Sequence[ndarray], said: Sequence[str], true: Sequence[str], total: int, folder: Path) -> None:
    """mistakes.png: images with a wrong answer, the first GRID * GRID of them. total: images that were looked at."""
    figure, grid = pyplot.subplots(GRID, GRID, figsize=(8, 9), layout="constrained")
    figure.suptitle(f"{len(said):,} of {total:,} images are taken for something else\n(red: said, black: true)")
    for axes in grid.flat:
        axes.axis("off")
    for axes, picture, wrong, right in zip(grid.flat, pictures, said, true, strict=False):
        axes.imshow(picture)
        axes.set_title(wrong, color="firebrick", fontsize=10)
        axes.text(0.5, -0.04, right, transform=axes.transAxes, ha="center", va="top", fontsize=10)
    _save(figure, folder / "mistakes.png")


def plot_confusion(confusion: ndarray, classes: Sequence[str], folder: Path) -> None:
    """confusion.png: in the row of the true class and the column of the answer, how many; coloured by the row's share."""
    share = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
    size = min(12.0, 3 + 0.55 * len(classes))
    figure, axes = pyplot.subplots(figsize=(size + 0.8, size), layout="constrained")
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(title="Confusion matrix", xlabel="answer", ylabel="true class")
    if len(classes) <= READABLE:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in _counts(confusion):
            axes.text(column, row, count, ha="center", va="center", fontsize=9,
                      color="white" if share[row, column] > 0.5 else "black")  # fmt: skip
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    _save(figure, folder / "confusion.png")


def _counts(confusion: ndarray) -> list[tuple[tuple[int, int], int]]:
    """Places of the matrix that are not 0, and what stands there."""
    return [((row, column), confusion[row, column]) for row, column in zip(*confusion.nonzero(), strict=True)]


def _save(figure: pyplot.Figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
