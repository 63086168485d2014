"""Files of SQuAD's shape, version 1.1 and 2.0: read and checked, or written.

Rajpurkar et al. 2016 and 2018. No text is normalised on the way: an answer is a slice of the raw context, counted in
Unicode code points, and everything after this file relies on that.
"""

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from minitransformer.system import files
from minitransformer.system.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
SMALL, DENSEST = 64 * 2**20, 100  # bytes that any gzip file may unpack to, and times its size that a larger one may
CHUNK = 2**20
JSON_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number with a fraction",
    bool: "true or false",
    type(None): "null",
}


class Answer(NamedTuple):
    text: str
    start: int  # context[start : start + len(text)] == text


@dataclass(frozen=True, slots=True)
class Example:
    """One question. The questions of a paragraph hold the same `context` object, so it can key a cache cheaply."""

    id: str
    title: str
    question: str
    context: str
    answers: tuple[Answer, ...]  # alternatives by several annotators; none: the context does not hold the answer

    @property
    def is_answerable(self) -> bool:
        return bool(self.answers)


def read(path: str | Path) -> list[Example]:
    """The questions of a .json or .json.gz file, in its order. Raises DataError on the first thing wrong with it.

    Version 1.1 has no `is_impossible`; there, as in version 2.0, a question without answers is unanswerable.
    `plausible_answers` and keys unknown to SQuAD are ignored, and an article may lack its title.
    """
    place = _Place(str(path))
    document = read_json(path)
    if not isinstance(document, dict):
        raise place.error(f"expected an object with 'data', found {_kind(document)}", "give a file like SQuAD's")
    examples = list(_examples(document, place))
    if not examples:
        raise place.error("holds no questions", "give a file with at least one")
    return examples


def write(path: str | Path, examples: Iterable[Example]) -> None:
    """Write SQuAD 2.0, gzipped where the name ends in .gz; the same examples always give the same bytes.

    Only neighbours share an article or a paragraph, so `read` returns the examples in the order they had here.
    """
    articles = [_article(title, group) for title, group in groupby(examples, attrgetter("title"))]
    data = json.dumps({"version": "v2.0", "data": articles}, ensure_ascii=False).encode("utf-8")
    if Path(path).suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # a time stamp would make every file differ
    files.write_bytes(path, data)


