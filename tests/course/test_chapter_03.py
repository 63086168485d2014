"""The exercises of chapter 3: a softmax that cannot overflow, and attention without a library."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention


class Ours:
    @staticmethod
    def softmax(scores):
        powers = [math.exp(score - max(scores)) for score in scores]
        return [power / sum(powers) for power in powers]

    @staticmethod
    def attend(query, keys, values):
        scores = [sum(q * k for q, k in zip(query, key, strict=True)) / len(query) ** 0.5 for key in keys]
        weights = Ours.softmax(scores)
        return [sum(w * x for w, x in zip(weights, column, strict=True)) for column in zip(*values, strict=True)]


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([0.0, math.log(3.0)], [0.25, 0.75]),
        ([5.0], [1.0]),
        ([1000.0, 1000.0], [0.5, 0.5]),
        ([-1000.0, -1000.0], [0.5, 0.5]),  # e to the power -1000 is 0, and 0 / 0 no weight
        ([1000.0, 0.0, -1000.0], [1.0, 0.0, 0.0]),
        ([-1.0, 2.0, -3.0], torch.tensor([-1.0, 2.0, -3.0], dtype=torch.float64).softmax(-1).tolist()),
    ],
)
def test_softmax(solution, scores, wanted):
    assert solution("softmax")(scores) == pytest.approx(wanted)


@pytest.mark.parametrize(("count", "size", "width"), [(4, 3, 3), (1, 2, 2), (5, 4, 1), (2, 1, 6), (6, 16, 4)])
def test_attend(solution, count, size, width):
    luck = torch.Generator().manual_seed(0)
    shapes = (1, size), (count, size), (count, width)
    query, keys, values = (torch.randn(shape, generator=luck) for shape in shapes)
    given = solution("attend")(query[0].tolist(), keys.tolist(), values.tolist())
    wanted = scaled_dot_product_attention(query[None], keys[None], values[None])[0, 0].tolist()
    assert given == pytest.approx(wanted, abs=1e-5)


def test_attend_survives_large_scores(solution):
    assert solution("attend")([100.0], [[100.0], [0.0]], [[1.0, 2.0], [3.0, 4.0]]) == pytest.approx([1.0, 2.0])
