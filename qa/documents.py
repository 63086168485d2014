"""Text to pre-train on: file -> documents -> pieces of at most so many tokens -> batches.

A document is one text, or two, which are BERT's two segments.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minitransformer.system.errors import DataError
from minitransformer.training.masking import NO_WORD
from qa import squad
from weights.new_tokenizer import HALF_SPACE
from weights.tokenizer import encode_batch


class Piece(NamedTuple):
    """A document, or as much of it as one input holds. All (T,) int32."""

    input_ids: Tensor
    token_type_ids: Tensor
    words: Tensor  # the number of the word that each token is part of, from 0; NO_WORD at special tokens


class Batch(NamedTuple):
    """Pieces side by side, padded to the longest. All (B, T), int64 but for the mask."""

    input_ids: Tensor
    token_type_ids: Tensor
    words: Tensor
    attention_mask: Tensor  # bool, True at real tokens


def read_documents(path: str) -> list[tuple[str, ...]]:
    """Documents of one or two texts from a file: lines of text, or questions with their contexts. DataError if none."""
    if path.endswith((".json", ".json.gz")):
        return [(example.question, example.context) for example in squad.read(path, labelled=False)]
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error
    return split_lines(lines, path)


def split_lines(lines: Iterable[str], source: str) -> list[tuple[str, ...]]:
    """A document of each line that is not blank; a tab in it parts two texts. DataError if there is none."""
    documents = []
    for number, line in enumerate(lines, 1):
        texts = tuple(text for text in line.split("\t") if text.strip())
        if len(texts) > 2:
            raise DataError(f"{source}: line {number}: {len(texts)} texts with tabs between; BERT has two segments")
        if texts:
            documents.append(texts)
    if not documents:
        raise DataError(f"{source}: holds no text; give a file with a document on each line")
    return documents


def cut(documents: Sequence[tuple[str, ...]], tokenizer: Tokenizer, max_length: int) -> list[Piece]:
    """Documents -> pieces of at most `max_length` tokens, nothing lost.

    The last text of a document is cut; the first of two, and the special tokens, stand in each piece:
    [CLS] a [SEP] b b b b [SEP] becomes [CLS] a [SEP] b b [SEP] and [CLS] a [SEP] b b [SEP].
    """
    joining = {number for token, number in tokenizer.get_vocab().items() if token.startswith(HALF_SPACE)}
    pieces = []
    for texts in documents:
        encoding = encode_batch(tokenizer, [texts if len(texts) > 1 else texts[0]])[0]
        rows = [encoding.ids, encoding.type_ids, number_words(encoding, joining)]
        rows = np.array(rows, dtype=np.int32)  # (3, T)
        body = [place for place, text in enumerate(encoding.sequence_ids) if text == len(texts) - 1]
        if not body:  # the tokenizer drops all of its characters
            continue
        head, tail = rows[:, : body[0]], rows[:, body[-1] + 1 :]
        room = max_length - head.shape[1] - tail.shape[1]
        if room < 1:
            raise DataError(f"max_length {max_length} leaves no room for the second text after {texts[0][:60]!r}")
        for first in range(body[0], body[-1] + 1, room):
            window = rows[:, first : min(first + room, body[-1] + 1)].copy()
            window[2] += max(head[2], default=NO_WORD) + 1 - window[2, 0]  # its words count on from those of the head
            pieces.append(Piece(*torch.from_numpy(np.concatenate([head, window, tail], axis=1))))
    return pieces


def number_words(encoding: Encoding, joining: set[int]) -> list[int]:
    """The number of each token's word: the tokenizer's words, but what a half-space joins is one."""
    numbers, number, before = [], -1, None
    for word, token, text in zip(encoding.word_ids, encoding.ids, encoding.sequence_ids, strict=True):
        if text is None:
            numbers.append(NO_WORD)
        else:
            number += (text, word) != before and token not in joining
            numbers.append(number)
        before = (text, word)
    return numbers


def collate(pieces: Sequence[Piece], pad_id: int) -> Batch:
    input_ids, token_type_ids, words = (
        pad_sequence(list(tensors), batch_first=True, padding_value=fill).long()
        for tensors, fill in zip(zip(*pieces, strict=True), (pad_id, 0, NO_WORD), strict=True)
    )
    lengths = torch.tensor([len(piece.input_ids) for piece in pieces])
    return Batch(input_ids, token_type_ids, words, attention_mask=torch.arange(input_ids.size(1)) < lengths[:, None])
