"""spiece.model read by hand: against SentencePiece's own reading, and every kind of damage refused in one line."""

import random
import struct

import pytest
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers

from minitransformer.system.errors import WeightsError
from tiny import examples, train_spiece, write_spiece
from weights import load_tokenizer
from weights.sentencepiece import UNKNOWN, UnigramModel, read_unigram

TEXTS = ["", "پایتخت ايران كجاست؟ می\u200cشود ½ ﷺ", "a\x00b``c'' [MASK] 12 👩\u200d👧", "\ufeffe\u0301 \u064b 中文"]
RULES = "643\t6A9\n64A\t6CC\n200C\t20\nBD\t31 2F 32\n41 42\t61\nFEFF\t\n"  # a small character map, so a small file


def train(**settings) -> bytes:
    texts = [example.context + " " + example.question for example in examples()]
    return train_spiece(texts, **{"vocab_size": 80} | settings)


@pytest.fixture(scope="module")
def spiece(tmp_path_factory) -> bytes:
    rules = tmp_path_factory.mktemp("rules") / "rules.tsv"
    rules.write_text(RULES)
    return train(normalization_rule_tsv=str(rules))


@pytest.fixture
def read(tmp_path):
    """`read_unigram` of some bytes."""

    def read(data: bytes) -> UnigramModel:
        (tmp_path / "spiece.model").write_bytes(data)
        return read_unigram(tmp_path / "spiece.model")

    return read


def varint(number: int) -> bytes:
    head = bytearray()
    while number > 0x7F:
        head.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*head, number])


def field(number: int, value: int | float | bytes) -> bytes:
    """One field of protobuf: a whole number, a float of four bytes, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text: bytes, score: float = -1.0, kind: int = 1) -> bytes:
    return field(1, field(1, text) + field(2, score) + field(3, kind))


SMALLEST = piece(b"<unk>", kind=UNKNOWN) + piece(b"a")
END = field(3, b"")  # a normalizer_spec, with which every file ends


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc_cf", "identity"])
def test_read_unigram_matches_sentencepiece(read, rule):
    data = train(normalization_rule_name=rule)
    theirs = sentencepiece_model_pb2.ModelProto.FromString(data)
    ours = read(data)
    assert [tuple(piece) for piece in ours.pieces] == [(p.piece, p.score, p.type) for p in theirs.pieces]
    assert ours.unk_id == theirs.trainer_spec.unk_id == 1
    assert ours.charsmap == theirs.normalizer_spec.precompiled_charsmap
    assert bool(ours.charsmap) == (rule != "identity")


def test_read_unigram_takes_protobufs_defaults(read):
    model = read(field(1, field(1, b"a")) + piece(b"<unk>", kind=UNKNOWN) + field(2, field(40, 1)) + END)
    assert model == ([("a", 0.0, 1), ("<unk>", -1.0, UNKNOWN)], 1, b"")
    assert read(piece(b"<unk>", kind=UNKNOWN) + END).unk_id == 0


def test_read_unigram_passes_over_fields_that_it_does_not_know(read):
    strange = field(9, 5) + field(10, 1.0) + field(11, b"x") + varint(12 << 3 | 1) + bytes(8)
    assert read(strange + SMALLEST + strange + field(2, strange) + field(3, strange)) == read(SMALLEST + END)


def test_read_unigram_takes_the_last_of_a_field_that_stands_twice(read):
    assert (
        read(field(2, field(40, 7) + field(3, 2)) + SMALLEST + field(2, field(40, 0) + field(3, 1)) + END).unk_id == 0
    )


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"model_type": "bpe"}, "a BPE model, not a Unigram one"),
        ({"model_type": "char"}, "a character model, not a Unigram one"),
        ({"model_type": "word"}, "a word model, not a Unigram one"),
        ({"treat_whitespace_as_suffix": True}, "its words do not begin with ▁"),
    ],
)
def test_model_of_another_kind_is_refused(read, settings, refusal):
    with pytest.raises(WeightsError, match=refusal + ".*: the file is of another model"):
        read(train(**settings))


@pytest.mark.parametrize("settings", [field(2, field(3, 9)), field(3, field(5, 0))])
def test_model_of_an_unknown_kind_is_refused(read, settings):
    with pytest.raises(WeightsError, match="the file is of another model"):
        read(SMALLEST + settings)


@pytest.mark.parametrize(
    "damaged",
    [
        piece(b"a"),  # no unknown piece
        SMALLEST + piece(b"<unk2>", kind=UNKNOWN),
        SMALLEST + field(2, field(40, 1)),
        SMALLEST + field(2, field(40, 2)),
        SMALLEST + field(2, field(40, (1 << 64) - 1)),  # -1, as protobuf writes it
    ],
)
def test_model_without_its_one_unknown_piece_is_refused(read, damaged):
    with pytest.raises(WeightsError, match=r"unk_id \d+ is not its one unknown piece; fetch the file again"):
        read(damaged)


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (b"This is a text, not a model.", r"byte \d+: "),
        (piece(b""), "piece 0, '', is empty or stands twice"),
        (2 * piece(1000 * b"a"), f"piece 1, '{32 * 'a'}', is empty or stands twice"),
        (SMALLEST + piece(b"a"), "piece 2, 'a', is empty or stands twice"),
        (SMALLEST + piece(b"b", float("nan")), "piece 2, 'b', has score nan"),
        (SMALLEST + piece(b"b", float("-inf")), "piece 2, 'b', has score -inf"),
        (SMALLEST + piece(b"b", kind=0), "piece 2, 'b', is of kind 0"),
        (SMALLEST + piece(b"b", kind=7), "piece 2, 'b', is of kind 7"),
        (piece(b"\xff"), "can't decode byte 0xff"),
        (field(1, 3), "byte 0: piece is of wire type 0, not 2"),
        (field(1, 1.0), "byte 0: piece is of wire type 5, not 2"),
        (field(1, field(1, 1)), "byte 2: text is of wire type 0, not 2"),
        (field(1, field(2, b"1234")), "byte 2: score is of wire type 2, not 5"),
        (field(1, field(3, 1.0)), "byte 2: kind is of wire type 5, not 0"),
        (field(2, field(40, b"")), "byte 2: unk_id is of wire type 2, not 0"),
        (field(3, field(2, 8)), "byte 2: precompiled_charsmap is of wire type 0, not 2"),
        (field(0, b""), "byte 0: field 0"),
        (b"\x0b", "byte 0: wire type 3"),
        (b"\x0a\x05abcd", "byte 0: field 1 of 5 bytes, 4 are left"),
        (b"\x0a\x02\x0a\x01a", "byte 2: field 1 of 1 bytes, 0 are left"),
        (b"\x15\0\0\0", "byte 0: field 2 of 4 bytes, 3 are left"),
        (b"\x11\0\0\0\0\0\0\0", "byte 0: field 2 of 8 bytes, 7 are left"),
        (b"\x0a" + varint((1 << 63) + 5) + b"abcde", "byte 0: field 1 of 9223372036854775813 bytes, 5 are left"),
        (b"\x0a\x80", "byte 2: the end, within a number"),
        (b"\x48" + 11 * b"\xff", "a number of more than 64 bits"),
    ],
)
def test_damaged_model_is_refused(read, damaged, what):
    with pytest.raises(WeightsError, match=rf"not a whole SentencePiece model \(.*{what}.*\); fetch the file again"):
        read(damaged)


def test_empty_file_is_refused(read):
    with pytest.raises(WeightsError, match="unk_id 0 is not its one unknown piece"):
        read(b"")


def test_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=": not a regular file"):
        read_unigram(tmp_path)


def test_every_truncation_is_refused(read, spiece):
    for end in range(len(spiece)):  # between two fields as well
        with pytest.raises(WeightsError):
            read(spiece[:end])


def charsmap(units: list[int], texts: bytes = b"text\0") -> bytes:
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts


def trie(**units: int) -> list[int]:
    """256 units: a root at 0, and what is told; `at_97=...` is the unit at place 97."""
    return [units.get(f"at_{place}", 0) for place in range(256)]


def test_small_character_map_is_that_of_the_library(read):
    """The root's offset is 0, so byte 97, "a", leads to place 97; its offset is 1, so its value is at 96."""
    data = charsmap(trie(at_97=97 | 1 << 8 | 1 << 10, at_96=1 << 31))
    assert read(SMALLEST + field(3, field(2, data))).charsmap == data
    assert normalizers.Precompiled(data).normalize_str("bab") == "btextb"


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (b"\1", "no trie of whole units"),
        (bytes(4), "no trie of whole units"),
        (struct.pack("<I", 1 << 31) + bytes(1024), "no trie of whole units"),
        (struct.pack("<I", 1023) + bytes(1024), "no trie of whole units"),
        (charsmap([0] * 255), "leads out of the trie"),
        (charsmap(trie(at_0=256 << 10)), "leads out of the trie"),
        (charsmap(trie(at_0=1 << 31)), "leads out of the trie"),
        (charsmap(trie(at_97=97 | 1 << 10 | 1 << 9)), "leads out of the trie"),
        (charsmap(trie(at_97=97 | 1 << 8 | 1 << 10, at_96=1 << 31 | 6)), "leads past its texts"),
        (charsmap(trie(at_97=97 | 1 << 8 | 1 << 10, at_96=1 << 31 | 1)), "leads past its texts"),
        (charsmap(trie(), b"\xff"), "can't decode byte"),
    ],
)
def test_damaged_character_map_is_refused(read, damaged, what):
    with pytest.raises(WeightsError, match=what):
        read(SMALLEST + field(3, field(2, damaged)))


