"""Device, run folder, order of the data, log."""

from dataclasses import dataclass

import pytest
import torch

from minitransformer.errors import RunError
from minitransformer.recipe import option
from minitransformer.run import Log, choose_device, epoch_order, open_run_folder
from tiny import files_under


@dataclass(frozen=True)
class Settings:
    rate: float = option(0.5, "a number")
    name: str = option("x", "a text")


def test_choose_device_refuses_a_gpu_that_is_absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="--device cuda: torch sees no GPU here; use --device cpu"):
        choose_device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_run_folder_without_a_name_is_the_first_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [open_run_folder("", "demo", Settings(), resume=False) for _ in range(3)]
    assert [str(folder) for folder in folders] == ["runs/demo", "runs/demo-2", "runs/demo-3"]


def test_run_folder_holds_the_recipe(tmp_path):
    folder = open_run_folder(str(tmp_path / "a/b"), "demo", Settings(rate=0.25), resume=False)
    assert (folder / "recipe.toml").read_text() == 'rate = 0.25\nname = "x"\n'
    assert files_under(tmp_path / "a/b") == ["recipe.toml"]


def test_run_folder_may_exist_without_a_run_in_it(tmp_path):
    (tmp_path / "notes.txt").touch()
    open_run_folder(str(tmp_path), "demo", Settings(), resume=False)
    assert files_under(tmp_path) == ["notes.txt", "recipe.toml"]


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


@pytest.mark.parametrize("damage", [b"rate = ", b"\xff"])
def test_resume_refuses_a_damaged_recipe(tmp_path, damage):
    (tmp_path / "recipe.toml").write_bytes(damage)
    with pytest.raises(RunError, match=r"not TOML .* cannot be resumed"):
        open_run_folder(str(tmp_path), "demo", Settings(), resume=True)


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


def logged(path, steps: int, resume_step: int | None = None) -> Log:
    log = Log(path, ["step", "loss"], resume_step)
    for step in range(len(log.rows) + 1, steps + 1):
        log.add(step=step, loss=1 / step)
    log.close()
    return log


def test_log_writes_a_line_per_step_in_full_precision(tmp_path):
    logged(tmp_path / "log.csv", 3)
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines == ["step,loss", "1,1", "2,0.5", f"3,{1 / 3!r}"]


def test_log_can_be_read_while_the_run_goes_on(tmp_path):
    log = Log(tmp_path / "log.csv", ["step", "loss"])
    log.add(step=1, loss=0.5)
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.5\n"
    log.close()


def test_log_of_a_resumed_run_is_that_of_one_run(tmp_path):
    whole = logged(tmp_path / "whole.csv", 9)
    logged(tmp_path / "parts.csv", 6)
    parts = logged(tmp_path / "parts.csv", 9, resume_step=4)
    assert parts.rows == whole.rows
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("end", [b"6,0.1", b"6", b"6,", b"\xff\x00", b"6,0.1,7\n", b"\n\n"])
def test_log_ignores_a_last_line_cut_short_after_the_checkpoint(tmp_path, end):
    path = tmp_path / "log.csv"
    logged(path, 5)
    path.write_bytes(path.read_bytes() + end)
    assert len(logged(path, 5, resume_step=5).rows) == 5


def test_log_begins_anew_where_no_checkpoint_was_written(tmp_path):
    assert logged(tmp_path / "log.csv", 2, resume_step=0).rows[0]["step"] == 1


@pytest.mark.parametrize("damage", ["", "step,loss\n1,1\n", "step,loss\n1,1\n2,a\n3,1\n", "step,lr\n1,1\n2,1\n3,1\n",
                                    "step,loss\n1,1\n2\n3,1\n", "step,loss\n1,1\n1,1\n3,1\n"])  # fmt: skip
def test_log_that_lacks_steps_cannot_be_resumed_from(tmp_path, damage):
    (tmp_path / "log.csv").write_text(damage)
    with pytest.raises(RunError, match=r"log\.csv: .* cannot be resumed"):
        Log(tmp_path / "log.csv", ["step", "loss"], resume_step=3)
    assert (tmp_path / "log.csv").read_text() == damage


def test_log_that_is_absent_cannot_be_resumed_from(tmp_path):
    with pytest.raises(RunError, match=r"log\.csv: cannot be read .* cannot be resumed"):
        Log(tmp_path / "log.csv", ["step", "loss"], resume_step=3)
