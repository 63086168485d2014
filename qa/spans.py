"""From logits to answers: the best spans of each window, the best window of each question, the raw text.

A span scores its start logit plus its end logit. `[CLS]`, token 0, stands for "no answer", and scores the same way.
"""

import math
import operator
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qa.features import Feature
from qa.squad import Example

# A piece that begins a word holds the space, or the half-space (ZWNJ), before it. Neither belongs to an answer's edge.
WHITE_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))  # Unicode's last one is U+3000
INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\ufeff"  # zero-width space, ZWNJ, ZWJ, direction marks, BOM
EDGES = WHITE_SPACE + INVISIBLE


class Spans(NamedTuple):
    start: Tensor  # (B, n) first token
    end: Tensor  # (B, n) last token
    score: Tensor  # (B, n) falling
    null_score: Tensor  # (B,)


class Candidate(NamedTuple):
    text: str  # "" for no answer
    score: float
    probability: float  # among the candidates of one question


class Prediction(NamedTuple):
    text: str  # "" for no answer
    null_odds: float  # null score minus the best span's score: the higher, the surer that there is no answer
    n_best: list[Candidate]  # falling; the null candidate is always among them
    start: int = -1  # where the best span begins in the context, whether or not it is the answer; -1: there is none


class OfficialFiles(NamedTuple):
    """The contents of predictions.json, nbest.json and null_odds.json, each by question id."""

    predictions: dict[str, str]
    nbest: dict[str, list[dict[str, str | float]]]
    null_odds: dict[str, float]


