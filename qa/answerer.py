"""The answerer: questions and passages of any length go in, spans of the passages come out.

from qa import Answerer
answerer = Answerer()                                                   # the one that ships
answer = answerer("پایتخت ایران کجاست؟", "تهران پایتخت ایران است.")
answer.text, answer.start, answer.probability, answer.others
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from minitransformer.pages.page import direction, tag
from minitransformer.system.errors import DataError, WeightsError, is_unicode
from minitransformer.training.device import choose_device
from minitransformer.training.precision import Precision
from qa.features import LONGEST_QUESTION, Feature, featurise
from qa.inference import predict_spans
from qa.spans import Candidate, Prediction, Spans, predictions
from qa.squad import Example
from weights import load_pretrained, load_tokenizer
from weights.find import find_folder
from weights.folder import read_json

SHIPPED = "answerer-fa"  # in weights/
STRIDE = 128  # tokens that neighbouring windows of a long passage share, as in BERT's own SQuAD code
MAX_ANSWER_TOKENS = 64
BATCH_TOKENS = 2048
N_BEST = 20  # spans kept of each window: should the best be white space alone, the next one answers
PRECISIONS = ("auto", "float32", "mixed")
AGREES = 0.99  # part of the questions that have the same answer in 16 bits, from which on 16 bits are taken


class Answer(NamedTuple):
    text: str  # cut from the passage; "" where it has no answer
    start: int  # where it begins in the passage, in code points; -1 where there is none
    probability: float  # among the candidates
    score: float  # start logit plus end logit
    none: Candidate  # "no answer", which competes with the spans
    others: list[Candidate]  # the next best, falling; each text once
    passage: str

    def __repr__(self) -> str:
        return f"Answer({self.text!r}, start={self.start}, probability={self.probability:.2f})"

    def _repr_html_(self) -> str:
        """How a notebook shows it: marked in its passage, from right to left where the passage is Persian."""
        end = self.start + len(self.text)
        marked = [self.passage[: self.start], tag("mark", self.text), self.passage[end:]]
        note = f"probability {self.probability:.2f}" + ("" if self.text else ": the passage does not say")
        return tag("p", *(marked if self.text else [self.passage]), dir=direction(self.passage)) + tag("small", note)


class Settings(NamedTuple):
    """What a trained folder says of how it is to be asked: "answering" in its config.json."""

    null_threshold: float = 0.0
    agreement: float = 0.0  # part of the questions that 16 bits were found to answer as float32 does
    trained_on: str = ""  # "demo": an invented world


class Answerer:
    """A trained model, its tokenizer, and how they are asked."""

    def __init__(
        self,
        model: str | Path | None = None,
        precision: str = "auto",
        device: str = "cpu",
        null_threshold: float | None = None,
        stride: int | None = None,
        max_answer_tokens: int = MAX_ANSWER_TOKENS,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        """model: a folder, a file in it, a name, or owner/name; None: the one that ships.

        precision: "float32"; "mixed", with matrix products in 16 bits where the device is made for it; "auto", mixed
        where the folder says that its answers stay the same. null_threshold: no answer where its score exceeds the best
        span's by more; None: what the folder says. stride: tokens that windows of a long passage share; None: 128, or
        fewer where a long question needs the room. batch_tokens: padded tokens computed at once.
        Raises WeightsError, RunError, or ValueError on another precision.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
        self.folder = folder = find_folder(SHIPPED if model is None else model)
        self.settings = read_settings(folder)
        if precision == "auto":
            precision = "mixed" if self.settings.agreement >= AGREES else "float32"
        self.precision = Precision(precision, choose_device(device))
        self.tokenizer = load_tokenizer(folder)
        self.model = load_pretrained(folder, "question-answering", fresh_head=False).to(self.precision.device)
        self.null_threshold = self.settings.null_threshold if null_threshold is None else null_threshold
        self.stride, self.max_answer_tokens, self.batch_tokens = stride, max_answer_tokens, batch_tokens

    def __repr__(self) -> str:
        size, precision = sum(p.numel() for p in self.model.parameters()), self.precision
        how = f"{precision.dtype} on {precision.device}, null_threshold={self.null_threshold:.2f}"
        return f"Answerer({self.folder.name}: {type(self.model).__name__}, {size:,} parameters, {how})"

    @overload
    def __call__(self, question: str, passage: str) -> Answer: ...

    @overload
    def __call__(self, question: Sequence[str], passage: str | Sequence[str]) -> list[Answer]: ...

    def __call__(self, question: str | Sequence[str], passage: str | Sequence[str]) -> Answer | list[Answer]:
        """The answer to a question, or to each of several, about one passage or each about its own.

        Raises DataError, a ValueError, on a text that is empty or cannot be read, and on lists of different lengths.
        """
        questions = [question] if isinstance(question, str) else list(question)
        passages = [passage] * len(questions) if isinstance(passage, str) else list(passage)
        if isinstance(question, str) and not isinstance(passage, str):
            raise DataError("one question and a list of passages: give a list of questions, one for each passage")
        if len(questions) != len(passages):
            raise DataError(f"{len(questions)} questions and {len(passages)} passages: give as many of each")
        examples = [to_example(str(n), *pair) for n, pair in enumerate(zip(questions, passages, strict=True), 1)]
        answers = list(map(to_answer, self.predict(examples).values(), passages))
        return answers[0] if isinstance(question, str) else answers

    def predict(self, examples: Sequence[Example]) -> dict[str, Prediction]:
        """The n best answers of every example, by id. Raises DataError where a question leaves no room to read."""
        if not examples:
            return {}
        features = self.windows(examples)
        return predictions(examples, features, self.predict_spans(features), self.null_threshold)

    def windows(self, examples: Sequence[Example]) -> list[Feature]:
        """What the model reads of them: each question with each window of its passage."""
        stride = STRIDE if self.stride is None else self.stride
        return featurise(examples, self.tokenizer, self.model.config.positions, stride, fit=self.stride is None)

    def predict_spans(self, features: Sequence[Feature]) -> Spans:
        """The n best spans of every window, in batches of like length."""
        with self.precision.autocast():
            return predict_spans(self.model, features, self.batch_tokens, self.max_answer_tokens, N_BEST).spans


