"""qa.explore counts by hand what a few made questions hold, writes it, safely, and refuses what it cannot."""

import csv
import io
import os
import re
import unicodedata

import numpy as np
import pytest
from matplotlib import image

import tiny
from minitransformer.pages.page import POLICY
from qa import squad
from qa.explore import __main__ as command
from qa.explore import numbers, page, survey
from qa.features import featurise
from qa.squad import Answer, Example

OUTPUT = {"answers.png", "words.png", "places.png", "numbers.csv", "index.html"}


def example(key="q", title="t", question="کجاست؟", context="تهران پایتخت ایران است", answers=()):
    return Example(key, title, question, context, tuple(Answer(text, context.index(text)) for text in answers))


def test_a_survey_counts_questions_passages_titles_and_answers():
    one = survey.survey("a", [example("1", answers=["تهران", "ایران"]), example("2", title="u"), example("3")])
    assert (one.questions, one.unanswerable, one.passages) == (3, 2, 1)
    assert one.titles == {"t": 2, "u": 1}
    assert one.answer_counts == {2: 1, 0: 2}
    assert one.filled == {"id": 3, "title": 3, "context": 3, "question": 3, "answers": 1}
    assert one.words["context"].tolist() == [4]
    assert one.words["answer"].tolist() == [1, 1]
    assert survey.tenths(one.places) == [1, *[0] * 9]


def test_text_forms_are_told_apart():
    texts = {"آب": "composed (NFC only)", unicodedata.normalize("NFD", "آب"): "decomposed (NFD only)",
             "آ" + unicodedata.normalize("NFD", "آ"): "mixed (neither)", "رود": "the same in NFC and NFD"}  # fmt: skip
    for text, wanted in texts.items():
        forms = survey.survey("a", [example(context=text)]).forms
        assert [form for form in list(forms)[:4] if forms[form]["context"]] == [wanted], text
    odd = survey.survey("a", [example(context="علي می‌رود ۱۲")]).forms
    assert odd["half-space (ZWNJ)"]["context"] == odd["Persian digits (۴۵۶)"]["context"] == 1
    assert odd["Arabic yeh, alef maksura or kaf (ي ى ك)"]["context"] == 1
    assert odd["Arabic digits (٤٥٦)"]["context"] == 0


def test_anomalies_name_their_questions():
    found = survey.anomalies([
        example("1", answers=["تهر"]), example("2"),
        example("3", question="کی", context="رود رود " + "و " * 31, answers=["رود"]),
        example("4", title="u", question="چه؟", context="و " * 40, answers=["و " * 31]),
    ])  # fmt: skip
    assert found["an answer that begins or ends inside a word"] == ["1"]
    assert found["the same question twice on one passage"] == ["1", "2"]
    assert found["an answer text that stands several times in its passage"] == ["3", "4"]
    assert found["a question without a question mark"] == ["3"]
    assert found["an answer of more than 30 words"] == found["an answer with white space at an edge"] == ["4"]
    assert found["one passage under several titles"] == []


def test_what_two_files_share_is_counted():
    [(one, other, counts)] = survey.shared([("a", [example("1")]), ("b", [example("1"), example("2", title="u")])])
    assert (one, other) == ("a", "b")
    assert counts == {"ids": 1, "titles": 1, "passages": 1, "questions with their passage": 1}


@pytest.mark.parametrize(("max_length", "stride"), [(12, None), (14, 0), (14, 2), (16, 3), (500, 8)])
def test_a_cut_counts_what_featurise_makes(tmp_path, max_length, stride):
    tokenizer, examples = tiny.tokenizer(tmp_path), tiny.examples()
    limit = survey.cut(survey.tokens(examples, tokenizer), max_length, stride)
    features = featurise(examples, tokenizer, max_length, stride)
    assert limit.inputs == len(features)
    assert limit.tokens == sum(len(feature.input_ids) for feature in features)
    found = {feature.example for feature in features if feature.start}
    assert limit.lost == sum(e.is_answerable for e in examples) - len(found)


def test_a_limit_without_room_for_a_context_is_no_cut(tmp_path):
    lengths = survey.tokens(tiny.examples(), tiny.tokenizer(tmp_path))
    assert survey.cut(lengths, 12, 11) is None


def test_nothing_has_a_spread_of_zeros():
    assert set(survey.spread(np.array([])).values()) == {0}


def test_the_command_writes_page_pictures_and_numbers(tmp_path):
    one, two = (tiny.write_questions(tmp_path / name) for name in ("one.json", "two.json.gz"))
    weights = tiny.write_vocabulary(tmp_path / "weights")
    outcome = tiny.call(command.main, one, two, "--weights", weights, "--out", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert "one: 12 questions on 10 passages under 3 titles; 3 (25.0 %) without an answer" in outcome.out
    assert set(tiny.files_under(tmp_path / "out")) == {*OUTPUT, "tokens.png"}
    for name in ("answers", "words", "places", "tokens"):
        assert image.imread(tmp_path / f"out/{name}.png").std() > 0.05, "an empty picture"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/numbers.csv").read_text(encoding="utf-8"))))
    answers = {(r["file"], r["row"]): r["value"] for r in rows if r["section"] == "answers"}
    assert answers == {("one", "0"): "3", ("one", "1"): "9", ("two", "0"): "3", ("two", "1"): "9"}
    html = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=.(?!data:)|<script|@import|url\(", html)


def test_texts_of_a_data_set_do_nothing_on_the_page():
    evil = "<script>alert(1)</script>"
    made = [example(title=evil, question=f"{evil}؟", context=f"{evil} بود", answers=[evil])]
    one = numbers.Explored(made, survey.survey(f"{evil}$x", made), None, [])
    html = page.build([one], dict.fromkeys(("answers", "places", "words"), b"\x89PNG"))
    assert evil not in html
    assert "&lt;script&gt;" in html
    assert 'dir="auto"' in html
    assert "prefers-color-scheme: dark" in html
    assert POLICY in html


def test_a_file_name_that_is_not_utf_8_is_shown_without_what_is_no_letter(tmp_path):
    path = tiny.write_questions(tmp_path / os.fsdecode(b"caf\xe9.json"))
    done = tiny.call(command.main, path, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert set(tiny.files_under(tmp_path / "out")) == OUTPUT
    assert "overview,caf,questions,count,12" in (tmp_path / "out/numbers.csv").read_text()


def test_a_file_given_twice_and_a_missing_one_are_refused(tmp_path):
    path = tiny.write_questions(tmp_path / "one.json")
    assert "given twice" in tiny.call(command.main, path, path, "--out", tmp_path / "out").refusal()
    assert "no such file" in tiny.call(command.main, tmp_path / "x.json", "--out", tmp_path / "out").refusal()
    assert not (tmp_path / "out").exists()


def test_a_folder_far_below_is_made_for_the_page(tmp_path):
    path = tiny.write_questions(tmp_path / "one.json")
    assert tiny.call(command.main, path, "--out", tmp_path / "runs/far/look").status == 0
    assert set(tiny.files_under(tmp_path / "runs/far/look")) == OUTPUT


def test_pquad_has_the_counts_of_its_authors(assets):
    one = survey.survey("Validation", squad.read(assets / "data/pquad/Validation.json.gz"))
    assert (one.questions, one.unanswerable) == (7976, 1981)
    assert sum(one.answer_counts.values()) == 7976
    assert len(one.words["answer"]) == 8402
