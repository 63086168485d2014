"""Spans against the triple loop that they replace, and the road from spans to the answer's text."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qa.features import Feature
from qa.spans import Spans, best_spans, cut, in_feature_order, official_files, predictions
from qa.squad import Example

NOTHING = -math.inf


def brute_force(start, end, context_mask, max_answer_tokens, n_best):
    """Every span of every row, best first; of equals the earliest start, then the shortest."""
    rows = []
    for row in range(start.size(0)):
        inside = context_mask[row].nonzero().flatten().tolist()
        found = [
            ((start[row, first] + end[row, last]).item(), first, last)
            for first in inside
            for last in inside
            if first <= last < first + max_answer_tokens
        ]
        found.sort(key=lambda span: (-span[0], span[1], span[2]))
        rows.append((found + [(NOTHING, 0, 0)] * n_best)[:n_best])
    return rows


def as_rows(spans: Spans):
    columns = spans.score.tolist(), spans.start.tolist(), spans.end.tolist()
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def one_row(start, end, mask=None):
    mask = [True] * len(start) if mask is None else mask
    return torch.tensor([start], dtype=torch.float32), torch.tensor([end], dtype=torch.float32), torch.tensor([mask])


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(0, 4),
    length=st.integers(1, 14),
    cap=st.integers(1, 20),
    n_best=st.integers(1, 30),
    kept=st.floats(0, 1),
    levels=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 2**31),
)
def test_best_spans_equal_the_triple_loop(rows, length, cap, n_best, kept, levels, seed):
    random = torch.Generator().manual_seed(seed)
    # Few levels make many ties.
    start, end = (torch.randint(levels, (rows, length), generator=random) / 7 for _ in range(2))
    mask = torch.rand(rows, length, generator=random) < kept
    spans = best_spans(start, end, mask, max_answer_tokens=cap, n_best=n_best)
    assert spans.start.shape == spans.end.shape == spans.score.shape == (rows, n_best)
    assert as_rows(spans) == brute_force(start, end, mask, cap, n_best)
    assert torch.equal(spans.null_score, start[:, 0] + end[:, 0])


@pytest.mark.parametrize("n_best", [1, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["start", "end"])
def test_a_logit_of_a_model_that_diverged_is_refused(bad, which, n_best):
    logits = {"start": torch.zeros(2, 5), "end": torch.zeros(2, 5)}
    mask = torch.tensor([[False, True, True, True, False]] * 2)
    logits[which][1, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        best_spans(**logits, context_mask=mask, max_answer_tokens=2, n_best=n_best)
    logits[which][1, 3], logits[which][1, 4] = 0.0, bad  # behind the context, where nobody looks
    assert best_spans(**logits, context_mask=mask, max_answer_tokens=2, n_best=n_best).score.isfinite().all()


def test_best_spans_equal_the_triple_loop_on_long_rows():
    random = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 3, 150, generator=random)
    mask = torch.zeros(3, 150, dtype=torch.bool)
    mask[0, 20:149] = mask[1, 10:60] = mask[2, ::3] = True
    for cap, n_best in [(1, 5), (30, 20), (512, 7)]:
        assert as_rows(best_spans(start, end, mask, cap, n_best)) == brute_force(start, end, mask, cap, n_best)


def test_best_spans_of_the_worked_example():
    spans = best_spans(*one_row([2, 0, 3], [1, 4, 0]), max_answer_tokens=2, n_best=2)
    assert as_rows(spans) == [[(6.0, 0, 1), (4.0, 1, 1)]]


def test_best_spans_prefer_the_earliest_then_the_shortest_of_equals():
    spans = best_spans(*one_row([0] * 4, [0] * 4), max_answer_tokens=2, n_best=5)
    assert as_rows(spans) == [[(0.0, 0, 0), (0.0, 0, 1), (0.0, 1, 1), (0.0, 1, 2), (0.0, 2, 2)]]


def test_best_spans_fill_up_rows_with_too_few_spans():
    start, end, mask = one_row([5, 1, 1], [5, 2, 3], mask=[False, True, True])
    spans = best_spans(start, end, mask, max_answer_tokens=100, n_best=5)
    assert as_rows(spans) == [[(4.0, 1, 2), (4.0, 2, 2), (3.0, 1, 1), (NOTHING, 0, 0), (NOTHING, 0, 0)]]
    assert spans.null_score.tolist() == [10.0]
    empty = best_spans(start, end, torch.zeros_like(mask), max_answer_tokens=3)
    assert as_rows(empty) == [[(NOTHING, 0, 0)]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_best_spans_add_in_float32_at_least(dtype):
    lowest = torch.finfo(dtype).min  # what some models write at padding
    start = torch.tensor([[300.0, 2048, 1, lowest]], dtype=dtype)
    end = torch.tensor([[0.5, 1, 1, lowest]], dtype=dtype)
    spans = best_spans(start, end, torch.tensor([[False, True, True, False]]), max_answer_tokens=4, n_best=2)
    assert spans.score.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert spans.score.tolist() == [[2049, 2049]]  # float16 and bfloat16 would say 2048
    assert spans.null_score.tolist() == [float(start[0, 0]) + 0.5]


def test_best_spans_refuse_wrong_arguments():
    logits, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least 1"):
        best_spans(logits, logits, mask, max_answer_tokens=0)
    with pytest.raises(ValueError, match="at least 1"):
        best_spans(logits, logits, mask, max_answer_tokens=1, n_best=0)
    for wrong in [(logits[:, :2], logits, mask), (logits, logits[:1], mask), (logits, logits, mask[:, 1:])]:
        with pytest.raises(ValueError, match="one shape"):
            best_spans(*wrong, max_answer_tokens=1)
    with pytest.raises(ValueError, match="one shape"):
        best_spans(logits[0], logits[0], mask[0], max_answer_tokens=1)
    with pytest.raises(ValueError, match="one shape"):
        best_spans(logits[:, :0], logits[:, :0], mask[:, :0], max_answer_tokens=1)
    with pytest.raises(ValueError, match="bool"):
        best_spans(logits, logits, mask.int(), max_answer_tokens=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_best_spans_agree_on_every_device():
    start, end = torch.randint(5, (2, 8, 200), generator=torch.Generator().manual_seed(0)).float()
    mask = torch.rand(8, 200, generator=torch.Generator().manual_seed(1)) < 0.8
    here = best_spans(start, end, mask, max_answer_tokens=30, n_best=20)
    there = best_spans(start.cuda(), end.cuda(), mask.cuda(), max_answer_tokens=30, n_best=20)
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours, theirs.cpu())


def test_in_feature_order_undoes_the_batches():
    score = torch.arange(10.0).reshape(5, 2)
    whole = Spans(score.long(), score.long() + 1, score, score[:, 0])
    batches = [[3, 0], [4], [1, 2]]
    parts = [Spans(*(field[batch] for field in whole)) for batch in batches]
    for ours, expected in zip(in_feature_order(parts, batches), whole, strict=True):
        assert torch.equal(ours, expected)


CONTEXT = "سعدی\u200cشیراز  در ۶۰۶ زاده\u200cشد"


def words(example: int, context: str = CONTEXT, first: int = 0, count: int | None = None, head: int = 3) -> Feature:
    """A feature of `count` words from word `first` on: a token is a word and the space or ZWNJ before it."""
    marks = [0, *(place for place, letter in enumerate(context) if letter in " \u200c"), len(context)]
    offsets = np.array([(begin, end) for begin, end in pairwise(marks) if begin < end], np.int32)
    offsets = offsets.reshape(-1, 2)[first:][:count]
    tokens = np.zeros(head + len(offsets) + 1, np.int32)
    return Feature(example, tokens, tokens, head, offsets, 0, 0)


def example(id: str, context: str = CONTEXT) -> Example:
    return Example(id, "", "?", context, ())


def spans_of(*rows, null):
    """Spans from one list of (start, end, score) per feature."""
    start, end, score = (torch.tensor([[span[part] for span in row] for row in rows]) for part in range(3))
    return Spans(start, end, score.float(), torch.tensor(null, dtype=torch.float32))


def test_predictions_cut_the_raw_text_and_strip_its_edges():
    # Tokens 3.. are سعدی | ZWNJ شیراز | space | space در | space ۶۰۶ | ...
    spans = spans_of([(3, 4, 5.0)], [(4, 4, 5.0)], [(5, 7, 5.0)], null=[0, 0, 0])
    found = predictions([example("a"), example("b"), example("c")], [words(0), words(1), words(2)], spans)
    assert [found[id].text for id in "abc"] == ["سعدی\u200cشیراز", "شیراز", "در ۶۰۶"]


def test_cut_strips_both_edges_only():
    assert cut("\u200f \u200c a\u200cb\ufeff\n\u00a0", 0, 9) == (4, "a\u200cb")
    assert cut("a \u200c b", 1, 4) == (4, "")
    assert cut("e\u0301 x", 0, 3) == (0, "e\u0301")


def test_predictions_take_the_best_window_and_the_lowest_null_score():
    features = [words(0, count=3), words(0, first=3), words(1)]
    spans = spans_of([(3, 3, 1.0)], [(3, 3, 4.0)], [(3, 3, 2.0)], null=[9, 3, 7])
    found = predictions([example("a"), example("b")], features, spans)
    assert found["a"].text == "در"
    assert found["a"].null_odds == 3 - 4
    assert found["b"].text == ""
    assert found["b"].null_odds == 7 - 2
    assert list(found) == ["a", "b"]


@pytest.mark.parametrize(("threshold", "text"), [(1.9, ""), (2.0, "سعدی"), (2.1, "سعدی"), (math.inf, "سعدی")])
def test_predictions_are_empty_strictly_above_the_threshold(threshold, text):
    found = predictions([example("a")], [words(0)], spans_of([(3, 3, 1.0)], null=[3]), null_threshold=threshold)
    assert found["a"].text == text
    assert found["a"].null_odds == 2


def test_predictions_merge_the_windows_into_one_falling_list():
    features = [words(0, count=3), words(0, first=1)]  # the second window begins with شیراز
    spans = spans_of(
        [(4, 4, 3.0), (3, 3, 1.0), (0, 0, NOTHING)],
        [(3, 3, 2.5), (6, 6, 2.0), (5, 6, 0.0)],
        null=[1.5, 1.75],
    )
    (found,) = predictions([example("a")], features, spans).values()
    assert [(candidate.text, candidate.score) for candidate in found.n_best] == [
        ("شیراز", 3.0),  # 2.5 was the same place
        ("۶۰۶", 2.0),
        ("", 1.5),
        ("سعدی", 1.0),
    ]
    expected = torch.tensor([3.0, 2.0, 1.5, 1.0]).softmax(0).tolist()
    assert [candidate.probability for candidate in found.n_best] == pytest.approx(expected)


def test_predictions_pass_over_spans_of_white_space():
    (found,) = predictions([example("a")], [words(0)], spans_of([(5, 5, 3.0), (3, 3, 2.0)], null=[0])).values()
    assert found.text == "سعدی"
    assert found.null_odds == -2


@pytest.mark.parametrize("threshold", [0.0, math.inf])
def test_predictions_without_any_span_are_empty(threshold):
    empty = words(0, context="")
    found = predictions([example("a", "")], [empty], spans_of([(0, 0, NOTHING)], null=[1]), null_threshold=threshold)
    assert found["a"].text == ""
    assert found["a"].null_odds == math.inf
    assert [tuple(candidate) for candidate in found["a"].n_best] == [("", 1.0, 1.0)]
    assert json.loads(json.dumps(official_files(found).null_odds, allow_nan=False))["a"] > 1e300


def test_predictions_refuse_spans_of_other_features():
    with pytest.raises(ValueError, match="2 features, but spans for 1"):
        predictions([example("a")], [words(0), words(0)], spans_of([(3, 3, 1.0)], null=[0]))


def test_official_files_have_the_shapes_of_squad():
    found = predictions([example("a")], [words(0)], spans_of([(3, 3, 1.0)], null=[1]))
    files = official_files(found)
    assert files.predictions == {"a": "سعدی"}
    assert files.null_odds == {"a": 0.0}
    assert files.nbest == {
        "a": [{"text": "سعدی", "score": 1.0, "probability": 0.5}, {"text": "", "score": 1.0, "probability": 0.5}]
    }
    assert json.loads(json.dumps(files.nbest)) == files.nbest
