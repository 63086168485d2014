"""The shapes that questions are kept in, each brought to one: a question with its context, and where it stands.

Found by content, not by name:

    SQuAD's own              {"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}, or a list of articles
    paragraphs               the same without articles
    a row per question       {"id", "context", "question", "answers"}, a list of them, or as {"data": [...]}: what the
                             library `datasets` writes, with "answers": {"text": [...], "answer_start": [...]}
    JSON Lines               any of these objects, one to a line
    CSV and TSV              a header with context and question; the rows of one id are several answers
    Parquet                  rows, where pyarrow is installed

A question is a dict: what its shape had, "context", "title" where there is one, and "answers" as a list of
{"text", "answer_start"}, or without it. What the values are worth is for squad.py to check.
"""

import ast
import csv
import io
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec

from qa.place import Place, kind_of, short, take, take_objects, take_string, take_text

Question = tuple[dict, Place]

PARQUET_MAGIC = b"PAR1"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")  # what Excel's "Unicode text" begins with
DELIMITERS = (",", "\t", ";")  # Excel writes the last where a comma is the decimal point
NEEDED = {"context", "question"}  # of a table's header
csv.field_size_limit(2**31 - 1)  # a passage may be longer than csv's 131,072 characters


def questions(data: bytes, place: Place) -> Iterator[Question]:
    """The questions of a file's bytes. Raises DataError where they have none of the shapes."""
    if data.startswith(PARQUET_MAGIC):
        return _merged(_parquet_rows(data, place))
    text = decode(data, place)
    if text[:64].lstrip()[:1] not in ("{", "[") and (rows := _delimited_rows(text, place)):
        return _merged(rows)
    return _from_json(parse_json(text, place), place)


