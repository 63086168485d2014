import math

import pytest
import torch

from minitransformer.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_dropout_keeps_the_share_and_the_mean(p):
    torch.manual_seed(0)
    n = 1_000_000
    y = dropout(torch.ones(n), p)
    dropped = (y == 0).sum().item()
    assert abs(dropped - n * p) < 5 * math.sqrt(n * p * (1 - p))
    torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / (1 - p)]), rtol=1e-3, atol=0)
    assert abs(y.mean().item() - 1) < 5 * math.sqrt(p / (1 - p) / n)


def test_dropout_is_independent_of_place():
    torch.manual_seed(0)
    keep = (dropout(torch.ones(400_000), 0.3) != 0).float() - 0.7
    for lag in (1, 2, 3, 4, 8):  # four decisions share a random number
        correlation = (keep[lag:] * keep[:-lag]).mean() / 0.21
        assert abs(correlation.item()) < 5 / math.sqrt(400_000), f"lag {lag}"


def test_dropout_passes_the_gradient_of_what_it_kept():
    torch.manual_seed(0)
    x = torch.randn(1000, requires_grad=True)
    y = dropout(x, 0.4)
    y.sum().backward()
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(y, x * x.grad)


def test_dropout_repeats_with_the_seed():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(dropout(torch.ones(5, 7), 0.5))
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], dropout(torch.ones(5, 7), 0.5))


def test_dropout_at_the_ends_and_in_evaluation():
    x = torch.randn(3, 5)
    assert dropout(x, 0.0) is x
    assert dropout(x, 1.0).count_nonzero() == 0
    assert Dropout(0.5).eval()(x) is x
    assert (Dropout(0.5).train()(torch.ones(100)) == 0).any()
