"""The pages of runs, and runs side by side, from run folders that are written here."""

import base64
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from minitransformer.pages.chart import Series, chart, ticks
from minitransformer.system.errors import RunError
from qa import metrics, report, squad
from qa.compare import __main__ as compare
from qa.report import __main__ as command
from qa.report import page as page_parts
from qa.report import question_words, scored
from qa.spans import Candidate, Prediction, official_files
from qa.squad import Answer, Example
from test_page import Elements
from tiny import call
from vision import report as vision_report
from vision.images import Images

LOG = "step,epoch,loss,running_mean,lr,{}_per_second\n1,1,3,3,0.001,100\n2,1,1.5,2.25,0.0005,300\n3,1,0.5,1.6,0,200\n"
EVIL = '</p><script>alert("x")</script><img src=x onerror=y>'


def write_run(folder: Path, examples: list[Example], wrong: tuple[str, ...] = (), **recipe: str) -> Path:
    """A run that answers rightly, except for the ids in `wrong`, on which it does the opposite."""
    folder.mkdir()
    fields = {"weights": "parsbert", "train": "train.json", "valid": "valid.json", "null_threshold": 0.0} | recipe
    (folder / "recipe.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items()))
    (folder / "log.csv").write_text(LOG.format("tokens"))
    answers = {}
    for example in examples:
        gold = example.answers[0] if example.answers else Answer(example.context.split()[0], 0)
        declines = bool(example.answers) == (example.id in wrong)
        odds = 2.0 if declines else -2.0
        n_best = sorted([Candidate(gold.text, 0.0, 0.5), Candidate("", odds, 0.5)], key=lambda c: -c.score)
        answers[example.id] = Prediction("" if declines else gold.text, odds, n_best, gold.start)
    for name, value in official_files(answers)._asdict().items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "places.json").write_text(json.dumps({id: answer.start for id, answer in answers.items()}))
    best = {id: next(c.text for c in answer.n_best if c.text) for id, answer in answers.items()}
    odds = {id: answer.null_odds for id, answer in answers.items()}
    scores = metrics.squad_v2(examples, best, odds, threshold=0.0) | {"loss": 0.8444}
    (folder / "metrics.json").write_text(json.dumps(scores))
    scored.write_data(folder, examples, features(examples), examples, features(examples))
    return folder


def features(examples: list[Example]) -> list[scored.Feature]:
    ids, none = np.zeros(9, np.int32), np.zeros((1, 2), np.int32)
    return [scored.Feature(k, ids, ids, 3, none, 0, 0) for k in range(len(examples))]


def shown(page: str) -> str:
    return " ".join("".join(Elements(page).shown).split())


# ------------------------------------------------------------------------------------------ question answering


def test_the_page_tells_scores_losses_and_what_is_known_of_the_data(tmp_path):
    folder = write_run(tmp_path / "run", tiny.examples(), wrong=("q1", "q3"))
    made = shown(report.write(folder).read_text())
    assert "Of 12 validation questions 10 got exactly a right answer." in made
    assert "83.33" in made
    assert "0.8444" in made
    assert "Steps: 3; epochs: 1." in made
    assert "Right: 10 of 10" in made
    assert "Wrong: 2 of 2" in made
    assert 'training</td><td dir="ltr">train.json</td><td class="number">12</td>' in report.write(folder).read_text()


def test_published_rows_stand_beside_a_run_on_pquad_alone(tmp_path):
    pquad = shown(report.write(write_run(tmp_path / "a", tiny.examples(), valid="pquad")).read_text())
    assert "course report" in pquad
    assert "69.71" in pquad
    assert "82.00" in pquad
    own = shown(report.write(write_run(tmp_path / "b", tiny.examples())).read_text())
    assert "course report" not in own
    assert "82.00" not in own


def test_hostile_questions_passages_and_names_make_no_element(tmp_path):
    context = f"start {EVIL} \u202eend\u2066"
    examples = [
        Example(EVIL, EVIL, EVIL, context, (Answer(EVIL, context.index(EVIL)),)),
        Example("none", EVIL, EVIL + "\u202e", context, ()),
    ]
    folder = write_run(tmp_path / "run", examples, wrong=("none",), weights=EVIL, train=EVIL, valid="pquad" + EVIL)
    other = write_run(tmp_path / "other", examples, wrong=(EVIL,))
    outcome = call(compare.main, folder, other, "--out", tmp_path / "compare.html")
    assert outcome.status == 0, outcome.err
    assert "\u202e" not in outcome.out
    for page in (report.write(folder).read_text(), (tmp_path / "compare.html").read_text()):
        elements = Elements(page)
        assert {"script", "img"}.isdisjoint(elements.names)
        assert EVIL in "".join(elements.shown)
        assert not set("\u202e\u2066") & set(page)


