"""Answers that are not where the file says: where they must be meant to be, and which nobody can place."""

import json
import unicodedata

import pytest

import train_qa
from minitransformer.system.errors import DataError
from qa import convert, mend, squad
from qa.explore.__main__ import main as explore
from qa.mend import Found, Mended
from tiny import call

CONTEXT = "رستم در زابل زاد. رستم پهلوان بود."


@pytest.mark.parametrize(
    ("context", "text", "start", "found"),
    [
        (CONTEXT, "زابل", 0, Found("زابل", 8, "at its only place")),
        (CONTEXT, "زابل", 10**9, Found("زابل", 8, "at its only place")),
        (CONTEXT, "رستم", 19, Found("رستم", 18, "at most 20 characters away")),
        (CONTEXT, "رستم", 1, Found("رستم", 0, "at most 20 characters away")),
        (CONTEXT + 40 * " " + "پایان", "رستم", 70, None),
        (CONTEXT, "سهراب", 3, None),
        ("😀😀 ماه ماه ماه", "ماه", 9, Found("ماه", 7, "counted in UTF-16 units")),
        ("آب و آتش", unicodedata.normalize("NFD", "آتش"), 5, Found("آتش", 5, "in NFC")),
        (unicodedata.normalize("NFD", "آب و آتش"), "آتش", 5, Found(unicodedata.normalize("NFD", "آتش"), 6, "in NFD")),
    ],
)
def test_find_tells_where_an_answer_must_be_meant(context, text, start, found):
    assert mend.find(context, text, start) == found
    if found:
        assert context.startswith(found.text, found.start)


def row(id: str, *answers: tuple[str, int]) -> dict:
    texts, starts = [text for text, _ in answers], [start for _, start in answers]
    question = {"id": id, "context": CONTEXT, "question": "کجا؟"}
    return question | {"answers": {"text": texts, "answer_start": starts}}


ROWS = [row("a", ("زابل", 8)), row("b", ("زابل", 3), ("کابل", 3)), row("c", ("سهراب", 0)), row("d")]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(ROWS), encoding="utf-8")
    return tmp_path / "rows.json"


def test_read_mends_what_can_be_and_leaves_out_a_question_whose_answers_are_all_lost(path):
    mended: list[Mended] = []
    examples = squad.read(path, mended=mended)
    assert [(e.id, e.answers) for e in examples] == [("a", (("زابل", 8),)), ("b", (("زابل", 8),)), ("d", ())]
    assert mended == [
        Mended("[1].answers[0] (question 'b')", "زابل", 3, "at its only place", 8),
        Mended("[1].answers[1] (question 'b')", "کابل", 3, "dropped", -1),
        Mended("[2].answers[0] (question 'c')", "سهراب", 0, "dropped", -1),
    ]
    assert mend.summary(mended) == "answers put right: 1 (1 at its only place); dropped: 2"


def test_read_refuses_them_by_default_and_names_the_flag(path):
    with pytest.raises(DataError, match=r"says, 3 of 4: .* \(it is at 8\), .*; .* or say --mend-answers$"):
        squad.read(path)


def test_convert_mends_where_it_is_told_and_else_writes_nothing(path, tmp_path):
    assert "say --mend-answers" in call(convert.main, path, tmp_path / "out.json").refusal()
    assert not (tmp_path / "out.json").exists()
    outcome = call(convert.main, path, tmp_path / "out.json", "--mend-answers")
    assert outcome.out.splitlines()[0] == "answers put right: 1 (1 at its only place); dropped: 2"
    assert [e.id for e in squad.read(tmp_path / "out.json")] == ["a", "b", "d"]


def test_train_qa_mends_where_it_is_told(path, tmp_path):
    flags = "--train", path, "--valid", path, "--epochs", "0", "--out", tmp_path / "run"
    assert "say --mend-answers" in call(train_qa.main, *flags).refusal()
    outcome = call(train_qa.main, *flags, "--mend-answers")
    assert outcome.status == 0, outcome.err
    assert f"{path}: answers put right: 1 (1 at its only place); dropped: 2" in outcome.out + outcome.err


def test_explore_lists_them_on_its_page(path, tmp_path):
    outcome = call(explore, path, "--out", tmp_path / "look")
    assert outcome.status == 0, outcome.err
    page = (tmp_path / "look/index.html").read_text(encoding="utf-8")
    assert "[1].answers[0] (question &#x27;b&#x27;)" in page
    assert "answers put right: 1 (1 at its only place); dropped: 2" in page
