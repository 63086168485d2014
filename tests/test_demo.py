"""The generated data set: what it promises of itself."""

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from minitransformer.system.errors import DataError
from qa import demo, squad
from qa.demo import __main__ as demo_command
from qa.demo import pretraining, world

ROOT = Path(__file__).parents[1]
HALF_SPACE = "\u200c"


@pytest.fixture(scope="module")
def train() -> list[squad.Example]:
    return demo.examples("train")


@pytest.fixture(scope="module")
def valid() -> list[squad.Example]:
    return demo.examples("valid")


def names_in(text: str, part: str) -> list[str]:
    """The names of `part` that occur in `text` as whole words."""
    return NAMED[part].findall(text)


NAMED = {
    part: re.compile(
        rf"(?<![\w{HALF_SPACE}])(?:{'|'.join(name for pool in pools.values() for name in pool)})(?![\w{HALF_SPACE}])"
    )
    for part, pools in world.POOLS.items()
}


def test_there_are_at_least_12_relations_with_40_entities_and_3_phrasings_each() -> None:
    assert len(world.RELATIONS) >= 12
    for name, relation in world.RELATIONS.items():
        assert len(world.POOLS["train"][relation.kind]) >= 40, name
        assert len(set(relation.statements)) >= 3, name
        assert len(set(relation.questions)) >= 3, name
        for statement in relation.statements:
            assert statement.count("{e}") == statement.count("{v}") == 1, statement
        for question in relation.questions:
            assert question.count("{e}") == 1, question
            assert question.endswith("؟"), question


def test_every_relation_is_asked_in_both_parts(train: list[squad.Example], valid: list[squad.Example]) -> None:
    for examples in (train, valid):
        for name, relation in world.RELATIONS.items():
            patterns = [re.escape(question).replace(r"\{e\}", ".+") for question in relation.questions]
            asked = sum(any(re.fullmatch(p, example.question) for p in patterns) for example in examples)
            assert asked >= len(examples) / len(world.RELATIONS) / 4, name


def test_answers_are_spans_of_the_raw_context(train: list[squad.Example], valid: list[squad.Example]) -> None:
    for example in train + valid:
        for answer in example.answers:
            assert example.context[answer.start : answer.start + len(answer.text)] == answer.text
            again = re.findall(rf"(?<![\w{HALF_SPACE}]){answer.text}(?![\w{HALF_SPACE}])", example.context)
            assert len(again) == 1, example  # nothing else could be meant


def test_a_quarter_of_the_questions_has_no_answer(train: list[squad.Example], valid: list[squad.Example]) -> None:
    for examples in (train, valid):
        assert sum(not example.is_answerable for example in examples) == len(examples) / 4


def test_an_unanswerable_question_names_something_like_what_the_paragraph_states(train: list[squad.Example]) -> None:
    near = 0
    unanswerable = [example for example in train if not example.is_answerable]
    for example in unanswerable:
        near += any(name in example.context for name in names_in(example.question, "train"))
    assert near >= len(unanswerable) / 2  # the others ask what is stated about somebody else


def test_the_validation_part_holds_300_questions_on_new_paragraphs(
    train: list[squad.Example], valid: list[squad.Example]
) -> None:
    assert len(valid) == 300
    assert len({example.id for example in train + valid}) == len(train) + len(valid)
    assert not {example.context for example in train} & {example.context for example in valid}


def test_no_name_of_the_validation_part_occurs_in_training(valid: list[squad.Example]) -> None:
    for pool in world.NAMES:
        assert not set(world.POOLS["train"][pool]) & set(world.POOLS["valid"][pool]), pool
    assert all(names_in(example.question, "valid") for example in valid)


def test_no_pair_of_validation_occurs_in_training_or_pretraining(train: list[squad.Example]) -> None:
    for text in [*(f"{e.question} {e.context}" for e in train), *demo.pretraining_text("train", 6000)]:
        assert not names_in(text, "valid"), text


def test_every_part_of_a_validation_name_is_known_from_training() -> None:
    for pool, (joint, _, _) in world.NAMES.items():
        parts = {
            part for part_name in demo.PARTS for name in world.POOLS[part_name][pool] for part in name.split(joint)
        }
        known = {part for name in world.POOLS["train"][pool] for part in name.split(joint)}
        assert parts == known, pool


def test_values_cannot_be_known_by_heart(train: list[squad.Example]) -> None:
    answers = defaultdict(Counter)
    for example in train:
        if example.is_answerable:
            answers[example.question][example.answers[0].text] += 1
    often = [counts for counts in answers.values() if counts.total() >= 5]
    assert often
    assert all(counts.most_common(1)[0][1] < 0.8 * counts.total() for counts in often)


def test_the_text_has_what_persian_text_has(train: list[squad.Example]) -> None:
    text = " ".join(f"{example.question} {example.context}" for example in train)
    for word in ("می‌شود", "کتاب‌خانهٔ", "می‌ریزد"):
        assert word in text
    for mark in "،؟.«»" + "۰۱۲۳۴۵۶۷۸۹":
        assert mark in text
    assert not re.search(r"[0-9يك?,;]|  ", text)
    assert not re.search(rf"[ادذرزژوآأ]{HALF_SPACE}", text)  # these letters do not join: no half-space after them


def test_phrasings_vary(train: list[squad.Example]) -> None:
    assert any("این شهر" in example.context for example in train)  # a pronoun for what came before
    sentences = Counter(s for example in train for s in re.split(r"(?<=\.) ", example.context))
    assert sentences.most_common(1)[0][1] < len(train) / 50


def test_the_seed_decides_everything_and_the_hash_seed_nothing() -> None:
    code = (
        "import hashlib; from qa import demo; "
        "print(hashlib.sha256(repr([demo.examples('train', 50, seed=3), list(demo.pretraining_text(count=50, seed=3))])"
        ".encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1
    assert demo.examples("train", 50, seed=3) != demo.examples("train", 50, seed=4)


def test_more_questions_begin_with_the_same_ones() -> None:
    assert demo.examples("train", 60)[:40] == demo.examples("train", 40)


def test_a_pretraining_document_says_everything_twice() -> None:
    lines = list(demo.pretraining_text("train", 400))
    assert len(lines) == 400
    for line in lines:
        first, second = line.split("\t")
        values = re.findall(r": ([^،.]+)", first)
        assert all(value in second for value in values), line


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(DataError, match="no part 'test'"):
        demo.examples("test", 1)


def test_the_command_writes_the_three_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "QUESTIONS", {"train": 40, "valid": 20})
    monkeypatch.setattr(pretraining, "LINES", {"train": 30, "valid": 10})
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(tmp_path / "data")])
    demo_command.main()
    assert squad.read(tmp_path / "data" / "train.json") == demo.examples("train")
    assert squad.read(tmp_path / "data" / "valid.json") == demo.examples("valid")
    assert (tmp_path / "data" / "pretrain.txt").read_text(encoding="utf-8").count("\n") == 30
