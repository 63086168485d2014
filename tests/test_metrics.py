"""qa.metrics against the official algorithm, written out here a second time and as plainly as possible."""

import math
import random
import re
import string
import time
from collections import Counter
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.system.errors import DataError
from qa import squad
from qa.metrics import fold_persian, gold_answers, squad_v2

# The official algorithm


@cache  # for the speed of these tests only
def official_normal_form(text: str) -> str:
    text = text.lower()
    text = "".join(character for character in text if character not in string.punctuation)
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def official_f1(answer: str, prediction: str) -> float:
    answer_tokens = official_normal_form(answer).split()
    predicted_tokens = official_normal_form(prediction).split()
    if answer_tokens == [] or predicted_tokens == []:
        return 1 if answer_tokens == predicted_tokens else 0
    same = 0
    for token in set(answer_tokens):
        same += min(answer_tokens.count(token), predicted_tokens.count(token))
    if same == 0:
        return 0
    precision = same / len(predicted_tokens)
    recall = same / len(answer_tokens)
    return (2 * precision * recall) / (precision + recall)


def official_squad_v2(gold: dict, predictions: dict, probability: dict | None, threshold: float) -> dict:
    exact, f1, thresholded_exact, thresholded_f1 = {}, {}, {}, {}
    for key, texts in gold.items():
        answers = [text for text in texts if official_normal_form(text) != ""]
        if answers == []:
            answers = [""]
        prediction = predictions[key]
        exact[key] = max(int(official_normal_form(text) == official_normal_form(prediction)) for text in answers)
        f1[key] = max(official_f1(text, prediction) for text in answers)
        no_answer = 0.0 if probability is None else probability[key]
        if no_answer > threshold:
            thresholded_exact[key] = thresholded_f1[key] = 1.0 if texts == [] else 0.0
        else:
            thresholded_exact[key], thresholded_f1[key] = exact[key], f1[key]

    result = {}
    answerable = [key for key in gold if gold[key] != []]
    unanswerable = [key for key in gold if gold[key] == []]
    for prefix, keys in ("", list(gold)), ("HasAns_", answerable), ("NoAns_", unanswerable):
        if keys != []:
            result[prefix + "exact"] = 100.0 * sum(thresholded_exact[key] for key in keys) / len(keys)
            result[prefix + "f1"] = 100.0 * sum(thresholded_f1[key] for key in keys) / len(keys)
            result[prefix + "total"] = len(keys)
    if probability is not None:
        for name, scores in ("best_exact", exact), ("best_f1", f1):
            current = best = len(unanswerable)
            best_threshold = 0.0
            for key in sorted(probability, key=lambda key: probability[key]):
                if key not in scores:
                    continue
                if gold[key] != []:
                    current += scores[key]
                elif predictions[key] != "":
                    current += -1
                if current > best:
                    best, best_threshold = current, probability[key]
            result[name] = 100.0 * best / len(gold)
            result[name + "_thresh"] = best_threshold
    return result


def assert_official(gold, predictions, probability=None, threshold=1.0) -> None:
    """Equal to the last bit, in the same order, and followed by ours alone."""
    found = squad_v2(gold, predictions, probability, threshold)
    assert list(found)[-2:] == ["fa_exact", "fa_f1"]
    assert list(found.items())[:-2] == list(official_squad_v2(gold, predictions, probability, threshold).items())


# All of PQuAD, with gold answers damaged in many ways


@pytest.fixture(scope="module")
def gold(assets) -> dict[str, list[str]]:
    return gold_answers(squad.read(assets / "data/pquad/Validation.json.gz"))


