"""From examples to what the model reads: token ids, type ids, a mask, and labels.

A feature is `[CLS] question [SEP] window of the context [SEP]`. A context that is longer than the room left for it
is read through windows that overlap, so that an answer cut by the end of one is whole in the next. Everything is done
here by hand, and a text is tokenised once: on PQuAD seven questions share a context, and a tokenizer that is given
(question, context) pairs does the context seven times.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from minitransformer.system.errors import DataError
from qa.squad import Answer, Example
from weights.tokenizer import encode_batch

LONGEST_QUESTION = 10_000  # characters; what has more fits no model, and ten megabytes take a minute to tokenise


class PairTemplate(NamedTuple):
    """What a tokenizer puts around two texts. Each array is (2, n) int32: a row of ids over a row of type ids."""

    before: np.ndarray
    question_type: int
    between: np.ndarray
    context_type: int
    after: np.ndarray

    @property
    def size(self) -> int:
        return self.before.shape[1] + self.between.shape[1] + self.after.shape[1]


class Feature(NamedTuple):
    """One question with one window of its context, T tokens in all, n of them from the context."""

    example: int  # index into the examples
    input_ids: np.ndarray  # (T,) int32
    token_type_ids: np.ndarray  # (T,) int32
    context_start: int  # where the window begins in input_ids
    offsets: np.ndarray  # (n, 2) int32: first code point and the one past the last, in the raw context
    start: int  # first and last token of the answer, counted in input_ids;
    end: int  # both 0, which is [CLS], when this window does not hold the whole answer


UNCOUNTED = -100  # a label that cross-entropy leaves out


class Batch(NamedTuple):
    input_ids: Tensor  # (B, T) int64
    token_type_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) bool, True at real tokens
    context_mask: Tensor  # (B, T) bool, True where an answer may begin or end
    start: Tensor  # (B,) int64
    end: Tensor  # (B,) int64


def featurise(
    examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, stride: int | None = None, fit: bool = False
) -> list[Feature]:
    """Features of at most `max_length` tokens, in the order of the examples, and of the windows within one.

    stride None: one feature per example, and what does not fit of the context is not read (the report's way).
    stride n: as many windows as it takes, each overlapping the one before by n tokens. fit: where a long question
    leaves no more room than that, windows overlap by half of it; otherwise such a question is refused.
    Blanks before a question are left out: one of SQuAD's has 25,000 of them. Raises DataError where the specials, the
    question and the stride leave no room for the context.
    """
    asked = [example.question.lstrip() for example in examples]
    for example, text in zip(examples, asked, strict=True):
        if len(text) > LONGEST_QUESTION:
            raise DataError(f"question {example.id}: {len(text):,} characters long: shorten it")
    template = pair_template(tokenizer)
    if max_length < template.size:
        raise DataError(f"max_length {max_length} is below the {template.size} special tokens of a pair: raise it")
    if stride is not None and stride < 0:
        raise DataError(f"stride {stride} is negative: it is the number of tokens that windows share, 0 or more")

    with _whole_texts(tokenizer):
        questions = _tokenise(asked, tokenizer, template.question_type)
        contexts = _tokenise((example.context for example in examples), tokenizer, template.context_type)

    features = []
    for index, example in enumerate(examples):
        question, _ = questions[asked[index]]
        context, offsets = contexts[example.context]
        head = np.concatenate([template.before, question, template.between], axis=1)
        context_start = head.shape[1]
        room = max_length - context_start - template.after.shape[1]
        overlap = max(room, 0) // 2 if fit and stride is not None and room <= stride else stride
        _check_room(example, len(offsets), room, overlap)
        for first in window_starts(len(offsets), room, overlap):
            window = slice(first, first + room)
            input_ids, token_type_ids = np.concatenate([head, context[:, window], template.after], axis=1)
            place = answer_tokens(offsets[window], example.answers[0]) if example.answers else None
            start, end = (context_start + place[0], context_start + place[1]) if place else (0, 0)
            features.append(
                Feature(index, input_ids, token_type_ids, context_start, offsets[window], start=start, end=end)
            )
    return features


def pair_template(tokenizer: Tokenizer) -> PairTemplate:
    """Read the template off a pair of one letter each, since ids and even the number of specials differ.

        BERT   [CLS] a [SEP] a [SEP]      e5-small-fa  <s> a </s> a </s>      RoBERTa  <s> a </s></s> a </s>
        types    0   0   0   1   1                      0  0   0  1   1                 0  0   0   0  0   0

    Raises ValueError if nothing comes before the question: position 0 must be free to mean "no answer".
    """
    with _whole_texts(tokenizer):
        pair = tokenizer.encode("a", "a")
    tokens = np.array([pair.ids, pair.type_ids], dtype=np.int32)  # (2, T)
    text = np.array([-1 if part is None else part for part in pair.sequence_ids])  # -1 at specials, else 0 or 1
    question, context = np.flatnonzero(text == 0), np.flatnonzero(text == 1)
    if question[0] == 0:
        raise ValueError("the tokenizer has no pair template: nothing comes before the first text")
    return PairTemplate(
        before=tokens[:, : question[0]],
        question_type=pair.type_ids[question[0]],
        between=tokens[:, question[-1] + 1 : context[0]],
        context_type=pair.type_ids[context[0]],
        after=tokens[:, context[-1] + 1 :],
    )


def window_starts(count: int, room: int, stride: int | None) -> range:
    """First tokens of the windows, `room` wide, that cover `count` tokens; the last window may be shorter.

    Ten tokens, room for 6, stride 2 (what two neighbours share), so each window begins 6 - 2 = 4 after the last:

        0 1 2 3 4 5             An answer of up to 2 + 1 tokens is whole in some window: 3 4 5 and 4 5 6 are.
                4 5 6 7 8 9     3 4 5 6 is in neither.

    An empty context has one window, which is empty.
    """
    if stride is None or count <= room:
        return range(1)
    # The window at s is the last when s + room >= count: its successor, at s + room - stride, is >= count - stride.
    return range(0, count - stride, room - stride)


def answer_tokens(offsets: np.ndarray, answer: Answer) -> tuple[int, int] | None:
    """First and last token of the answer, counted in this window, or None when it is not wholly inside.

    The answer 1943 in `born 1943.` is code points 5 to 9; the tokens lie at 0-4, 4-9 and 9-10, since a piece that
    begins a word holds the space before it. The answer's first token is the last that begins at 5 or before, its last
    token the first that ends at 9 or after: both are token 1. An answer that cuts a token gets the whole of it, and one
    that begins or ends with a space, as few do, the word beyond the space too. HF's labels are the same.
    """
    begin, end = answer.start, answer.start + len(answer.text)
    if len(offsets) == 0 or offsets[0, 0] > begin or offsets[-1, 1] < end:
        return None
    # No search by bisection: a normaliser may reorder characters, and then offsets need not rise.
    begin_later = np.flatnonzero(offsets[:, 0] > begin)
    end_sooner = np.flatnonzero(offsets[:, 1] < end)
    first = int(begin_later[0]) - 1 if begin_later.size else len(offsets) - 1
    last = int(end_sooner[-1]) + 1 if end_sooner.size else 0
    # One character may become two tokens with the same offsets (½ is 1, ⁄, 2); each of them covers the answer.
    return min(first, last), max(first, last)


def collate(features: Sequence[Feature], pad_id: int) -> Batch:
    """Features side by side, padded to the longest of them."""
    shape = len(features), max(len(feature.input_ids) for feature in features)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    token_type_ids = np.zeros(shape, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=bool)
    context_mask = np.zeros(shape, dtype=bool)
    for row, feature in enumerate(features):
        length = len(feature.input_ids)
        input_ids[row, :length] = feature.input_ids
        token_type_ids[row, :length] = feature.token_type_ids
        attention_mask[row, :length] = True
        context_mask[row, feature.context_start : feature.context_start + len(feature.offsets)] = True
    return Batch(
        *map(torch.from_numpy, (input_ids, token_type_ids, attention_mask, context_mask)),
        start=torch.tensor([feature.start for feature in features]),
        end=torch.tensor([feature.end for feature in features]),
    )


def top_up(batch: Batch, length: int, pad_id: int) -> Batch:
    """The batch in a shape that comes again: `length` wide, and its real tokens a multiple of 256.

    One more text makes up what is missing. It is of padding tokens, read like others, and no loss counts its answer.
    """
    missing = -int(batch.attention_mask.sum()) % min(length, 256)
    corner = 0, length - batch.input_ids.size(1), 0, 1
    attention_mask = F.pad(batch.attention_mask, corner)
    attention_mask[-1, :missing] = True
    return Batch(
        input_ids=F.pad(batch.input_ids, corner, value=pad_id),
        token_type_ids=F.pad(batch.token_type_ids, corner),
        attention_mask=attention_mask,
        context_mask=F.pad(batch.context_mask, corner),
        start=F.pad(batch.start, (0, 1), value=UNCOUNTED),
        end=F.pad(batch.end, (0, 1), value=UNCOUNTED),
    )


def batches_by_tokens(features: Sequence[Feature], max_tokens: int) -> list[list[int]]:
    """Indices of features from short to long, cut into batches whose padded size B * T is at most `max_tokens`.

    Neighbours are of nearly the same length, so there is little padding. The padded size counts, not the number of
    real tokens, because logits and plain attention are padded: it bounds the memory of any reader. A feature that is
    longer than `max_tokens` makes a batch of its own.
    """
    lengths = [len(feature.input_ids) for feature in features]
    batches: list[list[int]] = []
    for index in sorted(range(len(features)), key=lengths.__getitem__):
        # Lengths rise, so the newcomer is the longest and sets T for the whole batch.
        if batches and (len(batches[-1]) + 1) * lengths[index] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _tokenise(texts: Iterable[str], tokenizer: Tokenizer, type_id: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each distinct text -> ids over type ids (2, n), and offsets (n, 2), without special tokens."""
    distinct = list(dict.fromkeys(texts))
    tokenised = {}
    for text, encoding in zip(distinct, encode_batch(tokenizer, distinct, special=False), strict=True):
        ids = np.array(encoding.ids, dtype=np.int32)
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)  # keeps the 2 of an empty text
        tokenised[text] = np.stack([ids, np.full_like(ids, type_id)]), offsets
    return tokenised


@contextmanager
def _whole_texts(tokenizer: Tokenizer) -> Iterator[None]:
    """Truncation and padding, which a tokenizer.json may switch on, are off inside and as they were afterwards."""
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        yield
    finally:
        if truncation:
            tokenizer.enable_truncation(**truncation)
        if padding:
            tokenizer.enable_padding(**padding)


def _check_room(example: Example, count: int, room: int, stride: int | None) -> None:
    """A context that fits needs no more than its own room; windows must get further than their overlap."""
    overlap = stride or 0
    if count > room and room <= overlap:
        raise DataError(
            f"question {example.id}: it leaves room for {max(room, 0)} tokens of the context, and more than {overlap} "
            "are needed: raise max_length" + (", lower the stride" if overlap else "") + " or shorten the question"
        )
