"""Look at a data set before training on it: tables, charts, and one page that opens from disk.

python -m qa.explore Train.json Validation.json --weights parsbert --out explored
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from minitransformer.pages.page import Html, cards, join, page, picture, table, tag
from minitransformer.system import files
from minitransformer.system.errors import UserError, command_line, printable
from minitransformer.system.flags import FlagParser
from qa import squad, survey
from qa.squad import Example
from qa.survey import Cut, Survey, Tokens

MAX_LENGTHS = (128, 192, 256, 384, 512)
STRIDES = (None, 64, 128)
TITLES = 15  # of each file on the page
LONGEST_SHOWN = 99.5  # in percent: histograms end there, or a single long passage would squeeze all others
ANOMALIES_SHOWN = 3  # ids beside each

STYLE = """
.question { border: 1px solid var(--line); border-radius: 8px; background: var(--card); padding: .7rem 1rem;
  margin: .8rem 0; }
.question p { max-width: none; }
.asked { font-weight: 600; }
.passage { line-height: 1.9; white-space: pre-line; }
"""


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


@command_line
def main() -> None:
    flags = parse_flags()
    out = Path(flags.out)
    names = _names(flags.files)
    read = []
    for path, name in zip(flags.files, names, strict=True):
        _say(f"{path}: reading")
        examples = squad.read(path)
        _say(f"{path}: {len(examples):,} questions, counting")
        read.append((examples, survey.survey(name, examples)))
    tokenizer = None
    if flags.weights:
        _say(f"{flags.weights}: loading the tokenizer")
        from weights import load_tokenizer  # only here: it loads torch, which takes seconds

        tokenizer = load_tokenizer(flags.weights)
    explored = []
    for examples, counted in read:
        tokens, cuts = None, []
        if tokenizer:
            _say(f"{counted.name}: counting tokens")
            tokens = survey.tokens(examples, tokenizer)
            limits = [survey.cut(tokens, length, stride) for length in MAX_LENGTHS for stride in STRIDES]
            cuts = [limit for limit in limits if limit]
        explored.append(Explored(examples, counted, tokens, cuts))
    _say("drawing")
    charts = draw(explored)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in charts.items():
        files.write_bytes(out / f"{name}.png", data)
    files.write_text(out / "numbers.csv", csv_text(numbers(explored)))
    files.write_text(out / "index.html", build(explored, charts, flags.weights))
    for line in summary(explored):
        print(line)
    print(f"the page: {out / 'index.html'}")


def parse_flags():
    parser = FlagParser(prog="python -m qa.explore", description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="+", help="questions: SQuAD JSON, or gzipped")
    parser.add_argument("--weights", metavar="DIR", help="a checkpoint, for lengths in its tokens")
    parser.add_argument("--out", metavar="DIR", required=True, help="where the pictures, the CSV and the page go")
    return parser.parse_args()


def numbers(explored: Sequence[Explored]) -> Iterator[Number]:
    """Every number of the page, one by one."""
    for _, s, tokens, cuts in explored:
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
    for _, s, tokens, _ in explored:
        line = f"{s.name}: {s.questions:,} questions on {s.passages:,} passages under {len(s.titles):,} titles; "
        line += f"{s.unanswerable:,} ({percent(s.unanswerable, s.questions)}) without an answer"
        yield line + (f"; {tokens.pair.mean():.0f} tokens on average, {tokens.pair.max()} at most" if tokens else "")


def token_lengths(tokens: Tokens | None) -> dict:
    """Kind of text -> lengths in tokens."""
    if tokens is None:
        return {}
    answer = tokens.answer[:, 1] - tokens.answer[:, 0] + 1
    return {"pair": tokens.pair, "context": tokens.context, "question": tokens.question, "first answer": answer}


def draw(explored: Sequence[Explored]) -> dict[str, bytes]:
    """The charts as PNG, by name. Numbers and English only: matplotlib does not join Persian letters."""
    surveys = [e.survey for e in explored]
    charts = {
        "answers": _bars("Questions by number of answers", "answers given to a question", "questions",
                         {s.name: s.answer_counts for s in surveys}),
        "words": _histograms("Lengths in words", "words", [(s.name, s.words) for s in surveys]),
        "places": _bars("Where answers begin in their passage", "tenth of the passage", "answers",
                        {s.name: dict(enumerate(survey.tenths(s.places), 1)) for s in surveys}),
    }  # fmt: skip
    if explored[0].tokens:
        lengths = [(e.survey.name, token_lengths(e.tokens)) for e in explored]
        charts["tokens"] = _histograms("Lengths in tokens of the checkpoint", "tokens", lengths)
    return charts


def _bars(title: str, x_name: str, y_name: str, series: dict[str, dict[int, int]]) -> bytes:
    from matplotlib import ticker

    figure, (axes,) = _figure(1)
    places = sorted({x for counts in series.values() for x in counts})
    width = 0.8 / len(series)
    for k, (name, counts) in enumerate(series.items()):
        left = (k - (len(series) - 1) / 2) * width
        drawn = axes.bar([x + left for x in places], [counts.get(x, 0) for x in places], width, label=_plain(name))
        if len(places) * len(series) <= 20:  # more would not be readable
            axes.bar_label(drawn, fmt="{:,.0f}", fontsize=7, padding=2)
    axes.set(title=title, xlabel=x_name, ylabel=y_name, xticks=places)
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if len(series) > 1:
        axes.legend()
    return _png(figure)


def _histograms(title: str, unit: str, named: Sequence[tuple[str, dict]]) -> bytes:
    """A panel for each kind of text, a line for each file: shares, so that files of different sizes compare."""
    import numpy as np
    from matplotlib import ticker

    kinds = list(named[0][1])
    figure, panels = _figure(len(kinds))
    for axes, kind in zip(panels, kinds, strict=True):
        values = [(name, lengths[kind]) for name, lengths in named if len(lengths[kind])]
        top = max((int(np.percentile(some, LONGEST_SHOWN)) for _, some in values), default=1) + 1
        edges = np.arange(0, top + 1, max(1, round(top / 40))) - 0.5
        for name, some in values:
            weights = np.full(len(some), 100 / len(some))
            axes.hist(some, bins=edges, weights=weights, histtype="step", linewidth=1.8, label=_plain(name))
        axes.set(title=kind, xlabel=f"{unit} of the {kind}", ylabel="share of all, %")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6, integer=True))
        axes.grid(alpha=0.3)
    if len(named) > 1:
        panels[0].legend()
    figure.suptitle(title)
    return _png(figure)


def _figure(panels: int):
    import matplotlib  # only here: the counting must show its progress before this is loaded

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, columns = ((panels + 1) // 2, 2) if panels > 3 else (1, panels)
    size = (8, 4.2) if panels == 1 else (4.2 * columns, 3.6 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    return figure, axes.flatten()


def _png(figure) -> bytes:
    from matplotlib import pyplot

    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    pyplot.close(figure)
    return out.getvalue()


def _plain(name: str) -> str:
    """A file's name for matplotlib: without what it cannot draw, and without what it takes for mathematics."""
    return "".join(c if c.isascii() and c.isprintable() and c not in "$_" else " " for c in name).strip() or "file"