DAMAGE = {
    "nothing": lambda text, other, dice: text,
    "empty": lambda text, other, dice: "",
    "white_space": lambda text, other, dice: " \n\u2003",
    "punctuation_only": lambda text, other, dice: "?!",
    "article_only": lambda text, other, dice: "The",
    "cut_end": lambda text, other, dice: text[: dice.randrange(len(text) + 1)],
    "cut_start": lambda text, other, dice: text[dice.randrange(len(text) + 1) :],
    "first_word": lambda text, other, dice: " ".join(text.split()[:1]),
    "extended": lambda text, other, dice: f"{text} {other}",
    "preceded": lambda text, other, dice: f"{other} {text}",
    "swapped": lambda text, other, dice: other,
    "reversed": lambda text, other, dice: " ".join(reversed(text.split())),
    "mirrored": lambda text, other, dice: text[::-1],
    "doubled": lambda text, other, dice: f"{text} {text}",
    "doubled_word": lambda text, other, dice: text + " " + (text.split() or [""])[0],
    "ascii_punctuation": lambda text, other, dice: f'"{text}"!.',
    "persian_punctuation": lambda text, other, dice: f"«{text}»،",
    "articles": lambda text, other, dice: f"the {text} an a",
    "articles_inside": lambda text, other, dice: text.replace(" ", " a-n the. "),
    "case": lambda text, other, dice: text.swapcase() + "İß",
    "spaces": lambda text, other, dice: text.replace(" ", " \t\u00a0\u200c "),
    "half_space": lambda text, other, dice: text.replace(" ", "\u200c"),
    "no_space": lambda text, other, dice: text.replace(" ", ""),
}


def damaged(gold: dict[str, list[str]], kinds: list[str], dice: random.Random) -> dict[str, str]:
    pool = [text for texts in gold.values() for text in texts]
    return {
        key: DAMAGE[dice.choice(kinds)](dice.choice(texts or pool), dice.choice(pool), dice)
        for key, texts in gold.items()
    }


@pytest.mark.parametrize("kind", DAMAGE)
def test_squad_v2_is_official_on_pquad(gold, kind):
    dice = random.Random(kind)
    predictions = damaged(gold, [kind, "nothing", "empty"], dice)
    # Three digits make ties, and the shuffled order must break them; a few ids are unknown to gold.
    keys = [*gold, "unknown 1", "unknown 2"]
    dice.shuffle(keys)
    probability = {key: round(dice.random(), 3) for key in keys}
    assert_official(gold, predictions | {"unknown 1": "x"}, probability, dice.choice([0.0, 0.1, 0.5, 0.9]))


@pytest.mark.parametrize("threshold", [-1, 0.25, 1, 7.5, math.inf])
def test_squad_v2_is_official_at_any_threshold(gold, threshold):
    dice = random.Random(7)
    predictions = damaged(gold, list(DAMAGE), dice)
    probability = {key: dice.choice([0, 0.25, 1.0, dice.gauss(0, 5), math.inf]) for key in gold}
    assert_official(gold, predictions, probability, threshold)


@pytest.mark.parametrize("threshold", [-1, 0.0, 1.0])
def test_squad_v2_is_official_without_probabilities(gold, threshold):
    """They count as 0.0 then, so that a negative threshold declines everything."""
    assert_official(gold, damaged(gold, list(DAMAGE), random.Random(8)), None, threshold)


def test_squad_v2_scores_pquad_in_well_under_two_seconds(gold):
    predictions = damaged(gold, list(DAMAGE), random.Random(1))
    begin = time.process_time()
    squad_v2(gold, predictions, dict.fromkeys(gold, 0.5), 0.5)
    assert time.process_time() - begin < 1.5


# Arbitrary strings

