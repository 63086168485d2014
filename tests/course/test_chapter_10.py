"""The exercises of chapter 10: tables of names, and what equal means."""

import math
import random

import torch

from minitransformer.bert import BertConfig
from weights import maps


class Ours:
    @staticmethod
    def expand(table, layers):
        return {
            ours.replace("{layer}", str(n)): theirs.replace("{layer}", str(n))
            for ours, theirs in table.items()
            for n in range(layers if "{layer}" in ours else 1)
        }

    @staticmethod
    def same(ours, theirs, tolerance):
        return all(
            one == other or (math.isfinite(one) and abs(one - other) <= tolerance + tolerance * abs(other) < math.inf)
            for one, other in zip(ours, theirs, strict=True)
        )


def test_expand(solution):
    names = maps.ARCHITECTURES["bert"].tasks["encoder"].names
    for layers in (1, 3):
        assert solution("expand")(names, layers) == maps.expand(names, BertConfig(layers=layers))


def test_same(solution):
    same, luck = solution("same"), random.Random(0)
    values = [0.0, 1.0, 1.0 + 2e-5, 1.0 + 1e-5, 100.0, 100.001, 100.002, -1.0, math.inf, -math.inf, math.nan]
    for _ in range(300):
        ours, theirs = (luck.choices(values, k=2) for _ in "ot")
        pair = (torch.tensor(numbers, dtype=torch.float64) for numbers in (ours, theirs))
        assert bool(same(ours, theirs, 1e-5)) == torch.allclose(*pair, rtol=1e-5, atol=1e-5), (ours, theirs)
