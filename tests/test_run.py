"""Device, run folder, order of the data, the flags that a resumed run may change."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from minitransformer.packing import Packing
from minitransformer.system.errors import RunError, Stopped
from minitransformer.system.lock import lock_folder
from minitransformer.system.shell import command
from minitransformer.training.checkpoint import save_checkpoint
from minitransformer.training.device import ahead, choose_device, move
from minitransformer.training.order import chunks, due, epoch_order
from minitransformer.training.parallel import ALONE
from minitransformer.training.recipe import option
from minitransformer.training.run_folder import fingerprint, open_run_folder, resume
from minitransformer.training.stop import Stop
from tiny import files_under

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Settings:
    rate: float = option(0.5, "a number")
    name: str = option("x", "a text")


def test_choose_device_refuses_a_gpu_that_is_absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="--device cuda: torch sees no GPU here; use --device cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RunError, match="--device mps: torch sees no Apple GPU here"):
        choose_device("mps")
    assert choose_device("cpu") == torch.device("cpu")


def test_a_batch_moves_to_a_device_that_has_no_pinned_memory():
    """As an Apple GPU, for which the meta device stands in."""
    batch = Packing.of(torch.ones(2, 3))
    moved = move(batch, torch.device("meta"))
    assert type(moved) is Packing
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert move(None, torch.device("meta")) is None


def test_run_folder_without_a_name_is_the_first_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [open_run_folder("", "demo", Settings(), resume=False) for _ in range(3)]
    assert [str(folder) for folder in folders] == ["runs/demo", "runs/demo-2", "runs/demo-3"]


def test_run_folder_holds_the_recipe(tmp_path):
    folder = open_run_folder(str(tmp_path / "a/b"), "demo", Settings(rate=0.25), resume=False)
    assert (folder / "recipe.toml").read_text() == 'rate = 0.25\nname = "x"\n'
    assert files_under(tmp_path / "a/b") == ["facts.json", "recipe.toml"]


def test_run_folder_may_exist_without_a_run_in_it(tmp_path):
    (tmp_path / "notes.txt").touch()
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False)
    assert files_under(tmp_path) == ["facts.json", "notes.txt", "recipe.toml"]


def test_run_folder_is_not_overwritten(tmp_path):
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False)
    before = (tmp_path / "recipe.toml").read_bytes()
    with pytest.raises(RunError, match="there is a run in it; choose another --out, or go on with it by --resume"):
        open_run_folder(str(tmp_path), "demo", Settings(rate=1.0), resume=False)
    assert (tmp_path / "recipe.toml").read_bytes() == before


@pytest.mark.parametrize("out", ["file", "file/below", "file/far/below"])
def test_run_folder_that_cannot_be_made_is_named(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=rf"{out}: cannot be made \(.*\); choose another --out"):
        open_run_folder(str(tmp_path / out), "demo", Settings(), resume=False)


def test_resume_finds_the_run(tmp_path):
    folder = open_run_folder(str(tmp_path), "demo", Settings(), resume=False)
    assert open_run_folder(str(tmp_path), "demo", Settings(), resume=True) == folder


def test_resume_removes_what_a_killed_process_was_writing(tmp_path):
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False)
    (tmp_path / "model").mkdir()
    for name in (".log.csv.abcd1234.tmp", "model/.config.json.abcd1234.tmp"):
        (tmp_path / name).touch()
    open_run_folder(str(tmp_path), "demo", Settings(), resume=True)
    assert files_under(tmp_path) == ["facts.json", "model", "recipe.toml"]


def test_resume_needs_to_know_the_run():
    with pytest.raises(RunError, match="--resume needs the --out"):
        open_run_folder("", "demo", Settings(), resume=True)


@pytest.mark.parametrize("out", ["absent", "empty", "file"])
def test_resume_refuses_a_folder_without_a_run(tmp_path, out):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="no run in it to resume; leave --resume away to start one"):
        open_run_folder(str(tmp_path / out), "demo", Settings(), resume=True)
    assert files_under(tmp_path) == ["empty", "file"]


def test_resume_refuses_another_recipe(tmp_path):
    open_run_folder(str(tmp_path), "demo", Settings(rate=0.5), resume=False)
    with pytest.raises(RunError, match=r"the run began with rate = 0\.5, this command says 0\.25"):
        open_run_folder(str(tmp_path), "demo", Settings(rate=0.25), resume=True)


def test_resume_takes_another_value_of_a_field_that_may_change(tmp_path):
    open_run_folder(str(tmp_path), "demo", Settings(rate=0.5), resume=False)
    open_run_folder(str(tmp_path), "demo", Settings(rate=0.25), resume=True, may_change="name, rate")
    with pytest.raises(RunError, match=r"--may-change: the recipe has no field 'rat' \(did you mean 'rate'\?\)"):
        open_run_folder(str(tmp_path), "demo", Settings(), resume=True, may_change="rat")


def test_resume_refuses_other_facts(tmp_path):
    began = {"training data": "a", "processes": 2}
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False, facts=began)
    open_run_folder(str(tmp_path), "demo", Settings(), resume=True, facts=began)
    with pytest.raises(RunError, match=r"facts\.json: the run began with training data a, now it is b; resume with"):
        open_run_folder(str(tmp_path), "demo", Settings(), resume=True, facts=began | {"training data": "b"})


def test_a_run_says_that_its_threads_are_others_and_goes_on(tmp_path, capsys):
    began = {"processes": 1, "threads of a process": 2}
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False, facts=began)
    open_run_folder(str(tmp_path), "demo", Settings(), resume=True, facts=began)
    assert "threads" not in capsys.readouterr().out
    open_run_folder(str(tmp_path), "demo", Settings(), resume=True, facts=began | {"threads of a process": 1})
    assert "the run began with 2 threads, now it is 1: the same up to rounding" in capsys.readouterr().out


def test_a_run_of_before_threads_were_recorded_goes_on(tmp_path):
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False, facts={"processes": 1})
    open_run_folder(str(tmp_path), "demo", Settings(), resume=True, facts={"processes": 1, "threads of a process": 2})


HOLD = """
import sys, time
from pathlib import Path
from minitransformer.system.lock import lock_folder
lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders")
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_which_another_process_is_at_work_is_refused_until_that_has_died(tmp_path, resume):
    if resume:
        open_run_folder(str(tmp_path), "demo", Settings(), resume=False)
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-other")
    elsewhere.mkdir()
    lock_folder(elsewhere)  # a process holds one folder: the first is free again
    before = files_under(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, cwd=CHECKOUT)
    try:
        assert process.stdout.readline() == b"held\n"
        named = f"process {process.pid}" if Path("/proc/locks").exists() else "another process"
        with pytest.raises(RunError, match=f"{named} is at work in it; wait until it has ended, or choose another"):
            open_run_folder(str(tmp_path), "demo", Settings(), resume)
        assert files_under(tmp_path) == before
    finally:
        process.kill()
        process.wait()
    assert open_run_folder(str(tmp_path), "demo", Settings(), resume) == tmp_path
    assert open_run_folder(str(tmp_path), "demo", Settings(), resume=True) == tmp_path, "it is this process's own"


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"3", b"{}", b"\xff"])
def test_resume_refuses_a_run_whose_facts_are_damaged(tmp_path, damage):
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False, facts={"processes": 1})
    (tmp_path / "facts.json").unlink()
    if damage is not None:
        (tmp_path / "facts.json").write_bytes(damage)
    with pytest.raises(RunError, match=r"facts\.json: not what was written .* cannot be resumed"):
        open_run_folder(str(tmp_path), "demo", Settings(), resume=True, facts={"processes": 1})