def test_gold_and_answer_are_marked_where_they_stand_and_where_they_overlap():
    example = Example("q", "", "?", "one two three four two", (Answer("two three", 4),))
    asked = scored.Scored(example, "three four", "three four", 8, -1.0, 0.0, 0.5)
    assert page_parts.marked(asked) == (
        'one <mark class="gold">two </mark><mark class="gold said miss">three</mark>'
        '<mark class="said miss"> four</mark> two'
    )
    last = asked._replace(answer="two", best="two", place=19)  # the second "two", not the first
    assert page_parts.marked(last).endswith('four <mark class="said miss">two</mark>')
    assert "said" not in page_parts.marked(asked._replace(answer=""))  # withheld


def test_the_threshold_curve_agrees_with_the_metric(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        page_parts.chart, "chart", lambda *given, **more: drawn.update(series=given[3]) or page_parts.Html("")
    )
    run = scored.read_run(write_run(tmp_path / "run", tiny.examples(), wrong=("q1", "q3")))
    questions = scored.read_questions(run)
    page_parts.threshold(run, questions)
    assert [x for x, _ in drawn["series"][0].points] == [-2.0, 2.0]
    odds = {q.example.id: q.null_odds for q in questions}
    best = {q.example.id: q.best for q in questions}
    for k, threshold in enumerate((-2.0, 2.0)):
        scores = metrics.squad_v2([q.example for q in questions], best, odds, threshold)
        names = ("f1", "exact", "HasAns_f1", "NoAns_f1")
        assert [series.points[k][1] for series in drawn["series"]] == pytest.approx([scores[name] for name in names])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", None, "has not ended"),
        ("recipe.toml", None, "no run in it"),
        ("log.csv", "step,loss\n1,x\n", "cannot be read"),
        ("log.csv", "step,loss\n1,2\n", "log.csv: it has no column _per_second; run it again"),
        ("log.csv", LOG.format("tokens").replace(",lr,", ",rate,"), "log.csv: it has no column lr; run it again"),
        ("log.csv", LOG.format("tokens").replace("\n2,", "\n7,"), "log.csv: its steps are not 1, 2, 3, ..."),
        ("log.csv", LOG.format("tokens") + "1" * 200_000, "log.csv: cannot be read"),
        ("data.json", '{"train": {"questions": 0}}', "its files are not what a run writes ("),
        ("data.json", '{"train": 3}', "its files are not what a run writes ("),
        ("data.json", '{"train": {"questions": 0, "unanswerable": 0}}', "its files are not what a run writes ("),
        ("nbest.json", "{}", "lack question 'q0'"),
        ("places.json", None, "there is no such file; was the run made by an older version? Run it again"),
        ("null_odds.json", "[", "not JSON"),
        ("valid.json", None, "no such file"),
        ("recipe.toml", "null_threshold = 0", "its files are not what a run writes ('weights'); run it again"),
        ("recipe.toml", "trainable = 'all'", "no run of train_qa.py, its recipe has no null_threshold"),
    ],
)
def test_what_a_run_folder_lacks_is_said_in_one_line(tmp_path, name, content, said):
    folder = write_run(tmp_path / "run", tiny.examples())
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    assert said in call(command.main, folder).refusal()
    assert not (folder / "report.html").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@pytest.mark.parametrize("name", ["log.csv", "nbest.json"])
def test_a_fifo_in_a_run_folder_is_refused_and_not_waited_for(tmp_path, name):
    folder = write_run(tmp_path / "run", tiny.examples())
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name}: " in call(command.main, folder).refusal()


def test_question_words_are_told_apart():
    asked = {
        "پایتخت ایران کجاست؟": "where", "چه کسی شهردار است؟": "who", "طول رود چند کیلومتر است؟": "how many",
        "واحد پول چیست؟": "what", "کدام زبان رسمی است؟": "which", "در چه سالی زاده شد؟": "when", "چرا رفت؟": "why",
        "Who was it?": "who", "How many are there?": "how many", "How is it done?": "how", "نامش را بگو": "other",
        "درازای رود چه‌قدر است؟": "how many", "پایتخت آن كدام است؟": "which",
    }  # fmt: skip
    assert {question: question_words.kind_of(question).split(" · ")[0] for question in asked} == asked


# ------------------------------------------------------------------------------------------------- comparison


