"""Quantised weights: stored in 8 or 4 bits, dequantised on load.

A matrix is cut into groups of neighbours in a row. A group of numbers w has one scale s and whole numbers q,

    w = q * s + error,   q = round(w / s),   -7 <= q <= 7 in 4 bits, -127 <= q <= 127 in 8

so zero stays zero, and positive and negative are alike ("symmetric"). With s = max|w| / 7 nothing is cut off, and no
error exceeds s / 2. A smaller s cuts the largest weights and rounds all others finer; the best of a few is taken, by
the sum of squared errors. Weights alone are rounded: the model computes in float, as ever.

In the file a matrix "name" is "name.codes", uint8, two 4-bit codes to a byte, the first in the low half, and
"name.scales", float16. The header says which: {"name": [rows, columns, bits, group]}. Everything else, biases, norms
and small matrices, stays float32.
"""

import json
from typing import NamedTuple

import torch
from torch import Tensor

from minitransformer.system.progress import progress
from weights.folder import SCHEME

CANDIDATES = torch.linspace(1.0, 0.7, 13)  # scales that are tried, as parts of the one that cuts nothing off


class Codes(NamedTuple):
    """A quantised matrix of R rows and C columns."""

    codes: Tensor  # uint8, (R, C) in 8 bits, (R, C / 2) in 4
    scales: Tensor  # float16, (R, C / group)


def quantise(matrix: Tensor, bits: int, group: int) -> Codes:
    """Round a matrix (R, C) to `bits` bits, with a scale for every `group` neighbours of a row.

    Raises ValueError on bits that are not 4 or 8, and where C is no multiple of the group, or odd in 4 bits.
    """
    rows, columns = matrix.shape
    _check(rows, columns, bits, group)
    most = 2 ** (bits - 1) - 1
    parts = matrix.float().reshape(rows, columns // group, group)  # (R, G, group)
    widest = parts.abs().amax(-1, keepdim=True) / most  # (R, G, 1)
    best = torch.full_like(widest, torch.inf)
    scale, codes = widest, torch.zeros_like(parts)
    for factor in CANDIDATES if bits == 4 else CANDIDATES[:1]:  # in 8 bits there is nothing to gain
        tried = (widest * factor).half().float().clamp(min=2.0**-24)  # as it will be read; float16's smallest step
        rounded = (parts / tried).round().clamp(-most, most)
        error = (parts - rounded * tried).square().sum(-1, keepdim=True)
        better = error < best
        best, scale = torch.where(better, error, best), torch.where(better, tried, scale)
        codes = torch.where(better, rounded, codes)
    stored = (codes.reshape(rows, columns) + (most + 1)).to(torch.uint8)  # 1 ... 15, or 1 ... 255
    if bits == 4:
        stored = stored[:, ::2] | stored[:, 1::2] << 4
    return Codes(stored, scale.squeeze(-1).half())


def dequantise(codes: Codes, bits: int) -> Tensor:
    """The matrix (R, C), float32."""
    stored, scales = codes
    if bits == 4:
        stored = torch.stack([stored & 15, stored >> 4], dim=-1).flatten(1)  # (R, C / 2, 2) -> (R, C)
    rows, columns = stored.shape
    parts = (stored.float() - 2 ** (bits - 1)).view(rows, scales.shape[1], -1)  # (R, G, group)
    return (parts * scales.float()[..., None]).view(rows, columns)


def pack(tensors: dict[str, Tensor], scheme: dict[str, tuple[int, int]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors as they are written, and the note that goes into the header. scheme: name -> (bits, group)."""
    packed, note = {}, {}
    for name, tensor in progress(tensors.items(), desc="quantising", unit="tensor", leave=False):
        if name not in scheme:
            packed[name] = tensor
            continue
        bits, group = scheme[name]
        packed[f"{name}.codes"], packed[f"{name}.scales"] = quantise(tensor, bits, group)
        note[name] = [*tensor.shape, bits, group]
    return packed, {SCHEME: json.dumps(note, separators=(",", ":"))} if note else {}


def unpack(tensors: dict[str, Tensor], note: str) -> dict[str, Tensor]:
    """The tensors of a quantised file, float again. Raises ValueError that names the tensor which does not fit."""
    try:
        scheme = {name: tuple(numbers) for name, numbers in json.loads(note).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError("its note on quantisation is damaged") from None
    tensors = dict(tensors)
    for name, numbers in scheme.items():
        if len(numbers) != 4 or not all(type(number) is int and number > 0 for number in numbers):
            raise ValueError(f"{name}: not rows, columns, bits and group")
        rows, columns, bits, group = numbers
        try:
            _check(rows, columns, bits, group)
            codes = Codes(tensors.pop(f"{name}.codes"), tensors.pop(f"{name}.scales"))
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is missing") from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        expected = ((torch.uint8, (rows, columns * bits // 8)), (torch.float16, (rows, columns // group)))
        for part, tensor, (dtype, shape) in zip(Codes._fields, codes, expected, strict=True):
            if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
                raise ValueError(f"{name}.{part} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}")
        if not codes.scales.isfinite().all() or name in tensors:
            raise ValueError(f"{name}: a scale is not finite" if name not in tensors else f"{name} is there twice")
        tensors[name] = dequantise(codes, bits)
    return tensors


def _check(rows: int, columns: int, bits: int, group: int) -> None:
    if bits not in (4, 8):
        raise ValueError(f"bits are {bits}; choose 4 or 8")
    if columns % group or (bits == 4 and columns % 2):
        raise ValueError(f"{columns} columns cannot be cut into groups of {group} in {bits} bits")