@torch.no_grad()
def best_spans(start: Tensor, end: Tensor, context_mask: Tensor, max_answer_tokens: int, n_best: int = 1) -> Spans:
    """The n best spans of every row, with start <= end < start + max_answer_tokens and both ends in the context.

    start, end: (B, T) logits; context_mask: (B, T) bool. Scores are float32 at least. Of equal scores the earliest
    start comes first, then the shortest span. A row with fewer than n spans is filled up with score -inf, start and
    end 0. Raises ValueError on shapes that differ, limits below 1, and NaN.

    Three tokens, spans of at most 2, the best two wanted:

        token     0   1   2       spans from 0: 0-0 = 3, 0-1 = 6    best 6
        start     2   0   3                  1: 1-1 = 4, 1-2 = 0    best 4
        end       1   4   0                  2: 2-2 = 3             best 3     answer: 0-1, 1-1

    A start that is not among the n with the highest best has n better spans before its own, so only n starts are
    looked into: B * n * max_answer_tokens scores are held, where all spans would be B * T * max_answer_tokens.
    """
    _check(start, end, context_mask, max_answer_tokens, n_best)
    dtype = torch.promote_types(torch.promote_types(start.dtype, end.dtype), torch.float32)
    start, end = start.to(dtype), end.to(dtype)
    null_score = start[:, 0] + end[:, 0]
    start = start.masked_fill(~context_mask, -torch.inf)
    end = end.masked_fill(~context_mask, -torch.inf)

    width = min(max_answer_tokens, start.size(1))  # M
    end = F.pad(end, (0, width - 1), value=-torch.inf)
    best_end = F.max_pool1d(end[:, None], width, stride=1)[:, 0]  # (B, T), of the ends that each start can reach
    best_of_start = start + best_end
    if not (best_of_start < torch.inf).all():
        raise ValueError("a logit inside the context is NaN or infinite: the model has diverged")
    firsts = _highest(best_of_start, n_best)  # (B, k), k = min(n, T)

    rows = torch.arange(len(start), device=start.device)[:, None]
    reach = end.unfold(1, width, 1)[rows, firsts]  # (B, k, M): end[b, s + d] for d = 0 ... M - 1
    score = (start[rows, firsts][..., None] + reach).flatten(1)  # (B, k * M)
    places = _highest(score, n_best)
    score, order = score.gather(1, places).sort(dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    first = firsts.gather(1, places // width)
    last = first + places % width

    none = score == -torch.inf
    first, last = first.masked_fill(none, 0), last.masked_fill(none, 0)
    missing = n_best - score.size(1)  # more spans wanted than start and length can make
    return Spans(
        F.pad(first, (0, missing)), F.pad(last, (0, missing)), F.pad(score, (0, missing), value=-torch.inf), null_score
    )


def _highest(score: Tensor, n: int) -> Tensor:
    """Columns of the n highest of every row, from left to right, (B, min(n, T)); of equals the leftmost count.

    A stable sort of all columns says the same and takes up to ten times as long; topk alone picks any of equals.
    """
    if n == 1:
        return score.argmax(1, keepdim=True)
    n = min(n, score.size(1))
    least = score.topk(n).values[:, -1:]
    above, equal = score > least, score == least
    leftmost = equal & (equal.cumsum(1) <= n - above.sum(1, keepdim=True))
    return (above | leftmost).nonzero()[:, 1].view(len(score), n)


def in_feature_order(parts: Sequence[Spans], batches: Sequence[Sequence[int]]) -> Spans:
    """The spans of batches, which hold the features in some other order, as one, a row per feature."""
    place = torch.tensor([index for batch in batches for index in batch]).argsort()
    return Spans(*(torch.cat(field)[place] for field in zip(*parts, strict=True)))


def predictions(
    examples: Sequence[Example], features: Sequence[Feature], spans: Spans, null_threshold: float = 0.0
) -> dict[str, Prediction]:
    """An answer for every example, by id; row i of `spans` belongs to features[i].

    The best span of all windows competes with the lowest null score of all windows, since every window but the one
    with the answer should say "not here". The answer is "" when null_odds > null_threshold. The text is cut from the
    raw context; a span of white space alone is no candidate, and the same characters seen through two windows are one.
    Where there is no candidate at all, null_odds is infinite.
    """
    if len(features) != len(spans.score):
        raise ValueError(f"{len(features)} features, but spans for {len(spans.score)}")
    null_scores = np.full(len(examples), np.inf)
    np.minimum.at(null_scores, [feature.example for feature in features], spans.null_score.double().cpu().numpy())
    answers = _answers(examples, features, spans)
    return {
        example.id: _predict(scores, null_score, null_threshold)
        for example, scores, null_score in zip(examples, answers, null_scores.tolist(), strict=True)
    }


def official_files(predictions: Mapping[str, Prediction]) -> OfficialFiles:
    """Predictions in the shapes that SQuAD's own scripts write and read."""
    return OfficialFiles(
        predictions={id: prediction.text for id, prediction in predictions.items()},
        nbest={
            # What _asdict gives, in a third of its time; there are twenty to a question.
            id: [{"text": text, "score": score, "probability": share} for text, score, share in prediction.n_best]
            for id, prediction in predictions.items()
        },
        # JSON has no infinity.
        null_odds={id: min(prediction.null_odds, sys.float_info.max) for id, prediction in predictions.items()},
    )


def cut(context: str, begin: int, end: int) -> tuple[int, str]:
    """Characters begin to end of the raw context without blank edges, and where they now begin."""
    text = context[begin:end].lstrip(EDGES)
    return end - len(text), text.rstrip(EDGES)


def _answers(
    examples: Sequence[Example], features: Sequence[Feature], spans: Spans
) -> list[dict[tuple[int, str], float]]:
    """For each example at most n {(where it begins, text): score}, best first, gathered from all of its windows."""
    score = spans.score.double().cpu().numpy()  # (F, n)
    n_best = score.shape[1]
    begin, end = _characters(features, spans)  # (F, n) each
    example = np.array([feature.example for feature in features])[:, None].repeat(n_best, axis=1)

    real = score > -np.inf
    score, begin, end, example = score[real], begin[real], end[real], example[real]  # flat from here on
    order = np.lexsort((-score, example))  # by example, then best first

    found: list[dict[tuple[int, str], float]] = [{} for _ in examples]
    columns = (column[order].tolist() for column in (example, begin, end, score))
    for index, first, last, value in zip(*columns, strict=True):
        kept = found[index]
        if len(kept) == n_best:
            continue
        place, text = cut(examples[index].context, first, last)
        if text:
            kept.setdefault((place, text), value)
    return found


def _characters(features: Sequence[Feature], spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Where each span begins and ends in its raw context, (F, n); of no meaning where the score is -inf."""
    # All windows' offsets in one table, behind a row for spans that do not exist.
    table = np.concatenate([np.zeros((1, 2), dtype=np.int32), *(feature.offsets for feature in features)])
    sizes = np.array([len(feature.offsets) for feature in features], dtype=np.int64)
    context_start = np.array([feature.context_start for feature in features], dtype=np.int64)
    shift = (1 + sizes.cumsum() - sizes - context_start)[:, None]  # token of a feature -> row of the table
    real = spans.score.cpu().numpy() > -np.inf
    first = np.where(real, spans.start.cpu().numpy() + shift, 0)
    last = np.where(real, spans.end.cpu().numpy() + shift, 0)
    return table[first, 0], table[last, 1]


def _predict(answers: Mapping[tuple[int, str], float], null_score: float, null_threshold: float) -> Prediction:
    texts, scores = [text for _, text in answers], list(answers.values())
    null_odds = null_score - scores[0] if scores else math.inf
    answer = "" if not texts or null_odds > null_threshold else texts[0]
    # Behind its equals: a span that ties with the null candidate stands before it, as it wins at threshold 0.
    place = bisect_right(scores, -null_score, key=operator.neg)
    texts.insert(place, "")
    scores.insert(place, null_score)
    weights = [math.exp(score - scores[0]) for score in scores]
    total = sum(weights)
    n_best = [*map(Candidate, texts, scores, [weight / total for weight in weights])]
    return Prediction(answer, null_odds, n_best, next((begin for begin, _ in answers), -1))


def _check(start: Tensor, end: Tensor, context_mask: Tensor, max_answer_tokens: int, n_best: int) -> None:
    if start.dim() != 2 or start.size(1) == 0 or not start.shape == end.shape == context_mask.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (start, end, context_mask))
        raise ValueError(f"start, end and context_mask must have one shape (B, T), T at least 1, not {shapes}")
    if context_mask.dtype != torch.bool:
        raise ValueError(f"context_mask must be bool, not {context_mask.dtype}")
    if max_answer_tokens < 1 or n_best < 1:
        raise ValueError(f"max_answer_tokens ({max_answer_tokens}) and n_best ({n_best}) must be at least 1")