def decode(data: bytes, place: Place) -> str:
    """UTF-8, with a byte order mark before it or not, or UTF-16 with one."""
    try:
        text = data.decode("utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from error
    if not text.strip():
        raise place.error("the file is empty", "fetch or write it again")
    return text


class Lines(list):
    """The values of JSON Lines, each with the number of its line."""


def parse_json(text: str, place: Place) -> object:
    """The value of a JSON text; of several objects, one to a line, Lines."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if lines := _json_lines(text):
            return lines
        at = f"line {error.lineno}, column {error.colno}"
        raise place.error(f"not JSON: {error.msg} at {at}", "mend it there, or fetch the file again") from error
    except ValueError as error:  # Python refuses to read integers of thousands of digits
        raise place.error("holds a number too long to read", "write it shorter") from error
    except RecursionError as error:
        raise place.error("the JSON is nested too deep", "give a file like SQuAD's") from error


def _json_lines(text: str) -> Lines:
    """(number, value) of every line that is not blank; nothing where one of them is no object."""
    lines = Lines()
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                lines.append((number, json.loads(line)))
            except ValueError:
                return Lines()
    return lines


# ------------------------------------------------------------------------------------------------- objects


def _from_json(document: object, place: Place) -> Iterator[Question]:
    if isinstance(document, Lines):
        items = ((item, place.into(f"line {number}")) for number, item in document)
    elif isinstance(document, list):
        items = ((item, place.into(f"[{index}]")) for index, item in enumerate(document))
    elif isinstance(document, dict) and (document.keys() >= NEEDED or "qas" in document or "paragraphs" in document):
        items = iter([(document, place)])  # one line of JSON Lines
    elif isinstance(document, dict):
        rows = take(document, "data", list, place)
        items = ((item, place.into(f"data[{index}]")) for index, item in enumerate(rows))
    else:
        raise place.error(f"expected an object with 'data', found {kind_of(document)}", "give a file like SQuAD's")
    for item, here in items:
        if not isinstance(item, dict):
            raise here.error(f"expected an object, found {kind_of(item)}", "give a file like SQuAD's")
        if "qas" in item:
            yield from _paragraph(item, item.get("title") or "", here)
        elif not item.keys().isdisjoint(NEEDED):
            yield _row(item, here), here
        else:
            yield from _article(item, here)


def _article(article: dict, place: Place) -> Iterator[Question]:
    title = take_string(article, "title", place) if "title" in article else ""
    place = place.named("article", title) if title else place
    for paragraph, here in take_objects(article, "paragraphs", place):
        yield from _paragraph(paragraph, title, here)


def _paragraph(paragraph: dict, title: str, place: Place) -> Iterator[Question]:
    context = take_text(paragraph, "context", place)
    for question, here in take_objects(paragraph, "qas", place):
        yield {**question, "context": context, "title": title}, here


def _row(row: dict, place: Place) -> dict:
    """A question that stands alone, with its answers as a list of objects."""
    answers = row.get("answers")
    if isinstance(answers, str) and answers.strip():
        answers = _written_out(answers, place)
    if isinstance(answers, dict):
        answers = _side_by_side(answers, place.into("answers"))
    if answers is None and isinstance(row.get("answer"), str):
        answers = [{"text": row["answer"], "answer_start": row.get("answer_start", -1)}]
    return row if answers is None else {**row, "answers": answers}


def _side_by_side(answers: dict, place: Place) -> list[dict]:
    """{"text": [...], "answer_start": [...]} as a list of objects."""
    texts, starts = (
        value if isinstance(value, list) else [value]
        for value in (answers.get("text", []), answers.get("answer_start", []))
    )
    if len(texts) != len(starts):
        raise place.error(f"{len(texts)} texts and {len(starts)} 'answer_start's", "give as many of each")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _written_out(answers: str, place: Place) -> object:
    """A cell of a table that holds answers as JSON, or as Python shows them, which is what `datasets` writes to CSV."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(answers)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise place.error(f"'answers' is {short(answers)}", "write it as JSON, or as columns answer and answer_start")


# -------------------------------------------------------------------------------------------------- tables


def _delimited_rows(text: str, place: Place) -> list[tuple[dict, Place]]:
    """The rows of CSV or TSV, each with the line where it begins; none where the first line is no header."""
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]  # old Macs end a line with \r alone
    delimiter = next((mark for mark in DELIMITERS if set(_names(header, mark)) >= NEEDED), "")
    if not delimiter:
        return []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names, rows = _names(header, delimiter), []
    next(reader)
    here = place.into(f"line {reader.line_num + 1}")
    for cells in reader:
        if cells and len(cells) != len(names):
            problem = f"{len(cells)} cells, where the header has {len(names)}"
            raise here.error(problem, f"put a text with {delimiter!r} in it in quotes")
        if any(cells):
            rows.append(({name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)}, here))
        here = place.into(f"line {reader.line_num + 1}")
    return rows


def _names(header: str, delimiter: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]


def _cell(name: str, cell: str) -> object:
    """What a cell holds: a number where the column has them; of what is empty, what means that there is nothing."""
    if name == "answer_start":
        try:
            return float(cell or -1)
        except ValueError:
            return cell
    return cell or (None if name == "is_impossible" else "")


def _parquet_rows(data: bytes, place: Place) -> list[tuple[dict, Place]]:
    if not find_spec("pyarrow"):
        raise place.error("a Parquet file, which pyarrow reads", "pip install pyarrow, or save it as JSON Lines")
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise place.error(f"not a whole Parquet file ({' '.join(str(error).split())})", "fetch it again") from error
    return [(row, place.into(f"row {number}")) for number, row in enumerate(rows, start=1)]


def _merged(rows: list[tuple[dict, Place]]) -> Iterator[Question]:
    """Rows to questions, in the order of the first of each id; its further rows are further answers."""
    found: dict[object, Question] = {}
    for row, here in rows:
        question, key = _row(row, here), row.get("id")
        if key not in found:
            found[key] = question, here
            continue
        first, there = found[key]
        for name in sorted(NEEDED):
            if first.get(name) != question.get(name):
                raise here.error(f"the id {key!r} has another {name} at {there.path}", "give every question its own id")
        first["answers"] = [*first.get("answers", []), *question.get("answers", [])]
    yield from found.values()
