"""The numbers behind `qa.explore`: what a file of questions holds, counted. Nothing here draws."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qa.squad import Answer, Example

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COLUMNS = ("id", "title", "context", "question", "answers")
TENTHS = 10  # parts of a passage, for where answers lie
LONG_ANSWER = 30  # words
SHORT_CONTEXT = 20  # words


def _holds(characters: str) -> Callable[[str], bool]:
    wanted = frozenset(characters)
    return lambda text: not wanted.isdisjoint(text)


def _in_range(first: int, last: int) -> Callable[[str], bool]:
    return _holds("".join(map(chr, range(first, last + 1))))


# What a tokenizer or a comparison of strings can stumble over, and how to see it.
FORMS: dict[str, Callable[[str], bool]] = {
    "the same in NFC and NFD": lambda text: _form(text) == (True, True),
    "composed (NFC only)": lambda text: _form(text) == (True, False),
    "decomposed (NFD only)": lambda text: _form(text) == (False, True),
    "mixed (neither)": lambda text: _form(text) == (False, False),
    "half-space (ZWNJ)": _holds("\u200c"),
    "Arabic yeh, alef maksura or kaf (ي ى ك)": _holds("\u064a\u0649\u0643"),
    "vowel marks": _in_range(0x064B, 0x0652),
    "tatweel (ـ)": _holds("\u0640"),
    "presentation forms (ﻻ)": _in_range(0xFE70, 0xFEFC),
    "Persian digits (۴۵۶)": _in_range(0x06F0, 0x06F9),
    "Arabic digits (٤٥٦)": _in_range(0x0660, 0x0669),
    "ASCII digits (0-9)": _holds("0123456789"),
    "Latin letters": _holds("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
    "no-break space": _holds("\u00a0\u202f"),
    "direction marks": _holds("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
}


class Survey(NamedTuple):
    """One file, counted. Lengths are in words, which are what white space parts."""

    name: str
    questions: int
    unanswerable: int
    filled: dict[str, int]  # column -> questions where it is not empty
    titles: Counter[str]  # title -> questions
    answer_counts: Counter[int]  # number of answers -> questions
    words: dict[str, np.ndarray]  # "context" (distinct ones), "question", "answer" (every alternative)
    places: np.ndarray  # where first answers begin, 0 to 1 of their context
    forms: dict[str, dict[str, int]]  # form -> kind of text -> texts that have it
    texts: dict[str, int]  # kind of text -> how many there are
    anomalies: dict[str, list[str]]  # what -> the ids of the questions

    @property
    def passages(self) -> int:
        return self.texts["context"]


class Tokens(NamedTuple):
    """One file in tokens of one tokenizer; an entry per question."""

    pair: np.ndarray  # special tokens, question and whole context together
    question: np.ndarray
    context: np.ndarray
    answer: np.ndarray  # (M, 2) first and last token in the context, of questions with an answer
    answered: np.ndarray  # (M,) which questions those are
    specials: int


class Cut(NamedTuple):
    """What a limit on the length does. stride None: one input for each question, and the rest is not read."""

    max_length: int
    stride: int | None
    inputs: int
    tokens: int  # in all inputs together
    cut: int  # questions whose context is not read whole by one input
    lost: int  # answerable questions of which no input holds the whole first answer


def survey(name: str, examples: Sequence[Example]) -> Survey:
    """Count one file. `name` is only carried along."""
    contexts = list(dict.fromkeys(example.context for example in examples))
    answers = [answer.text for example in examples for answer in example.answers]
    texts = {"context": contexts, "question": [example.question for example in examples], "answer": answers}
    return Survey(
        name=name,
        questions=len(examples),
        unanswerable=sum(not example.is_answerable for example in examples),
        filled={column: sum(bool(getattr(example, column)) for example in examples) for column in COLUMNS},
        titles=Counter(example.title for example in examples),
        answer_counts=Counter(len(example.answers) for example in examples),
        words={kind: np.array([len(text.split()) for text in some], dtype=int) for kind, some in texts.items()},
        places=np.array([e.answers[0].start / len(e.context) for e in examples if e.answers]),
        forms={form: {kind: sum(map(test, some)) for kind, some in texts.items()} for form, test in FORMS.items()},
        texts={kind: len(some) for kind, some in texts.items()},
        anomalies=anomalies(examples),
    )


def anomalies(examples: Sequence[Example]) -> dict[str, list[str]]:
    """What deserves a look, each with the ids of its questions. Not all of it is wrong."""
    pairs = Counter((example.context, example.question) for example in examples)
    contexts_of: dict[str, set[str]] = {}
    titles_of: dict[str, set[str]] = {}
    for example in examples:
        contexts_of.setdefault(example.question, set()).add(example.context)
        titles_of.setdefault(example.context, set()).add(example.title)
    tests: dict[str, Callable[[Example], bool]] = {
        "the same question twice on one passage": lambda e: pairs[e.context, e.question] > 1,
        "the same question on several passages": lambda e: len(contexts_of[e.question]) > 1,
        "one passage under several titles": lambda e: len(titles_of[e.context]) > 1,
        f"a passage of fewer than {SHORT_CONTEXT} words": lambda e: len(e.context.split()) < SHORT_CONTEXT,
        f"an answer of more than {LONG_ANSWER} words": lambda e: any(
            len(a.text.split()) > LONG_ANSWER for a in e.answers
        ),
        "an answer with white space at an edge": lambda e: any(a.text != a.text.strip() for a in e.answers),
        "an answer that begins or ends inside a word": lambda e: any(_cuts_word(e.context, a) for a in e.answers),
        "an answer text that stands several times in its passage": lambda e: any(
            e.context.find(a.text) < e.context.rfind(a.text) for a in e.answers
        ),
        "two answers of the same text": lambda e: len({a.text for a in e.answers}) < len(e.answers),
        "a question without a question mark": lambda e: not e.question.rstrip().endswith(("؟", "?")),
    }
    return {what: [example.id for example in examples if test(example)] for what, test in tests.items()}


def shared(files: Sequence[tuple[str, Sequence[Example]]]) -> list[tuple[str, str, dict[str, int]]]:
    """For every two files how many ids, titles, passages and questions with their passage stand in both."""
    sets = [
        (
            name,
            {
                "ids": {e.id for e in examples},
                "titles": {e.title for e in examples},
                "passages": {e.context for e in examples},
                "questions with their passage": {(e.context, e.question) for e in examples},
            },
        )
        for name, examples in files
    ]
    return [
        (name, other, {what: len(mine[what] & theirs[what]) for what in mine})
        for index, (name, mine) in enumerate(sets)
        for other, theirs in sets[index + 1 :]
    ]


def tokens(examples: Sequence[Example], tokenizer: "Tokenizer") -> Tokens:
    """Lengths in tokens of a `tokenizers.Tokenizer`, of whole texts."""
    from qa.features import featurise, pair_template  # only here: it loads torch, which takes seconds

    specials = pair_template(tokenizer).size
    features = featurise(examples, tokenizer, max_length=np.iinfo(np.int32).max)
    pair = np.array([len(feature.input_ids) for feature in features])
    context = np.array([len(feature.offsets) for feature in features])
    answered = [k for k, example in enumerate(examples) if example.answers]
    spans = [(features[k].start - features[k].context_start, features[k].end - features[k].context_start)
             for k in answered]  # fmt: skip
    return Tokens(
        pair, pair - context - specials, context, np.array(spans).reshape(-1, 2), np.array(answered), specials
    )


def cut(lengths: Tokens, max_length: int, stride: int | None) -> Cut | None:
    """What `max_length` and `stride` do to a file; None where they leave too little room for some context."""
    from qa.features import window_starts  # only here, as above

    rooms = max_length - lengths.specials - lengths.question
    over = lengths.context > rooms
    if (rooms[over] <= (stride or 0)).any():
        return None
    inputs, read = len(over), int(lengths.pair[~over].sum())
    held = np.ones(len(lengths.answered), dtype=bool)
    row_of = {int(k): row for row, k in enumerate(lengths.answered)}
    for k in np.flatnonzero(over):  # the others are read whole, by one input
        size, room = int(lengths.context[k]), int(rooms[k])
        starts = window_starts(size, room, stride)
        inputs += len(starts) - 1
        read += sum(max_length - room + min(room, size - first) for first in starts)
        if k in row_of:
            begin, end = lengths.answer[row_of[k]]
            held[row_of[k]] = any(first <= begin and end < first + room for first in starts)
    return Cut(max_length, stride, inputs=inputs, tokens=read, cut=int(over.sum()), lost=int((~held).sum()))


def spread(values: np.ndarray) -> dict[str, float]:
    """The few numbers that describe many; all 0 for none."""
    values = values if len(values) else np.zeros(1)
    return {
        "shortest": int(values.min()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "95 in 100 have at most": float(np.percentile(values, 95)),
        "longest": int(values.max()),
    }


def tenths(places: Iterable[float]) -> list[int]:
    """How many of the places (0 to 1) lie in the first tenth, the second, and so on."""
    return np.histogram(list(places), bins=TENTHS, range=(0, 1))[0].tolist()


def _form(text: str) -> tuple[bool, bool]:
    return unicodedata.is_normalized("NFC", text), unicodedata.is_normalized("NFD", text)


def _cuts_word(context: str, answer: Answer) -> bool:
    """A letter or a mark on both sides of an edge. A half-space parts two halves of one word, and is not counted."""
    begin, end = answer.start, answer.start + len(answer.text)
    return any(0 < at < len(context) and _in_word(context[at - 1]) and _in_word(context[at]) for at in (begin, end))


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
