"""log.csv: a line per step, and the past of a resumed run."""

import os
from types import SimpleNamespace

import pytest
import torch

from minitransformer.system.errors import RunError
from minitransformer.training.log import Log
from tiny import log_of, record_syncs

HEAD = "step,epoch,loss,running_mean,lr,tokens_per_second"


def logged(folder, steps: int, resume_step: int | None = None, every: int = 1) -> Log:
    """A run of two steps an epoch."""
    folder.mkdir(exist_ok=True)
    log = Log(folder, "tokens", every, resume_step=resume_step)
    for step in range(len(log.losses) + 1, steps + 1):
        log.add(step=step, epoch=(step + 1) // 2, loss=torch.tensor(1 / step), lr=0.5, count=10)
    log.close()
    return log


def lines(folder) -> list[str]:
    """Without the speed, which no two runs share."""
    return [line.rpartition(",")[0] for line in (folder / "log.csv").read_text().splitlines()]


def test_log_writes_a_line_per_step_in_full_precision(tmp_path):
    log = logged(tmp_path, 4)
    third, fourth = (torch.tensor(1 / step).item() for step in (3, 4))
    assert (tmp_path / "log.csv").read_text().startswith(HEAD + "\n")
    expected = ["1,1,1,1,0.5", "2,1,0.5,0.75,0.5", f"3,2,{third!r},{third!r},0.5"]
    assert lines(tmp_path)[1:] == [*expected, f"4,2,{fourth!r},{(third + fourth) / 2!r},0.5"]
    assert str(log).startswith(f"loss {(third + fourth) / 2:.3f}, ")


def test_log_can_be_read_while_the_run_goes_on(tmp_path):
    log = Log(tmp_path, "tokens")
    assert log.add(step=1, epoch=1, loss=torch.tensor(0.5), lr=1.0, count=3)
    assert lines(tmp_path)[1:] == ["1,1,0.5,0.5,1"]
    log.close()


def test_losses_of_a_gpu_are_read_some_at_a_time(tmp_path):
    log = Log(tmp_path, "tokens", every=3)
    written = [log.add(step=step, epoch=1, loss=torch.tensor(0.5), lr=1.0, count=3) for step in (1, 2, 3, 4)]
    assert written == [False, False, True, False]
    assert len(lines(tmp_path)) == 1 + 3
    log.sync()
    assert len(lines(tmp_path)) == 1 + 4
    log.close()
    logged(tmp_path / "one", 7)
    logged(tmp_path / "three", 7, every=3)
    assert lines(tmp_path / "one") == lines(tmp_path / "three")


def test_the_speed_is_that_of_the_steps_read_together(tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr("minitransformer.training.log.time", clock)
    log = Log(tmp_path, "tokens", every=2)
    clock.monotonic = lambda: 104.0
    for step, count in ((1, 10), (2, 30)):
        log.add(step=step, epoch=1, loss=torch.tensor(0.5), lr=1.0, count=count)
    log.close()
    speeds = [line.rpartition(",")[2] for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert speeds == ["tokens_per_second", "10", "10"]


def test_the_lines_of_a_synced_log_are_on_the_disk(tmp_path, monkeypatch):
    log = Log(tmp_path, "tokens")
    synced = record_syncs(monkeypatch)
    log.add(step=1, epoch=1, loss=torch.tensor(0.5), lr=1.0, count=3)
    assert synced == []
    log.sync()
    assert synced == ["file"]
    log.close()


def test_the_running_mean_is_of_the_last_steps_if_a_window_is_given(tmp_path):
    log = Log(tmp_path, "images", window=2, extra=["accuracy"])
    for step in (1, 2, 3):
        log.add(step=step, epoch=step, loss=torch.tensor(float(step)), lr=1.0, count=3, accuracy=torch.tensor(0.25))
    log.close()
    assert [row["running_mean"] for row in log_of(tmp_path)] == ["1", "1.5", "2.5"]
    assert log.columns == ["step", "epoch", "loss", "accuracy", "running_mean", "lr", "images_per_second"]
    assert log_of(tmp_path)[0]["accuracy"] == "0.25"


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
    log = Log(tmp_path, "tokens", writes=False)
    log.add(step=1, epoch=1, loss=torch.tensor(1.0), lr=1.0, count=3)
    log.close()
    assert not (tmp_path / "log.csv").exists()
    assert log.losses.tolist() == [1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, bad):
    (tmp_path / "checkpoints/step-0000002").mkdir(parents=True)
    log = Log(tmp_path, "tokens")
    with pytest.raises(RunError, match=r"loss is (nan|inf) at step 5: stopped; last good checkpoint: .*step-0000002"):
        log.add(step=5, epoch=1, loss=torch.tensor(bad), lr=1.0, count=3)
    assert len(lines(tmp_path)) == 1


def test_log_of_a_resumed_run_is_that_of_one_run(tmp_path):
    logged(tmp_path / "whole", 9)
    logged(tmp_path / "parts", 6)
    logged(tmp_path / "parts", 9, resume_step=5)  # in the middle of an epoch
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


@pytest.mark.parametrize("end", [b"6,0.1", b"6", b"6,", b"\xff\x00", b"6,1,1,1,1,1,7\n", b"\n\n"])
def test_log_ignores_a_last_line_cut_short_after_the_checkpoint(tmp_path, end):
    logged(tmp_path, 5)
    with (tmp_path / "log.csv").open("ab") as file:
        file.write(end)
    assert len(logged(tmp_path, 5, resume_step=5).losses) == 5


def test_log_begins_anew_where_no_checkpoint_was_written(tmp_path):
    assert logged(tmp_path, 2, resume_step=0).losses.tolist() == [1.0, 0.5]
    assert log_of(tmp_path)[0]["step"] == "1"


ROW = "1,1,1,1,1,1\n"
DAMAGES = ["", f"{HEAD}\n{ROW}", f"{HEAD}\n{ROW}2,1,a,1,1,1\n3,1,1,1,1,1\n", f"{HEAD}\n{ROW}2,1\n3,1,1,1,1,1\n",
           f"{HEAD}\n{ROW}{ROW}3,1,1,1,1,1\n", "step,lr\n1,1\n2,1\n3,1\n"]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_log_that_lacks_steps_cannot_be_resumed_from(tmp_path, damage):
    (tmp_path / "log.csv").write_text(damage)
    with pytest.raises(RunError, match=r"log\.csv: .* cannot be resumed"):
        Log(tmp_path, "tokens", resume_step=3)
    assert (tmp_path / "log.csv").read_text() == damage


def test_log_with_a_loss_that_was_edited_cannot_be_resumed_from(tmp_path):
    logged(tmp_path, 5)
    before = (tmp_path / "log.csv").read_text()
    cells = before.split("\n")[2].split(",")
    changed = before.replace(",".join(cells), ",".join([*cells[:2], "0.25", *cells[3:]]))
    assert changed != before
    (tmp_path / "log.csv").write_text(changed)
    with pytest.raises(RunError, match=r"log\.csv: the running mean of step 2 is not that of its losses: .* changed"):
        Log(tmp_path, "tokens", resume_step=5)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(RunError, match=r"log\.csv: cannot be read .*not a regular file.* cannot be resumed"):
        Log(tmp_path, "tokens", resume_step=3)


def test_log_that_is_absent_cannot_be_resumed_from(tmp_path):
    with pytest.raises(RunError, match=r"log\.csv: cannot be read .* cannot be resumed"):
        Log(tmp_path, "tokens", resume_step=3)