def test_only_a_run_that_does_go_on_gets_the_changed_recipe(tmp_path):
    @dataclass(frozen=True)
    class Resuming(Settings):
        resume: bool = option(True, "go on", passing=True)

    def held(width: int) -> tuple:
        model = torch.nn.Linear(width, 1)
        return model, torch.optim.AdamW(model.parameters(), fused=True), ALONE, torch.amp.GradScaler("cpu")

    folder = open_run_folder(str(tmp_path), "demo", Settings(rate=0.5), resume=False)
    save_checkpoint(folder / "checkpoints", 7, *held(4))
    changed = Resuming(rate=0.25)
    open_run_folder(str(tmp_path), "demo", changed, resume=True, may_change="rate")
    with pytest.raises(RunError, match="its parameters are not this model's"):
        resume(folder, changed, *held(5))
    assert "rate = 0.5" in (tmp_path / "recipe.toml").read_text()
    assert resume(folder, changed, *held(4)) == 7
    assert "rate = 0.25" in (tmp_path / "recipe.toml").read_text()


def test_batches_made_ahead_are_the_same_in_the_same_order():
    """On a GPU's behalf by a thread, which also hands on what goes wrong in it."""
    gpu = torch.device("cuda")
    assert list(ahead(iter(range(1, 20)), gpu)) == list(ahead(iter(range(1, 20)), torch.device("cpu")))

    def broken():
        yield 1
        raise RuntimeError("bad batch")

    made = ahead(broken(), gpu)
    assert next(made) == 1
    with pytest.raises(RuntimeError, match="bad batch"):
        next(made)


