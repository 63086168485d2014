"""The exercises of chapter 11: a step and its codes, and two codes to a byte."""

import pytest
import torch

from weights.quantised import quantise as project_quantise


class Ours:
    @staticmethod
    def quantise(weights, bits):
        step = max(map(abs, weights)) / (2 ** (bits - 1) - 1)
        return [round(weight / step) if step else 0 for weight in weights], step

    @staticmethod
    def pack(codes):
        pairs = zip(codes[::2], codes[1::2], strict=True)
        return bytes(low + 8 + 16 * (high + 8) for low, high in pairs)


def test_quantise(solution):
    quantise = solution("quantise")
    codes, step = quantise([0.70, -0.31, 0.04, 0.29], 4)
    assert list(codes) == [7, -3, 0, 3]
    assert step == pytest.approx(0.1)
    codes, step = quantise([0.0, 0.0], 4)
    assert (list(codes), step) == ([0, 0], 0)
    weights = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    codes, step = quantise(weights[0].tolist(), 8)
    wanted = project_quantise(weights, bits=8, group=64)
    assert step == pytest.approx(wanted.scales.item(), rel=1e-3)  # kept in float16
    apart = torch.tensor(list(codes)) - (wanted.codes[0].int() - 128)
    assert apart.abs().max() <= 1  # by the same rounding of the scale
    errors = [abs(code * step - weight) for code, weight in zip(codes, weights[0].tolist(), strict=True)]
    assert max(errors) <= step / 2 + 1e-9


def test_pack(solution):
    pack = solution("pack")
    assert pack([7, -3, 0, 3]) == bytes([95, 184])
    matrix = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    stored = project_quantise(matrix, bits=4, group=32).codes[0]
    codes = [int(code) - 8 for byte in stored.tolist() for code in (byte & 15, byte >> 4)]
    assert list(pack(codes)) == stored.tolist()
