"""Load tokenizers: tokenizer.json, or a vocabulary file of the model's family (vocabulary.py) -> tokenizers.Tokenizer.

What the caller gets knows its own special tokens: encoding a pair puts them in (the pair template), encoding a
batch pads it. `special_tokens` reads their names back, so that no other code spells [CLS] or <s>.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer, processors

from minitransformer.system.errors import WeightsError
from weights.find import find_folder
from weights.folder import read_json, read_text
from weights.vocabulary import (
    ALBERT_SPECIAL,
    BERT_SPECIAL,
    ROBERTA_SPECIAL,
    byte_pairs,
    camembert_unigram,
    named,
    switch,
    unigram,
    wordpiece,
    xlm_unigram,
)

TRIAL = "Ab1 \u0633\u0644\u0627\u0645\u060c \u4e2d"  # letters of three scripts, most of them unknown to most tokenizers


class SpecialTokens(NamedTuple):
    cls: str
    sep: str
    pad: str
    unk: str | None
    mask: str | None


class Kind(NamedTuple):
    """How the models of a family have their tokenizer where tokenizer.json does not tell."""

    file: str
    special: dict[str, str]
    read: Callable[[Path, dict[str, Any]], Tokenizer]
    template: Callable[[Tokenizer, dict[str, Any], Path], processors.PostProcessor]


def one_separator(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path) -> processors.PostProcessor:
    """[CLS] A [SEP] B [SEP], segment 0 up to the first [SEP], 1 after it (BERT, section 3)."""
    (cls, cls_id), (sep, sep_id) = _cls_and_sep(tokenizer, settings, folder)
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, cls_id), (sep, sep_id)],
    )


def two_separators(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path) -> processors.PostProcessor:
    """<s> A </s></s> B </s>, all of it segment 0 (RoBERTa's code)."""
    (cls, cls_id), (sep, sep_id) = _cls_and_sep(tokenizer, settings, folder)
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 {sep}:0 $B:0 {sep}:0",
        special_tokens=[(cls, cls_id), (sep, sep_id)],
    )


def two_separators_in_bytes(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path) -> processors.PostProcessor:
    """The same, and the space that belongs to a piece is left out of its offsets, unless trim_offsets is false."""
    cls, sep = _cls_and_sep(tokenizer, settings, folder)
    trim, prefix = (
        switch(settings, key, default, folder / "tokenizer.json")
        for key, default in (("trim_offsets", True), ("add_prefix_space", False))
    )
    return processors.RobertaProcessing(sep, cls, trim_offsets=trim, add_prefix_space=prefix)


BERT_KIND = Kind("vocab.txt", BERT_SPECIAL, wordpiece, one_separator)
KINDS = {  # by config.json's model_type
    "bert": BERT_KIND,
    "distilbert": BERT_KIND,
    "electra": BERT_KIND,
    "albert": Kind("spiece.model", ALBERT_SPECIAL, unigram, one_separator),
    "roberta": Kind("vocab.json", ROBERTA_SPECIAL, byte_pairs, two_separators_in_bytes),
    "xlm-roberta": Kind("sentencepiece.bpe.model", ROBERTA_SPECIAL, xlm_unigram, two_separators),
    "camembert": Kind("sentencepiece.bpe.model", ROBERTA_SPECIAL, camembert_unigram, two_separators),
}


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of an HF folder, with its pair template and its padding set, and truncation off.

    Raises WeightsError when there is none, when it lacks a special token, or when its ids exceed the model's
    vocabulary (a tokenizer of another checkpoint).
    """
    folder = find_folder(folder)
    config, settings = read_json(folder / "config.json"), _settings(folder)
    kind = KINDS.get(str(config.get("model_type")), BERT_KIND)
    whole = folder / "tokenizer.json"
    if whole.is_file():
        tokenizer = _read(whole)
    else:
        kind = _kind_at_hand(folder, kind)
        tokenizer = kind.read(folder / kind.file, kind.special | settings)
    settings = kind.special | settings

    if tokenizer.num_special_tokens_to_add(is_pair=True) == 0:
        tokenizer.post_processor = kind.template(tokenizer, settings, folder)
    if tokenizer.padding is None:
        pad = named(settings, "pad_token", folder)
        tokenizer.enable_padding(pad_id=_id(tokenizer, pad, folder), pad_token=pad)

    _check_model(tokenizer, config, folder)
    return tokenizer


def _kind_at_hand(folder: Path, kind: Kind) -> Kind:
    """The kind of the model's family if its vocabulary file is there, else that of the first file that is."""
    for candidate in (kind, *KINDS.values()):
        if (folder / candidate.file).is_file():
            return candidate
    names = ", ".join(dict.fromkeys(candidate.file for candidate in KINDS.values()))
    raise WeightsError(f"{folder}: no tokenizer.json, and none of {names}; copy the checkpoint's tokenizer there")


