"""`python -m qa.evaluate` as a user runs it."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from qa import metrics, squad

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def data(tmp_path) -> Path:
    context = "تهران پایتخت ایران است."
    examples = [
        squad.Example("q1", "Tehran", "پایتخت ایران؟", context, (squad.Answer("تهران", 0),)),
        squad.Example("q2", "Tehran", "پایتخت عراق؟", context, ()),
    ]
    squad.write(tmp_path / "data.json.gz", examples)
    return tmp_path / "data.json.gz"


@pytest.fixture
def predictions(tmp_path) -> Path:
    return save(tmp_path / "predictions.json", {"q1": "تهران", "q2": "ایران"})


def save(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def evaluate(*flags: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "qa.evaluate", *map(str, flags)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)


def refusal(*flags: object) -> str:
    """The one line that a failing command leaves on stderr."""
    result = evaluate(*flags)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_evaluate_prints_the_scores_as_json(data, predictions):
    result = evaluate("--data", data, "--predictions", predictions)
    assert (result.returncode, result.stderr) == (0, "")
    scores = metrics.squad_v2(squad.read(data), squad.read_json(predictions))
    assert result.stdout == json.dumps(scores, indent=2) + "\n"
    assert scores["exact"] == 50


def test_evaluate_applies_the_threshold(data, predictions, tmp_path):
    odds = save(tmp_path / "odds.json", {"q1": -3.5, "q2": 2})
    result = evaluate("--data", data, "--predictions", predictions, "--na-prob", odds, "--na-threshold", "-1.5")
    scores = json.loads(result.stdout)
    assert (scores["exact"], scores["best_exact"], scores["best_exact_thresh"]) == (100, 100, -3.5)


def test_evaluate_reads_gzipped_predictions(data, predictions, tmp_path):
    zipped = tmp_path / "predictions.json.gz"
    zipped.write_bytes(gzip.compress(predictions.read_bytes()))
    assert evaluate("--data", data, "--predictions", zipped).returncode == 0


def test_evaluate_scores_pquad(assets, tmp_path):
    file = assets / "data/pquad/Validation.json.gz"
    answers = {example.id: example.answers[0].text if example.answers else "" for example in squad.read(file)}
    scores = json.loads(evaluate("--data", file, "--predictions", save(tmp_path / "gold.json", answers)).stdout)
    assert (scores["exact"], scores["f1"], scores["fa_exact"], scores["total"]) == (100, 100, 100, 7976)


def test_evaluate_names_a_data_file_that_is_absent(predictions, tmp_path):
    absent = tmp_path / "none.json"
    assert refusal("--data", absent, "--predictions", predictions).startswith(f"error: {absent}: there is no such file")


def test_evaluate_names_a_predictions_file_that_is_not_json(data, predictions):
    predictions.write_text("{")
    assert refusal("--data", data, "--predictions", predictions).startswith(f"error: {predictions}: not JSON")


def test_evaluate_names_the_file_that_lacks_predictions(data, predictions):
    save(predictions, {"q2": ""})
    message = refusal("--data", data, "--predictions", predictions)
    assert message.startswith(f"error: {predictions} (scored on {data}): predictions: 1 of 2 questions have none")


def test_evaluate_refuses_predictions_that_are_a_list(data, predictions):
    save(predictions, ["تهران"])
    assert "predictions: found list" in refusal("--data", data, "--predictions", predictions)


def test_evaluate_refuses_a_probability_that_is_nan(data, predictions, tmp_path):
    odds = tmp_path / "odds.json"
    odds.write_text('{"q1": NaN, "q2": 0.5}')
    message = refusal("--data", data, "--predictions", predictions, "--na-prob", odds)
    assert f"{odds} (scored on {data}): no_answer_probability: question 'q1': found nan" in message


@pytest.mark.parametrize("value", ["nan", "inf", "half", ""])
def test_evaluate_refuses_a_threshold_that_is_not_finite(data, predictions, value):
    message = refusal("--data", data, "--predictions", predictions, "--na-threshold", value)
    assert message == f"error: argument --na-threshold: {value!r} is not a finite number; --help lists the flags\n"


def test_evaluate_refuses_a_threshold_without_the_numbers_it_limits(data, predictions):
    said = refusal("--data", data, "--predictions", predictions, "--na-threshold", "0.5")
    assert "--na-threshold is a limit to the numbers of --na-prob, which is not given" in said


def test_evaluate_refuses_a_command_without_data(predictions):
    result = evaluate("--predictions", predictions)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