def test_random_damage_to_the_character_map_is_refused_or_harmless(read, spiece):
    characters = "".join(chr(code) for code in (*range(1, 0x700), *range(0x2000, 0x2030), 0xFEFF, 0x1F600))
    data = read(spiece).charsmap
    start, outcomes = spiece.index(data), {"refused": 0, "harmless": 0}
    rng = random.Random(0)
    for _ in range(600):
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        damaged = bytearray(spiece)
        damaged[start + place] ^= 1 << bit
        try:
            charsmap = read(damaged).charsmap
        except WeightsError:
            outcomes["refused"] += 1
        else:
            normalizers.Precompiled(charsmap).normalize_str(characters)  # it panics where it leaves the map
            outcomes["harmless"] += 1
    assert min(outcomes.values()) > 50, outcomes


def test_random_damage_to_the_file_is_refused_or_harmless(tmp_path, spiece):
    outcomes = {"refused": 0, "harmless": 0}
    rng = random.Random(0)
    for _ in range(600):
        damaged = bytearray(spiece)
        place = rng.randrange(len(damaged))
        match rng.randrange(3):
            case 0:
                damaged[place] ^= 1 << rng.randrange(8)
            case 1:
                damaged[place : place + rng.randint(1, 9)] = rng.randbytes(rng.randint(0, 9))
            case 2:
                damaged[place:] = damaged[place + rng.randint(1, 99) :]
        try:
            tokenizer = load_tokenizer(write_spiece(tmp_path, damaged))
        except WeightsError as refusal:
            outcomes["refused"] += 1
            assert "\n" not in str(refusal)
        else:
            outcomes["harmless"] += 1
            for text, encoding in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
                assert all(0 <= start <= end <= len(text) for start, end in encoding.offsets)
    assert min(outcomes.values()) > 50, outcomes
