"""One job on one process, on two, and in micro-batches: the same losses, weights and answers."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import processes
import tiny
import train_mlm
import train_qa
import train_vit
from minitransformer.system.errors import RunError
from minitransformer.training.parallel import ALONE, World, join

ROOT = Path(__file__).parents[1]
STEPS = 20
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Batches of 7 out of 36: shares of 4 and 3, and a last batch of one, of which the second process gets nothing.
SIZES = ["--batch-size", 7, "--max-steps", STEPS, "--epochs", 4, "--clip-norm", 1.0, "--max-length", 128]
# A key's bias adds the same to every score of a query, the last norm's and the classifier's bias to the logit of every
# token; softmax does not see it. The gradient is rounding alone, and Adam makes whole steps of it.
WITHOUT_EFFECT = ("key.bias", "layer.1.output.LayerNorm.bias", "qa_outputs.bias")


def torchrun(script: str | Path, *flags: object) -> subprocess.CompletedProcess:
    """A script on two processes, as a user starts it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [str(word) for word in (*TORCHRUN, script, *flags)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def run(count: int, main: Callable[[], None], *flags: object) -> tiny.Outcome:
    """A script on one process or on several; what the first left behind."""
    outcomes = processes.run(count, main, *flags) if count > 1 else [tiny.call(main, *flags)]
    assert all(outcome.status == 0 for outcome in outcomes), outcomes
    assert not any(outcome.out for outcome in outcomes[1:]), "one process prints"
    return outcomes[0]


def log(folder: Path, column: str) -> list[float]:
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def dropout_seed(checkpoint: Path, rank: int) -> int:
    """What the generator of that process began with."""
    generator = torch.Generator()
    generator.set_state(load_file(checkpoint / f"random-{rank}.safetensors")["torch"])
    return generator.initial_seed()


def same(one: Path, other: Path) -> None:
    """Losses and weights, to 1e-5, but for the weights that the loss does not depend on."""
    torch.testing.assert_close(torch.tensor(log(one, "loss")), torch.tensor(log(other, "loss")), rtol=1e-5, atol=1e-5)
    tensors = [load_file(folder / "model/model.safetensors") for folder in (one, other)]
    for name, tensor in tensors[0].items():
        if name.endswith(WITHOUT_EFFECT):
            continue
        torch.testing.assert_close(tensors[1][name], tensor, rtol=1e-5, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def qa(tmp_path_factory) -> tuple[Path, list]:
    """A run of train_qa.py on one process, and its flags."""
    folder = tmp_path_factory.mktemp("qa")
    weights = tiny.write_checkpoint(folder / "weights", dropout=0.0, attention_dropout=0.0)
    questions = tiny.write_questions(folder / "questions.json", tiny.examples(36))
    flags = ["--weights", weights, "--train", questions, "--valid", questions, "--head-dropout", 0.0, *SIZES]
    run(1, train_qa.main, *flags, "--out", folder / "one")
    return folder, flags


def test_question_answering_on_two_processes_is_the_same(qa):
    folder, flags = qa
    done = torchrun("train_qa.py", *flags, "--out", folder / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ask it:") == 1, "one process prints"
    same(folder / "one", folder / "two")
    one, two = (json.loads((folder / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-5)  # loss and thresholds are sums in another order
    for name in ("predictions.json", "nbest.json", "null_odds.json"):
        contents = [json.loads((folder / run / name).read_text()) for run in ("one", "two")]
        assert list(contents[0]) == list(contents[1]), "no question lost, none twice, the order kept"
    assert log(folder / "one", "lr") == log(folder / "two", "lr")


def test_question_answering_in_micro_batches_is_the_same(qa):
    folder, flags = qa
    run(1, train_qa.main, *flags, "--micro-batch", 2, "--out", folder / "micro")  # 2, 2, 2 and 1
    same(folder / "one", folder / "micro")


def test_pretraining_on_two_processes_and_in_micro_batches_is_the_same(tmp_path):
    sizes = "--width 16 --layers 1 --heads 2 --ffn-width 32 --vocabulary 300 --positions 128"
    flags = [*sizes.split(), "--limit-train", 36, "--limit-valid", 8, "--dropout", 0.0, "--no-half", *SIZES]
    for name, count, more in (("one", 1, []), ("two", 2, []), ("micro", 1, ["--micro-batch", 2])):
        run(count, train_mlm.main, *flags, *more, "--out", tmp_path / name)
    assert len(log(tmp_path / "one", "loss")) == STEPS
    for name in ("two", "micro"):
        same(tmp_path / "one", tmp_path / name)
        torch.testing.assert_close(log(tmp_path / name, "accuracy"), log(tmp_path / "one", "accuracy"))
        one, other = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", name))
        assert other == pytest.approx(one, abs=1e-5)  # of 8 texts in two batches, one for each of two processes


def test_image_classification_on_two_processes_is_the_same(tmp_path):
    sizes = "--weights new --image-size 16 --patch 8 --width 16 --layers 2 --heads 2 --ffn-width 24 --trainable all"
    steps = ["--batch-size", 7, "--max-steps", STEPS, "--epochs", 4, "--clip-norm", 1.0]
    flags = [*sizes.split(), *steps, "--data", "demo", "--limit-train", 36, "--limit-valid", 9]
    for count in (1, 2):
        run(count, train_vit.main, *flags, "--out", tmp_path / str(count))
    same(tmp_path / "1", tmp_path / "2")
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "12")
    assert two.pop("loss") == pytest.approx(one.pop("loss"), abs=1e-5)
    assert one == two


def test_a_run_on_two_processes_goes_on_bit_by_bit(tmp_path):
    """With dropout, of which every process has its own."""
    weights = tiny.write_checkpoint(tmp_path / "weights", dropout=0.1)
    questions = tiny.write_questions(tmp_path / "questions.json", tiny.examples(36))
    flags = ["--weights", weights, "--train", questions, "--valid", questions, *SIZES, "--checkpoint-every", 8]
    flags += ["--validate-every", 7]
    whole = run(2, train_qa.main, *flags, "--out", tmp_path / "run")
    assert whole.out.count("the best was step-00000") == 1
    for checkpoint in (tmp_path / "run/checkpoints").iterdir():
        assert dropout_seed(checkpoint, rank=0) != dropout_seed(checkpoint, rank=1)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    shutil.rmtree(tmp_path / "run/checkpoints/step-0000020")
    done = run(2, train_qa.main, *flags, "--out", tmp_path / "run", "--resume")
    assert "resumed at step 16" in done.out
    for name in ("model/model.safetensors", "predictions.json", "metrics.json", "nbest.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name
    assert log(tmp_path / "whole", "loss") == log(tmp_path / "run", "loss")
    assert tiny.files_under(tmp_path / "whole") == tiny.files_under(tmp_path / "run")
    refused = tiny.call(train_qa.main, *flags, "--out", tmp_path / "run", "--resume")
    assert "the run began with processes 2, now it is 1" in refused.refusal()


ONE_IS_STOPPED = """
import os, signal, sys
import train_qa
from minitransformer.training.run import Run

rank, name = sys.argv[1:3]
del sys.argv[1:3]
record = Run.record

def record_and_die(self, step, *rest):
    record(self, step, *rest)
    if step == 9 and os.environ["RANK"] == rank and "--resume" not in sys.argv:
        pid = os.getppid() if name == "torchrun" else os.getpid()
        os.kill(pid, signal.SIGTERM if name == "torchrun" else signal.SIGKILL)

Run.record = record_and_die
train_qa.main()
"""


@pytest.mark.parametrize(("rank", "name"), [(0, "itself"), (1, "itself"), (0, "torchrun")])
def test_a_process_that_is_killed_ends_the_other_with_a_line_and_the_run_goes_on_exactly(qa, tmp_path, rank, name):
    folder, flags = qa
    flags = [*flags, "--checkpoint-every", 4]
    if not (folder / "unbroken").exists():
        run(2, train_qa.main, *flags, "--out", folder / "unbroken")
    (tmp_path / "job.py").write_text(ONE_IS_STOPPED)
    done = torchrun(tmp_path / "job.py", rank, name, *flags, "--out", tmp_path / "run")
    assert done.returncode != 0
    if name == "itself":
        said = (
            rf"error: process {1 - rank}: another process has gone \([^\n]*\); the last checkpoint stays: see what it"
        )
        assert re.search(said + " said, then go on by the same command with --resume", done.stderr), done.stderr
    else:
        assert "stopped after step" in done.stderr
    resumed = torchrun(tmp_path / "job.py", rank, name, *flags, "--out", tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stdout
    for file in ("model/model.safetensors", "predictions.json", "nbest.json", "metrics.json"):
        assert (tmp_path / "run" / file).read_bytes() == (folder / "unbroken" / file).read_bytes(), file
    assert log(tmp_path / "run", "loss") == log(folder / "unbroken", "loss")


ONE_FAILS = """
from minitransformer.training import parallel
from minitransformer.system.errors import DataError, command_line

@command_line
def main():
    world = parallel.join("cpu")
    if not world.first:
        raise DataError("bad.json: cannot be read by this process")
    world.gather(1)
    print("unreachable")

main()
"""


def test_a_process_that_fails_ends_all_with_its_message(tmp_path):
    (tmp_path / "job.py").write_text(ONE_FAILS)
    done = torchrun(tmp_path / "job.py")
    assert done.returncode != 0
    assert "error: bad.json: cannot be read by this process" in done.stderr
    assert "unreachable" not in done.stdout


def test_a_flag_that_is_wrong_ends_all_processes(tmp_path):
    done = torchrun("train_qa.py", "--weights", tmp_path / "absent", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert "absent: no such folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_item_is_one_process_s():
    worlds = [World(rank, 3) for rank in range(3)]
    shares = [world.share(range(8)) for world in worlds]
    assert sorted(item for share in shares for item in share) == list(range(8))
    assert [world.first for world in worlds] == [True, False, False]


def test_one_process_s_flag_counts_for_all(monkeypatch):
    monkeypatch.setattr(World, "gather", lambda world, flag: [flag, True])
    assert World(0, 2).any(0) is True


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RunError, match="2 processes or more, and torch sees 1 GPUs here; start one process for each"):
        join("cuda")


def test_alone_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join("cpu") == ALONE
    assert ALONE.gather("a") == ["a"]
    assert ALONE.from_first(lambda: 3) == 3
    assert ALONE.any(1) is True
    loss = torch.tensor(1.0)
    assert ALONE.sum_gradients([], loss) is loss
