"""train_qa.py as a user runs it: a run from end to end, stopped and resumed, and everything that it must refuse."""

import contextlib
import errno
import gzip
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import train_qa
from minitransformer import bert
from minitransformer.system import files as run_files
from minitransformer.training import checkpoint
from minitransformer.training.log import Log
from minitransformer.training.order import epoch_order
from qa import metrics, squad
from qa.features import collate, featurise
from qa.squad import Answer, Example
from tests import kill
from tiny import (
    Outcome,
    call,
    examples,
    files_under,
    groups_by_name,
    last_line,
    log_of,
    rewrite_json,
    stop_after,
    write_checkpoint,
    write_questions,
    write_vocabulary,
)
from weights import load_pretrained, load_tokenizer

CHECKOUT = Path(__file__).parents[1]
SMALL = {
    "--recipe": "modern",
    "--max-length": 64,
    "--stride": 16,
    "--batch-size": 4,
    "--epochs": 3,
    "--learning-rate": 1e-3,
    "--print-every": 2,
    "--checkpoint-every": 2,
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    monkeypatch.setattr(train_qa, "plot_losses", lambda *given: None)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_questions(tmp_path / "data.json")


@pytest.fixture
def weights(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "weights")


@pytest.fixture
def train(tmp_path, data, weights):
    """train("--flag", value, ...): a small run into tmp_path/run; later flags win."""

    def run(*flags: object) -> Outcome:
        files = {"--weights": weights, "--train": data, "--valid": data, "--out": tmp_path / "run"}
        return call(train_qa.main, *(part for pair in (SMALL | files).items() for part in pair), *flags)

    return run


# ---------------------------------------------------------------------------------------------------- a run


def test_train_qa_leaves_a_whole_run_folder(train, tmp_path, data):
    outcome = train()
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "recipe.toml", "log.csv", "checkpoints", "model", "predictions.json", "nbest.json", "null_odds.json",
        "metrics.json", "places.json", "data.json", "facts.json", "valid.json", "report.html",
    }  # fmt: skip
    assert {path.name for path in (folder / "model").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert not [name for name in files_under(folder) if "tmp" in name]

    rows = log_of(folder)
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 10)]  # 12 questions by 4, three times
    assert [row["epoch"] for row in rows] == list("111222333")

    scores = json.loads((folder / "metrics.json").read_text())
    predictions = json.loads((folder / "predictions.json").read_text())
    assert scores["total"] == 12
    assert scores["loss"] > 0
    expected = metrics.squad_v2(squad.read(data), predictions)
    assert {key: scores[key] for key in ("exact", "f1", "HasAns_f1")} == {
        key: expected[key] for key in ("exact", "f1", "HasAns_f1")
    }
    assert set(json.loads((folder / "nbest.json").read_text())) == set(predictions)
    assert set(json.loads((folder / "null_odds.json").read_text())) == set(predictions)


def test_train_qa_prints_the_running_mean_of_each_epoch(train, tmp_path):
    outcome = train()
    losses = [float(row["loss"]) for row in log_of(tmp_path / "run")]
    for epoch in (1, 2, 3):
        mean = sum(losses[3 * epoch - 3 : 3 * epoch - 1]) / 2
        assert f"Epoch [{epoch}] Batch [2] - Loss = {mean:.4f}" in outcome.out


@pytest.fixture
def learn(train, tmp_path):
    """learn("--flag", value, ...): train until all questions are answered right."""
    calm = write_checkpoint(tmp_path / "calm", dropout=0.0, attention_dropout=0.0)
    flags = ("--epochs", 40, "--learning-rate", 5e-3, "--batch-size", 12, "--head-dropout", 0, "--checkpoint-every", 0)
    return lambda *more: train("--weights", calm, *flags, *more)


def test_train_qa_learns(learn, tmp_path):
    assert learn().status == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["exact"] == 100
    model = load_pretrained(tmp_path / "run/model", "question-answering", fresh_head=False)
    assert model.config.positions == 128
    assert load_tokenizer(tmp_path / "run/model").get_vocab_size() == model.config.vocabulary


