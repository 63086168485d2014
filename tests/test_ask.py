"""`python -m qa.ask`: one question, a prompt, long passages, and texts that would command a terminal."""

import io
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from unittest import mock

import pytest

import train_qa
from qa import ask
from qa.answerer import to_answer
from qa.spans import Candidate, Prediction
from tiny import call, examples, write_checkpoint, write_questions

CHECKOUT = Path(__file__).parents[1]
FIRST, *_ = examples()
SHARE, SCORE = r"\d+\.\d%", r"-?\d+\.\d\d"


def teach_capitals(folder: Path) -> Path:
    """A model that train_qa.py has taught the capitals of tiny.examples(), in `folder`."""
    data = write_questions(folder / "data.json")
    weights = write_checkpoint(folder / "weights", dropout=0.0, attention_dropout=0.0)
    lengths = ("--max-length", 64, "--stride", 16, "--batch-size", 12, "--epochs", 40)
    numbers = (*lengths, "--learning-rate", 5e-3, "--head-dropout", 0, "--checkpoint-every", 0)
    files = ("--weights", weights, "--train", data, "--valid", data, "--out", folder / "run")
    with mock.patch.object(train_qa, "plot_losses"):
        assert call(train_qa.main, "--recipe", "modern", *numbers, *files).status == 0
    return folder / "run/model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return teach_capitals(tmp_path_factory.mktemp("ask"))


def test_ask_answers_a_question(folder):
    outcome = call(ask.main, "--model", folder, "--context", FIRST.context, "--question", FIRST.question)
    assert (outcome.status, outcome.err) == (0, "")
    text, chances, *others, empty, passage = outcome.out.splitlines()
    assert text == FIRST.answers[0].text
    assert re.fullmatch(rf" {{4}}probability {SHARE}, score {SCORE}; of no answer {SHARE}, {SCORE}", chances)
    assert len(others) == ask.NEXT_BEST
    assert all(re.fullmatch(rf" {{4}}or +{SHARE} +{SCORE}  .+", other) for other in others)
    assert empty == ""
    assert passage == FIRST.context.replace(text, f"[{text}]")


def test_ask_says_where_there_is_no_answer(folder):
    silent = next(example for example in examples() if not example.answers)
    outcome = call(ask.main, "--model", folder, "--context", silent.context, "--question", silent.question)
    first, chance, *others = outcome.out.splitlines()
    assert first == "No answer in the passage."
    assert re.fullmatch(rf" {{4}}probability {SHARE}, score {SCORE}", chance)
    assert len(others) == ask.NEXT_BEST
    assert all(re.fullmatch(rf" {{4}}or +{SHARE} +{SCORE}  .+", other) for other in others)


def test_ask_takes_a_question_behind_thousands_of_blanks(folder):
    flags = ("--model", folder, "--context", FIRST.context, "--question")
    plain, behind = (call(ask.main, *flags, blanks + FIRST.question).out for blanks in ("", 20_000 * " "))
    assert plain == behind


def test_ask_reads_the_passage_from_a_file(folder, tmp_path):
    (tmp_path / "passage.txt").write_text("\ufeff" + FIRST.context, encoding="utf-8")
    flags = ("--model", folder, "--context-file", tmp_path / "passage.txt", "--question", FIRST.question)
    assert call(ask.main, *flags).out.startswith(FIRST.answers[0].text + "\n")


def test_ask_reads_the_passage_from_standard_input(folder):
    flags = ("--model", folder, "--context-file", "-", "--question", FIRST.question)
    assert call(ask.main, *flags, typed="\ufeff" + FIRST.context).out.startswith(FIRST.answers[0].text + "\n")