def test_compare_shows_what_differs_and_who_is_right(tmp_path):
    first = write_run(tmp_path / "first", tiny.examples(), wrong=("q1", "q2"))
    second = write_run(tmp_path / "second", tiny.examples(), wrong=("q2", "q3", "q4"), weights="albert-fa")
    outcome = call(compare.main, first, second, "--out", tmp_path / "compare.html")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[:2] == ["recipe   first     second", "weights  parsbert  albert-fa"]
    assert next(line for line in lines if line.startswith("exact")).split() == ["exact", "83.3333", "75.0000"]
    assert "first right, second wrong: 2 of 12" in lines
    assert "second right, first wrong: 1 of 12" in lines
    made = shown((tmp_path / "compare.html").read_text())
    assert "first against second" in made
    assert "first right, second wrong: 2 of 12" in made


def test_compare_refuses_runs_on_other_questions_and_a_single_run(tmp_path):
    first = write_run(tmp_path / "first", tiny.examples())
    second = write_run(tmp_path / "second", tiny.examples(8))
    assert "answered other questions" in call(compare.main, first, second).refusal()
    assert "give two or more" in call(compare.main, first).refusal()


# ----------------------------------------------------------------------------------------------------- vision


def test_the_vision_page_tells_accuracy_classes_and_mistakes(tmp_path):
    folder, classes = tmp_path / "run", ("cat", EVIL, "گربه")
    folder.mkdir()
    (folder / "recipe.toml").write_text('weights = "demo-deit"\ntrainable = "all"\n')
    (folder / "log.csv").write_text(LOG.format("images"))
    scores = {"accuracy": 50.0, "loss": 0.5, "total": 4, "per_class": {"cat": 100.0, EVIL: 0.0, "گربه": 50.0},
              "confusion": [[1, 0, 0], [0, 0, 1], [1, 0, 1]]}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(scores))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 200, 100, 3)).astype(np.uint8)
    images = Images(pixels, np.array([0, 1, 2, 2]), classes)
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 2], [0, 0, 1], [3, 0, 0]])
    vision_report.write_pictures(folder, images, images, logits, seed=0)

    written = json.loads((folder / "pictures.json").read_text())
    assert {(m["true"], m["answer"]) for m in written["mistakes"]} == {(EVIL, "گربه"), ("گربه", "cat")}
    expected = {math.exp(2) / (2 + math.exp(2)), math.exp(3) / (2 + math.exp(3))}
    assert sorted(m["probability"] for m in written["mistakes"]) == pytest.approx(sorted(expected))
    size = Image.open(io.BytesIO(base64.b64decode(written["sample"]["picture"]))).size
    assert size == (64, 128)

    elements = Elements(vision_report.write(folder).read_text())
    assert elements.names.count("img") == 3  # the sample and two mistakes
    assert "script" not in elements.names
    made = " ".join("".join(elements.shown).split())
    assert "Of 4 validation pictures 2 got the right one." in made
    assert "2 of 2, drawn by chance" in made
    assert call(vision_report.main, folder).out.strip() == str(folder / "report.html")

    (folder / "pictures.json").write_text('{"classes": 3}')
    assert "run it again" in call(vision_report.main, folder).refusal()


# ----------------------------------------------------------------------------------------------------- charts


def test_ticks_are_round_and_enclose_the_values():
    assert ticks([0.3, 9.7]) == [0, 2, 4, 6, 8, 10]
    assert ticks([0.0, 0.0005]) == pytest.approx([0, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005])
    assert ticks([5.0, 5.0])[0] <= 5.0 <= ticks([5.0, 5.0])[-1]
    assert len(ticks([])) > 1


def test_a_chart_draws_finite_points_and_names_its_axes_and_series():
    made = chart(
        "<b>", "step", "loss", [Series("a", [(1, 1.0), (2, math.nan), (3, 3.0)]), Series("b", [(1, 2.0)], True)]
    )
    assert made.count('class="line stroke0"') == 1
    assert "nan" not in made
    assert {"step", "loss", "a", "b", "<b>"} <= set(Elements(made).shown)


def test_reading_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run in it"):
        scored.read_run(tmp_path)


def test_the_questions_are_kept_as_they_were_given(tmp_path):
    folder = write_run(tmp_path / "run", tiny.examples())
    assert squad.read(folder / "valid.json") == tiny.examples()
    assert json.loads((folder / "data.json").read_text())["valid"] == {
        "questions": 12, "unanswerable": 3, "passages": 10, "inputs": 12, "tokens_mean": 9, "tokens_longest": 9,
    }  # fmt: skip