def _check_model(tokenizer: Tokenizer, config: dict[str, Any], folder: Path) -> None:
    """WeightsError where the model beside the tokenizer has no row for an id, or for a segment, that it makes."""
    vocabulary, segments = config.get("vocab_size"), config.get("type_vocab_size")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if isinstance(vocabulary, int) and largest >= vocabulary:
        raise WeightsError(
            f"{folder}: the tokenizer has ids up to {largest}, config.json's vocab_size is {vocabulary}: "
            "the tokenizer is of another checkpoint"
        )
    highest = max(tokenizer.encode("", "").type_ids, default=0)
    if isinstance(segments, int) and highest >= segments:
        raise WeightsError(
            f"{folder}: the tokenizer numbers the segments of a pair up to {highest}, "
            f"config.json's type_vocab_size is {segments}: the tokenizer is of another checkpoint"
        )


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens by the part they play, read off the tokenizer itself.

    [CLS] and [SEP] are the first and the last of an encoded text; the padding and the unknown token are settings, and
    byte-pair encoding of bytes has no use for the unknown one; the mask is the one special token that plays none of
    these parts, or has "mask" in its name where there are several, None if there is no such one.
    """
    tokens = tokenizer.encode("").tokens
    cls, sep = tokens[0], tokens[-1]
    pad = (tokenizer.padding or {})["pad_token"]
    unk = _unknown(tokenizer)
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    others = [token for token in special if token not in (cls, sep, pad, unk)]
    masks = [token for token in others if "mask" in token.lower()] or others
    return SpecialTokens(cls, sep, pad, unk, mask=masks[0] if len(masks) == 1 else None)


def ordinary_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids of all tokens but the special ones, rising."""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return sorted(set(tokenizer.get_vocab().values()) - special)


def _unknown(tokenizer: Tokenizer) -> str | None:
    """WordPiece names its unknown token; Unigram numbers it, and only its JSON tells the number."""
    model = json.loads(tokenizer.to_str())["model"]
    number = model.get("unk_id")
    return model.get("unk_token") if number is None else tokenizer.id_to_token(number)


def _cls_and_sep(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path) -> list[tuple[str, int]]:
    """The tokens that the settings name, with their ids."""
    names = [named(settings, key, folder) for key in ("cls_token", "sep_token")]
    return [(name, _id(tokenizer, name, folder)) for name in names]


def _id(tokenizer: Tokenizer, token: str, folder: Path) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise WeightsError(
            f"{folder}: the tokenizer has no {token!r}; name what plays its part in tokenizer_config.json"
        )
    return number


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, and over it, unless it lists tokens by id, special_tokens_map.json: as transformers."""
    config, names = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    settings = read_json(config) if config.is_file() else {}
    if "added_tokens_decoder" not in settings and names.is_file():
        settings |= read_json(names)
    return settings


def _read(path: Path) -> Tokenizer:
    """tokenizer.json, tried on some text: damage may show only where the template or the unknown token is wanted."""
    text = read_text(path)
    try:
        with _panics_as_errors():
            tokenizer = Tokenizer.from_str(text)
            tokenizer.no_truncation()
            if padding := tokenizer.padding:  # of a fixed length it may be of any, and memory is taken at once
                tokenizer.enable_padding(pad_id=padding["pad_id"], pad_token=padding["pad_token"])  # to the longest
            pieces = tokenizer.encode(TRIAL, add_special_tokens=False).tokens
            tokenizer.encode(TRIAL, TRIAL)
    except Exception as error:  # the Rust library raises no narrower one
        raise WeightsError(f"{path}: not a tokenizer ({error}); fetch the file again") from error
    if not pieces:
        raise WeightsError(f"{path}: it makes nothing of a text; fetch the file again")
    model = json.loads(text)["model"]
    long_pieces = sum(len(piece) > 1 for piece in model["vocab"]) if model.get("merges") == [] else 0
    if 2 * long_pieces > tokenizer.get_vocab_size():
        raise WeightsError(f"{path}: pieces of several letters, and no merges that make them; fetch the file again")
    return tokenizer


def encode_batch(tokenizer: Tokenizer, texts: Sequence[Any], special: bool = True) -> list[Encoding]:
    """`tokenizer.encode_batch`. WeightsError where it fails on a text, as by a pattern that takes for ever."""
    try:
        with _panics_as_errors():
            return tokenizer.encode_batch(texts, add_special_tokens=special)
    except Exception as error:
        raise WeightsError(f"the tokenizer fails on a text ({error}); fetch its tokenizer.json again") from error


@contextlib.contextmanager
def _panics_as_errors() -> Iterator[None]:
    """RuntimeError where the Rust library panics, unprinted: it writes so to the standard error itself, and raises what
    is no Exception."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed, and nothing can be written
        kept = None
    if kept is not None:
        if sys.stderr:
            sys.stderr.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise RuntimeError(error) from error
        raise
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