letters = st.text(st.sampled_from("aAnthe THE.-'\u200c «»،؟سیي1۱ß\u0130\u0307\n\t_"), max_size=14) | st.text(max_size=8)
number = st.floats(allow_nan=False) | st.integers(-3, 3)
questions = st.lists(st.tuples(st.lists(letters, max_size=3), letters, number), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(questions, number, st.randoms(use_true_random=False))
def test_squad_v2_is_official_on_any_text(rows, threshold, dice):
    gold = {f"q{i}": texts for i, (texts, _, _) in enumerate(rows)}
    predictions = {f"q{i}": text for i, (_, text, _) in enumerate(rows)}
    probability = [(f"q{i}", value) for i, (_, _, value) in enumerate(rows)]
    dice.shuffle(probability)
    assert_official(gold, predictions, dict(probability), threshold)
    assert_official(gold, predictions, None, threshold)


@settings(max_examples=200, deadline=None)
@given(letters, letters)
def test_squad_v2_gives_f1_between_exact_match_and_one(answer, prediction):
    scores = squad_v2({"q": [answer]}, {"q": prediction})
    for exact, f1 in ("exact", "f1"), ("fa_exact", "fa_f1"):
        assert 0 <= scores[exact] <= scores[f1] <= 100 + 1e-9


# By hand


def one(answer: str, prediction: str) -> dict:
    return squad_v2({"q": [answer]}, {"q": prediction})


def test_squad_v2_by_hand():
    gold = {"both": ["the red house", "house"], "half": ["red house"], "none": [], "wrong": []}
    predictions = {"both": "House!", "half": "a red car", "none": "", "wrong": "car"}
    probability = {"both": 0.1, "half": 0.2, "none": 0.9, "wrong": 0.6}
    scores = squad_v2(gold, predictions, probability, threshold=0.5)
    assert scores == {
        "exact": 75.0,  # "wrong" is turned into no answer
        "f1": 87.5,
        "total": 4,
        "HasAns_exact": 50.0,
        "HasAns_f1": 75.0,
        "HasAns_total": 2,
        "NoAns_exact": 100.0,
        "NoAns_f1": 100.0,
        "NoAns_total": 2,
        "best_exact": 75.0,
        "best_exact_thresh": 0.1,
        "best_f1": 87.5,
        "best_f1_thresh": 0.2,
        "fa_exact": 75.0,
        "fa_f1": 87.5,
    }


def test_squad_v2_takes_the_best_answer_for_exact_and_f1_apart():
    scores = squad_v2({"q": ["b c d", "x"]}, {"q": "b c"})
    assert scores["f1"] == pytest.approx(80.0)
    assert scores["exact"] == 0


def test_squad_v2_leaves_out_kinds_of_question_that_are_absent():
    assert not any(key.startswith("NoAns") for key in one("x", "x"))
    assert not any(key.startswith("HasAns") for key in squad_v2({"q": []}, {"q": ""}))


def test_squad_v2_has_best_thresholds_only_with_probabilities():
    assert not any(key.startswith("best") for key in one("x", "x"))


def test_squad_v2_declines_strictly_above_the_threshold():
    at, above = (squad_v2({"q": ["x"]}, {"q": "x"}, {"q": value}, 0.5)["exact"] for value in (0.5, 0.5000001))
    assert (at, above) == (100, 0)


def test_squad_v2_counts_declining_an_answer_of_punctuation_as_wrong():
    """An oddity of the official script: "" is right here, declining by the threshold is not."""
    assert squad_v2({"q": ["?!"]}, {"q": ""}, {"q": 0.0}, 0.5)["exact"] == 100
    assert squad_v2({"q": ["?!"]}, {"q": ""}, {"q": 1.0}, 0.5)["exact"] == 0


def test_squad_v2_breaks_ties_by_the_order_of_the_probabilities():
    """No threshold parts equal probabilities, yet the official script scores as if one did."""
    gold, predictions = {"yes": ["x"], "no": []}, {"yes": "x", "no": "y"}
    assert squad_v2(gold, predictions, {"yes": 0.5, "no": 0.5})["best_exact"] == 100
    assert squad_v2(gold, predictions, {"no": 0.5, "yes": 0.5})["best_exact"] == 50


# Persian normalisation


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        pytest.param("علی", "علي", id="arabic yeh"),
        pytest.param("موسی", "موسى", id="alef maksura"),
        pytest.param("کتاب", "كتاب", id="arabic kaf"),
        pytest.param("می‌شود", "می شود", id="half-space"),
        pytest.param("«تهران»، ایران؟", "تهران ایران", id="persian punctuation"),
        pytest.param("۱۳۵۷", "1357", id="persian digits"),
        pytest.param("٤٥٦", "۴۵۶", id="arabic digits"),
        pytest.param("۳٫۵٪", "3.5%", id="decimal separator and percent"),
        pytest.param("۱۰٬۰۰۰", "10,000", id="thousands separator"),
        pytest.param("۱۹۳۹–۱۹۴۵", "1939-1945", id="dash"),
        pytest.param("مُحَمَّد", "محمد", id="vowel marks and shadda"),
        pytest.param("مثلاً", "مثلا", id="tanween"),
        pytest.param("رحمٰن", "رحمن", id="superscript alef"),
        pytest.param("تهـــران", "تهران", id="tatweel"),
        pytest.param("ا\u0653ب", "\u0622ب", id="decomposed madda"),
        pytest.param("مسي\u0654له", "مس\u0626له", id="decomposed hamza"),
        pytest.param("خانه\u0654 ما", "خان\u06c0 ما", id="ezafe as mark and as letter"),
        pytest.param("خانه\u0654 ما", "خانه ما", id="ezafe left out"),
        pytest.param("\ufefb", "لا", id="presentation form"),
        pytest.param("\u200fتهران\u200e\u00ad", "\u202bتهران\u202c", id="invisible marks"),
        pytest.param("دانشگاه\u00a0تهران", "دانشگاه تهران", id="no-break space"),
        pytest.param("The تهران", "ﺗﻬﺮﺍﻥ", id="then the official steps"),
    ],
)
def test_fa_exact_overlooks(answer, prediction):
    for pair in (answer, prediction), (prediction, answer):
        scores = one(*pair)
        assert (scores["fa_exact"], scores["fa_f1"]) == (100, 100)


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [("آب", "اب"), ("سؤال", "سوال"), ("می‌شود", "میشود"), ("کرم", "گرم"), ("۱۲", "۲۱"), ("خانهٔ", "خانه‌ای")],
)
def test_fa_exact_keeps_apart(answer, prediction):
    assert one(answer, prediction)["fa_exact"] == 0


