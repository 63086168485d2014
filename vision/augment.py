"""Flips and shifted crops (He et al. 2016, section 4.2), a whole batch in a few tensor operations."""

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 8  # a picture moves by up to its side over this: 4 pixels of 32


def flip_and_shift(images: Tensor) -> Tensor:
    """Each image mirrored with probability 1/2 and moved a little, black where nothing was. (B, 3, H, W), any dtype.

    Draws from torch's generator, on the CPU.
    """
    batch, channels, height, width = images.shape
    down, across = height // SHIFT, width // SHIFT
    padded = F.pad(images, (across, across, down, down))
    rows = torch.arange(height) + torch.randint(2 * down + 1, (batch, 1))  # (B, H)
    columns = torch.arange(width) + torch.randint(2 * across + 1, (batch, 1))  # (B, W)
    columns = torch.where(torch.rand(batch, 1) < 0.5, columns.flip(1), columns)
    image, channel = torch.arange(batch)[:, None, None, None], torch.arange(channels)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
