"""The pictures of a training run: loss, an image of the data, mistakes, the confusion matrix."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image
from torch import Tensor

from minitransformer.system.errors import printable
from minitransformer.training.order import epoch_order
from vision.images import Images
from vision.picture import open_picture

matplotlib.rcParams["text.parse_math"] = False  # a class may be called $x

READABLE = 30  # more classes than this have no room for names and numbers
GRID = 5  # rows and columns of mistakes
LARGEST = 256  # pixels of a side that is shown


def plot_loss(losses: Sequence[float], steps_per_epoch: int) -> Figure:
    """The loss of every step, and its mean in each epoch."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
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
    return figure


def plot_sample(images: Images, seed: int) -> Figure:
    """An image by chance, under the name of its class."""
    number = int(epoch_order(len(images), seed, epoch=0)[0])
    figure = Figure(figsize=(4, 4.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shown(images, number))
    axes.set_title(f"a random image: {printable(images.classes[images.labels[number]])}")
    axes.axis("off")
    return figure


def mistakes(images: Images, answers: Tensor, seed: int) -> list[int]:
    """The numbers of the images with a wrong answer, in an order drawn by chance. answers: (N,) numbers of classes."""
    order = epoch_order(len(images), seed, epoch=0)
    return order[(answers != torch.from_numpy(images.labels))[order]].tolist()


def plot_mistakes(images: Images, answers: Tensor, seed: int) -> Figure:
    """The first GRID * GRID of `mistakes`. answers: (N,) numbers of classes."""
    wrong = mistakes(images, answers, seed)
    chosen = wrong[: GRID**2]
    figure = Figure(figsize=(8, 9), layout="constrained")
    grid = figure.subplots(GRID, GRID)
    figure.suptitle(
        f"{len(wrong):,} of {len(images):,} images got a wrong answer (red, above; below it the true class)"
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, number in zip(grid.flat[: len(chosen)], chosen, strict=True):
        axes.imshow(shown(images, number))
        axes.set_title(printable(images.classes[answers[number]]), color="firebrick", fontsize=10)
        true = printable(images.classes[images.labels[number]])
        axes.text(0.5, -0.04, true, transform=axes.transAxes, ha="center", va="top", fontsize=10)
    return figure


def plot_confusion(confusion: ndarray, classes: Sequence[str]) -> Figure:
    """How many images of the row's class got the column's answer, coloured by their share of the row."""
    share = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
    size = min(12.0, 3 + 0.55 * len(classes))
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(title="Confusion matrix", xlabel="answer", ylabel="true class")
    if len(classes) <= READABLE:
        names = [printable(name) for name in classes]  # matplotlib warns of a letter that it lacks, and prints it
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in _counts(confusion):
            axes.text(column, row, str(count), ha="center", va="center", fontsize=9,
                      color="white" if share[row, column] > 0.5 else "black")  # fmt: skip
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return figure


def _counts(confusion: ndarray) -> list[tuple[tuple[int, int], int]]:
    """Places of the matrix that are not 0, and what stands there."""
    return [((row, column), confusion[row, column]) for row, column in zip(*confusion.nonzero(), strict=True)]


def shown(images: Images, number: int, largest: int = LARGEST) -> ndarray:
    """A picture as it was given, (H, W, 3) uint8, or smaller where a side has more than `largest` pixels."""
    picture = images.pictures[number]
    picture = Image.fromarray(picture) if isinstance(picture, ndarray) else open_picture(picture)
    picture.thumbnail((largest, largest))
    return np.asarray(picture)
