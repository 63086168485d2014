"""The page of a survey: one file that opens from disk."""

from collections.abc import Iterator, Sequence

from minitransformer.pages.page import Html, cards, join, page, picture, table, tag
from qa import mend
from qa.explore import survey
from qa.explore.numbers import Explored, percent, token_lengths
from qa.explore.survey import Survey
from qa.squad import Example

TITLES = 15  # of each file on the page
ANOMALIES_SHOWN = 3  # ids beside each
MENDED_SHOWN = 100

STYLE = """
.question { border: 1px solid var(--line); border-radius: 8px; background: var(--card); padding: .7rem 1rem;
  margin: .8rem 0; }
.question p { max-width: none; }
.asked { font-weight: 600; }
.passage { line-height: 1.9; white-space: pre-line; }
"""


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
        anomalies_table(surveys), join(mended_table(e) for e in explored if e.mended), shared_table(explored),
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
        for e in explored if e.tokens for c in e.cuts
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


def mended_table(e: Explored) -> Html:
    """The answers that are not where the file says they are."""
    rows = [
        [one.place, tag("span", one.text, dir="auto"), one.start, one.found if one.found >= 0 else "", one.how]
        for one in e.mended[:MENDED_SHOWN]
    ]
    rest = f"; the first {MENDED_SHOWN} are shown" if len(e.mended) > MENDED_SHOWN else ""
    caption = f"{e.survey.name}: answers that are not where answer_start says. {mend.summary(e.mended)}{rest}. "
    caption += "A training stops at them, unless told --mend-answers."
    return table(["where in the file", "answer", "answer_start", "is at", "what --mend-answers does"], rows, caption)


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
