"""Tokenizers in: tokenizer.json, or BERT's vocab.txt, or ALBERT's spiece.model -> tokenizers.Tokenizer.

What the caller gets knows its own special tokens: encoding a pair puts them in (the pair template), encoding a
batch pads it. `special_tokens` reads their names back, so that no other code spells [CLS] or <s>.
"""

import contextlib
import json
import os
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from minitransformer.system.errors import WeightsError
from weights.find import find_folder
from weights.folder import read_json
from weights.sentencepiece import CONTROL, USER_DEFINED, read_unigram

BERT_SPECIAL = {  # what BERT's own code assumes where tokenizer_config.json says nothing else
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
ALBERT_SPECIAL = BERT_SPECIAL | {"pad_token": "<pad>", "unk_token": "<unk>"}
TRIAL = "Ab1 \u0633\u0644\u0627\u0645\u060c \u4e2d"  # letters of three scripts, most of them unknown to most tokenizers
WORD_BEGIN = "\u2581"  # SentencePiece's mark of a piece that begins a word


class SpecialTokens(NamedTuple):
    cls: str
    sep: str
    pad: str
    unk: str | None
    mask: str | None


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of an HF folder, with its pair template and its padding set, and truncation off.

    Raises WeightsError when there is none, when it lacks a special token, or when its ids exceed the model's
    vocabulary (a tokenizer of another checkpoint).
    """
    folder = find_folder(folder)
    config, settings = read_json(folder / "config.json"), _settings(folder)
    whole, vocabulary, model = (folder / name for name in ("tokenizer.json", "vocab.txt", "spiece.model"))
    if whole.is_file():
        settings = (ALBERT_SPECIAL if config.get("model_type") == "albert" else BERT_SPECIAL) | settings
        tokenizer = _read(whole)
    elif vocabulary.is_file() and not (config.get("model_type") == "albert" and model.is_file()):
        settings = BERT_SPECIAL | settings
        tokenizer = wordpiece(vocabulary, settings)
    elif model.is_file():
        settings = ALBERT_SPECIAL | settings
        tokenizer = unigram(model, settings)
    else:
        names = "no tokenizer.json, no vocab.txt and no spiece.model"
        raise WeightsError(f"{folder}: {names}; copy the checkpoint's tokenizer there")

    tokenizer.no_truncation()
    if tokenizer.num_special_tokens_to_add(is_pair=True) == 0:
        tokenizer.post_processor = _pair_template(tokenizer, settings, folder)
    if tokenizer.padding is None:
        pad = _named(settings, "pad_token", folder)
        tokenizer.enable_padding(pad_id=_id(tokenizer, pad, folder), pad_token=pad)
    else:
        padding = tokenizer.padding
        tokenizer.enable_padding(pad_id=padding["pad_id"], pad_token=padding["pad_token"])  # to the longest

    _check_model(tokenizer, config, folder)
    return tokenizer


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

    [CLS] and [SEP] are the first and the last of an encoded text; the padding and the unknown token are settings;
    the mask is the one special token that plays none of these parts, None if there is no such one.
    """
    tokens = tokenizer.encode("").tokens
    cls, sep = tokens[0], tokens[-1]
    pad = tokenizer.padding["pad_token"]
    unk = _unknown(tokenizer)
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    others = [token for token in special if token not in (cls, sep, pad, unk)]
    return SpecialTokens(cls, sep, pad, unk, mask=others[0] if len(others) == 1 else None)


def ordinary_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids of all tokens but the special ones, rising."""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return sorted(set(tokenizer.get_vocab().values()) - special)


def _unknown(tokenizer: Tokenizer) -> str | None:
    """WordPiece names its unknown token; Unigram numbers it, and only its JSON tells the number."""
    model = json.loads(tokenizer.to_str())["model"]
    number = model.get("unk_id")
    return model.get("unk_token") if number is None else tokenizer.id_to_token(number)


def wordpiece(vocabulary: Path, settings: dict[str, Any]) -> Tokenizer:
    """BERT's tokenizer: clean, lower-case and strip accents as told, split at spaces and punctuation, WordPiece.

    settings: tokenizer_config.json's do_lower_case, strip_accents (null: as do_lower_case) and
    tokenize_chinese_chars, and the special tokens' names.
    """
    pieces = _read_text(vocabulary).split("\n")
    if pieces and not pieces[-1]:
        pieces.pop()
    ids = {piece.rstrip("\r"): number for number, piece in enumerate(pieces)}
    special = _special(settings, ids, vocabulary)

    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=_named(settings, "unk_token", vocabulary)))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_switch(settings, "tokenize_chinese_chars", True, vocabulary),
        strip_accents=_switch(settings, "strip_accents", None, vocabulary),
        lowercase=_switch(settings, "do_lower_case", True, vocabulary),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _add_tokens(tokenizer, special, settings, vocabulary)
    return tokenizer


def unigram(path: Path, settings: dict[str, Any]) -> Tokenizer:
    """ALBERT's tokenizer: normalise as told, map characters as the model says, split at spaces, Unigram (Kudo 2018).

    settings: tokenizer_config.json's do_lower_case, keep_accents and add_prefix_space, and the special tokens' names.
    It is what transformers 5 makes of a spiece.model. Version 4 differed: it split at the space character only and kept
    it in the offsets of the word behind it, kept a space at the end of a text or before a user-defined piece as a
    token, took spaces before [MASK] along with it, and shunned pieces that end in a digit and a comma.
    """
    model = read_unigram(path)
    special = _special(settings, {piece.text for piece in model.pieces}, path)
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not _switch(settings, "keep_accents", False, path):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if _switch(settings, "do_lower_case", True, path):
        steps.append(normalizers.Lowercase())
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    scheme = "always" if _switch(settings, "add_prefix_space", True, path) else "never"

    pieces = [(piece.text, piece.score) for piece in model.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=model.unk_id, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(WORD_BEGIN, prepend_scheme=scheme)]
    )
    tokenizer.decoder = decoders.Metaspace(WORD_BEGIN, prepend_scheme=scheme)
    for piece in model.pieces:
        if piece.kind in (CONTROL, USER_DEFINED):  # found before all else, so never a part of another piece
            is_special = piece.kind == CONTROL or piece.text in special
            special[piece.text] = AddedToken(piece.text, normalized=False, special=is_special)
    _add_tokens(tokenizer, special, settings, path)
    return tokenizer


def _special(settings: dict[str, Any], vocabulary: Container[str], where: Path) -> dict[str, AddedToken]:
    """The special tokens by their text, each of which must be in the vocabulary."""
    tokens = {}
    for key in BERT_SPECIAL:
        name = _named(settings, key, where)
        if name not in vocabulary:
            raise WeightsError(f"{where}: {key} {name!r} is not in it: the vocabulary is of another checkpoint")
        written_out = settings[key] if isinstance(settings[key], dict) else {}
        tokens[name] = _added_token(written_out | {"content": name, "special": True}, where)
    return tokens


def _add_tokens(tokenizer: Tokenizer, tokens: dict[str, AddedToken], settings: dict[str, Any], where: Path) -> None:
    """Have tokens found in the raw text before all else, and those too that tokenizer_config.json lists by id.

    What the list says of a token (whether it takes the spaces beside it along, for one) wins.
    """
    entries = settings.get("added_tokens_decoder", {})
    try:
        listed = {int(number): _added_token(entry, where) for number, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        config = where.with_name("tokenizer_config.json")
        raise WeightsError(f"{config}: added_tokens_decoder is not a table of tokens by id; fetch it again") from error
    tokens = tokens | {token.content: token for _, token in sorted(listed.items())}
    tokenizer.add_tokens(list(tokens.values()))
    for number, token in listed.items():
        if tokenizer.token_to_id(token.content) != number:
            raise WeightsError(
                f"{where}: {token.content!r} has id {tokenizer.token_to_id(token.content)}, tokenizer_config.json "
                f"lists it as {number}: the vocabulary is of another checkpoint"
            )


def _added_token(entry: dict[str, Any], where: Path) -> AddedToken:
    """An AddedToken that is written out in JSON."""
    flags = {key: _switch(entry, key, False, where) for key in ("special", "single_word", "lstrip", "rstrip")}
    normalized = _switch(entry, "normalized", not flags["special"], where)
    return AddedToken(entry["content"], normalized=normalized, **flags)


def _pair_template(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path) -> processors.TemplateProcessing:
    """[CLS] A [SEP] B [SEP], segment 0 up to the first [SEP], 1 after it (BERT, section 3)."""
    cls, sep = (_named(settings, key, folder) for key in ("cls_token", "sep_token"))
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, _id(tokenizer, token, folder)) for token in (cls, sep)],
    )


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, and over it, unless it lists tokens by id, special_tokens_map.json: as transformers."""
    config, names = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    settings = read_json(config) if config.is_file() else {}
    if "added_tokens_decoder" not in settings and names.is_file():
        settings |= read_json(names)
    return settings


def _switch(settings: dict[str, Any], key: str, default: bool | None, where: Path) -> bool | None:
    value = settings.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise WeightsError(f"{where.with_name('tokenizer_config.json')}: {key} is {value!r}, not true or false")
    return value


def _named(settings: dict[str, Any], key: str, where: Path) -> str:
    token = settings.get(key)
    if isinstance(token, dict):  # an AddedToken written out
        token = token.get("content")
    if not isinstance(token, str) or not token:
        raise WeightsError(f"{where}: no {key}; name it in tokenizer_config.json")
    return token


def _id(tokenizer: Tokenizer, token: str, folder: Path) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise WeightsError(
            f"{folder}: the tokenizer has no {token!r}; name what plays its part in tokenizer_config.json"
        )
    return number


def _read(path: Path) -> Tokenizer:
    """tokenizer.json, tried on some text: damage may show only where the template or the unknown token is wanted."""
    text = _read_text(path)
    try:
        with _panics_unprinted():
            tokenizer = Tokenizer.from_str(text)
            tokenizer.encode(TRIAL, TRIAL)
    except BaseException as error:  # the Rust library raises a bare Exception, or a PanicException on some damage
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise WeightsError(f"{path}: not a tokenizer ({error}); fetch the file again") from error
    return tokenizer


@contextlib.contextmanager
def _panics_unprinted() -> Iterator[None]:
    """A Rust library that panics writes so to the standard error itself, before Python hears of it."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); fetch the file again") from error
