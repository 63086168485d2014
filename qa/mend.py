"""Answers that are not where their `answer_start` says: put right, if there is one place that can be meant."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

NEAR = 20  # characters from where it should be


class Mended(NamedTuple):
    """One answer that was not where it should be."""

    place: str  # where it stands in the file
    text: str  # as the file has it
    start: int  # likewise
    how: str  # one of those below, or "dropped"
    found: int  # where it is; -1: nowhere


class Found(NamedTuple):
    text: str  # as the context has it
    start: int
    how: str


def find(context: str, text: str, start: int) -> Found | None:
    """Where an answer must be meant to be; None where nobody can tell.

    Counted in UTF-16 units, as JavaScript counts; at its only place; at the place nearest to `start`, up to NEAR away;
    or any of these in another Unicode form, composed (NFC) or decomposed (NFD).
    """
    for how, form in (("", text), ("in NFC", unicodedata.normalize("NFC", text)),
                      ("in NFD", unicodedata.normalize("NFD", text))):  # fmt: skip
        places = _places(context, form)
        units = len(context.encode("utf-16-le")[: 2 * max(start, 0)].decode("utf-16-le", "ignore"))
        if units in places:
            return Found(form, units, how or "counted in UTF-16 units")
        if len(places) == 1:
            return Found(form, places[0], how or "at its only place")
        nearest = min(places, key=lambda place: abs(place - start), default=None)
        if nearest is not None and abs(nearest - start) <= NEAR:
            return Found(form, nearest, how or f"at most {NEAR} characters away")
    return None


def _places(context: str, text: str) -> list[int]:
    """Every place of a text, overlapping ones too."""
    places, place = [], context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return places


def summary(mended: Sequence[Mended]) -> str:
    """A line: how many answers were put right, each way, and how many were dropped."""
    counts = Counter(one.how for one in mended)
    dropped = counts.pop("dropped", 0)
    ways = ", ".join(f"{count:,} {how}" for how, count in counts.most_common())
    return f"answers put right: {len(mended) - dropped:,}{f' ({ways})' if ways else ''}; dropped: {dropped:,}"