def read_json(path: str | Path) -> object:
    """The value in a JSON file, gzipped or not (its first bytes tell). Raises DataError where there is none."""
    place = _Place(str(path))
    try:
        data = Path(path).read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = _unzip(data, place)
        text = data.decode("utf-8-sig")  # Windows editors put a byte order mark before the text
        if not text.strip():
            raise place.error("the file is empty", "fetch or write it again")
        return json.loads(text)
    except DataError:  # which is a ValueError too
        raise
    except FileNotFoundError as error:
        raise place.error("there is no such file", "check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise place.error("the gzip data are cut off or damaged", "fetch the file again") from error
    except OSError as error:
        raise place.error(f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise place.error(f"not JSON: {error.msg} at {at}", "mend it there, or fetch the file again") from error
    except ValueError as error:  # Python refuses to read integers of thousands of digits
        raise place.error("holds a number too long to read", "write it shorter") from error
    except RecursionError as error:
        raise place.error("the JSON is nested too deep", "give a file like SQuAD's") from error


def _unzip(data: bytes, place: "_Place") -> bytes:
    """Gzipped bytes unpacked, unless they are a bomb: a megabyte of gzip can hold a gigabyte of zeros."""
    chunks, room = [], max(SMALL, DENSEST * len(data))
    with gzip.open(io.BytesIO(data)) as file:
        while chunk := file.read(CHUNK):
            room -= len(chunk)
            if room < 0:
                raise place.error(f"unpacks to over {DENSEST} times its size", "unpack it yourself if it is right so")
            chunks.append(chunk)
    return b"".join(chunks)


class _Place(NamedTuple):
    """Where in the file the reader stands, for its error messages."""

    file: str
    steps: tuple[str, ...] = ()  # "data[3]", "paragraphs[1]", "qas[0]"
    names: tuple[str, ...] = ()  # "article 'Tehran'", "question 'q17'"

    def into(self, step: str) -> "_Place":
        return self._replace(steps=(*self.steps, step))

    def named(self, kind: str, name: str) -> "_Place":
        return self._replace(names=(*self.names, f"{kind} {_short(name)}"))

    @property
    def path(self) -> str:
        return ".".join(self.steps)

    def error(self, problem: str, remedy: str) -> DataError:
        names = f"({', '.join(self.names)})" if self.names else ""
        where = " ".join(part for part in (self.path, names) if part)
        return DataError(": ".join(part for part in (self.file, where, f"{problem}; {remedy}") if part))


def _examples(document: dict, place: _Place) -> Iterator[Example]:
    seen: dict[str, str] = {}  # id -> where it stood first
    for article, here in _objects(document, "data", place):
        title = _string(article, "title", here) if "title" in article else ""
        here = here.named("article", title) if title else here
        for paragraph, in_paragraph in _objects(article, "paragraphs", here):
            # Equal contexts become one object, also where a file repeats the context for each of its questions.
            context = sys.intern(_text(paragraph, "context", in_paragraph))
            for qa, in_question in _objects(paragraph, "qas", in_paragraph):
                key = _text(qa, "id", in_question)
                in_question = in_question.named("question", key)
                if key in seen:
                    raise in_question.error(f"the id stands already at {seen[key]}", "give every question its own")
                seen[key] = in_question.path
                question = _text(qa, "question", in_question)
                yield Example(key, title, question, context, _answers(qa, context, in_question))


def _answers(qa: dict, context: str, place: _Place) -> tuple[Answer, ...]:
    answers = tuple(_answer(answer, context, here) for answer, here in _objects(qa, "answers", place))
    if "is_impossible" in qa and _field(qa, "is_impossible", bool, place) == bool(answers):
        problem = "is true, but there are answers" if answers else "is false, but there are no answers"
        raise place.error(f"'is_impossible' {problem}", "correct one of the two")
    return answers


def _answer(answer: dict, context: str, place: _Place) -> Answer:
    text = _text(answer, "text", place)
    start = _field(answer, "answer_start", int, place)
    if start < 0:
        raise place.error(f"'answer_start' is {start}", "count code points from 0")
    if not context.startswith(text, start):
        found = context.find(text)
        hint = f"first found at {found}" if found >= 0 else "found nowhere in it, perhaps for its Unicode form"
        there = _short(context[start : start + len(text)])
        problem = f"at 'answer_start' {start} the context has {there}, not the answer {_short(text)} ({hint})"
        raise place.error(problem, "count code points of the context as it is")
    return Answer(text, start)


def _objects(holder: dict, key: str, place: _Place) -> Iterator[tuple[dict, _Place]]:
    """The objects in the list `holder[key]`, each with its place."""
    for index, item in enumerate(_field(holder, key, list, place)):
        here = place.into(f"{key}[{index}]")
        if not isinstance(item, dict):
            raise here.error(f"expected an object, found {_kind(item)}", "give a file like SQuAD's")
        yield item, here


def _text(holder: dict, key: str, place: _Place) -> str:
    text = _string(holder, key, place)
    if not text.strip():
        raise place.error(f"{key!r} is empty", "fill it in, or remove what it belongs to")
    return text


def _string(holder: dict, key: str, place: _Place) -> str:
    text = _field(holder, key, str, place)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a UTF-16 pair; no tokeniser or file can take it
        problem = f"{key!r} has the lone surrogate {_short(text[error.start])} at {error.start}"
        raise place.error(problem, "write the whole character") from error
    return text


def _field(holder: dict, key: str, kind: type, place: _Place):
    if key not in holder:
        raise place.error(f"the key {key!r} is missing", "add it")
    value = holder[key]
    if type(value) is not kind:  # isinstance would let true pass for the number 1
        raise place.error(f"{key!r} must be {JSON_KINDS[kind]}, found {_kind(value)}", "correct it")
    return value


def _kind(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else JSON_KINDS[type(value)]


def _short(text: str, longest: int = 40) -> str:
    """The text quoted for a message: on one line, with odd characters escaped, and not too long."""
    return repr(text) if len(text) <= longest else repr(text[:longest]) + "..."


def _article(title: str, examples: Iterable[Example]) -> dict:
    by_context = groupby(examples, attrgetter("context"))
    paragraphs = [{"context": context, "qas": [_qa(example) for example in group]} for context, group in by_context]
    return {"title": title, "paragraphs": paragraphs}


def _qa(example: Example) -> dict:
    return {
        "id": example.id,
        "question": example.question,
        "is_impossible": not example.is_answerable,
        "answers": [{"text": answer.text, "answer_start": answer.start} for answer in example.answers],
    }