def build(explored: Sequence[Explored], charts: dict[str, bytes], weights: str | None = None) -> str:
    """The page, which needs no other file."""
    surveys = [e.survey for e in explored]
    total, empty = sum(s.questions for s in surveys), sum(s.unanswerable for s in surveys)
    names = [s.name for s in surveys]
    title = f"Questions and passages: {', '.join(names)}"
    passages = len({example.context for e in explored for example in e.examples})
    return page(
        title,
        tag("h1", title),
        cards([(f"{total:,}", "questions"), (f"{passages:,}", "distinct passages"),
               (percent(empty, total), "without an answer")]),
        tag("h2", "Overview"), overview(surveys),
        tag("h2", "For example"), join(show(example) for example in samples(explored[0].examples)),
        tag("h2", "Answers"),
        tag("p", "A question without an answer is one that its passage does not answer; several answers are "
            "alternatives, and a prediction needs to match one."),
        picture(charts["answers"], "bar chart: questions by number of answers"),
        picture(charts["places"], "bar chart: where in the passage answers begin"),
        tag("h2", "Lengths in words"),
        tag("p", "Words are what white space parts. Each passage counts once.", class_="note"),
        picture(charts["words"], "histograms: lengths in words"),
        lengths_table([(s.name, s.words) for s in surveys]),
        join(token_section(explored, charts["tokens"], weights) if "tokens" in charts else
             [tag("h2", "Lengths in tokens"), tag("p", "Not counted: no checkpoint was given (--weights DIR).")]),
        tag("h2", "Text forms"),
        tag("p", "Two texts that look alike can differ in code points: آ is one letter or two (composed or "
            "decomposed), ی has an Arabic twin. A comparison sees the difference, and a tokenizer may."),
        join(forms_table(s) for s in surveys),
        tag("h2", "Duplicates and oddities"),
        tag("p", "What deserves a look; not all of it is wrong."),
        anomalies_table(surveys), shared_table(explored),
        tag("h2", "Titles"), join(titles_table(s) for s in surveys),
        style=STYLE,
    )  # fmt: skip


