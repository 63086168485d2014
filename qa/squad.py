"""Questions about passages: read from files of SQuAD's shape and its relatives (shapes.py), checked, or written.

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
from qa import mend, shapes
from qa.mend import Mended
from qa.place import Place, short, take_id, take_number, take_objects, take_string, take_switch, take_text

GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
SMALL, DENSEST = 64 * 2**20, 100  # bytes that any gzip file may unpack to, and times its size that a larger one may
CHUNK = 2**20
SHAPES = "SQuAD JSON, rows as JSON, JSON Lines, CSV, TSV or Parquet, gzipped or not"
SHOWN = 3  # of the answers that are not where they should be


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


def read(path: str | Path, labelled: bool = True, mended: list[Mended] | None = None) -> list[Example]:
    """The questions of a file, gzipped or not, in its order. Raises DataError on the first thing wrong with it.

    SQuAD 1.1 has no `is_impossible`; there, as in 2.0, a question without answers is unanswerable. `plausible_answers`
    and keys unknown to SQuAD are ignored.
    labelled: False where answers alone are wanted: the file may lack them, and those at a wrong place do not matter.
    mended: a list that takes what was done to every answer that is not where its `answer_start` says (mend.py); None:
    such answers are refused, all in one error.
    """
    place = Place(str(path))
    wrong: list[str] = []
    examples = list(_examples(shapes.questions(read_bytes(path), place), labelled, mended, wrong))
    if wrong and labelled:
        total = len(wrong) + sum(len(example.answers) for example in examples)
        problem = f"answers that are not where their 'answer_start' says, {len(wrong):,} of {total:,}: "
        more = ", ..." if len(wrong) > SHOWN else ""
        remedy = "count code points of the context as it is, or say --mend-answers"
        raise place.error(problem + ", ".join(wrong[:SHOWN]) + more, remedy)
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
    place = Place(str(path))
    return shapes.parse_json(shapes.decode(read_bytes(path), place), place)


def read_bytes(path: str | Path) -> bytes:
    """What a file holds, unpacked where it is gzipped. DataError where it cannot be read."""
    place = Place(str(path))
    try:
        data = Path(path).read_bytes()
        return _unzip(data, place) if data.startswith(GZIP_MAGIC) else data
    except FileNotFoundError as error:
        raise place.error("there is no such file", "check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise place.error("the gzip data are cut off or damaged", "fetch the file again") from error
    except OSError as error:
        raise place.error(f"cannot be read ({error.strerror})", "check the path and its permissions") from error


def _unzip(data: bytes, place: Place) -> bytes:
    """Gzipped bytes unpacked, unless they are a bomb: a megabyte of gzip can hold a gigabyte of zeros."""
    chunks, room = [], max(SMALL, DENSEST * len(data))
    with gzip.open(io.BytesIO(data)) as file:
        while chunk := file.read(CHUNK):
            room -= len(chunk)
            if room < 0:
                raise place.error(f"unpacks to over {DENSEST} times its size", "unpack it yourself if it is right so")
            chunks.append(chunk)
    return b"".join(chunks)


def _examples(
    questions: Iterable[shapes.Question], labelled: bool, mended: list[Mended] | None, wrong: list[str]
) -> Iterator[Example]:
    seen: dict[str, str] = {}  # id -> where it stood first
    for found, place in questions:
        # Equal contexts become one object, also where a file repeats the context for each of its questions.
        context = sys.intern(take_text(found, "context", place))
        title = take_string(found, "title", place) if found.get("title") else ""
        key = take_id(found, "id", place)
        place = place.named("question", key)
        if key in seen:
            raise place.error(f"the id stands already at {seen[key]}", "give every question its own")
        seen[key] = place.path
        question = take_text(found, "question", place)
        answers = list(_answers(found, place)) if labelled or found.get("answers") is not None else []
        told = None if found.get("is_impossible") is None else take_switch(found, "is_impossible", place)
        if labelled and told == bool(answers):
            problem = "is true, but there are answers" if answers else "is false, but there are no answers"
            raise place.error(f"'is_impossible' {problem}", "correct one of the two")
        kept = _settled(answers, context, mended, wrong)
        if answers and not kept and mended is not None:
            continue  # without its answers it would pass for unanswerable
        yield Example(key, title, question, context, kept)


def _settled(
    answers: Iterable[tuple[Answer, Place]], context: str, mended: list[Mended] | None, wrong: list[str]
) -> tuple[Answer, ...]:
    """The answers that are where they should be, and those that were put there. Of others tell `mended`, or `wrong`."""
    settled = []
    for answer, place in answers:
        if answer.start >= 0 and context.startswith(answer.text, answer.start):
            settled.append(answer)
            continue
        meant = mend.find(context, answer.text, answer.start)
        if mended is None:
            there = short(context[max(answer.start, 0) :][: len(answer.text)])
            hint = f"it is at {meant.start}" if meant else "it is at no place that can be meant"
            wrong.append(f"{place.whole}: at {answer.start} stands {there}, not {short(answer.text)} ({hint})")
        elif meant:
            mended.append(Mended(place.whole, answer.text, answer.start, meant.how, meant.start))
            settled.append(Answer(meant.text, meant.start))
        else:
            mended.append(Mended(place.whole, answer.text, answer.start, "dropped", -1))
    return tuple(settled)


def _answers(question: dict, place: Place) -> Iterator[tuple[Answer, Place]]:
    """The answers as the file has them. An empty text at -1, or at no place, says that there is none."""
    for answer, here in take_objects(question, "answers", place):
        if answer.get("text") in ("", None) and answer.get("answer_start") in (-1, None) and len(answer) > 1:
            continue
        yield Answer(take_text(answer, "text", here), take_number(answer, "answer_start", here)), here


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
