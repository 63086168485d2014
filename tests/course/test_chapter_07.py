"""The exercises of chapter 7: counting parameters."""

import torch

from minitransformer.albert import Albert, AlbertConfig
from minitransformer.bert import Bert, BertConfig


class Ours:
    @staticmethod
    def layer(width, ffn_width):
        attention = 4 * (width * width + width)
        return attention + width * ffn_width + ffn_width + ffn_width * width + width + 4 * width

    @staticmethod
    def bert_parameters(vocabulary, positions, segments, width, ffn_width, layers):
        return (vocabulary + positions + segments + 2) * width + layers * Ours.layer(width, ffn_width)

    @staticmethod
    def albert_parameters(vocabulary, positions, segments, embedding_width, width, ffn_width, groups):
        tables = (vocabulary + positions + segments + 2) * embedding_width
        return tables + embedding_width * width + width + groups * Ours.layer(width, ffn_width)


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_bert_parameters(solution):
    for sizes in ((100, 20, 2, 8, 12, 3), (57, 9, 1, 4, 20, 1)):
        names = ("vocabulary", "positions", "segments", "width", "ffn_width", "layers")
        model = Bert(BertConfig(**dict(zip(names, sizes, strict=True)), heads=2))
        assert solution("bert_parameters")(*sizes) == count(model)
    assert solution("bert_parameters")(30522, 512, 2, 768, 3072, 12) == 108_891_648


def test_albert_parameters(solution):
    torch.manual_seed(0)
    for sizes in ((100, 20, 2, 6, 8, 12, 1), (57, 9, 1, 2, 4, 20, 3)):
        names = ("vocabulary", "positions", "segments", "embedding_width", "width", "ffn_width", "groups")
        model = Albert(AlbertConfig(**dict(zip(names, sizes, strict=True)), heads=2, layers=6))
        assert solution("albert_parameters")(*sizes) == count(model)