def test_official_figures_know_nothing_of_persian():
    scores = one("«علی»", "علي")
    assert (scores["exact"], scores["f1"], scores["fa_exact"], scores["fa_f1"]) == (0, 0, 100, 100)


def test_fa_f1_by_hand():
    # Folded: "در سال 1357 می شود" against "سال 1357": precision 2/2, recall 2/5, F1 4/7. Officially: the word سال alone
    # is common, precision 1/2, recall 1/4, F1 1/3.
    scores = one("در سال ۱۳۵۷ می‌شود", "سال 1357")
    assert scores["fa_f1"] == pytest.approx(400 / 7)
    assert scores["f1"] == pytest.approx(100 / 3)


def test_fa_exact_drops_answers_of_persian_punctuation_alone():
    assert squad_v2({"q": ["«»", "تهران"]}, {"q": "»"})["fa_exact"] == 0
    assert squad_v2({"q": ["«»"]}, {"q": "»"})["fa_exact"] == 100


def test_fa_exact_declines_above_the_threshold_too():
    scores = squad_v2({"q": ["علی"], "n": []}, {"q": "علي", "n": "x"}, {"q": 0.9, "n": 0.9}, 0.5)
    assert (scores["fa_exact"], scores["fa_f1"]) == (50, 50)


def test_fold_persian_leaves_other_scripts_their_accents():
    assert fold_persian("Cafe\u0301 Zürich 天") == "Café Zürich 天"


# Forms of gold, and what is refused


def test_squad_v2_takes_gold_in_any_form(tmp_path):
    context = "تهران پایتخت ایران است."
    examples = [
        squad.Example("q1", "t", "چه؟", context, (squad.Answer("تهران", 0), squad.Answer("ایران", 13))),
        squad.Example("q2", "t", "چه؟", context, ()),
    ]
    squad.write(tmp_path / "set.json", examples)
    document = squad.read_json(tmp_path / "set.json")
    plain = {"q1": ["تهران", "ایران"], "q2": []}
    assert gold_answers(plain) == plain
    for form in examples, tuple(examples), document, document["data"], {"q1": ("تهران", "ایران"), "q2": ()}:
        assert gold_answers(form) == plain
        assert squad_v2(form, {"q1": "ایران", "q2": "x"})["exact"] == 50


