"""Parse the vocabulary file of SentencePiece (Kudo and Richardson 2018) by hand, and trust nothing in it.

ALBERT's is called spiece.model, XLM-RoBERTa's and CamemBERT's sentencepiece.bpe.model, though BPE is not what it holds.

The file is one message of protobuf: a list of (field number, wire type, value), where a value may be a message again.
The tables name the fields that a tokenizer is made of, after sentencepiece_model.proto; all others are passed over.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitransformer.system.errors import WeightsError
from weights.folder import read_bytes

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # protobuf's wire types, but for the groups, long out of use
WIRE = {int: VARINT, float: FOUR_BYTES, str: LENGTH, bytes: LENGTH, slice: LENGTH}  # slice: a message, by its place
MODEL = {1: ("piece", slice), 2: ("trainer_spec", slice), 3: ("normalizer_spec", slice)}
PIECE = {1: ("text", str), 2: ("score", float), 3: ("kind", int)}
SETTINGS = {
    "trainer_spec": {3: ("model_type", int), 24: ("treat_whitespace_as_suffix", int), 40: ("unk_id", int)},
    "normalizer_spec": {2: ("precompiled_charsmap", bytes), 5: ("escape_whitespaces", int)},
}
DEFAULTS = {
    "model_type": 1,
    "treat_whitespace_as_suffix": 0,
    "unk_id": 0,
    "precompiled_charsmap": b"",
    "escape_whitespaces": 1,
}
MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces


class Piece(NamedTuple):
    text: str = ""
    score: float = 0.0  # the natural logarithm of its probability
    kind: int = NORMAL


class UnigramModel(NamedTuple):
    pieces: list[Piece]  # by id
    unk_id: int
    charsmap: bytes  # what `normalizers.Precompiled` takes; empty: characters stay as they are


def read_unigram(path: Path) -> UnigramModel:
    """The pieces and the character map of such a file, as far as they can be used without harm.

    Raises WeightsError on a file that is cut, damaged or not of this format, and on a model of another kind.
    """
    data = read_bytes(path)
    try:
        pieces, settings = _read_model(data)
        _check_pieces(pieces)
        _check_charsmap(settings["precompiled_charsmap"])
    except ValueError as error:
        raise WeightsError(f"{path}: not a whole SentencePiece model ({error}); fetch the file again") from error

    kind = MODEL_TYPES.get(settings["model_type"], settings["model_type"])
    if kind != "Unigram":
        raise WeightsError(f"{path}: a {kind} model, not a Unigram one: the file is of another model")
    if settings["treat_whitespace_as_suffix"] or not settings["escape_whitespaces"]:
        raise WeightsError(f"{path}: its words do not begin with ▁: the file is of another model")
    unk_id = settings["unk_id"]
    if [number for number, piece in enumerate(pieces) if piece.kind == UNKNOWN] != [unk_id]:
        raise WeightsError(f"{path}: unk_id {unk_id} is not its one unknown piece; fetch the file again")
    if "normalizer_spec" not in settings:  # the last part: a file that is cut off before it reads well too
        raise WeightsError(f"{path}: not a whole SentencePiece model (no normalizer_spec); fetch the file again")
    return UnigramModel(pieces, unk_id, settings["precompiled_charsmap"])


def _read_model(data: bytes) -> tuple[list[Piece], dict[str, Any]]:
    pieces, settings = [], dict(DEFAULTS)
    for name, value in _message(data, slice(0, len(data)), MODEL):
        if name == "piece":
            pieces.append(Piece(**dict(_message(data, value, PIECE))))
        else:
            settings.update(_message(data, value, SETTINGS[name]), **{name: True})
    return pieces, settings


def _check_pieces(pieces: list[Piece]) -> None:
    """ValueError on what SentencePiece itself never writes, or refuses to read."""
    seen = set()
    for number, piece in enumerate(pieces):
        name = f"piece {number}, {piece.text[:32]!r},"  # damage can make of half the file one piece
        if not piece.text or piece.text in seen:
            raise ValueError(f"{name} is empty or stands twice")
        if not math.isfinite(piece.score):
            raise ValueError(f"{name} has score {piece.score}")
        if not NORMAL <= piece.kind <= BYTE:
            raise ValueError(f"{name} is of kind {piece.kind}")
        seen.add(piece.text)


def _check_charsmap(charsmap: bytes) -> None:
    """ValueError where a walk through the character map could leave it; whoever walks later, does not look.

    The map is the size in bytes of a trie, the trie, and the texts that come in, each with a zero byte behind it. The
    trie is a double array (Aoe 1989) of 32-bit units. A unit is a value, the place of a text, where bit 31 is set; else
    a node: label in bits 0 to 7, bit 8 says that it has a value, bits 10 to 30 are an offset, in 256ths if bit 9 is
    set. From the node at place p, byte c leads to place p ^ offset ^ c, and the value is at p ^ offset.
    """
    if not charsmap:
        return
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 4 or size % 4 or not 4 <= size <= len(charsmap) - 4:
        raise ValueError("its character map has no trie of whole units")
    units = np.frombuffer(charsmap, "<u4", count=size // 4, offset=4)
    texts = charsmap[4 + size :]
    texts.decode("utf-8")

    offset = (units >> 10) << ((units & (1 << 9)) >> 6)
    to_value = np.arange(len(units)) ^ offset
    is_node = units >> 31 == 0
    is_node[0] = True  # the root, where every walk begins, whatever it says it is
    if (to_value[is_node] | 0xFF).max() >= len(units):
        raise ValueError("its character map leads out of the trie")
    places = units[to_value[is_node & (units >> 8 & 1 == 1)]] & 0x7FFFFFFF
    begins = np.flatnonzero(np.frombuffer(b"\0" + texts, np.uint8) == 0)
    if not np.isin(places, begins).all():
        raise ValueError("its character map leads past its texts")


def _message(data: bytes, span: slice, table: dict[int, tuple[str, type]]) -> Iterator[tuple[str, Any]]:
    """The fields of one message that the table names, (name, value), as they come; of a name twice the last counts."""
    for number, wire, value, place in _fields(data, span):
        if number not in table:
            continue
        name, kind = table[number]
        if wire != WIRE[kind]:
            raise ValueError(f"byte {place}: {name} is of wire type {wire}, not {WIRE[kind]}")
        if kind is float:
            (value,) = struct.unpack("<f", data[value])
        elif kind is bytes:
            value = data[value]
        elif kind is str:
            value = data[value].decode("utf-8")
        yield name, value


def _fields(data: bytes, span: slice) -> Iterator[tuple[int, int, Any, int]]:
    """(number, wire type, value, place) of each field, whose value is a whole number or the span of its bytes."""
    place = span.start
    while place < span.stop:
        start = place
        tag, place = _varint(data, place, span.stop)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(data, place, span.stop)
            yield number, wire, value, start
            continue
        if wire == LENGTH:
            size, place = _varint(data, place, span.stop)
        elif wire in (FOUR_BYTES, EIGHT_BYTES):
            size = 4 if wire == FOUR_BYTES else 8
        else:
            raise ValueError(f"byte {start}: wire type {wire}")
        if number == 0 or size > span.stop - place:
            raise ValueError(f"byte {start}: field {number} of {size} bytes, {span.stop - place} are left")
        yield number, wire, slice(place, place + size), start
        place += size


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """A whole number of at most 64 bits, seven to a byte, the lowest first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place == end:
            raise ValueError(f"byte {place}: the end, within a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"byte {place}: a number of more than 64 bits")
