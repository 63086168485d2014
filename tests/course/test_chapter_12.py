"""The exercises of chapter 12: RoBERTa's positions, and the pairs of the families."""

import random

import torch

from minitransformer.roberta import count_positions as wanted_positions
from weights import load_tokenizer


class Ours:
    @staticmethod
    def count_positions(ids, pad_id):
        positions, real = [], 0
        for token in ids:
            real += token != pad_id
            positions.append(pad_id + real if token != pad_id else pad_id)
        return positions

    @staticmethod
    def pair(first, second, family):
        cls, sep = ("<s>", "</s>") if family == "roberta" else ("[CLS]", "[SEP]")
        between = [sep] * (2 if family == "roberta" else 1)
        return [cls, *first, *between, *second, sep]


def test_count_positions(solution):
    count_positions, luck = solution("count_positions"), random.Random(0)
    for pad_id in (0, 1, 5):
        for _ in range(20):
            ids = luck.choices([pad_id, 7, 8], k=luck.randint(1, 9))
            wanted = wanted_positions(torch.tensor([ids]), pad_id)[0].tolist()
            assert list(count_positions(ids, pad_id)) == wanted, (ids, pad_id)


def test_pair(solution):
    pair = solution("pair")
    tokenizer = load_tokenizer("demo-bert-fa")
    first, second = "پایتخت ایران", "ایران"
    texts = [tokenizer.encode(text, add_special_tokens=False).tokens for text in (first, second)]
    for family in ("bert", "albert", "distilbert", "electra"):
        assert list(pair(*texts, family)) == tokenizer.encode(first, second).tokens
    assert list(pair(["a"], ["b", "c"], "roberta")) == ["<s>", "a", "</s>", "</s>", "b", "c", "</s>"]