def overview(surveys: Sequence[Survey]) -> Html:
    header = ["split", "questions", "without an answer", "share", "passages", "titles", "questions per passage"]
    rows = [
        [s.name, s.questions, s.unanswerable, percent(s.unanswerable, s.questions), s.passages, len(s.titles),
         s.questions / s.passages] for s in surveys
    ]  # fmt: skip
    columns = [[column, *(s.filled[column] for s in surveys)] for column in survey.COLUMNS]
    return join(
        [table(header, rows), table(["column", *(s.name for s in surveys)], columns, "rows where it is not empty")]
    )


def samples(examples: Sequence[Example]) -> list[Example]:
    """The first question with an answer, and the first without."""
    kinds = ([e for e in examples if e.is_answerable], [e for e in examples if not e.is_answerable])
    return [kind[0] for kind in kinds if kind]


def show(example: Example) -> Html:
    passage: list[object] = [example.context]
    if example.answers:
        text_, start = example.answers[0]
        passage = [example.context[:start], tag("mark", text_), example.context[start + len(text_) :]]
    note = "" if example.answers else tag("p", "The passage does not answer this question.", class_="note")
    return tag(
        "div",
        tag("p", example.question, dir="auto", class_="asked"),
        tag("p", *passage, dir="auto", class_="passage"),
        note,
        class_="question",
    )


def lengths_table(named: Sequence[tuple[str, dict]]) -> Html:
    rows = [[name, kind, *survey.spread(v).values()] for name, lengths in named for kind, v in lengths.items()]
    head = list(survey.spread(named[0][1]["context"]))
    return table(["split", "text", *head], rows)


def token_section(explored: Sequence[Explored], chart: bytes, weights: str | None) -> Iterator[Html]:
    yield tag("h2", "Lengths in tokens")
    yield tag("p", "Tokens are those of ", tag("code", weights), ". A pair is what the model reads: question, passage "
              "and the special tokens between them.", class_="note")  # fmt: skip
    yield picture(chart, "histograms: lengths in tokens")
    yield lengths_table([(e.survey.name, token_lengths(e.tokens)) for e in explored])
    yield tag("h3", "What max_length cuts, and what a stride costs")
    yield tag("p", "Without a stride the model reads the beginning of a pair that is too long. With one it reads "
              "windows, neighbours sharing that many tokens: more inputs, and fewer answers out of reach. Lost are "
              "the questions of which no input holds the whole first answer.")  # fmt: skip
    head = ["split", "max_length", "stride", "inputs", "tokens", "too long", "share", "answers lost", "share "]
    rows = [
        [e.survey.name, c.max_length, "none" if c.stride is None else str(c.stride), c.inputs, c.tokens, c.cut,
         percent(c.cut, e.survey.questions), c.lost, percent(c.lost, len(e.tokens.answered))]
        for e in explored for c in e.cuts
    ]  # fmt: skip
    yield table(head, rows)


def forms_table(s: Survey) -> Html:
    kinds = list(s.texts)
    rows = [
        [form, *(f"{n:,} ({percent(n, s.texts[k])})" for k, n in counts.items())] for form, counts in s.forms.items()
    ]
    return table(["texts that have", *(f"{kind}s ({s.texts[kind]:,})" for kind in kinds)], rows, s.name)


def anomalies_table(surveys: Sequence[Survey]) -> Html:
    rows = [
        [what, *(len(s.anomalies[what]) for s in surveys),
         ", ".join([key for s in surveys for key in s.anomalies[what]][:ANOMALIES_SHOWN])]
        for what in surveys[0].anomalies
    ]  # fmt: skip
    return table(["questions with", *(s.name for s in surveys), "for example (ids)"], rows)


def shared_table(explored: Sequence[Explored]) -> Html:
    pairs = survey.shared([(e.survey.name, e.examples) for e in explored])
    if not pairs:
        return Html("")
    rows = [[f"{one} and {other}", *counts.values()] for one, other, counts in pairs]
    return table(["in both of", *pairs[0][2]], rows, "What two splits share: a passage in both makes a test easier.")


def titles_table(s: Survey) -> Html:
    rows = [[tag("span", title or "(none)", dir="auto"), n] for title, n in s.titles.most_common(TITLES)]
    rest = len(s.titles) - len(rows)
    return table(["title", "questions"], rows, s.name + (f", and {rest:,} more titles in numbers.csv" if rest else ""))


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _names(paths: Sequence[str]) -> list[str]:
    """What each file is called on the page: its name, or its path where names are alike."""
    names = [Path(path).name.removesuffix(".gz").removesuffix(".json") for path in paths]
    if len(set(names)) < len(names):
        names = list(paths)
    if len(set(names)) < len(names):
        raise UserError(f"{next(p for p in paths if paths.count(p) > 1)}: given twice; give each file once")
    return [printable(name) for name in names]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
