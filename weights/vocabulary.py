"""Vocabulary files -> tokenizers.Tokenizer, without the templates that tokenizer.py adds.

    vocab.txt                  WordPiece: BERT, DistilBERT, ELECTRA
    spiece.model               Unigram: ALBERT
    sentencepiece.bpe.model    Unigram, numbered anew: XLM-RoBERTa and CamemBERT
    vocab.json, merges.txt     byte-pair encoding of bytes: RoBERTa

A reader gets the path and tokenizer_config.json's settings, in which every special token has a name.
"""

from collections.abc import Container
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from minitransformer.system.errors import WeightsError
from weights.folder import read_json, read_text
from weights.sentencepiece import CONTROL, UNKNOWN, USER_DEFINED, Piece, UnigramModel, read_unigram

BERT_SPECIAL = {  # what BERT's own code assumes where tokenizer_config.json says nothing else
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
ALBERT_SPECIAL = BERT_SPECIAL | {"pad_token": "<pad>", "unk_token": "<unk>"}
ROBERTA_SPECIAL = {
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
FAIRSEQ_UNK = 3  # the id of <unk> in fairseq's vocabularies
LARGEST = 2**31  # above the id of any piece
WORD_BEGIN = "\u2581"  # SentencePiece's mark of a piece that begins a word
Default = TypeVar("Default", bool, bool | None)


def wordpiece(vocabulary: Path, settings: dict[str, Any]) -> Tokenizer:
    """BERT's tokenizer: clean, lower-case and strip accents as told, split at spaces and punctuation, WordPiece.

    settings: tokenizer_config.json's do_lower_case, strip_accents (null: as do_lower_case) and
    tokenize_chinese_chars, and the special tokens' names.
    """
    pieces = read_text(vocabulary).split("\n")
    if pieces and not pieces[-1]:
        pieces.pop()
    ids = {piece.rstrip("\r"): number for number, piece in enumerate(pieces)}
    special = _special(settings, ids, vocabulary)

    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=named(settings, "unk_token", vocabulary)))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=switch(settings, "tokenize_chinese_chars", True, vocabulary),
        strip_accents=switch(settings, "strip_accents", None, vocabulary),
        lowercase=switch(settings, "do_lower_case", True, vocabulary),
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
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not switch(settings, "keep_accents", False, path):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if switch(settings, "do_lower_case", True, path):
        steps.append(normalizers.Lowercase())
    return _unigram(model, model.pieces, model.unk_id, steps, settings, path)


def xlm_unigram(path: Path, settings: dict[str, Any]) -> Tokenizer:
    """XLM-RoBERTa's tokenizer: Unigram, with the ids that fairseq gives to SentencePiece's pieces.

    id               0      1      2     3      4    5
    SentencePiece    <unk>  <s>    </s>  ,      ▁a   ...
    here             <s>    <pad>  </s>  <unk>  ,    ▁a   ... <mask>
    """
    model = read_unigram(path)
    _check_first_pieces(model, [UNKNOWN, CONTROL, CONTROL], path)
    parts = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
    cls, pad, sep, unk, mask = (Piece(named(settings, part, path)) for part in parts)
    pieces = [cls, pad, sep, unk, *model.pieces[3:], mask]
    return _unigram(model, pieces, FAIRSEQ_UNK, [], settings, path)


def camembert_unigram(path: Path, settings: dict[str, Any]) -> Tokenizer:
    """CamemBERT's tokenizer: the same file, but its <s> and </s> are kept and fairseq's stand unused before them.

    id               0           1      2            3      4             5    6     7    8
    SentencePiece    <unk>       <s>    </s>         ,      ▁a            ...
    here             <s>NOTUSED  <pad>  </s>NOTUSED  <unk>  <unk>NOTUSED  <s>  </s>  ,    ▁a   ... <mask>

    The mask takes the spaces before it along, unless tokenizer_config.json writes out that it does not.
    """
    model = read_unigram(path)
    _check_first_pieces(model, [UNKNOWN], path)
    pad, unk, mask = (Piece(named(settings, part, path)) for part in ("pad_token", "unk_token", "mask_token"))
    unused = [Piece("<s>NOTUSED"), Piece("</s>NOTUSED"), Piece("<unk>NOTUSED", score=-100.0)]
    pieces = [unused[0], pad, unused[1], unk, unused[2], *model.pieces[1:], mask]
    if isinstance(settings["mask_token"], str):
        settings = settings | {"mask_token": {"content": mask.text, "lstrip": True}}
    return _unigram(model, pieces, FAIRSEQ_UNK, [], settings, path)