def test_gold_answers_takes_a_question_named_data():
    assert gold_answers({"data": ["x"], "q": []}) == {"data": ["x"], "q": []}


def refusal(*arguments) -> str:
    with pytest.raises(DataError) as caught:
        squad_v2(*arguments)
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert "; " in message
    return message


@pytest.mark.parametrize(
    ("gold", "start"),
    [
        (None, "gold: found NoneType"),
        ("text", "gold: found str"),
        (3, "gold: found int"),
        ({}, "gold: there are no questions"),
        ([], "gold: there are no questions"),
        ([1], "gold: not the shape of a SQuAD document"),
        (["text"], "gold: not the shape of a SQuAD document"),
        ([{"paragraphs": [{"qas": [{"id": "q"}]}]}], "gold: not the shape of a SQuAD document"),
        ([{"paragraphs": [{"qas": [{"id": [], "answers": []}]}]}], "gold: not the shape of a SQuAD document"),
        ({"data": [{"title": "t"}]}, "gold: not the shape of a SQuAD document"),
        ([{"paragraphs": [{"qas": [{"id": "q", "answers": []}] * 2}]}], "gold: the id 'q' stands twice"),
        ({"q": "text"}, "gold: question 'q' has 'text'"),
        ({"q": [None]}, "gold: question 'q' has [None]"),
        ({"q": None}, "gold: question 'q' has None"),
    ],
)
def test_squad_v2_refuses_other_gold(gold, start):
    assert refusal(gold, {"q": ""}).startswith(start)


def test_squad_v2_refuses_missing_predictions():
    gold = {f"q{i}": [] for i in range(5)}
    message = refusal(gold, {"q0": "", "q3": "", "x": ""})
    assert message.startswith("predictions: 3 of 5 questions have none, first 'q1';")


def test_squad_v2_refuses_missing_probabilities():
    message = refusal({"q": [], "r": []}, {"q": "", "r": ""}, {"q": 0.5})
    assert message.startswith("no_answer_probability: 1 of 2 questions have none, first 'r';")
    assert refusal({"q": []}, {"q": ""}, {}).startswith("no_answer_probability: 1 of 1")


@pytest.mark.parametrize("text", [None, 3, ["x"], {"text": "x"}, math.nan, b"x"])
def test_squad_v2_refuses_predictions_that_are_no_text(text):
    assert refusal({"q": []}, {"q": text}).startswith(f"predictions: question 'q' has {text!r};")


@pytest.mark.parametrize("values", [None, ["x"], "x", 3])
def test_squad_v2_refuses_predictions_that_are_no_mapping(values):
    assert refusal({"q": []}, values).startswith(f"predictions: found {type(values).__name__};")


@pytest.mark.parametrize("value", [math.nan, None, "0.5", True, [0.5], 1j, 10**400, np.float32("nan")])
def test_squad_v2_refuses_probabilities_that_are_no_number(value):
    assert refusal({"q": []}, {"q": ""}, {"q": value}).startswith("no_answer_probability: question 'q': found ")


@pytest.mark.parametrize("value", [math.nan, None, "0.5", True])
def test_squad_v2_refuses_a_threshold_that_is_no_number(value):
    assert refusal({"q": []}, {"q": ""}, {"q": 0.5}, value).startswith("threshold: found ")


@pytest.mark.parametrize("value", [np.float32(0.25), np.int64(1), Fraction(1, 4), -math.inf])
def test_squad_v2_takes_numbers_of_any_library_and_returns_plain_ones(value):
    scores = squad_v2({"q": ["x"]}, {"q": "x"}, {"q": value})
    assert scores["best_f1_thresh"] == value
    assert Counter(map(type, scores.values())).keys() == {float, int}
