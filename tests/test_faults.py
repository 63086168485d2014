"""What goes wrong around a run: checkpoints out of reach, a closed terminal, a reader that is gone, no memory left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import train_qa
from minitransformer.system.errors import RunError, command_line, is_out_of_memory
from minitransformer.training import checkpoint
from tiny import call, failing
from vision import plots
from vision.attention import plot_attention
from vision.images import Images

CHECKOUT = Path(__file__).parents[1]
FLAGS = [
    "--limit-train",
    "64",
    "--limit-valid",
    "4",
    "--batch-size",
    "16",
    "--max-steps",
    "3",
    "--epochs",
    "1",
    "--checkpoint-every",
    "1",
]


@pytest.fixture
def run(tmp_path) -> Path:
    """A run that ended at its third step, with its checkpoints."""
    assert call(train_qa.main, *FLAGS, "--out", tmp_path / "run").status == 0
    return tmp_path / "run"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def resumed(run: Path):
    return call(train_qa.main, *FLAGS, "--out", run, "--resume")


def test_a_checkpoint_folder_whose_disk_is_away_is_not_taken_for_none(run):
    (run / "checkpoints").rename(run.parent / "disk")
    (run / "checkpoints").symlink_to(run.parent / "away")
    before = everything(run)
    said = resumed(run).refusal()
    assert f"{run / 'checkpoints'}: cannot be read (No such file or directory): make it readable, or bring back" in said
    assert everything(run) == before


def test_a_checkpoint_folder_that_may_not_be_read_is_not_taken_for_none(run):
    before = everything(run)
    with failing(os, "listdir", PermissionError(13, "Permission denied")):
        said = resumed(run).refusal()
    assert "checkpoints: cannot be read (Permission denied): make it readable" in said
    assert everything(run) == before


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(run):
    last = checkpoint.whole_checkpoints(run / "checkpoints")[-1]
    unreadable = PermissionError(13, "Permission denied", str(last / "manifest.json"))
    wanted = r"manifest\.json: cannot be read \(Permission denied\): make it readable"
    with failing(Path, "read_bytes", unreadable), pytest.raises(RunError, match=wanted):
        checkpoint._read(last)


def test_nobody_is_told_to_delete_a_run_whose_checkpoints_are_all_damaged(run):
    for saved in checkpoint.whole_checkpoints(run / "checkpoints"):
        (saved / "manifest.json").write_text("{")
    said = resumed(run).err.splitlines()[-1]
    assert "no checkpoint in it is whole; copy one back, or begin anew with another --out" in said


def test_a_run_that_begins_anew_keeps_the_log_it_had(run):
    log = (run / "log.csv").read_bytes()
    for path in [*run.glob("checkpoints/*/*"), *run.glob("model/*")]:
        path.unlink()
    for path in run.glob("checkpoints/*"):
        path.rmdir()
    assert resumed(run).status == 0
    assert (run / "log.before.csv").read_bytes() == log


def start(tmp_path: Path, **streams: object) -> subprocess.Popen:
    flags = ["--limit-train", "640", "--limit-valid", "4", "--batch-size", "4", "--print-every", "1"]
    command = [sys.executable, "train_qa.py", *flags, "--out", str(tmp_path / "run")]
    return subprocess.Popen(command, cwd=CHECKOUT, text=True, **streams)


def wait_for_steps(folder: Path) -> None:
    until = time.monotonic() + 60
    while not (folder / "log.csv").exists() or (folder / "log.csv").read_text().count("\n") < 3:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_terminal_that_closes_ends_a_run_saved(tmp_path):
    ours, theirs = os.openpty()
    process = start(tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    wait_for_steps(tmp_path / "run")
    os.close(ours)  # writing to the terminal fails from here on
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert len(checkpoint.whole_checkpoints(tmp_path / "run/checkpoints")) == 1


def test_nohup_is_respected(tmp_path):
    flags = f"--limit-train 64 --limit-valid 4 --batch-size 4 --out {tmp_path / 'run'}"
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {sys.executable} train_qa.py --quiet {flags}"],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
    )
    wait_for_steps(tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    assert process.wait(120) == 0
    assert (tmp_path / "run/metrics.json").exists()


def test_a_reader_that_goes_away_does_not_end_a_run(tmp_path):
    process = start(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(120) == 0
    assert (tmp_path / "run/metrics.json").exists()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_cannot_show_persian_gets_what_it_can(encoding):
    code = "from minitransformer.system.errors import command_line; command_line(lambda: print('شهر'))()"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == rb"\u0634\u0647\u0631" + b"\n"


OUT = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]


@pytest.mark.parametrize("error", OUT)
def test_memory_that_runs_out_is_told_in_one_line(error, capsys):
    @command_line
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: memory ran out: compute less at once (--micro-batch, --eval-tokens")
    assert said.count("\n") == 1


def test_other_errors_of_the_code_keep_their_traceback():
    @command_line
    def main() -> None:
        raise RuntimeError("shape mismatch")

    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        main()


def test_a_class_whose_name_commands_a_terminal_reaches_none(tmp_path, recwarn, capfd):
    """matplotlib warns of a letter that its font lacks, and prints it."""
    pictures, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])
    images = Images(pictures, labels, ("\x1b[31mred\u202e", "blue\x07"))
    plots.plot_sample(images, 0).savefig(tmp_path / "sample.png")
    plots.plot_mistakes(images, torch.tensor([1, 0, 1, 0]), 0).savefig(tmp_path / "mistakes.png")
    plots.plot_confusion(np.array([[0, 2], [2, 0]]), images.classes).savefig(tmp_path / "confusion.png")
    best = [(images.classes[0], 0.75), (images.classes[1], 0.25)]
    plot_attention(torch.zeros(3, 8, 8, dtype=torch.uint8), best, torch.full((2, 2, 2), 0.1), tmp_path / "a.png")
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr() == ("", "")
