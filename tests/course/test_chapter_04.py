"""The exercises of chapter 4: rows back into a rectangle, and batches by tokens."""

import random

import numpy as np
import torch

from minitransformer.packing import Packing
from qa import features


class Ours:
    @staticmethod
    def unpack(rows, lengths):
        longest, width, first, texts = max(lengths), len(rows[0]), 0, []
        for length in lengths:
            padding = [[0.0] * width for _ in range(longest - length)]
            texts.append(rows[first : first + length] + padding)
            first += length
        return texts

    @staticmethod
    def batches_by_tokens(lengths, most):
        batches = []
        for number in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batches and (len(batches[-1]) + 1) * lengths[number] <= most:
                batches[-1].append(number)
            else:
                batches.append([number])
        return batches


def test_unpack(solution):
    unpack, luck = solution("unpack"), torch.Generator().manual_seed(0)
    for lengths in ([3, 5], [1], [4, 4, 4], [2, 1, 7]):
        packing = Packing.of(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])
        rows = torch.randn(sum(lengths), 3, generator=luck)
        assert torch.equal(torch.tensor(unpack(rows.tolist(), lengths)), packing.unpack(rows)), lengths


def test_batches_by_tokens(solution):
    batches_by_tokens, luck = solution("batches_by_tokens"), random.Random(0)
    for _ in range(50):
        lengths = [luck.randint(1, 12) for _ in range(luck.randint(0, 15))]
        empty = np.zeros(0, np.int32)
        read = [features.Feature(0, np.zeros(n, np.int32), empty, 0, empty, 0, 0) for n in lengths]
        wanted = features.batches_by_tokens(read, 24)
        assert [list(batch) for batch in batches_by_tokens(lengths, 24)] == wanted, lengths
    assert [list(batch) for batch in batches_by_tokens([30, 2], 24)] == [[1], [0]]
