"""qa.squad: what it reads, that it writes it back unchanged, and how it refuses everything else."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.system.errors import DataError
from qa import squad
from qa.place import short
from qa.squad import Answer, Example

CONTEXT = "تهران پایتخت ایران است."
PLACE = "data[0].paragraphs[0].qas[0] (article 'Tehran', question 'q1')"


def document() -> dict:
    answered = {"id": "q1", "question": "پایتخت ایران؟", "answers": [{"text": "تهران", "answer_start": 0}]}
    unanswered = {"id": "q2", "question": "پایتخت عراق؟", "answers": [], "is_impossible": True}
    paragraph = {"context": CONTEXT, "qas": [answered, unanswered]}
    return {"version": "v2.0", "data": [{"title": "Tehran", "paragraphs": [paragraph]}]}


def first_article(whole: dict) -> dict:
    return whole["data"][0]


def first_paragraph(whole: dict) -> dict:
    return whole["data"][0]["paragraphs"][0]


def first_question(whole: dict) -> dict:
    return first_paragraph(whole)["qas"][0]


def first_answer(whole: dict) -> dict:
    return first_question(whole)["answers"][0]


def save(folder: Path, value: object) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """The message of the DataError, which is one line that starts with the file and ends with a remedy."""
    with pytest.raises(DataError) as caught:
        squad.read(path)
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert message.startswith(f"{path}: ")
    assert "; " in message
    return message.removeprefix(f"{path}: ")


# What it reads


def test_read_returns_the_questions_in_order(tmp_path):
    assert squad.read(save(tmp_path, document())) == [
        Example("q1", "Tehran", "پایتخت ایران؟", CONTEXT, (Answer("تهران", 0),)),
        Example("q2", "Tehran", "پایتخت عراق؟", CONTEXT, ()),
    ]


def test_example_is_answerable_with_answers_only(tmp_path):
    assert [example.is_answerable for example in squad.read(save(tmp_path, document()))] == [True, False]


def test_read_takes_version_1_without_is_impossible(tmp_path):
    whole = document()
    del first_paragraph(whole)["qas"][1]["is_impossible"]
    assert [example.is_answerable for example in squad.read(save(tmp_path, whole))] == [True, False]


def test_read_ignores_plausible_answers_and_unknown_keys(tmp_path):
    whole = document()
    first_paragraph(whole)["qas"][1]["plausible_answers"] = [{"text": "بغداد", "answer_start": -7}]
    first_question(whole)["level"] = "easy"
    assert squad.read(save(tmp_path, whole)) == squad.read(save(tmp_path, document()))


def test_read_takes_an_article_without_title(tmp_path):
    whole = document()
    del first_article(whole)["title"]
    assert [example.title for example in squad.read(save(tmp_path, whole))] == ["", ""]


def test_read_knows_gzip_by_its_bytes_not_by_its_name(tmp_path):
    plain = save(tmp_path, document())
    zipped = tmp_path / "zipped.json"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    misnamed = tmp_path / "plain.json.gz"
    misnamed.write_bytes(plain.read_bytes())
    assert squad.read(plain) == squad.read(zipped) == squad.read(misnamed)


def test_read_takes_a_byte_order_mark(tmp_path):
    path = save(tmp_path, document())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(squad.read(path)) == 2


def test_read_shares_equal_contexts_even_across_paragraphs(tmp_path):
    whole = document()
    answered, unanswered = first_paragraph(whole)["qas"]
    paragraphs = [{"context": CONTEXT, "qas": [answered]}, {"context": CONTEXT, "qas": [unanswered]}]
    first_article(whole)["paragraphs"] = paragraphs
    one, other = squad.read(save(tmp_path, whole))
    assert one.context is other.context


def test_read_counts_code_points_and_normalises_nothing(tmp_path):
    decomposed = "  \U0001f600 ا\u0653ب و\u200cهوا "  # an emoji is two UTF-16 units; the madda is a code point
    whole = document()
    first_paragraph(whole)["context"] = decomposed
    first_question(whole)["question"] = " ا\u0653ب؟\n"
    first_answer(whole).update(text="ا\u0653ب", answer_start=4)
    example = squad.read(save(tmp_path, whole))[0]
    assert (example.context, example.question, example.answers) == (
        decomposed,
        " ا\u0653ب؟\n",
        (Answer("ا\u0653ب", 4),),
    )


@pytest.mark.parametrize(
    ("name", "questions", "unanswerable", "contexts", "titles", "answers"),
    [("Validation", 7976, 1981, 1103, 120, 8402), ("Test", 8002, 1914, 1059, 114, 8540)],
)
def test_read_finds_in_pquad_what_its_readme_counts(assets, name, questions, unanswerable, contexts, titles, answers):
    examples = squad.read(assets / f"data/pquad/{name}.json.gz")
    assert len(examples) == questions
    assert sum(not example.is_answerable for example in examples) == unanswerable
    assert len({id(example.context) for example in examples}) == contexts
    assert len({example.title for example in examples}) == titles
    assert sum(len(example.answers) for example in examples) == answers


# What it writes


@pytest.mark.parametrize("name", ["copy.json", "copy.json.gz"])
def test_write_gives_pquad_back_unchanged(assets, tmp_path, name):
    examples = squad.read(assets / "data/pquad/Validation.json.gz")
    squad.write(tmp_path / name, examples)
    assert squad.read(tmp_path / name) == examples


def test_write_groups_neighbours_by_title_and_context(tmp_path):
    squad.write(tmp_path / "set.json", squad.read(save(tmp_path, document())))
    written = json.loads((tmp_path / "set.json").read_text(encoding="utf-8"))
    first_question(written).pop("is_impossible")  # version 2 states it for every question
    assert written == document()


def test_write_keeps_the_order_of_interleaved_articles(tmp_path):
    titles = ["a", "b", "a"]
    examples = [Example(f"q{i}", title, "چه؟", CONTEXT, ()) for i, title in enumerate(titles)]
    squad.write(tmp_path / "set.json", iter(examples))
    assert squad.read(tmp_path / "set.json") == examples


def test_write_gzips_the_same_bytes_every_time(tmp_path):
    examples = squad.read(save(tmp_path, document()))
    for name in "one.json.gz", "two.json.gz":
        squad.write(tmp_path / name, examples)
    one = (tmp_path / "one.json.gz").read_bytes()
    assert one == (tmp_path / "two.json.gz").read_bytes()
    assert one[:2] == squad.GZIP_MAGIC
    assert one[4:8] == bytes(4)  # the time stamp of the gzip header


filled = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@settings(deadline=None)  # syncing a file to disk takes as long as it takes
@given(st.lists(st.tuples(filled, filled, filled, st.booleans()), min_size=1, max_size=6))
def test_write_gives_any_text_back_unchanged(tmp_path_factory, rows):
    examples = [
        Example(f"q{i}", title, question, context, (Answer(context, 0),) if answerable else ())
        for i, (title, question, context, answerable) in enumerate(rows)
    ]
    path = tmp_path_factory.mktemp("any") / "set.json"
    squad.write(path, examples)
    assert squad.read(path) == examples


# What it refuses: files


def test_read_refuses_a_missing_file(tmp_path):
    assert refusal(tmp_path / "none.json") == "there is no such file; check the path"


def test_read_refuses_a_folder(tmp_path):
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b" \n", gzip.compress(b"")], ids=["nothing", "blank", "gzip"])
def test_read_refuses_an_empty_file(tmp_path, data):
    (tmp_path / "set.json").write_bytes(data)
    assert refusal(tmp_path / "set.json").startswith("the file is empty")


@pytest.mark.parametrize("kept", [3, 15, -20, -1])
def test_read_refuses_cut_off_gzip(tmp_path, kept):
    (tmp_path / "set.json.gz").write_bytes(gzip.compress(json.dumps(document()).encode())[:kept])
    assert refusal(tmp_path / "set.json.gz").startswith("the gzip data are cut off or damaged")


@pytest.mark.parametrize("position", [20, -6])
def test_read_refuses_damaged_gzip(tmp_path, position):
    data = bytearray(gzip.compress(json.dumps(document()).encode()))
    data[position] ^= 0xFF
    (tmp_path / "set.json.gz").write_bytes(data)
    assert refusal(tmp_path / "set.json.gz").startswith("the gzip data are cut off or damaged")


def test_read_refuses_text_that_is_not_utf8(tmp_path):
    (tmp_path / "set.json").write_bytes('{"data": "تهران"}'.encode("cp1256"))
    assert refusal(tmp_path / "set.json") == "not UTF-8 at byte 10; save the file as UTF-8"


@pytest.mark.parametrize("text", ["{", "data", '{"data": [}', "\x00", '{"data": []}\n{"data": '])
def test_read_refuses_text_that_is_not_json(tmp_path, text):
    (tmp_path / "set.json").write_text(text)
    message = refusal(tmp_path / "set.json")
    assert message.startswith("not JSON: ")
    assert "at line " in message


def test_read_refuses_json_nested_too_deep(tmp_path):
    (tmp_path / "set.json").write_text("[" * 100_000 + "]" * 100_000)
    assert refusal(tmp_path / "set.json").startswith("the JSON is nested too deep")


def test_read_refuses_an_endless_number(tmp_path):
    (tmp_path / "set.json").write_text("9" * 5000)
    assert refusal(tmp_path / "set.json").startswith("holds a number too long to read")


# What it refuses: shapes


@pytest.mark.parametrize(("value", "kind"), [(3, "an integer"), (None, "null"), ("x", "a string")])
def test_read_refuses_what_is_not_an_object(tmp_path, value, kind):
    assert refusal(save(tmp_path, value)).startswith(f"expected an object with 'data', found {kind};")


LEVELS = [
    (lambda whole: whole, "data", "the key 'data'"),
    (first_article, "paragraphs", "data[0] (article 'Tehran'): the key 'paragraphs'"),
    (first_paragraph, "context", "data[0].paragraphs[0] (article 'Tehran'): the key 'context'"),
    (first_paragraph, "qas", "data[0].paragraphs[0] (article 'Tehran'): the key 'qas'"),
    (first_question, "id", "data[0].paragraphs[0].qas[0] (article 'Tehran'): the key 'id'"),
    (first_question, "question", f"{PLACE}: the key 'question'"),
    (first_question, "answers", f"{PLACE}: the key 'answers'"),
    (first_answer, "text", PLACE.replace("qas[0]", "qas[0].answers[0]") + ": the key 'text'"),
    (first_answer, "answer_start", PLACE.replace("qas[0]", "qas[0].answers[0]") + ": the key 'answer_start'"),
]


@pytest.mark.parametrize(("holder", "key", "place"), LEVELS)
def test_read_refuses_a_missing_key(tmp_path, holder, key, place):
    whole = document()
    del holder(whole)[key]
    assert refusal(save(tmp_path, whole)) == f"{place} is missing; add it"


@pytest.mark.parametrize("wrong", [None, True, 1.5, {"a": 1}, {}])
@pytest.mark.parametrize(("holder", "key", "place"), [*LEVELS, (first_article, "title", "data[0]: the key 'title'")])
def test_read_refuses_a_wrong_type(tmp_path, holder, key, place, wrong):
    whole = document()
    holder(whole)[key] = wrong
    message = refusal(save(tmp_path, whole))
    assert message.startswith(place.replace("the key ", "") + " must be ")
    assert message.endswith("; correct it")


@pytest.mark.parametrize(
    ("holder", "key", "place"),
    [
        (lambda whole: whole, "data", "data[1]"),
        (first_article, "paragraphs", "data[0].paragraphs[1] (article 'Tehran')"),
        (first_paragraph, "qas", "data[0].paragraphs[0].qas[2] (article 'Tehran')"),
        (first_question, "answers", PLACE.replace("qas[0]", "qas[0].answers[1]")),
    ],
)
def test_read_refuses_an_item_that_is_not_an_object(tmp_path, holder, key, place):
    whole = document()
    holder(whole)[key].append("x")
    assert refusal(save(tmp_path, whole)).startswith(f"{place}: expected an object, found a string;")


@pytest.mark.parametrize("wrong", [2, "perhaps", [], 0.5])
def test_read_refuses_an_is_impossible_that_is_not_boolean(tmp_path, wrong):
    whole = document()
    first_question(whole)["is_impossible"] = wrong
    assert refusal(save(tmp_path, whole)).startswith(f"{PLACE}: 'is_impossible' must be true or false, found")


def test_read_refuses_a_file_without_questions(tmp_path):
    whole = document()
    first_paragraph(whole)["qas"] = []
    assert refusal(save(tmp_path, whole)) == "holds no questions; give a file with at least one"


# What it refuses: contents


@pytest.mark.parametrize("blank", ["", " \n\u2003"])
@pytest.mark.parametrize(("holder", "key", "place"), [level for level in LEVELS if level[1] in ("context", "question")])
def test_read_refuses_blank_texts(tmp_path, holder, key, place, blank):
    whole = document()
    holder(whole)[key] = blank
    assert refusal(save(tmp_path, whole)).startswith(place.replace("the key ", "") + " is empty;")


def test_read_refuses_an_empty_answer(tmp_path):
    whole = document()
    first_answer(whole)["text"] = ""
    assert "'text' is empty" in refusal(save(tmp_path, whole))


def test_read_refuses_an_id_used_twice(tmp_path):
    whole = document()
    first_paragraph(whole)["qas"].append(first_question(whole))
    assert refusal(save(tmp_path, whole)) == (
        f"{PLACE.replace('qas[0]', 'qas[2]')}: the id stands already at data[0].paragraphs[0].qas[0]; "
        "give every question its own"
    )


def test_read_refuses_an_answer_at_the_wrong_place(tmp_path):
    whole = document()
    first_answer(whole)["answer_start"] = 1
    assert refusal(save(tmp_path, whole)) == (
        "answers that are not where their 'answer_start' says, 1 of 1: "
        f"{PLACE.replace('qas[0]', 'qas[0].answers[0]')}: at 1 stands 'هران ', not 'تهران' (it is at 0); "
        "count code points of the context as it is, or say --mend-answers"
    )


def test_read_tells_how_many_answers_are_at_a_wrong_place_and_shows_three(tmp_path):
    whole = document()
    first_question(whole)["answers"] += [{"text": "تهران", "answer_start": start} for start in (1, 2, 3, 4)]
    message = refusal(save(tmp_path, whole))
    assert message.startswith("answers that are not where their 'answer_start' says, 4 of 5: ")
    assert [f"answers[{number}]" in message for number in range(5)] == [False, True, True, True, False]


@pytest.mark.parametrize(("text", "start"), [("تبریز", 0), ("تهران", 10**30), ("است. و", 18), (".", -1)])
def test_read_refuses_an_answer_outside_the_context(tmp_path, text, start):
    whole = document()
    first_answer(whole).update(text=text, answer_start=start)
    assert f": at {start} stands " in refusal(save(tmp_path, whole))


def test_read_refuses_a_boolean_answer_start(tmp_path):
    whole = document()
    first_answer(whole)["answer_start"] = False  # equals 0, where the answer is
    assert "'answer_start' must be an integer, found false" in refusal(save(tmp_path, whole))


@pytest.mark.parametrize(
    ("impossible", "number", "problem"),
    [
        (True, 0, f"{PLACE}: 'is_impossible' is true, but there are answers; correct one of the two"),
        (False, 1, "'is_impossible' is false, but there are no answers; correct one of the two"),
    ],
)
def test_read_refuses_is_impossible_that_contradicts_the_answers(tmp_path, impossible, number, problem):
    whole = document()
    first_paragraph(whole)["qas"][number]["is_impossible"] = impossible
    assert problem in refusal(save(tmp_path, whole))


@pytest.mark.parametrize(("holder", "key"), [(holder, key) for holder, key, _ in LEVELS if key in ("context", "id")])
def test_read_refuses_lone_surrogates(tmp_path, holder, key):
    whole = document()
    holder(whole)[key] = "x\ud83d"
    assert f"{key!r} has the lone surrogate '\\ud83d' at 1; write the whole character" in refusal(save(tmp_path, whole))


def test_read_keeps_its_message_on_one_line_whatever_the_names(tmp_path):
    whole = document()
    first_article(whole)["title"] = "two\nlines\u2028" + "long" * 100
    first_answer(whole)["answer_start"] = 3
    assert len(refusal(save(tmp_path, whole))) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)  # syncing a file to disk takes as long as it takes
@given(st.sampled_from([*LEVELS, (first_question, "is_impossible", "")]), json_values)
def test_read_meets_any_json_with_examples_or_a_data_error(tmp_path_factory, level, value):
    whole = document()
    holder, key, _ = level
    holder(whole)[key] = value
    path = save(tmp_path_factory.mktemp("any"), whole)
    try:
        assert squad.read(path)
    except DataError as error:
        assert str(error).splitlines() == [str(error)]


def test_a_persian_half_space_in_a_name_is_shown_as_it_is():
    assert short("آب\u200cانبار\n") == "'آب\u200cانبار\\n'"
