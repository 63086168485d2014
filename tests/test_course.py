"""The course cannot rot: its examples run, its quotations stand in the code, its exercises are checked."""

import doctest
import importlib.util
import itertools
import math
import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from weights import load_tokenizer

TOP = Path(__file__).parents[1]
COURSE = TOP / "docs/course"
CHAPTERS = sorted(COURSE.glob("[0-9]*.md"))
BLOCK = re.compile(r"^```python(?: source=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(chapter: Path) -> list[tuple[str, str]]:
    """(the file that is quoted, or "", and the code)"""
    return BLOCK.findall(chapter.read_text(encoding="utf-8"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_example_prints_what_the_chapter_says(chapter):
    text = "\n".join(code for source, code in blocks(chapter) if not source)
    test = doctest.DocTestParser().get_doctest(text, {}, chapter.stem, str(chapter), 0)
    complaints = []
    doctest.DocTestRunner().run(test, out=complaints.append)
    assert not complaints, "".join(complaints)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_quotation_stands_in_its_file(chapter):
    for source, code in blocks(chapter):
        if source:
            assert code.strip() in (TOP / source).read_text(encoding="utf-8"), f"{chapter.name} misquotes {source}"


def test_every_chapter_has_examples_or_quotations_and_no_fence_is_overlooked():
    assert len(CHAPTERS) == 13
    for chapter in CHAPTERS[:-1]:
        found = blocks(chapter)
        assert any(">>>" in code for _, code in found), chapter
        text = chapter.read_text(encoding="utf-8")
        assert text.count("```") == 2 * len(found)
        assert text.count(">>> ") == sum(code.count(">>> ") for source, code in found if not source)


def test_every_link_leads_to_a_file():
    for page in COURSE.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (COURSE / target).is_file(), f"{page.name}: {target}"


def test_the_figure_is_drawn_from_chapter_twos_example():
    spec = importlib.util.spec_from_file_location("draw_embeddings", COURSE / "draw_embeddings.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    pair = load_tokenizer("demo-bert-fa").encode(drawing.QUESTION, drawing.PASSAGE)
    assert drawing.figure(pair) == (COURSE / "embeddings.svg").read_text(encoding="utf-8")
    assert f'"{drawing.QUESTION}", "{drawing.PASSAGE}"' in (COURSE / "02-input.md").read_text(encoding="utf-8")


def test_the_count_of_pquad_in_chapter_one_is_that_of_the_file(assets):
    from qa import squad

    examples = squad.read(assets / "data/pquad/Validation.json.gz")
    empty = sum(not example.is_answerable for example in examples)
    said = f"has {len(examples):,} validation questions; {empty:,} have no answer"
    assert said in " ".join((COURSE / "01-task.md").read_text(encoding="utf-8").split())


# ------------------------------------------------------------------------------------------------ the exercises


class Solved:
    """A solution of each exercise, so that the checks themselves are checked where a reader has given none."""

    @staticmethod
    def softmax(scores):
        powers = [math.exp(score - max(scores)) for score in scores]
        return [power / sum(powers) for power in powers]

    @staticmethod
    def attend(query, keys, values):
        scores = [sum(q * k for q, k in zip(query, key, strict=True)) / len(query) ** 0.5 for key in keys]
        weights = Solved.softmax(scores)
        return [sum(w * x for w, x in zip(weights, column, strict=True)) for column in zip(*values, strict=True)]

    @staticmethod
    def f1(gold, predicted):
        gold, predicted = Counter(gold.split()), Counter(predicted.split())
        common = (gold & predicted).total()
        return 2 * common / (gold.total() + predicted.total()) if gold or predicted else 1.0

    @staticmethod
    def best_span(start, end):
        pairs = itertools.combinations_with_replacement(range(len(start)), 2)
        return max(pairs, key=lambda pair: start[pair[0]] + end[pair[1]])

    @staticmethod
    def window_starts(count, room, stride):
        return [0, *range(room - stride, count - stride, room - stride)] if count > room else [0]


@pytest.fixture(params=["reader", "solved"])
def solutions(request):
    if request.param == "solved":
        return Solved
    path = os.environ.get("EXERCISES")
    if not path:
        pytest.skip("no solutions given: EXERCISES=exercises.py")
    spec = importlib.util.spec_from_file_location("exercises", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(solutions, name):
    if not hasattr(solutions, name):
        pytest.skip(f"{name} is not written yet")
    return getattr(solutions, name)


def test_exercise_1_softmax(solutions):
    softmax = written(solutions, "softmax")
    assert softmax([0.0, math.log(3.0)]) == pytest.approx([0.25, 0.75])
    assert softmax([1000.0, 1000.0]) == pytest.approx([0.5, 0.5])


def test_exercise_2_attend(solutions):
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    luck = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(rows, 3, generator=luck) for rows in (1, 4, 4))
    given = written(solutions, "attend")(query[0].tolist(), keys.tolist(), values.tolist())
    wanted = scaled_dot_product_attention(query[None], keys[None], values[None])[0, 0].tolist()
    assert given == pytest.approx(wanted, abs=1e-5)


def test_exercise_3_f1(solutions):
    from qa.metrics import token_f1

    f1 = written(solutions, "f1")
    for gold, predicted in itertools.product(["", "رود", "رود رود کارون", "کارون بزرگ"], repeat=2):
        assert f1(gold, predicted) == pytest.approx(token_f1(gold.split(), predicted.split()))


def test_exercise_4_best_span(solutions):
    import torch

    from qa.spans import best_spans

    best_span, luck = written(solutions, "best_span"), random.Random(0)
    for size in range(1, 9):
        start, end = ([luck.uniform(-3, 3) for _ in range(size)] for _ in "se")
        mask = torch.ones(1, size, dtype=torch.bool)
        wanted = best_spans(torch.tensor([start]), torch.tensor([end]), mask, max_answer_tokens=size)
        assert tuple(best_span(start, end)) == (wanted.start.item(), wanted.end.item())


def test_exercise_5_window_starts(solutions):
    from qa.features import window_starts as wanted

    window_starts = written(solutions, "window_starts")
    for count, room, stride in itertools.product(range(1, 12), range(3, 7), range(3)):
        assert list(window_starts(count, room, stride)) == list(wanted(count, room, stride)), (count, room, stride)