@pytest.mark.parametrize(
    ("schedule", "decay"), [("step", "--decay-all"), ("linear", "--decay-all"), ("linear", "--no-decay-all")]
)
def test_train_qa_takes_the_steps_of_a_plain_loop(train, tmp_path, data, schedule, decay):
    """AdamW, its groups, clipping and the schedule by torch's own means, dropout off: the same losses."""
    calm = write_checkpoint(tmp_path / "calm", dropout=0.0, attention_dropout=0.0)
    flags = ("--head-dropout", 0, "--schedule", schedule, "--warmup", 0.25, "--gamma", 0.5, "--weight-decay", 3)
    assert train("--weights", calm, *flags, decay, "--clip-norm", 0.1, "--learning-rate", 3e-3).status == 0

    torch.manual_seed(0)
    model = load_pretrained(calm, "question-answering")
    features = featurise(squad.read(data), load_tokenizer(calm), 64, 16)
    whole = [{"params": list(model.parameters()), "weight_decay": 3.0}]
    groups = whole if decay == "--decay-all" else groups_by_name(model.named_parameters(), weight_decay=3.0)
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    if schedule == "step":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    else:  # nine steps, of which the first two rise
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, [0, 0.5, *(step / 7 for step in range(7, -1, -1))].__getitem__
        )
    losses = []
    for epoch in range(3):
        order = epoch_order(12, seed=0, epoch=epoch)
        for chosen in order.split(4):
            batch = collate([features[index] for index in chosen], pad_id=0)
            logits = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
            targets = (batch.start, batch.end)
            loss = sum(map(torch.nn.functional.cross_entropy, logits, targets)) / 2
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            losses.append(loss.item())
    assert [float(row["loss"]) for row in log_of(tmp_path / "run")] == pytest.approx(losses, rel=1e-4)


def test_train_qa_trains_and_evaluates_in_mixed_precision(train, tmp_path, monkeypatch):
    monkeypatch.setattr("minitransformer.training.precision._sixteen_bits", lambda device: torch.bfloat16)
    trained, evaluated = [], []
    for precision in ("float32", "mixed"):
        out = tmp_path / precision
        assert train("--precision", precision, "--max-steps", 2, "--out", out).status == 0
        trained.append([float(row["loss"]) for row in log_of(out)])
        assert train("--precision", precision, "--epochs", 0, "--out", out / "untrained").status == 0
        evaluated.append(json.loads((out / "untrained/metrics.json").read_text())["loss"])
    for exact, mixed in (trained, evaluated):
        assert mixed != exact
        assert mixed == pytest.approx(exact, rel=0.05)


