"""Question answering runs side by side: recipes, scores, losses, and the questions on which they differ.

python -m qa.compare runs/parsbert runs/albert-fa
python -m qa.compare runs/parsbert runs/albert-fa --out compare.html        the same as a page, with the loss curves
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

from minitransformer.pages import chart
from minitransformer.pages.chart import Series
from minitransformer.pages.finished import Finished
from minitransformer.pages.page import Html, join, page, table, tag
from minitransformer.system.errors import RunError, printable
from qa.report import page as report
from qa.report.scored import Scored, read_questions

METRICS = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "best_f1", "fa_exact", "fa_f1", "loss")
SHOWN = 10  # questions that one run gets right and another wrong


def recipe_differences(runs: Sequence[Finished]) -> list[list[str]]:
    """[field, its value in each run] where they are not all the same; "–" where a recipe lacks the field."""
    fields = dict.fromkeys(field for run in runs for field in run.recipe)
    rows = [[field, *(_value(run.recipe.get(field)) for run in runs)] for field in fields]
    return [row for row in rows if len(set(row[1:])) > 1]


def _value(value: Any) -> str:
    return "–" if value in (None, "") else str(value)


def metric_rows(runs: Sequence[Finished]) -> list[list[Any]]:
    """[name, its value in each run]."""
    names = [name for name in METRICS if any(name in run.metrics for run in runs)]
    train = ["mean training loss, last epoch", *(run.log[-1]["running_mean"] if run.log else None for run in runs)]
    return [[name, *(run.metrics.get(name) for run in runs)] for name in names] + [train]


def only_first_right(first: Sequence[Scored], second: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """The questions that the first run answers exactly and the second does not."""
    return [(a, b) for a, b in zip(first, second, strict=True) if a.exact and not b.exact]


def read_all(runs: Sequence[Finished]) -> list[list[Scored]]:
    """Every run's questions. Raises RunError unless they are the same ones."""
    answered = [read_questions(run) for run in runs]
    asked = {question.example.id: question.example for question in answered[0]}
    for run, questions in zip(runs[1:], answered[1:], strict=True):
        if {question.example.id: question.example for question in questions} != asked:
            raise RunError(f"{run.folder}: it answered other questions than {runs[0].folder}; compare runs on one file")
    order = {id: place for place, id in enumerate(asked)}
    return [sorted(questions, key=lambda question: order[question.example.id]) for questions in answered]


def as_text(runs: Sequence[Finished], names: Sequence[str], answered: Sequence[Sequence[Scored]]) -> str:
    """Tables for a terminal."""
    lines = _columns([["recipe", *names], *recipe_differences(runs)])
    lines += ["", *_columns([["score", *names], *metric_rows(runs)])]
    for first, second in permutations(range(len(runs)), 2):
        pairs = only_first_right(answered[first], answered[second])
        lines += ["", f"{names[first]} right, {names[second]} wrong: {len(pairs):,} of {len(answered[0]):,}"]
        for right, wrong in pairs[:SHOWN]:
            lines.append(f"  {printable(right.example.question)}")
            said = (printable(question.answer) or "no answer" for question in (right, wrong))
            lines.append("      {}   |   {}".format(*said))
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[printable(f"{cell:.4f}" if isinstance(cell, float) else _value(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def as_page(runs: Sequence[Finished], names: Sequence[str], answered: Sequence[Sequence[Scored]]) -> str:
    differences = recipe_differences(runs)
    curves = [Series(name, run.mean_losses) for run, name in zip(runs, names, strict=True)]
    title = " against ".join(names)
    return page(
        title,
        tag("h1", title),
        tag("h2", "Scores"),
        table(["", *names], metric_rows(runs), "In percent, the losses in nats; names as in metrics.json"),
        tag("h2", "Training loss"),
        chart.chart("Mean training loss since the start", "step", "cross-entropy, nats", curves, y_range=(0, 0)),
        tag("h2", "What differs in their recipes"),
        table(["field", *names], differences) if differences else tag("p", "Nothing."),
        tag("h2", "Questions on which they differ"),
        report.LEGEND,
        *(_differ(names[i], names[k], answered[i], answered[k]) for i, k in permutations(range(len(runs)), 2)),
        style=chart.STYLE + report.STYLE,
    )


def _differ(first: str, second: str, answers: Sequence[Scored], others: Sequence[Scored]) -> Html:
    pairs = only_first_right(answers, others)
    shown = []
    for right, wrong in pairs[:SHOWN]:
        sides = [tag("div", tag("p", name, class_="note"), report.show(question))
                 for name, question in ((first, right), (second, wrong))]  # fmt: skip
        shown.append(tag("div", *sides, class_="columns"))
    return join([tag("h3", f"{first} right, {second} wrong: {len(pairs):,} of {len(answers):,}"), *shown])