@pytest.mark.parametrize("place", ["file", "run"])
def test_ask_reads_passage_and_question_by_id(folder, tmp_path, place):
    path = write_questions(tmp_path / "valid.json")
    flags = ("--model", folder, "--data", path if place == "file" else tmp_path, "--id")
    said = call(ask.main, *flags, FIRST.id).out
    assert said.startswith(f"question: {FIRST.question}\n{FIRST.answers[0].text}\n")
    assert said.endswith(f"\n\nthe data says: {FIRST.answers[0].text}\n")
    silent = next(example for example in examples() if not example.answers)
    assert call(ask.main, *flags, silent.id).out.endswith("\n\nthe data says: no answer\n")
    assert "the data says" not in call(ask.main, *flags, silent.id, "--question", FIRST.question).out
    message = call(ask.main, *flags, "q111").refusal()
    assert message == f"error: {path}: no question 'q111' (did you mean 'q11'?); its first is 'q0'"


@pytest.mark.parametrize("end", ["", "\n", "\n\nthis is not read\n", "\n  \n"])
def test_ask_answers_questions_until_an_empty_line_or_the_end(folder, end):
    outcome = call(
        ask.main, "--model", folder, "--context", FIRST.context, typed=f"{FIRST.question}\n{FIRST.question}{end}"
    )
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines().count(FIRST.answers[0].text) == 2


def test_ask_goes_on_after_a_question_that_cannot_be_read(folder):
    typed = "چه " * 200 + "\n" + FIRST.question + "\n"
    outcome = call(ask.main, "--model", folder, "--context", FIRST.context, typed=typed)
    assert outcome.err.startswith("error: question 1: it leaves room for 0 tokens of the context")
    assert outcome.err.count("\n") == 1
    assert outcome.out.startswith(FIRST.answers[0].text)
    assert outcome.status == 0


@pytest.mark.parametrize("place", ["input", "answer"])
def test_ask_ends_quietly_on_ctrl_c(folder, place):
    with mock.patch(
        "builtins.input" if place == "input" else "qa.ask.Answerer.__call__", side_effect=KeyboardInterrupt
    ):
        outcome = call(ask.main, "--model", folder, "--context", FIRST.context, typed=FIRST.question)
    assert outcome == (0, "\n", "")


def test_report_gives_the_score_of_the_best_place_and_each_text_once():
    """The same word may stand in two places."""
    n_best = [Candidate("تهران", 3.0, 0.5), Candidate("", 2.5, 0.3), Candidate("تهران", 2.0, 0.15)]
    n_best += [Candidate("قم", 1.0, 0.04), Candidate("ساری", 0.5, 0.01)]
    answer = to_answer(Prediction("تهران", -0.5, n_best, start=4), "شهر تهران")
    chances = "    probability 50.0%, score 3.00; of no answer 30.0%, 2.50"
    others = ["    or   4.0%    1.00  قم", "    or   1.0%    0.50  ساری"]
    said = ask.report(answer)
    assert said.splitlines() == ["تهران", chances, *others, "", "شهر [تهران]"]


def test_the_answer_is_coloured_for_a_terminal_alone():
    assert ask.marked("a b c d", 2, 5, coloured=True) == "a \x1b[30;42mb c\x1b[0m d"
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        for settings, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            with mock.patch.dict(os.environ, {"TERM": "xterm", "NO_COLOR": ""} | settings):
                assert ask.wants_colour(terminal) == coloured
    os.close(ours)
    assert not ask.wants_colour(io.StringIO())


