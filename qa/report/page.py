"""What report.html of a question answering run shows."""

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from minitransformer.pages import chart, finished, run_page
from minitransformer.pages.chart import Series
from minitransformer.pages.finished import Finished
from minitransformer.pages.page import Html, bars, cards, escape, join, page, table, tag, text
from qa import metrics
from qa.report import question_words
from qa.report.scored import Scored

SHOWN = 15  # questions with a right answer, and as many with a wrong one
THRESHOLDS = 200  # points of the curve
LENGTHS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, None))  # words of an answer

# exact, F1, HasAns exact, HasAns F1, NoAns, loss on the validation questions; None: not published.
REPORT = {
    "parsbert": ("ParsBERT, the course report (validation)", 69.709, 82.936, None, None, None, 0.8452),
    "albert-fa": ("ALBERT-fa, the course report (validation)", 69.458, 83.103, None, None, None, 0.8356),
}
PAPER = (  # Darvishi et al. 2023, on the test split
    ("ParsBERT, PQuAD's paper (test)", 68.1, 82.0, 61.5, 79.8, 89.0, None),
    ("XLM-R, PQuAD's paper (test)", 74.8, 87.6, None, None, None, None),
    ("a human, PQuAD's paper (test)", 80.3, 88.3, None, None, None, None),
)

STYLE = """
.question { border: 1px solid var(--line); border-radius: 8px; background: var(--card); padding: .7rem 1rem;
  margin: .8rem 0; }
.question p { max-width: none; }
.question .asked { font-weight: 600; }
.passage { line-height: 1.9; white-space: pre-line; }
mark { background: none; }
mark.gold { border-bottom: 3px solid var(--good); }
mark.said.hit { background: var(--good-back); }
mark.said.miss { background: var(--bad-back); }
"""


def build(run: Finished, questions: Sequence[Scored]) -> str:
    """The whole page."""
    scores = run.metrics
    title = f"{run.name}: questions answered by {run.recipe['weights']}"
    right = sum(q.exact for q in questions)
    story = (
        "A passage and a question go in; a span of the passage comes out, or nothing where the passage has no answer. "
        f"Of {len(questions):,} validation questions {right:,.0f} got exactly a right answer. "
        "Exact match counts those; F1 also gives credit for shared words."
    )
    names = (("f1", "F1, %"), ("exact", "exact match, %"), ("HasAns_f1", "F1 where there is an answer, %"),
             ("NoAns_exact", "rightly declined, %"), ("loss", "validation loss, nats"))  # fmt: skip
    first = next((q for q in _drawn(questions) if q.exact and q.answer), None)
    return page(
        title,
        tag("h1", title),
        tag("p", story),
        cards((f"{scores[key]:{'.4f' if key == 'loss' else '.2f'}}", name) for key, name in names if key in scores),
        join([tag("h2", "For example"), LEGEND, show(first)] if first else []),
        tag("h2", "Scores"), results(run),
        tag("h2", "How the training went"), run_page.training(run),
        tag("h2", "Where it does well, and where not"), strengths(questions),
        tag("h2", "When to give no answer"), threshold(run, questions),
        tag("h2", "Some predictions"), examples(questions),
        tag("h2", "The data"), data(run, questions),
        tag("h2", "The recipe"), run_page.recipe(run, "train_qa.py"),
        style=chart.STYLE + STYLE,
    )  # fmt: skip


