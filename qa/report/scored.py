"""A finished run of train_qa.py: what its folder says of every validation question."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from minitransformer.pages import finished
from minitransformer.pages.finished import Finished
from minitransformer.system import files
from minitransformer.system.errors import RunError
from qa import metrics, squad
from qa.features import Feature
from qa.squad import Example


class Scored(NamedTuple):
    """A question with all that the run says about it."""

    example: Example
    answer: str  # "" for no answer
    best: str  # the best span, whether or not it became the answer
    place: int  # where it begins in the context
    null_odds: float
    exact: float  # 0 or 1
    f1: float  # 0 to 1


def write_data(
    folder: Path,
    train: Sequence[Example],
    train_features: Sequence[Feature],
    valid: Sequence[Example],
    valid_features: Sequence[Feature],
) -> None:
    """valid.json, the questions that are answered, and data.json: counts of both sets, lengths in tokens."""
    squad.write(folder / "valid.json", valid)
    facts = {"train": _facts(train, train_features), "valid": _facts(valid, valid_features)}
    files.write_json(folder / "data.json", facts)


def _facts(examples: Sequence[Example], features: Sequence[Feature]) -> dict[str, int | float]:
    sizes = [len(feature.input_ids) for feature in features]
    return {
        "questions": len(examples),
        "unanswerable": sum(not example.is_answerable for example in examples),
        "passages": len({example.context for example in examples}),
        "inputs": len(features),  # as many as questions, or more with windows
        "tokens_mean": mean(sizes),
        "tokens_longest": max(sizes),
    }


def read_run(folder: str | Path) -> Finished:
    """A finished run of train_qa.py. Raises RunError where the folder holds none."""
    return finished.read(folder, "train_qa.py", "null_threshold")


def read_questions(run: Finished) -> list[Scored]:
    """The validation questions of a run in their order, with answers and scores."""
    asked = squad.read(run.folder / "valid.json")
    parts = [
        finished.read_json(run.folder / f"{name}.json") for name in ("predictions", "nbest", "null_odds", "places")
    ]
    answers, n_best, odds, places = parts
    if missing := [example.id for example in asked if not all(example.id in part for part in parts)]:
        raise RunError(f"{run.folder}: predictions lack question {missing[0]!r} of valid.json; run it again")
    exact, f1 = metrics.raw_scores(
        metrics.gold_answers(asked), {example.id: answers[example.id] for example in asked}, metrics.official_tokens
    )
    questions = []
    for example in asked:
        best = next((candidate["text"] for candidate in n_best[example.id] if candidate["text"]), "")
        said = answers[example.id], best, places[example.id], odds[example.id]
        questions.append(Scored(example, *said, exact[example.id], f1[example.id]))
    return questions
