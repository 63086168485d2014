"""Every number of a survey, one by one: numbers.csv, and the lines that the terminal gets."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from qa.explore import survey
from qa.explore.survey import Cut, Survey, Tokens
from qa.mend import Mended
from qa.squad import Example


class Number(NamedTuple):
    """One line of numbers.csv."""

    section: str
    file: str
    row: str
    column: str
    value: float


class Explored(NamedTuple):
    """One file: its questions and their numbers. tokens and cuts: None and empty without a checkpoint."""

    examples: list[Example]
    survey: Survey
    tokens: Tokens | None
    cuts: list[Cut]
    mended: Sequence[Mended] = ()  # answers that are not where the file says


def numbers(explored: Sequence[Explored]) -> Iterator[Number]:
    """Every number of the page, one by one."""
    for _, s, tokens, cuts, _ in explored:
        yield Number("overview", s.name, "questions", "count", s.questions)
        yield Number("overview", s.name, "unanswerable", "count", s.unanswerable)
        yield Number("overview", s.name, "passages", "count", s.passages)
        yield Number("overview", s.name, "titles", "count", len(s.titles))
        yield from (Number("columns", s.name, column, "filled", count) for column, count in s.filled.items())
        yield from (Number("answers", s.name, str(k), "questions", n) for k, n in sorted(s.answer_counts.items()))
        for kind, values in s.words.items():
            yield from (Number("words", s.name, kind, what, n) for what, n in survey.spread(values).items())
        for kind, values in token_lengths(tokens).items():
            yield from (Number("tokens", s.name, kind, what, n) for what, n in survey.spread(values).items())
        for limit in cuts:
            row = f"max_length {limit.max_length}, stride {limit.stride or 'none'}"
            yield from (
                Number("limits", s.name, row, c, getattr(limit, c)) for c in ("inputs", "tokens", "cut", "lost")
            )
        for tenth, n in enumerate(survey.tenths(s.places), 1):
            yield Number("places", s.name, f"tenth {tenth}", "answers", n)
        for form, counts in s.forms.items():
            yield from (Number("forms", s.name, form, kind, n) for kind, n in counts.items())
        yield from (Number("anomalies", s.name, what, "questions", len(ids)) for what, ids in s.anomalies.items())
        yield from (Number("titles", s.name, title, "questions", n) for title, n in s.titles.most_common())
    for one, other, counts in survey.shared([(e.survey.name, e.examples) for e in explored]):
        yield from (Number("shared", f"{one} and {other}", what, "count", n) for what, n in counts.items())


def csv_text(rows: Iterable[Number]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Number._fields)
    writer.writerows(rows)
    return out.getvalue()


def summary(explored: Sequence[Explored]) -> Iterator[str]:
    """What the terminal gets: a line for each file."""
    for _, s, tokens, *_ in explored:
        line = f"{s.name}: {s.questions:,} questions on {s.passages:,} passages under {len(s.titles):,} titles; "
        line += f"{s.unanswerable:,} ({percent(s.unanswerable, s.questions)}) without an answer"
        yield line + (f"; {tokens.pair.mean():.0f} tokens on average, {tokens.pair.max()} at most" if tokens else "")


def token_lengths(tokens: Tokens | None) -> dict:
    """Kind of text -> lengths in tokens."""
    if tokens is None:
        return {}
    answer = tokens.answer[:, 1] - tokens.answer[:, 0] + 1
    return {"pair": tokens.pair, "context": tokens.context, "question": tokens.question, "first answer": answer}


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