def results(run: Finished) -> Html:
    """Ours, and where the data is PQuAD, the published rows."""
    names = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "loss")
    rows = [["this run", *(run.metrics.get(name) for name in names)]]
    if "pquad" in run.recipe["valid"].lower():
        rows += [[*row] for row in (REPORT.get(Path(run.recipe["weights"]).name), *PAPER) if row]
    persian = (
        "As the official SQuAD 2.0 script counts. With half-space, letter forms and digits folded as a Persian reader "
        f"would, exact {run.metrics['fa_exact']:.2f} and F1 {run.metrics['fa_f1']:.2f}."
        if "fa_exact" in run.metrics
        else "As the official SQuAD 2.0 script counts."
    )
    for row in rows:
        row[-1] = f"{row[-1]:.4f}" if row[-1] is not None else "–"
    header = ["", "exact, %", "F1, %", "HasAns exact, %", "HasAns F1, %", "NoAns, %", "loss, nats"]
    return join([table(header, rows), tag("p", persian, class_="note")])


def strengths(questions: Sequence[Scored]) -> Html:
    """F1 by the length of the answer and by question word."""
    by_length: list[tuple[str, list[Scored]]] = [("no answer", [q for q in questions if not q.example.answers])]
    for low, high in LENGTHS:
        name = (
            f"{low} or more words"
            if high is None
            else f"{low}–{high} words"
            if high > low
            else f"{low} word{'s' * (low > 1)}"
        )
        by_length.append((name, [q for q in questions if low <= _words(q) <= (high or _words(q))]))
    by_word = [
        (kind, [q for q in questions if question_words.kind_of(q.example.question) == kind])
        for kind in (*question_words.KINDS, question_words.OTHER)
    ]
    return tag(
        "div",
        _f1_bars(by_length, "F1 in %, by the words of the shortest gold answer"),
        _f1_bars(by_word, "F1 in %, by question word"),
        class_="columns",
    )


def _words(question: Scored) -> int:
    return min((len(answer.text.split()) for answer in question.example.answers), default=0)


def _f1_bars(groups: Iterable[tuple[str, list[Scored]]], caption: str) -> Html:
    rows = [
        (escape(name), 100 * mean(q.f1 for q in group), f"{100 * mean(q.f1 for q in group):.1f} of {len(group):,}")
        for name, group in groups
        if group
    ]
    return bars(rows, f"{caption} (and how many there are)", largest=100)


def threshold(run: Finished, questions: Sequence[Scored]) -> Html:
    """Scores against the threshold of the null odds above which the answer is withheld."""
    odds = np.array([q.null_odds for q in questions])
    gold = metrics.gold_answers([q.example for q in questions])
    exact, f1 = metrics.raw_scores(gold, {q.example.id: q.best for q in questions}, metrics.official_tokens)
    has = np.array([bool(q.example.answers) for q in questions])
    cuts = np.unique(np.quantile(odds, np.linspace(0, 1, THRESHOLDS), method="nearest"))
    withheld = odds[None] > cuts[:, None]  # (thresholds, questions)

    def curve(name: str, scores: dict[str, float], which: np.ndarray) -> Series:
        values = np.where(withheld, ~has, np.array(list(scores.values())))[:, which].mean(1) * 100
        return Series(name, list(zip(cuts.tolist(), values.tolist(), strict=True)))

    everything = np.ones(len(questions), dtype=bool)
    series = [curve("F1", f1, everything), curve("exact", exact, everything)]
    if has.any() and not has.all():
        series += [curve("F1 where there is an answer", f1, has), curve("rightly declined", f1, ~has)]
    used, best = run.recipe.get("null_threshold", 0.0), run.metrics.get("best_f1_thresh", 0.0)
    low, high = cuts[0], cuts[-1]
    marks = [(x, name) for x, name in ((used, f"used: {used:.2f}"), (best, f"best F1 in hindsight: {best:.2f}"))
             if low <= x <= high]  # fmt: skip
    story = (
        "The model scores its best span, and it scores “no answer” ([CLS]). Where “no answer” leads by more than the "
        "threshold, the run declines. To the left it declines more, to the right it answers more."
    )
    drawn = chart.chart("Scores against the no-answer threshold", "no-answer score minus best span's score (logits)",
                        "score, %", series, marks, y_range=(0, 100))  # fmt: skip
    return join([tag("p", story), drawn])