def to_example(id: str, question: str, passage: str) -> Example:
    """A question without a known answer. Raises DataError on texts that nobody can answer."""
    for text, name in ((question, "question"), (passage, "passage")):
        check(text, name)
    if len(question.lstrip()) > LONGEST_QUESTION:
        raise DataError(f"the question is {len(question.lstrip()):,} characters long: shorten it")
    return Example(id, "", question, passage, answers=())


def check(text: str, name: str) -> None:
    if not isinstance(text, str):
        raise DataError(f"the {name} is {type(text).__name__}, not a text")
    if not text.strip():
        raise DataError(f"the {name} is empty: write one")
    if not is_unicode(text):
        raise DataError(f"the {name} is not UTF-8: convert it")


def to_answer(prediction: Prediction, passage: str) -> Answer:
    """The prediction with each text once: it may stand in several places, of which the best counts."""
    best: dict[str, Candidate] = {}
    for candidate in prediction.n_best:
        best.setdefault(candidate.text, candidate)
    chosen, none = best[prediction.text], best[""]
    others = [candidate for text, candidate in best.items() if text not in ("", chosen.text)]
    start = prediction.start if chosen.text else -1
    return Answer(chosen.text, start, chosen.probability, chosen.score, none, others, passage)


def read_settings(folder: Path) -> Settings:
    """What config.json says under "answering", or the defaults. Raises WeightsError on what is of another kind."""
    path = folder / "config.json"
    told = read_json(path).get("answering", {})
    settings = Settings(**{k: told[k] for k in Settings._fields if k in told}) if isinstance(told, dict) else None
    if not settings or not all(_is_like(*pair) for pair in zip(settings, Settings(), strict=True)):
        raise WeightsError(f"{path}: 'answering' is {told!r}, which no training has written; fetch the file again")
    return settings


def _is_like(value: Any, default: float | str) -> bool:
    if isinstance(default, str):
        return isinstance(value, str)
    return type(value) in (int, float) and math.isfinite(value)
