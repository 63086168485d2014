"""The exercises of chapter 5: what the model is shown, and how much it knows."""

import random

import pytest
import torch
import torch.nn.functional as F


class Ours:
    @staticmethod
    def damage(ids, hidden, fate, others, mask_id):
        shown = []
        for token, hide, draw, other in zip(ids, hidden, fate, others, strict=True):
            shown.append(token if not hide or draw >= 0.9 else mask_id if draw < 0.8 else other)
        return shown

    @staticmethod
    def perplexity(chances):
        product = 1.0
        for chance in chances:
            product *= chance ** (1 / len(chances))
        return 1 / product


def test_damage(solution):
    damage, luck = solution("damage"), random.Random(0)
    for _ in range(50):
        ids = [luck.randrange(10, 20) for _ in range(8)]
        hidden = [luck.random() < 0.5 for _ in ids]
        fate = [luck.choice([0.0, 0.5, 0.79, 0.8, 0.85, 0.9, 0.95]) for _ in ids]
        others = [luck.randrange(20, 30) for _ in ids]
        where, draws = torch.tensor(hidden), torch.tensor(fate, dtype=torch.float64)
        wanted = torch.tensor(ids).masked_fill(where & (draws < 0.8), 4)
        wanted = torch.where(where & (draws >= 0.8) & (draws < 0.9), torch.tensor(others), wanted)
        assert list(damage(ids, hidden, fate, others, 4)) == wanted.tolist()


def test_perplexity(solution):
    perplexity = solution("perplexity")
    assert perplexity([0.25] * 4) == pytest.approx(4.0)
    assert perplexity([1.0]) == pytest.approx(1.0)
    logits, right = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    chances = logits.softmax(-1)[range(6), right].tolist()
    assert perplexity(chances) == pytest.approx(F.cross_entropy(logits, right).exp().item(), rel=1e-5)