def examples(questions: Sequence[Scored]) -> Html:
    """Right and wrong ones, drawn by chance."""
    drawn = _drawn(questions)
    right, wrong = [q for q in drawn if q.exact], [q for q in drawn if not q.exact]
    parts: list[Html] = [LEGEND]
    for name, group in ("Right", right), ("Wrong", wrong):
        shown = min(SHOWN, len(group))
        parts.append(tag("h3", f"{name}: {shown} of {len(group):,}, drawn by chance"))
        parts += map(show, group[:shown])
    return join(parts)


def _drawn(questions: Sequence[Scored]) -> list[Scored]:
    return random.Random(0).sample(questions, len(questions))


LEGEND = tag(
    "p", "In the passage: ", tag("mark", "underlined", class_="gold"), " the gold answers; ",
    tag("mark", "green", class_="said hit"), " the model's answer if right, ",
    tag("mark", "red", class_="said miss"), " if not.", class_="note",
)  # fmt: skip


def show(question: Scored) -> Html:
    """One question: passage with the spans in it, what was said, and how it was judged."""
    example = question.example
    right = bool(question.exact)
    golds = {answer.text: None for answer in example.answers}  # each once, in order
    gold = join(_between(" / ", [text(answer) for answer in golds])) if golds else escape("no answer")
    said = text(question.answer) if question.answer else escape("no answer")
    verdict = tag("b", "✓ right" if right else "✗ wrong", class_="right" if right else "wrong")
    details = f" · F1 {100 * question.f1:.0f} · no-answer score minus best span's {question.null_odds:.1f}"
    withheld = ["; withheld: ", text(question.best)] if question.best and not question.answer and golds else []
    return tag(
        "article",
        text(example.question, "p", class_="asked"),
        tag("p", marked(question), dir="rtl" if 'dir="rtl"' in text(example.context) else "ltr", class_="passage"),
        tag("p", verdict, " · said: ", said, *withheld, " · gold: ", gold, tag("span", details, class_="note")),
        class_="question",
    )


def _between(separator: str, parts: Sequence[Html]) -> list[str]:
    return [item for part in parts for item in (separator, part)][1:]


def marked(question: Scored) -> Html:
    """The passage as HTML, gold spans and the answer's span marked; they may overlap."""
    context = question.example.context
    gold = [(answer.start, answer.start + len(answer.text)) for answer in question.example.answers]
    said = [(question.place, question.place + len(question.best))] if question.answer and question.place >= 0 else []
    edges = sorted({0, len(context), *(edge for span in gold + said for edge in span)})
    parts = []
    for begin, end in pairwise(edges):
        kinds = ["gold"] if any(first <= begin and end <= last for first, last in gold) else []
        if any(first <= begin and end <= last for first, last in said):
            kinds += ["said", "hit" if question.exact else "miss"]
        piece = context[begin:end]
        parts.append(tag("mark", piece, class_=" ".join(kinds)) if kinds else piece)
    return join(parts)


def data(run: Finished, questions: Sequence[Scored]) -> Html:
    """Where the questions come from and how long they are."""
    path = run.folder / "data.json"
    facts: dict[str, Any] = finished.read_json(path) if path.is_file() else {}
    header = ["", "file", "questions", "without answer, %", "passages", "inputs", "tokens of an input", "the longest"]
    rows = [
        [name, run.recipe[part], f["questions"], 100 * f["unanswerable"] / f["questions"], f["passages"],
         f["inputs"], round(f["tokens_mean"]), f["tokens_longest"]]
        for name, part in (("training", "train"), ("validation", "valid"))
        if (f := facts.get(part))
    ]  # fmt: skip
    if rows:
        return table(header, rows)
    none = sum(not q.example.answers for q in questions)
    return tag(
        "p",
        f"{len(questions):,} validation questions, {none:,} of them without answer. Training: {run.recipe['train']}.",
    )
