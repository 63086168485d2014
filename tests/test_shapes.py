"""Every shape that questions are kept in gives the same questions; what is wrong is refused with its place."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from minitransformer.system.errors import DataError
from qa import convert, squad
from qa.squad import Answer, Example
from tiny import call

TEHRAN = "تهران، پایتخت ایران است."
PARIS = 'پاریس "شهر" فرانسه است.\nسن از آن می‌گذرد.'  # a comma, quotes and a line break: what CSV has to quote
EXAMPLES = [
    Example("1", "", "پایتخت ایران؟", TEHRAN, (Answer("تهران", 0), Answer("ایران", 14))),
    Example("2", "", "پایتخت عراق؟", TEHRAN, ()),
    Example("3", "", "کدام رود؟", PARIS, (Answer("سن", 24),)),
]


def flat(example: Example) -> dict:
    """As the library `datasets` has it."""
    answers = {"text": [a.text for a in example.answers], "answer_start": [a.start for a in example.answers]}
    return {"id": example.id, "context": example.context, "question": example.question, "answers": answers}


def paragraphs() -> list[dict]:
    def qas(context: str) -> list[dict]:
        return [
            {"id": e.id, "question": e.question, "answers": [{"text": t, "answer_start": s} for t, s in e.answers]}
            for e in EXAMPLES
            if e.context == context
        ]

    return [{"context": context, "qas": qas(context)} for context in (TEHRAN, PARIS)]


def cells(separator: str) -> str:
    """A row for each answer; a question without one has a row with an empty text at -1."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerow(["id", "context", "question", "answer", "answer_start"])
    for example in EXAMPLES:
        for answer in example.answers or [("", -1)]:
            writer.writerow([example.id, example.context, example.question, *answer])
    return text.getvalue()


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def with_answers_as_python(show: Callable) -> str:
    """What `datasets` makes of the column of answers in to_csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "context", "question", "answers"])
    writer.writeheader()
    writer.writerows({**flat(example), "answers": show(flat(example)["answers"])} for example in EXAMPLES)
    return text.getvalue()


FLAT = [flat(example) for example in EXAMPLES]
WHOLE_NUMBERS = [{**row, "id": int(row["id"])} for row in FLAT]
NOTHING = {"text": [""], "answer_start": [-1]}
NO_ANSWER_AT_MINUS_1 = [row if row["answers"]["text"] else {**row, "answers": NOTHING} for row in FLAT]
FLOATS = json.loads(re.sub(r"\b(\d+)\b(?=[,}\]])", r"\1.0", json.dumps(WHOLE_NUMBERS)))
AS_A_LIST = [
    {**row, "answers": [{"text": text, "answer_start": start} for text, start in example.answers]}
    for row, example in zip(FLAT, EXAMPLES, strict=True)
]
IMPOSSIBLE = [
    [{**row, "is_impossible": spelt[not row["answers"]["text"]]} for row in FLAT]
    for spelt in ((False, True), (0, 1), (0.0, 1.0), ("false", "true"), ("False", "True"), ("0", "1"), (None, None))
]
SHAPES = {
    "squad": json.dumps({"version": "v2.0", "data": [{"paragraphs": paragraphs()}]}),
    "articles in a list": json.dumps([{"title": "", "paragraphs": [p]} for p in paragraphs()]),
    "paragraphs in a list": json.dumps(paragraphs()),
    "paragraphs under data": json.dumps({"data": paragraphs()}),
    "paragraphs, one to a line": lines(paragraphs()),
    "articles, one to a line": lines([{"title": "", "paragraphs": paragraphs()}, ]),
    "rows in a list": json.dumps(FLAT),
    "rows under data": json.dumps({"data": FLAT}, indent=1),
    "JSON Lines": lines(FLAT),
    "JSON Lines with blank lines": lines(FLAT).replace("\n", "\r\n\r\n"),
    "answers as a list": json.dumps(AS_A_LIST),
    "ids that are whole numbers": json.dumps(WHOLE_NUMBERS),
    "whole floats": json.dumps(FLOATS),
    "no answer as -1": json.dumps(NO_ANSWER_AT_MINUS_1),
    **{f"is_impossible, kind {n}": json.dumps(rows) for n, rows in enumerate(IMPOSSIBLE)},
    "CSV": cells(","),
    "TSV": cells("\t"),
    "CSV of Excel": cells(";"),
    "CSV with unix lines": cells(",").replace("\r\n", "\n"),
    "CSV with answers as JSON": with_answers_as_python(json.dumps),
    "CSV with answers as Python": with_answers_as_python(repr),
}  # fmt: skip


HEADER = "id,context,question,answer,answer_start\n"


def save(folder: Path, data: str | bytes, name: str = "questions") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        squad.read(path)
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert message.startswith(f"{path}: ")
    assert "; " in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_questions(tmp_path, shape):
    assert squad.read(save(tmp_path, SHAPES[shape])) == EXAMPLES


@pytest.mark.parametrize(
    "encode", [gzip.compress, lambda data: b"\xef\xbb\xbf" + data, lambda data: data.decode().encode("utf-16")]
)
@pytest.mark.parametrize("shape", ["JSON Lines", "CSV", "rows in a list"])
def test_every_shape_may_be_gzipped_or_begin_with_a_mark(tmp_path, shape, encode):
    assert squad.read(save(tmp_path, encode(SHAPES[shape].encode()))) == EXAMPLES


def test_parquet_gives_the_same_questions(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(FLAT), tmp_path / "questions.parquet")
    assert squad.read(tmp_path / "questions.parquet") == EXAMPLES
    damaged = (tmp_path / "questions.parquet").read_bytes()[:-40]
    assert refusal(save(tmp_path, damaged)).startswith("not a whole Parquet file (")


def test_parquet_names_what_reads_it_where_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("qa.shapes.find_spec", lambda name: None)
    assert refusal(save(tmp_path, b"PAR1")) == (
        "a Parquet file, which pyarrow reads; pip install pyarrow, or save it as JSON Lines"
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_convert_writes_squad_of_every_shape(tmp_path, shape):
    outcome = call(convert.main, save(tmp_path, SHAPES[shape]), tmp_path / "out.json")
    assert outcome.status == 0, outcome.err
    assert outcome.out == f"3 questions, 1 without an answer: {tmp_path / 'out.json'}\n"
    assert squad.read(tmp_path / "out.json") == EXAMPLES
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["version"] == "v2.0"


def test_convert_does_not_write_over_its_source(tmp_path):
    path = save(tmp_path, SHAPES["CSV"])
    assert call(convert.main, path, path).refusal()
    assert path.read_bytes().decode() == SHAPES["CSV"]


@pytest.mark.parametrize("answers", ["absent", None])
def test_answers_may_be_missing_where_answers_alone_are_wanted(tmp_path, answers):
    rows = [{key: value for key, value in row.items() if key != "answers"} for row in FLAT]
    rows = rows if answers == "absent" else [{**row, "answers": answers} for row in rows]
    path = save(tmp_path, lines(rows))
    assert [e.answers for e in squad.read(path, labelled=False)] == [(), (), ()]
    assert "line 1 (question '1'): " in refusal(path)


def test_a_wrong_place_does_not_matter_where_answers_alone_are_wanted(tmp_path):
    path = save(tmp_path, lines([{**FLAT[0], "answers": {"text": ["تهران"], "answer_start": [5]}}]))
    assert squad.read(path, labelled=False)[0].answers == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lines([FLAT[0], {**FLAT[1], "question": " "}]), "line 2 (question '2'): 'question' is empty"),
        (lines([FLAT[0], {**FLAT[1], "id": None}]), "line 2: 'id' must be a string, found null"),
        (lines([FLAT[0], {**FLAT[1], "id": 1.5}]), "line 2: 'id' must be an integer, found a number with a fraction"),
        (lines([FLAT[0], FLAT[0]]), "line 2 (question '1'): the id stands already at line 1"),
        (json.dumps([FLAT[0], 3]), "[1]: expected an object, found an integer"),
        (json.dumps([]), "holds no questions; give a file with at least one"),
        (lines([FLAT[1], {**FLAT[0], "answers": {"text": ["ت"], "answer_start": []}}]), "line 2.answers: 1 texts and "),
        (lines([{**FLAT[0], "answers": {"text": [3], "answer_start": [0]}}]), "'text' must be a string, found an int"),
        (f"{HEADER}1,a,b\n", "line 2: 3 cells, where the header has 5; put a text with"),
        (f"{HEADER}1,a\rb,c,a,0\n", "line 2: 2 cells, where the header has 5; put a text with"),
        ("id,con\rtext,question\n1,a,b\n", "not JSON: "),
        (f'{HEADER}1,"a\nb",q,a,0\n1,x,q,b,2\n', "line 4: the id '1' has another context at line 2"),
        (f"{HEADER}1,abc,q,b,one\n", "line 2.answers[0] (question '1'): 'answer_start' must be an"),
        ("id,context,question,answers\n1,abc,q,array('b')\n", "line 2: 'answers' is \"array('b')\"; write it as JSON"),
        ("context,question,answer,answer_start\nabc,q,b,1\n", "line 2: the key 'id' is missing; add it"),
        ("id,context,question\n1,abc,q\n", "line 2 (question '1'): the key 'answers' is missing; add it"),
        ("id,text\n1,2\n", "not JSON: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(tmp_path, data, said):
    assert said in refusal(save(tmp_path, data))


def test_lines_may_end_as_on_old_macs(tmp_path):
    (example,) = squad.read(save(tmp_path, HEADER.strip() + "\r1,abc,q,b,1\r"))
    assert example == Example("1", "", "q", "abc", (Answer("b", 1),))