def test_chunks():
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(chunks([1, 2, 3], 0)) == [[1, 2, 3]]
    assert list(chunks([], 0)) == list(chunks([], 3)) == []


def test_the_fingerprint_knows_other_data():
    rows = [(np.arange(3), 1), (np.arange(4), 2)]
    assert fingerprint(rows) == fingerprint([(np.arange(3), 1), (np.arange(4), 2)])
    assert fingerprint(rows) != fingerprint(rows[::-1])
    assert fingerprint(rows) != fingerprint([(np.arange(3), 1), (np.arange(4), 3)])


@pytest.mark.parametrize("damage", [b"rate = ", b"\xff"])
def test_resume_refuses_a_damaged_recipe(tmp_path, damage):
    (tmp_path / "recipe.toml").write_bytes(damage)
    with pytest.raises(RunError, match=r"not TOML .* cannot be resumed"):
        open_run_folder(str(tmp_path), "demo", Settings(), resume=True)


def test_a_printed_command_can_be_pasted(tmp_path, monkeypatch):
    """The interpreter by its name only where the shell finds this one by it; under torchrun, torchrun."""
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("PATH", str(python.parent))
    assert command("-m", "qa.ask", "--model", Path("my run/model")) == "python -m qa.ask --model 'my run/model'"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert command("train_qa.py") == "venv/bin/python train_qa.py"
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "executable", "/usr/bin/../bin/python9")
    assert command("train_qa.py").endswith("bin/python9 train_qa.py")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert command("train_qa.py", "--resume") == "torchrun --nproc-per-node 2 train_qa.py --resume"
    assert "torchrun" not in command("-m", "qa.ask")


@pytest.mark.parametrize(
    ("flags", "going_on"),
    [
        (["--epochs", "3"], "--epochs 3 --resume --out runs/demo-qa"),
        (["--out", "runs/demo-qa"], "--out runs/demo-qa --resume"),
        (["--resume", "--out=runs/demo-qa"], "--resume --out=runs/demo-qa"),
    ],
)
def test_a_run_that_stops_says_the_command_that_goes_on(monkeypatch, flags, going_on):
    """With the folder that the run took where it was given none."""
    monkeypatch.setattr(sys, "argv", ["train_qa.py", *flags])
    with pytest.raises(Stopped, match=rf"stopped after step 5, .*; go on:  .* train_qa\.py {going_on}$"):
        Stop().stop(5, Path("runs/demo-qa/checkpoints/step-0000005"))


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        assert ended == []
        signal.raise_signal(signal.SIGTERM)
        assert ended == [128 + signal.SIGTERM]


def test_what_is_due_every_few_steps_and_after_the_last():
    assert [step for step in range(1, 11) if due(step, 4)] == [4, 8]
    assert [step for step in range(1, 11) if due(step, 4, last=10)] == [4, 8, 10]
    assert not any(due(step, 0, last=10) for step in range(1, 11))


def test_epoch_order_is_a_permutation_that_seed_and_epoch_decide():
    order = epoch_order(100, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(100))
    torch.manual_seed(5)  # the global generator has no say
    assert torch.equal(order, epoch_order(100, seed=1, epoch=2))
    assert not torch.equal(order, epoch_order(100, seed=1, epoch=3))
    assert not torch.equal(order, epoch_order(100, seed=2, epoch=2))


def test_epoch_order_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    epoch_order(100, seed=1, epoch=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_that_is_older_than_a_field_resumes_with_the_fields_default(tmp_path):
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False)
    (tmp_path / "recipe.toml").write_text("rate = 0.5\n")  # as written before there was a name
    assert open_run_folder(str(tmp_path), "demo", Settings(), resume=True) == tmp_path
    with pytest.raises(RunError, match="the run began with name = 'x', this command says 'y'"):
        open_run_folder(str(tmp_path), "demo", Settings(name="y"), resume=True)