def test_a_long_passage_is_shown_around_the_answer():
    context = "شهر " * 500 + "تهران" + " رود" * 500
    shown = ask.marked(context, 2000, 2005, coloured=False)
    assert len(shown) == 2 * ask.AROUND + len("…[تهران]…")
    assert "شهر [تهران] رود" in shown
    assert (shown[0], shown[-1]) == ("…", "…")
    assert ask.marked("تهران\nشهر", 0, 5, coloured=False) == "[تهران] شهر"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("تهران\x1b[31m", "تهران[31m"),  # red from here on
        ("\x1b]0;title\x07a", "]0;titlea"),
        ("a\u202eb\u2066c\u2069\u200f", "abc"),  # direction turned
        ("می\u200cشود", "می\u200cشود"),  # the half-space is a letter of Persian
        ("\u0646\u200d", "\u0646\u200d"),
        ("a\nb\tc\r\nd", "a b c d"),
        ("a\x00\x08\x7f\x9bb", "ab"),
        ("a\ud800b", "ab"),
        ("😀 é «۱۲»", "😀 é «۱۲»"),
    ],
)
def test_report_prints_texts_harmlessly(text, shown):
    candidates = [Candidate(text, 1.0, 0.7), Candidate("", 0.0, 0.2), Candidate(text + "!", -1.0, 0.1)]
    answer = to_answer(Prediction(text, -1.0, candidates, start=len(text) + 2), f"({text} {text})")
    said = ask.report(answer)
    line, _, other, empty, passage = said.split("\n")
    assert line == shown
    assert other == f"    or  10.0%   -1.00  {shown}!"
    assert empty == ""
    assert passage == f"({shown} [{shown}])"
    assert not [c for c in said if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\u200c\u200d"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ((), "one of the arguments --context --context-file --data is required"),
        (("--data", "a.json"), "--data and --id go together"),
        (("--context", "a", "--id", "q"), "--data and --id go together"),
        (("--data", "absent.json", "--id", "q"), "absent.json: there is no such file"),
        (("--data", "", "--id", "q"), "valid.json: there is no such file"),
        (("--context-file", "-"), "standard input holds the passage, so give the --question"),
        (("--context", "a", "--context-file", "b"), "--context-file: not allowed with argument --context"),
        (("--context", " ", "--question", "b"), "the passage is empty: write one"),
        (("--context", ""), "the passage is empty: write one"),
        (("--context", "a", "--question", ""), "the question is empty: write one"),
        (("--context", "a", "--question", "\n"), "the question is empty: write one"),
        (("--context", "a\udcff", "--question", "b"), "the passage is not UTF-8: convert it"),
        (("--context", "a", "--question", "b\udcff"), "the question is not UTF-8: convert it"),
        (("--context", "a", "--question", "چه " * 200), "raise max_length or shorten the question"),
        (("--context-file", "absent.txt"), "absent.txt: No such file or directory"),
        (("--context-file", "/"), "/: Is a directory"),
        (("--context", "a", "--modle", "b"), "unknown flag '--modle' (did you mean '--model'?)"),
    ],
)
def test_ask_refuses(folder, flags, problem):
    outcome = call(ask.main, "--model", folder, *flags)
    assert problem in outcome.refusal()
    assert outcome.out == ""


def test_ask_refuses_a_passage_that_is_not_utf_8(folder, tmp_path):
    (tmp_path / "passage.txt").write_bytes("تهران".encode("cp1256"))
    message = call(ask.main, "--model", folder, "--context-file", tmp_path / "passage.txt").refusal()
    assert f"{tmp_path}/passage.txt: not UTF-8 at byte 0; save the file as UTF-8" in message


def test_ask_refuses_a_model_without_a_trained_head(tmp_path):
    flags = ("--model", write_checkpoint(tmp_path / "encoder"), "--context", "a", "--question", "b")
    assert "first qa_outputs.bias: train it first" in call(ask.main, *flags).refusal()


def test_ask_refuses_a_folder_that_is_no_model(tmp_path):
    assert "no config.json" in call(ask.main, "--model", tmp_path, "--context", "a", "--question", "b").refusal()


def test_ask_runs_as_a_process(folder):
    command = [sys.executable, "-m", "qa.ask", "--model", str(folder), "--context", FIRST.context]
    result = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        input=FIRST.question,
        encoding="utf-8",
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(FIRST.answers[0].text + "\n")


def test_the_prompt_of_a_terminal_has_colours_and_a_history(folder):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "qa.ask", "--model", str(folder), "--context", FIRST.context]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "NO_COLOR": "", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = ""

    def wait_for(text: str) -> None:
        nonlocal said
        while text not in said:
            said += os.read(ours, 4096).decode(errors="replace")
        said = said.partition(text)[2]

    marked = "\x1b[30;42m" + FIRST.answers[0].text
    wait_for("question: ")
    os.write(ours, FIRST.question.encode() + b"\n")
    wait_for(marked)
    wait_for("question: ")
    os.write(ours, b"\x1b[A\n")  # arrow up
    wait_for(marked)
    wait_for("question: ")
    os.write(ours, b"\n")
    assert process.wait(timeout=60) == 0
    os.close(ours)
