"""The exercises of chapter 9: what a training costs, and what trains."""

import pytest

from minitransformer.vit import VitConfig, VitForImageClassification
from vision.freeze import freeze


class Ours:
    @staticmethod
    def training_cost(epochs, blocks, trained, cached):
        frozen = blocks - trained
        return frozen * (1 if cached else epochs) + epochs * 3 * trained

    @staticmethod
    def trains(name, rule):
        return any(name == word or name.startswith(word + ".") for word in rule.split())


def test_training_cost(solution):
    training_cost = solution("training_cost")
    assert training_cost(10, 12, 1, cached=False) == 140
    assert training_cost(10, 12, 1, cached=True) == 41
    assert training_cost(3, 6, 6, cached=True) == training_cost(3, 6, 6, cached=False) == 54


@pytest.mark.parametrize(
    "rule", ["blocks.11 classifier", "blocks.1", "norm", "blocks.1.attention.query classifier.bias"]
)
def test_trains(solution, rule):
    model = VitForImageClassification(VitConfig(width=4, heads=1, ffn_width=4, image_size=16))
    freeze(model, rule)
    for name, parameter in model.named_parameters():
        short = name.removeprefix("encoder.")
        assert solution("trains")(short, rule) == parameter.requires_grad, (short, rule)
