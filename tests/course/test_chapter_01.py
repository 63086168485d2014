"""The exercises of chapter 1: where a text stands, and in whose units."""

import random

import pytest

from qa import mend


class Ours:
    @staticmethod
    def places(passage, text):
        return [n for n in range(len(passage)) if text and passage.startswith(text, n)]

    @staticmethod
    def from_utf16(passage, start):
        units = 0
        for place, character in enumerate(passage):
            if units == start:
                return place
            units += 1 if ord(character) < 0x10000 else 2
        return len(passage)


@pytest.mark.parametrize(
    ("passage", "text", "wanted"),
    [
        ("aaa", "aa", [0, 1]),
        ("رود کارون رود", "رود", [0, 10]),
        ("abc", "abc", [0]),
        ("abc", "d", []),
        ("abc", "abcd", []),
        ("abc", "", []),
        ("", "a", []),
        ("a.c abc", "a.c", [0]),  # a full stop is no pattern
    ],
)
def test_places(solution, passage, text, wanted):
    assert list(solution("places")(passage, text)) == wanted


def test_the_only_place_is_where_an_answer_is_mended_to(solution):
    places, luck = solution("places"), random.Random(0)
    for _ in range(100):
        passage = "".join(luck.choices("ab ", k=12))
        text = passage[luck.randrange(6) :][: luck.randint(1, 4)]
        found = list(places(passage, text))
        if len(found) == 1:
            assert found == [mend.find(passage, text, 1000).start]
        else:
            assert mend.find(passage, text, 1000) is None, (passage, text)


def test_from_utf16(solution):
    from_utf16, luck = solution("from_utf16"), random.Random(0)
    for _ in range(100):
        passage = "".join(luck.choices("aب🙂𝄞 ", k=8))
        place = luck.randrange(9)
        start = len(passage[:place].encode("utf-16-le")) // 2
        assert from_utf16(passage, start) == place, passage


@pytest.mark.parametrize(
    ("passage", "start", "wanted"), [("", 0, 0), ("سلام", 4, 4), ("🙂", 2, 1), ("\uffff🙂a", 3, 2)]
)
def test_from_utf16_at_the_edges(solution, passage, start, wanted):
    assert solution("from_utf16")(passage, start) == wanted