def _check_first_pieces(model: UnigramModel, kinds: list[int], path: Path) -> None:
    """WeightsError where the pieces that fairseq replaces are not those that it takes them for."""
    if [piece.kind for piece in model.pieces[: len(kinds)]] != kinds:
        raise WeightsError(f"{path}: it does not begin with <unk>, <s> and </s>: the file is of another model")


def _unigram(
    model: UnigramModel,
    pieces: list[Piece],
    unk_id: int,
    steps: list[normalizers.Normalizer],
    settings: dict[str, Any],
    path: Path,
) -> Tokenizer:
    """model: the file as read; pieces: those of the tokenizer, by id; steps: what a text goes through first."""
    special = _special(settings, {piece.text for piece in pieces}, path)
    if model.charsmap:
        steps = [*steps, normalizers.Precompiled(model.charsmap)]
    scheme = "always" if switch(settings, "add_prefix_space", True, path) else "never"

    vocabulary = [(piece.text, piece.score) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unk_id, byte_fallback=False))
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


def byte_pairs(path: Path, settings: dict[str, Any]) -> Tokenizer:
    """RoBERTa's tokenizer, which is GPT-2's: byte-pair encoding (Sennrich et al. 2016) of the bytes of UTF-8.

    A text is split into words, each with the space before it, and into bytes, each written as a letter of its own (the
    space as Ġ); then the pairs of merges.txt are joined, the first of the list first. No text has an unknown piece.
    settings: tokenizer_config.json's add_prefix_space, and the special tokens' names.
    """
    merges = path.with_name("merges.txt")
    ids = read_json(path)
    numbers = list(ids.values())
    if not all(type(number) is int and 0 <= number < LARGEST for number in numbers) or len({*numbers}) < len(numbers):
        raise WeightsError(f"{path}: not a table of pieces with a number each; fetch the file again")
    special = _special(settings, ids, path)
    pairs = []
    for place, line in enumerate(read_text(merges).split("\n"), 1):
        if not line or line.startswith("#version"):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys():
            raise WeightsError(
                f"{merges}: line {place}: {line[:40]!r} joins no two pieces of {path.name}: fetch both files again"
            )
        pairs.append(pair)

    tokenizer = Tokenizer(models.BPE(ids, pairs))
    prefix = switch(settings, "add_prefix_space", False, path)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    _add_tokens(tokenizer, special, settings, path)
    return tokenizer


def _special(settings: dict[str, Any], vocabulary: Container[str], where: Path) -> dict[str, AddedToken]:
    """The special tokens by their text, each of which must be in the vocabulary."""
    tokens = {}
    for key in BERT_SPECIAL:
        name = named(settings, key, where)
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
    flags = {key: switch(entry, key, False, where) for key in ("special", "single_word", "lstrip", "rstrip")}
    normalized = switch(entry, "normalized", not flags["special"], where)
    return AddedToken(entry["content"], normalized=normalized, **flags)


def switch(settings: dict[str, Any], key: str, default: Default, where: Path) -> bool | Default:
    value = settings.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise WeightsError(f"{where.with_name('tokenizer_config.json')}: {key} is {value!r}, not true or false")
    return value


def named(settings: dict[str, Any], key: str, where: Path) -> str:
    token = settings.get(key)
    if isinstance(token, dict):  # an AddedToken written out
        token = token.get("content")
    if not isinstance(token, str) or not token:
        raise WeightsError(f"{where}: no {key}; name it in tokenizer_config.json")
    return token
