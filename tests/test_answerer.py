"""`qa.Answerer`: one question, many at once, long passages, and what cannot be answered."""

import json

import pytest

from minitransformer import bert
from minitransformer.system.errors import DataError, RunError, WeightsError
from qa.answerer import N_BEST, Answer, Answerer, to_answer
from qa.spans import Candidate, Prediction
from qa.squad import Example
from test_ask import teach_capitals
from tiny import examples, rewrite_json, write_checkpoint

FIRST, *_ = examples()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return teach_capitals(tmp_path_factory.mktemp("answerer"))


@pytest.fixture(scope="module")
def answerer(folder):
    return Answerer(folder)


def random_answerer(folder, positions=512, **settings):
    sizes = {"layers": 1, "width": 8, "heads": 1, "ffn_width": 8}
    model = write_checkpoint(folder / "model", bert.BertForQuestionAnswering, positions=positions, **sizes)
    return Answerer(model, **settings)


def test_an_answer_is_cut_from_the_passage(answerer):
    answer = answerer(FIRST.question, FIRST.context)
    assert answer.text == FIRST.answers[0].text
    assert FIRST.context[answer.start :].startswith(answer.text)
    shares = [answer.probability, answer.none.probability, *(other.probability for other in answer.others)]
    assert all(0 < share < 1 for share in shares)
    assert answer.probability > max(shares[1:])
    assert answer.text not in {other.text for other in answer.others}
    assert [other.score for other in answer.others] == sorted((o.score for o in answer.others), reverse=True)


def test_no_answer_is_an_empty_text_that_begins_nowhere(answerer):
    silent = next(example for example in examples() if not example.answers)
    answer = answerer(silent.question, silent.context)
    assert (answer.text, answer.start) == ("", -1)
    assert answer.probability == answer.none.probability
    assert answer.others[0].text in silent.context


def test_lists_in_lists_out_each_as_if_it_were_alone(answerer):
    asked = examples()
    together = answerer([e.question for e in asked], [e.context for e in asked])
    for answer, example in zip(together, asked, strict=True):
        alone = answerer(example.question, example.context)
        assert (answer.text, answer.start) == (alone.text, alone.start)
        assert answer.score == pytest.approx(alone.score, abs=1e-4)


def test_many_questions_may_share_a_passage(answerer):
    first, second = answerer([FIRST.question, "رود کجاست؟"], FIRST.context)
    assert first == answerer(FIRST.question, FIRST.context)._replace(
        probability=first.probability, score=first.score, none=first.none, others=first.others
    )
    assert second.text in FIRST.context


def test_no_questions_give_no_answers(answerer):
    assert answerer([], "a") == []
    assert answerer.predict([]) == {}


def test_an_answer_is_found_far_into_a_long_passage(folder):
    """Two thousand words that the model was taught to find no answer in, and a paragraph that has one."""
    silent = "رود در شهر و کوه. "
    passage = silent * 200 + FIRST.context + silent * 200
    answer = Answerer(folder, null_threshold=1e9)(FIRST.question, passage)
    assert answer.text
    assert passage[answer.start :].startswith(answer.text)


def test_a_passage_of_100_000_words_is_read(tmp_path):
    passage = "شهر رود کوه تهران " * 25_000
    answer = random_answerer(tmp_path, null_threshold=1e9)("شهر؟", passage)
    assert answer.text
    assert answer.text in passage


@pytest.mark.parametrize("size", [1, 2, 60, 61])
def test_a_question_may_leave_little_room(tmp_path, size):
    answer = random_answerer(tmp_path, positions=65, null_threshold=1e9)("شهر " * size, "شهر تهران " * 20)
    assert set(answer.text.split()) <= {"شهر", "تهران"}


def test_a_question_that_leaves_no_room_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"question 1: it leaves room for 0 tokens .*shorten the question"):
        random_answerer(tmp_path, positions=65)("شهر " * 62, "شهر تهران")


def test_a_passage_without_a_token_has_no_answer(tmp_path):
    answer = random_answerer(tmp_path)("شهر؟", "\u200b")
    assert (answer.text, answer.probability) == ("", 1.0)


