"""The exercises of chapter 2: the pieces of a word, and the windows of a long text."""

import itertools
import random

import pytest
from tokenizers import models

from qa.features import window_starts as wanted_starts


class Ours:
    @staticmethod
    def wordpiece(word, vocabulary):
        pieces, begin = [], 0
        while begin < len(word):
            mark = "##" if begin else ""
            ends = (end for end in range(len(word), begin, -1) if mark + word[begin:end] in vocabulary)
            end = next(ends, None)
            if end is None:
                return ["[UNK]"]
            pieces.append(mark + word[begin:end])
            begin = end
        return pieces

    @staticmethod
    def window_starts(count, room, stride):
        return [0, *range(room - stride, count - stride, room - stride)] if count > room else [0]


def test_wordpiece(solution):
    wordpiece, luck = solution("wordpiece"), random.Random(0)
    assert list(wordpiece("unaffable", {"un", "##aff", "##able", "##a", "##ff"})) == ["un", "##aff", "##able"]
    for _ in range(200):
        words = ["".join(luck.choices("abc", k=luck.randint(1, 3))) for _ in range(8)]
        vocabulary = {word if luck.random() < 0.4 else "##" + word for word in words}
        model = models.WordPiece({piece: n for n, piece in enumerate(["[UNK]", *vocabulary])}, unk_token="[UNK]")
        word = "".join(luck.choices("abc", k=luck.randint(1, 7)))
        assert list(wordpiece(word, vocabulary)) == [token.value for token in model.tokenize(word)], (word, vocabulary)


@pytest.mark.parametrize(
    ("word", "vocabulary", "wanted"),
    [
        ("abc", {"ab", "a", "##bc"}, ["[UNK]"]),  # greed does not turn back
        ("abc", {"a", "b", "c"}, ["[UNK]"]),  # these only begin words
        ("abc", {"##abc", "##c"}, ["[UNK]"]),  # and these never do
        ("abc", {"abc", "a", "##bc"}, ["abc"]),
        ("aaa", {"a", "##a"}, ["a", "##a", "##a"]),
    ],
)
def test_wordpiece_at_the_edges(solution, word, vocabulary, wanted):
    assert list(solution("wordpiece")(word, vocabulary)) == wanted


def test_window_starts(solution):
    window_starts = solution("window_starts")
    for count, room, stride in itertools.product(range(1, 12), range(3, 7), range(3)):
        wanted = list(wanted_starts(count, room, stride))
        assert list(window_starts(count, room, stride)) == wanted, (count, room, stride)


def test_windows_cover_every_token_and_share_what_they_should(solution):
    window_starts = solution("window_starts")
    for count, room, stride in itertools.product((1, 6, 7, 50), (6, 20), (0, 2, 5)):
        starts = list(window_starts(count, room, stride))
        windows = [range(start, min(start + room, count)) for start in starts]
        assert set().union(*windows) == set(range(count))
        assert all(len(set(a) & set(b)) == stride for a, b in itertools.pairwise(windows)), (count, room, stride)