def test_train_qa_has_its_own_dropout_before_the_head(train, tmp_path):
    calm = write_checkpoint(tmp_path / "calm", dropout=0.0, attention_dropout=0.0)
    losses = []
    for rate in (0, 0.5):
        flags = ("--head-dropout", rate, "--max-steps", 1, "--out", tmp_path / f"run {rate}")
        assert train("--weights", calm, *flags).status == 0
        losses.append(log_of(tmp_path / f"run {rate}")[0]["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize(("threshold", "empty"), [("-1e9", 12), ("1e9", 0)])
def test_train_qa_threshold_decides_what_has_no_answer(train, tmp_path, threshold, empty):
    assert train("--epochs", 0, "--null-threshold", threshold).status == 0
    predictions = json.loads((tmp_path / "run/predictions.json").read_text())
    assert list(predictions.values()).count("") == empty
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert scores["NoAns_exact"] == (100 if empty else 0)


def test_train_qa_reports_the_best_spans_of_questions_that_it_declines_too(learn, tmp_path, data):
    assert learn("--null-threshold", "-1e9", "--n-best", 3).status == 0
    files = (tmp_path / f"run/{name}.json" for name in ("metrics", "nbest", "places"))
    scores, nbest, places = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    assert scores["exact"] == 25, "a quarter has no answer"
    assert scores["best_exact"] == 100, "with the best of thresholds"
    assert {len(rows) for rows in nbest.values()} == {3 + 1}, 'three spans and "no answer"'
    for example in squad.read(data):
        best = next(row["text"] for row in nbest[example.id] if row["text"])
        assert example.context.startswith(best, places[example.id])


def test_train_qa_limits_the_length_of_answers(train, tmp_path, weights):
    assert train("--epochs", 0, "--max-answer-tokens", 1).status == 0
    tokenizer = load_tokenizer(weights)
    nbest = json.loads((tmp_path / "run/nbest.json").read_text(encoding="utf-8"))
    texts = [row["text"] for rows in nbest.values() for row in rows if row["text"]]
    assert {len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts} == {1}


def test_train_qa_draws_its_pictures(train, tmp_path, monkeypatch):
    monkeypatch.undo()
    assert train("--epochs", 1).status == 0
    assert {"loss-line.png", "loss-scatter.png"} <= set(files_under(tmp_path / "run"))


def test_train_qa_runs_from_its_own_recipe_alone(train, tmp_path):
    """recipe.toml holds everything needed to repeat the run."""
    assert train().status == 0
    again = call(train_qa.main, "--recipe", tmp_path / "run/recipe.toml", "--out", tmp_path / "again")
    assert again.status == 0
    assert log_of(tmp_path / "again") == log_of(tmp_path / "run")
    for name in ("recipe.toml", "model/model.safetensors", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_train_qa_seed_changes_the_fresh_head(train, tmp_path):
    for seed in (0, 1):
        assert train("--epochs", 0, "--seed", seed, "--out", tmp_path / str(seed)).status == 0
    models = [load_pretrained(tmp_path / str(seed) / "model", "question-answering") for seed in (0, 1)]
    assert torch.equal(*(model.encoder.embeddings.token.weight for model in models))
    assert not torch.equal(*(model.span.weight for model in models))


def test_train_qa_seed_changes_order_and_dropout(train, tmp_path):
    """Each alone: the head is the checkpoint's, the learning rate 0, and a single question has no order."""
    losses = {}
    for dropout, questions in ((0.0, 12), (0.0, 1), (0.1, 1)):
        settings = {"dropout": dropout, "attention_dropout": dropout}
        whole = write_checkpoint(tmp_path / f"dropout {dropout}", bert.BertForQuestionAnswering, **settings)
        flags = ("--weights", whole, "--head-dropout", 0, "--learning-rate", 0, "--limit-train", questions)
        for seed in (0, 1):
            out = tmp_path / f"{dropout} {questions} {seed}"
            assert train(*flags, "--epochs", 1, "--seed", seed, "--out", out).status == 0
            losses[dropout, questions, seed] = [row["loss"] for row in log_of(out)]
    assert losses[0.0, 12, 0] != losses[0.0, 12, 1], "the order"
    assert losses[0.0, 1, 0] == losses[0.0, 1, 1], "nothing else"
    assert losses[0.1, 1, 0] != losses[0.1, 1, 1], "dropout"


def test_train_qa_limits_questions_and_steps(train, tmp_path):
    assert train("--limit-train", 8, "--limit-valid", 5, "--max-steps", 3).status == 0
    assert len(log_of(tmp_path / "run")) == 3
    assert len(json.loads((tmp_path / "run/predictions.json").read_text())) == 5


def test_train_qa_without_epochs_evaluates_alone(train, tmp_path, monkeypatch):
    monkeypatch.undo()  # nothing to draw is a case for the pictures too
    assert train("--epochs", 0).status == 0
    assert log_of(tmp_path / "run") == []
    assert json.loads((tmp_path / "run/metrics.json").read_text())["total"] == 12


def test_train_qa_without_windows_cuts_contexts(train, tmp_path):
    assert train("--stride", -1, "--max-length", 16, "--epochs", 1).status == 0
    assert len(log_of(tmp_path / "run")) == 3  # one feature for each question


def test_train_qa_reads_gzipped_questions(train, data, tmp_path):
    (tmp_path / "data.json.gz").write_bytes(gzip.compress(data.read_bytes()))
    assert train("--train", tmp_path / "data.json.gz", "--epochs", 1).status == 0


def test_train_qa_reads_a_context_of_100_000_words_by_windows(train, tmp_path):
    words = ["شهر", "رود", "کوه"] * 33_333
    words[70_000] = "تهران"
    context = " ".join(words)
    example = Example("long", "", "پایتخت کجاست؟", context, (Answer("تهران", context.index("تهران")),))
    sizes = {"positions": 512, "layers": 1, "width": 8, "heads": 1, "ffn_width": 8}
    weights = write_checkpoint(tmp_path / "long", **sizes, dropout=0.0, attention_dropout=0.0)
    data = write_questions(tmp_path / "long.json", [example])
    flags = ("--weights", weights, "--train", data, "--valid", data, "--checkpoint-every", 0, "--n-best", 1)
    outcome = train(*flags, "--max-length", 512, "--stride", 128, "--batch-size", 32, "--epochs", 1)
    assert outcome.status == 0, outcome.err
    assert len(log_of(tmp_path / "run")) == 9  # 265 windows
    predicted = json.loads((tmp_path / "run/predictions.json").read_text())["long"]
    assert predicted in context


# ---------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("recipe", ["modern", "parsbert"])
@pytest.mark.parametrize("step", [2, 6])  # inside an epoch, and at the end of one
def test_resumed_run_is_bit_for_bit_the_run_that_never_stopped(train, tmp_path, monkeypatch, recipe, step):
    assert load_pretrained(tmp_path / "weights", "encoder").config.dropout == 0.1  # chance has its part
    assert train("--recipe", recipe, "--out", tmp_path / "straight").status == 0

    with monkeypatch.context() as patch:
        stop_after(step, patch)
        stopped = train("--recipe", recipe)
    assert stopped.status == 130
    assert stopped.err.splitlines()[-1] == "error: interrupted"
    assert not (tmp_path / "run/model").exists()

    resumed = train("--recipe", recipe, "--resume")
    assert resumed.status == 0, resumed.err
    assert f"resumed at step {step} from {tmp_path}/run/checkpoints" in resumed.out
    assert log_of(tmp_path / "run") == log_of(tmp_path / "straight")
    assert files_under(tmp_path / "run") == files_under(tmp_path / "straight")
    for name in files_under(tmp_path / "straight"):
        if (tmp_path / "straight" / name).is_file() and name not in ("log.csv", "report.html"):  # they tell the speed
            assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


@pytest.mark.parametrize("step", [2, 3, 5, 8, 9])  # not validated, validated, ...; 9 is the last
def test_resumed_run_finds_the_same_best_checkpoint(train, tmp_path, monkeypatch, step):
    flags = ("--validate-every", 5, "--max-answer-tokens", 8)
    straight = train(*flags, "--checkpoint-every", 1, "--out", tmp_path / "straight")
    assert straight.status == 0, straight.err
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        assert train(*flags, "--checkpoint-every", 1).status == 130
    resumed = train(*flags, "--checkpoint-every", 1, "--resume")
    assert f"resumed at step {step}" in resumed.out
    assert files_under(tmp_path / "run") == files_under(tmp_path / "straight")
    for name in ("model/model.safetensors", "metrics.json", "predictions.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_a_run_without_a_step_has_no_best_checkpoint_and_needs_none(train, tmp_path):
    assert train("--epochs", 0, "--validate-every", 2).status == 0
    assert (tmp_path / "run/model/model.safetensors").is_file()


def test_deterministic_operations_are_asked_for_and_change_nothing_on_a_cpu(train, tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert train("--deterministic").status == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert train("--out", tmp_path / "straight").status == 0
    assert not torch.are_deterministic_algorithms_enabled()
    for name in ("model/model.safetensors", "metrics.json", "predictions.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_the_model_that_is_written_is_the_best_in_validation(train, tmp_path, monkeypatch):
    f1 = {3: 10.0, 6: 50.0, 9: 20.0}
    evaluate, seen = train_qa.evaluate, iter([*f1.values(), None])

    def graded(*given):
        scores, score = evaluate(*given), next(seen)
        return scores | {"f1": score} if score is not None else scores

    monkeypatch.setattr(train_qa, "evaluate", graded)
    outcome = train("--validate-every", 3, "--checkpoint-every", 1, "--schedule", "step")
    for step, score in f1.items():
        assert f"step-{step:07}: validated at {score:.4f}\n" in outcome.out
    assert "the best was step-0000006 (50.0000): its weights are kept" in outcome.out
    kept = [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())]
    assert kept == ["step-0000006", "step-0000008", "step-0000009"]
    monkeypatch.undo()
    monkeypatch.setattr(train_qa, "plot_losses", lambda *given: None)
    assert train("--schedule", "step", "--max-steps", 6, "--out", tmp_path / "six").status == 0
    for name in ("model/model.safetensors", "metrics.json", "predictions.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "six" / name).read_bytes(), name


def test_resumed_run_goes_on_from_the_checkpoint_not_from_the_log(train, tmp_path, monkeypatch):
    """A crash comes some steps after the last checkpoint, and may cut the log's last line and a checkpoint short."""
    assert train("--out", tmp_path / "straight").status == 0
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        train()
    with (tmp_path / "run/log.csv").open("a") as log:
        log.write("5,2,0.9,0.9,0.001,77\n6,2,0.")
    (tmp_path / "run/checkpoints/.step-0000006.tmp").mkdir()
    (tmp_path / "run/checkpoints/.step-0000006.tmp/model.safetensors").write_bytes(b"half")
    outcome = train("--resume")
    assert "resumed at step 4" in outcome.out
    assert log_of(tmp_path / "run") == log_of(tmp_path / "straight")
    for name in ("model/model.safetensors", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert files_under(tmp_path / "run") == files_under(tmp_path / "straight")


def test_resumed_run_without_a_checkpoint_begins_anew(train, tmp_path, monkeypatch):
    assert train("--out", tmp_path / "straight").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", lambda *given, **score: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train().status == 130
    resumed = train("--resume")
    assert f"no checkpoint in {tmp_path}/run: the run begins at its first step" in resumed.out
    assert log_of(tmp_path / "run") == log_of(tmp_path / "straight")


def test_a_finished_run_that_kept_no_checkpoint_is_not_trained_anew_by_resume(train, tmp_path):
    train("--checkpoint-every", 0)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    refused = train("--checkpoint-every", 0, "--resume").refusal()
    assert "run: it has a finished model, and no checkpoint to go on from; choose another --out" in refused
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_resumed_run_that_was_finished_is_evaluated_again(train, tmp_path):
    train("--epochs", 2)
    before = (tmp_path / "run/metrics.json").read_bytes()
    (tmp_path / "run/metrics.json").unlink()
    assert "resumed at step 6" in train("--epochs", 2, "--resume").out
    assert (tmp_path / "run/metrics.json").read_bytes() == before


def test_run_keeps_the_two_newest_checkpoints(train, tmp_path):
    train()
    kept = [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())]
    assert kept == ["step-0000006", "step-0000008"]


def test_resume_goes_on_from_the_one_before_a_damaged_checkpoint(train, tmp_path):
    train("--out", tmp_path / "straight")
    train()
    path = tmp_path / "run/checkpoints/step-0000008"
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:100])
    resumed = train("--resume")
    assert f"warning: {path} is damaged (model.safetensors has 100 bytes, not " in resumed.err
    assert "resumed at step 6" in resumed.out
    files = [tmp_path / name / "model/model.safetensors" for name in ("run", "straight")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("part", ["train", "valid"])
def test_resume_refuses_other_questions_and_leaves_the_run_as_it_was(train, tmp_path, part):
    train()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    write_questions(tmp_path / "other.json", examples(11))
    message = train("--resume", f"--{part}", tmp_path / "other.json", "--may-change", part).refusal()
    kind = {"train": "training", "valid": "validation"}[part]
    assert f"facts.json: the run began with {kind} data " in message
    assert "resume with what it began with" in message
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_field_that_may_change_changes_the_rest_of_the_run(train, tmp_path):
    """Once the optimizer's own, as it was saved, won over the recipe's."""
    train("--out", tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-0000008")
    train("--resume", "--weight-decay", 9, "--may-change", "weight_decay")
    weights = [load_file(tmp_path / name / "model/model.safetensors") for name in ("run", "straight")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "weight_decay = 9.0" in (tmp_path / "run/recipe.toml").read_text()


def test_validation_that_is_asked_for_after_the_last_step_leaves_the_run_whole(train, tmp_path):
    train("--checkpoint-every", 3)
    done = train("--checkpoint-every", 3, "--resume", "--validate-every", 3, "--may-change", "validate_every")
    assert done.status == 0
    assert "has no whole checkpoint that was validated: the last weights are kept" in done.err


@contextlib.contextmanager
def failing_disk(monkeypatch, number: int, name: str, operation: str):
    """From inside on, that operation on files of that name fails."""

    def fail(done: str, path: str | Path) -> None:
        if done == operation and name in str(path):
            raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(run_files, "operation", fail)
        yield


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("operation", ["make folder", "write", "rename"])
def test_a_disk_that_fails_during_a_save_leaves_the_last_checkpoint_and_no_half_one(
    train, tmp_path, monkeypatch, number, operation
):
    with failing_disk(monkeypatch, number, "step-0000004", operation):
        message = last_line(train("--max-steps", 5))
    assert message.startswith(f"error: {tmp_path}/run/checkpoints/")
    assert message.endswith(f": {os.strerror(number)}")
    assert os.listdir(tmp_path / "run/checkpoints") == ["step-0000002"]
    assert "resumed at step 2" in train("--max-steps", 5, "--resume").out


@pytest.mark.parametrize("name", ["recipe.toml", "log.csv", "model/model.safetensors", "metrics.json"])
def test_a_disk_that_fails_elsewhere_ends_the_run_with_the_name_of_the_file(train, tmp_path, monkeypatch, name):
    with failing_disk(monkeypatch, errno.ENOSPC, name, "sync"):
        message = last_line(train("--max-steps", 2))
    assert message == f"error: {tmp_path}/run/{name}: No space left on device"
    assert not [path for path in files_under(tmp_path / "run") if path.endswith(".tmp")]


def test_a_file_that_the_system_cuts_off_ends_the_run_with_its_name(train, tmp_path):
    """A limit of the system on the size of files, in the place of a full disk: the write itself fails, half done."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # bytes; the model alone has 100,000
    try:
        message = last_line(train("--max-steps", 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message == f"error: {tmp_path}/run/checkpoints/.step-0000002.tmp/model.safetensors: File too large"
    assert os.listdir(tmp_path / "run/checkpoints") == []


def test_a_run_folder_that_vanishes_is_named_at_the_next_save(train, tmp_path, monkeypatch):
    add = Log.add

    def add_and_remove(log, step, **row):
        if step == 3:
            shutil.rmtree(tmp_path / "run")
        return add(log, step=step, **row)

    monkeypatch.setattr(Log, "add", add_and_remove)
    assert last_line(train()) == f"error: {tmp_path}/run/checkpoints: No such file or directory"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(train, tmp_path, monkeypatch, number):
    train("--out", tmp_path / "straight")
    add = Log.add

    def add_and_signal(log, step, **row):
        if step == 5:
            os.kill(os.getpid(), number)
        return add(log, step=step, **row)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "add", add_and_signal)
        stopped = train("--checkpoint-every", 0)
    assert stopped.status == 128 + number
    assert f"stopped after step 5, saved in {tmp_path}/run/checkpoints/step-0000005; go on: " in stopped.err
    assert "--resume" in stopped.err.splitlines()[-1]
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)

    refused = train("--resume").refusal()
    assert "may-change checkpoint_every" in refused
    resumed = train("--resume", "--may-change", "checkpoint_every")
    assert "resumed at step 5" in resumed.out
    files = [tmp_path / name / "model/model.safetensors" for name in ("run", "straight")]
    assert files[0].read_bytes() == files[1].read_bytes()


# ---------------------------------------------------------------------------------------------------- bad input


def text_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def qa_file(path: Path, **changes: object) -> Path:
    """One question whose fields are replaced."""
    answers = [{"text": "تهران", "answer_start": 4}]
    qa = {"id": "q7", "question": "پایتخت ایران کجاست؟", "answers": answers} | changes
    paragraph = {"context": "شهر تهران پایتخت ایران است.", "qas": [qa]}
    article = {"title": "ایران", "paragraphs": [paragraph]}
    return text_file(path, json.dumps({"data": [article]}, ensure_ascii=False))


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BAD_WEIGHTS = {
    "no safetensors": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    "cut off": (cut_off, "not a whole safetensors file"),
    "wrong shapes": (
        lambda folder: rewrite_json(folder / "config.json", hidden_size=16),
        "word_embeddings.weight has shape",
    ),
    "a missing key": (
        lambda folder: change_tensors(folder, lambda tensors: tensors.pop("bert.embeddings.LayerNorm.bias")),
        "tensors are missing, 3 in all, first bert.embeddings.LayerNorm.bias",
    ),
    "an extra key": (
        lambda folder: change_tensors(folder, lambda tensors: tensors.update(extra=torch.zeros(1))),
        "unexpected tensor extra",
    ),
    "unknown model type": (lambda folder: rewrite_json(folder / "config.json", model_type="t5"), "model_type is 't5'"),
    "unknown activation": (
        lambda folder: rewrite_json(folder / "config.json", hidden_act="gelo"),
        "unknown hidden_act 'gelo'; known are gelu, ",
    ),
    "config not JSON": (lambda folder: text_file(folder / "config.json", "{"), "config.json: not JSON"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "no tokenizer": (
        lambda folder: (folder / "vocab.txt").unlink(),
        "no tokenizer.json, and none of vocab.txt, spiece.model",
    ),
    "tokenizer of another vocabulary": (
        lambda folder: write_vocabulary(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(999))]),
        "the tokenizer is of another checkpoint",
    ),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_train_qa_refuses_weights(train, weights, tmp_path, name):
    damage, problem = BAD_WEIGHTS[name]
    damage(weights)
    message = train().refusal()
    assert str(weights) in message
    assert problem in message
    assert not (tmp_path / "run").exists()


BAD_DATA = {
    "absent": (lambda path: path, "there is no such file"),
    "empty": (lambda path: text_file(path, ""), "the file is empty"),
    "not JSON": (lambda path: text_file(path, "{"), "not JSON"),
    "not SQuAD": (lambda path: text_file(path, '{"rows": []}'), "the key 'data' is missing"),
    "a list": (lambda path: text_file(path, "[]"), "holds no questions"),
    "without questions": (lambda path: text_file(path, '{"data": []}'), "holds no questions"),
    "an answer elsewhere": (
        lambda path: qa_file(path, answers=[{"text": "تهران", "answer_start": 5}]),
        "(article 'ایران', question 'q7'): at 5 stands 'هران ', not 'تهران'",
    ),
    "an empty question": (lambda path: qa_file(path, question="  "), "question 'q7'): 'question' is empty"),
    "a question that fills the input": (
        lambda path: qa_file(path, question="چه " * 80),
        "question q7: it leaves room for 0 tokens of the context",
    ),
}


@pytest.mark.parametrize("part", ["--train", "--valid"])
@pytest.mark.parametrize("name", BAD_DATA)
def test_train_qa_refuses_data(train, tmp_path, part, name):
    make, problem = BAD_DATA[name]
    message = train(part, make(tmp_path / "bad.json")).refusal()
    assert problem in message
    assert "bad.json" in message or "question q7" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--max-length", 129), "max_length 129: "),
        (("--max-length", 2), "max_length 2 is below the 3 special tokens"),
        (("--stride", -2), "--stride: -2 is below -1"),
        (("--max-length", 10), "lower the stride"),
        (("--epochs", "many"), "--epochs: 'many' is not a whole number"),
        (("--learning-rate", "nan"), "--learning-rate: nan is not a finite number"),
        (("--learning_rate", 1), "unknown flag '--learning_rate' (did you mean '--learning-rate'?)"),
        (("--schedule", "cosine"), "--schedule: 'cosine' is no choice; choose from step, linear"),
        (("--device", "gpu"), "--device: 'gpu' is no choice"),
        (("--seed", 2**32), "--seed: 4294967296 is above 4294967295"),
        (("--recipe", "parsbret"), "no recipe 'parsbret' (did you mean 'parsbert'?)"),
        (("--weights", "runs/absent"), "runs/absent: no such folder"),
    ],
)
def test_train_qa_refuses_flags(train, tmp_path, flags, problem):
    assert problem in train(*flags).refusal()
    assert not (tmp_path / "run").exists()


def test_train_qa_refuses_a_recipe_with_an_unknown_field(train, tmp_path):
    recipe = text_file(tmp_path / "mine.toml", "learning_rat = 1e-4")
    message = train("--recipe", recipe).refusal()
    assert message == f"error: {recipe}: unknown field 'learning_rat' (did you mean 'learning_rate'?)"
    assert not (tmp_path / "run").exists()


def test_train_qa_refuses_a_run_folder_that_cannot_be_made(train, data, tmp_path):
    before = files_under(tmp_path)
    message = train("--out", data / "run").refusal()
    assert message == f"error: {data}/run: cannot be made (Not a directory); choose another --out"
    assert files_under(tmp_path) == before


def test_train_qa_refuses_to_overwrite_a_run(train, tmp_path):
    train("--epochs", 1)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("recipe.toml", "log.csv", "metrics.json")}
    message = train("--epochs", 1).refusal()
    assert message.endswith("run: there is a run in it; choose another --out, or go on with it by --resume")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_train_qa_refuses_to_resume_what_is_no_run(train, tmp_path):
    assert "no run in it to resume; leave --resume away" in train("--resume").refusal()
    assert not (tmp_path / "run").exists()


def test_train_qa_refuses_to_resume_under_another_recipe(train):
    train("--epochs", 1)
    assert "the run began with epochs = 1, this command says 2" in train("--epochs", 2, "--resume").refusal()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_train_qa_stops_on_weights_that_are_not_finite(train, weights, tmp_path, number):
    change_tensors(weights, lambda tensors: tensors["bert.embeddings.LayerNorm.weight"].fill_(number))
    message = last_line(train())
    assert message.startswith("error: loss is nan at step 1: stopped; last good checkpoint: none; the weights")
    # What stays is a run without a single step: no model, no metrics, no checkpoint.
    assert files_under(tmp_path / "run") == ["data.json", "facts.json", "log.csv", "recipe.toml", "valid.json"]
    assert log_of(tmp_path / "run") == []


def test_train_qa_stops_when_it_diverges_and_names_the_last_good_checkpoint(train, tmp_path):
    """The steps before stay on record, and so do their checkpoints."""
    flags = ("--checkpoint-every", 1, "--schedule", "step", "--gamma", 1e30, "--epochs", 3)
    message = last_line(train(*flags))
    # Epoch 2 begins at step 4 with a rate of 1e27: its loss is finite still, but its update is the end.
    good = tmp_path / "run/checkpoints/step-0000003"
    assert message == (
        f"error: loss is nan at step 5: stopped; last good checkpoint: {good}; "
        "lower the learning rate or raise the warm-up"
    )
    assert checkpoint.whole_checkpoints(tmp_path / "run/checkpoints")[0] == good
    assert [row["step"] for row in log_of(tmp_path / "run")] == ["1", "2", "3", "4"]
    assert not (tmp_path / "run/model").exists()
    assert not (tmp_path / "run/metrics.json").exists()


def test_train_qa_that_diverges_in_its_last_step_writes_no_metrics(train, tmp_path):
    message = last_line(train("--max-steps", 1, "--schedule", "step", "--learning-rate", 1e30))
    assert "its weights are damaged, or its training has diverged" in message
    assert not (tmp_path / "run/metrics.json").exists()


# ---------------------------------------------------------------------------------------------------- as a process


def process(*flags: object) -> Outcome:
    command = [sys.executable, "train_qa.py", *map(str, flags)]
    result = subprocess.run(
        command, cwd=CHECKOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    return Outcome(result.returncode, result.stdout, result.stderr)


def test_train_qa_refuses_in_one_line_on_stderr_with_status_2(tmp_path):
    outcome = process("--weights", tmp_path / "absent\x1b[31m", "--out", tmp_path / "run")
    assert outcome.refusal().startswith(f"error: {tmp_path}/absent[31m: no such folder")
    assert outcome.out == ""


def test_train_qa_in_two_processes_leaves_the_same_bytes(train, data, weights, tmp_path, monkeypatch):
    """One process is this one. Only the speed, in log.csv and on the page, may differ."""
    flags = [part for pair in SMALL.items() for part in pair]
    files = ("--weights", weights, "--train", data, "--valid", data, "--out", tmp_path / "run")
    outcome = process(*flags, *files, "--epochs", 1)
    assert outcome.status == 0, outcome.err
    asked = shlex.split(outcome.out.splitlines()[-1].removeprefix("ask it:  "))
    assert asked[1:] == ["-m", "qa.ask", "--model", f"{tmp_path}/run/model"]
    assert os.path.abspath(shutil.which(asked[0])) == sys.executable, "it can be pasted"

    monkeypatch.undo()  # the pictures too
    assert train("--epochs", 1, "--out", tmp_path / "here").status == 0
    assert "loss-line.png" in files_under(tmp_path / "here")
    assert kill.differences(kill.contents(tmp_path / "here"), kill.contents(tmp_path / "run")) == []


def test_quiet_leaves_the_scores_and_what_to_do_next_alone(tmp_path, data, weights):
    outcome = process("--weights", weights, "--train", data, "--valid", data, "--max-length", "64", "--max-steps", "2",
                      "--print-every", "1", "--quiet", "--out", tmp_path / "run")  # fmt: skip
    assert outcome.status == 0
    assert outcome.err == ""
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["exact", "read", "ask"]


def test_a_log_file_gets_a_last_line_with_the_time_and_no_bar(tmp_path, data, weights):
    outcome = process("--weights", weights, "--train", data, "--valid", data, "--max-length", "64", "--max-steps", "2",
                      "--out", tmp_path / "run")  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  training: 2/2 step, .*, loss \S+, .* tokens/s\n", outcome.err)