@pytest.mark.parametrize(
    ("question", "passage", "problem"),
    [
        ("", "a", "the question is empty: write one"),
        ("a", " \n", "the passage is empty: write one"),
        ("a", "b\udcff", "the passage is not UTF-8: convert it"),
        ("x" * 10_001, "a", "the question is 10,001 characters long: shorten it"),
        (None, "a", "the question is NoneType, not a text"),
        ("a", ["b"], "one question and a list of passages"),
        (["a", "b"], ["c"], "2 questions and 1 passages: give as many of each"),
        (["a", 3], "c", "the question is int, not a text"),
    ],
)
def test_what_cannot_be_answered_is_a_value_error_in_one_line(answerer, question, passage, problem):
    questions = [question] if question is None else question
    with pytest.raises(ValueError, match=problem) as refusal:
        answerer(questions, passage)
    assert "\n" not in str(refusal.value)


def test_the_folder_says_when_there_is_no_answer(folder, tmp_path):
    assert json.loads((folder / "config.json").read_text())["answering"] == {"null_threshold": 0.0}
    model = write_checkpoint(tmp_path / "model", bert.BertForQuestionAnswering)
    rewrite_json(model / "config.json", answering={"null_threshold": -1e9})
    assert Answerer(model)("شهر؟", "شهر تهران").text == ""
    assert Answerer(model, null_threshold=1e9)("شهر؟", "شهر تهران").text


@pytest.mark.parametrize("told", [3, {"null_threshold": "0"}, {"null_threshold": True}, {"trained_on": 1}])
def test_settings_that_no_training_writes_are_refused(tmp_path, told):
    model = write_checkpoint(tmp_path / "model", bert.BertForQuestionAnswering)
    rewrite_json(model / "config.json", answering=told)
    with pytest.raises(WeightsError, match=r"config\.json: 'answering' is .*, which no training has written"):
        Answerer(model)


def test_a_model_without_a_trained_head_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="train it first"):
        Answerer(write_checkpoint(tmp_path / "encoder"))


def test_another_precision_or_device_is_refused(folder, monkeypatch):
    with pytest.raises(ValueError, match="precision 'half' is none of auto, float32, mixed"):
        Answerer(folder, precision="half")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RunError, match="torch sees no GPU here"):
        Answerer(folder, device="cuda")


def test_auto_computes_in_16_bits_where_the_folder_says_that_answers_agree(folder, tmp_path):
    assert Answerer(folder).precision.name == "float32"
    model = write_checkpoint(tmp_path / "model", bert.BertForQuestionAnswering)
    for agreement in (0.98, 0.99):
        rewrite_json(model / "config.json", answering={"agreement": agreement})
        expected = Answerer(model, "mixed" if agreement == 0.99 else "float32").precision.name
        assert Answerer(model).precision.name == expected


def test_predict_answers_examples_by_id(answerer):
    made = answerer.predict([Example("a", "", FIRST.question, FIRST.context, ())])
    assert list(made) == ["a"]
    assert made["a"].text == FIRST.answers[0].text
    assert len(made["a"].n_best) == N_BEST + 1


def test_to_answer_takes_each_text_once_with_its_best_place():
    n_best = [
        Candidate("تهران", 3.0, 0.5),
        Candidate("", 2.5, 0.3),
        Candidate("تهران", 2.0, 0.15),
        Candidate("قم", 1.0, 0.05),
    ]
    answer = to_answer(Prediction("تهران", -0.5, n_best, start=4), "شهر تهران")
    assert answer == ("تهران", 4, 0.5, 3.0, Candidate("", 2.5, 0.3), [Candidate("قم", 1.0, 0.05)], "شهر تهران")


def test_a_notebook_shows_an_answer_marked_in_its_passage():
    none = Candidate("", 0.0, 0.25)
    answer = Answer("<b>", 2, 0.75, 1.0, none, [], "a <b> c")
    assert answer._repr_html_() == '<p dir="ltr">a <mark>&lt;b&gt;</mark> c</p><small>probability 0.75</small>'
    assert repr(answer) == "Answer('<b>', start=2, probability=0.75)"
    persian = Answer("قم", 4, 0.5, 1.0, none, [], "شهر قم کجاست")._repr_html_()
    assert persian.startswith('<p dir="rtl">شهر <mark>قم</mark> کجاست</p>')
    nothing = Answer("", -1, 0.5, 1.0, none, [], "a c")._repr_html_()
    assert nothing == '<p dir="ltr">a c</p><small>probability 0.50: the passage does not say</small>'


def test_an_answerer_says_what_it_is():
    how = "torch.float32 on cpu, null_threshold=0.50"
    said = repr(Answerer(precision="float32", null_threshold=0.5))
    assert said == f"Answerer(answerer-fa: BertForQuestionAnswering, 29,172,482 parameters, {how})"
