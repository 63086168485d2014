"""Kill a run at any moment, resume it, and compare what it leaves with what the unbroken run left: every byte.

python -m tests.kill --rounds 100 [--job train_qa] [--operations N] [--seed 0]

Each of the --rounds kills a small run up to three times at random moments, each time going on from what is left. Then
come as many runs as a run has operations on the disk, each killed right before another one of them (all, or N of them).
A killed run dies by SIGKILL, of which it hears nothing. At the end its folder must hold the same files as that of a run
that was left alone, byte for byte, but for the speed in log.csv and the page that shows it.

Runs are forked from this process, which has imported torch, and draw no pictures, which take longer than the training.
"""

import csv
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

import train_mlm
import train_qa
import train_vit
from minitransformer.system import files
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser, whole_number
from tests import tiny
from vision import plots

KILLS = 3  # of a round, at most
SECONDS = 120  # after which a run counts as stuck
# Two epochs and a bit. A third checkpoint replaces the first, unless that is the best, which is written at the end.
STEPS = "--max-steps 7 --checkpoint-every 2 --validate-every 3 --seed 1"


def question_answering(folder: Path) -> tuple[Callable[[], None], list[object]]:
    weights, data = tiny.write_checkpoint(folder / "weights"), tiny.write_questions(folder / "questions.json")
    flags = ["--recipe", "modern", "--max-length", "64", "--stride", "16", "--batch-size", "4", "--epochs", "9"]
    return train_qa.main, [*flags, "--weights", weights, "--train", data, "--valid", data]


def image_classification(folder: Path) -> tuple[Callable[[], None], list[object]]:
    """With augmentation, so that chance has its part."""
    noise = np.random.default_rng(0)
    for part, name in ((part, name) for part in ("train", "test") for name in ("light", "dark")):
        (folder / "images" / part / name).mkdir(parents=True)
        for number in range(6):
            pixels = noise.integers(0, 128, (8, 8, 3)) + 127 * (name == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / part / name / f"{number}.png")
    flags = "--recipe demo-vit --weights new --image-size 8 --patch 4 --width 16 --layers 2 --heads 2 --ffn-width 24"
    flags += " --trainable all --augment --batch-size 4 --epochs 9"
    return train_vit.main, [*flags.split(), "--data", folder / "images", "--cache-dir", folder / "cache"]


def pretraining(folder: Path) -> tuple[Callable[[], None], list[object]]:
    text = folder / "text.txt"
    text.write_text("".join(f"{one.question}\t{one.context}\n" for one in tiny.examples()), encoding="utf-8")
    flags = "--width 16 --layers 1 --heads 2 --ffn-width 24 --vocabulary 120 --max-length 64 --positions 64"
    return train_mlm.main, [*flags.split(), *["--batch-size", "4", "--epochs", "9"], "--train", text, "--valid", text]


JOBS = {"train_qa": question_answering, "train_vit": image_classification, "train_mlm": pretraining}


class Kill:
    """A job, its unbroken run, and rounds in which it is killed and resumed."""

    def __init__(self, job: str, folder: Path, seed: int = 0) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.main, self.flags = JOBS[job](folder)
        self.flags += STEPS.split()
        self.kills, self.resumes, self.failures = 0, 0, 0
        began = time.monotonic()
        if self.attempt(folder / "unbroken") != 0:
            raise RuntimeError(f"the unbroken run fails: {self.said()}")
        self.seconds = time.monotonic() - began
        self.contents = contents(folder / "unbroken")
        counted = folder / "operations"
        self.attempt(folder / "counted", before=lambda number: counted.write_text(str(number + 1)))
        self.operations = int(counted.read_text())
        if differences(contents(folder / "counted"), self.contents):
            raise RuntimeError("two unbroken runs differ")

    def attempt(
        self, out: Path, kill_after: float | None = None, before: Callable[[int], object] | None = None, resume: int = 0
    ) -> int:
        """One run, in a process of its own. Returns its exit status, negative the number of the signal that ended it.

        kill_after: seconds. before: called with its number before each operation on the disk.
        """
        process = os.fork()
        if process == 0:
            self._run(out, before, resume)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(process, signal.SIGKILL)  # of a process that has ended, but was not waited for, harmless
        _, status = os.waitpid(process, 0)
        return os.waitstatus_to_exitcode(status)

    def _run(self, out: Path, before: Callable[[int], object] | None, resume: int) -> None:
        """In the forked process: the job's command, with its output in a file."""
        signal.alarm(SECONDS)
        said = os.open(self.folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = sys.stderr = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        sys.argv = [str(word) for word in ("train", *self.flags, "--out", out, *(["--resume"] if resume else []))]
        if before is not None:
            number = iter(range(10**9))
            files.operation = lambda name, path: before(next(number))
        status = 0
        try:
            self.main()
        except SystemExit as error:
            status = error.code
        except BaseException as error:
            print(repr(error))
            status = 1
        sys.stdout.flush()
        os._exit(status)

    def said(self) -> str:
        return (self.folder / "said").read_text(encoding="utf-8", errors="replace")[-1000:]

    def go_on(self, out: Path, **how: object) -> int:
        """Resume the run, or start it where it was killed before there was one."""
        begun = (out / "recipe.toml").exists()
        self.resumes += begun
        return self.attempt(out, resume=begun, **how)

    def round(self, deed: str, *kills: dict[str, object]) -> None:
        """Kill as told, go on until the end, compare."""
        out = self.folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        for kill in kills:
            status = self.go_on(out, **kill)
            self.kills += status == -signal.SIGKILL
            if status not in (0, -signal.SIGKILL):
                self.fail(deed, f"status {status}: {self.said()}")
                return
        status = self.go_on(out)
        if status != 0:
            self.fail(deed, f"does not go on, status {status}: {self.said()}")
        elif different := differences(contents(out), self.contents):
            self.fail(deed, f"differs in {', '.join(different)}")

    def fail(self, deed: str, problem: str) -> None:
        self.failures += 1
        print(f"FAILED, {deed}: {problem}", flush=True)

    def __str__(self) -> str:
        return f"{self.kills} kills hit, {self.resumes} resumes, {self.failures} failures"

    def at_random_moments(self) -> None:
        moments = [self.chance.uniform(0, self.seconds) for _ in range(self.chance.randint(1, KILLS))]
        deed = "killed after " + ", ".join(f"{moment:.3f} s" for moment in moments)
        self.round(deed, *({"kill_after": moment} for moment in moments))

    def before_operation(self, chosen: int) -> None:
        def die(number: int) -> None:
            if number == chosen:
                os.kill(os.getpid(), signal.SIGKILL)

        self.round(f"killed before operation {chosen}", {"before": die})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder by its name, hidden ones too, without the times in log.csv and on the page.

    Nor log.before.csv: what was logged before the first checkpoint by a run that was killed and began anew.
    """
    kept = [path for path in folder.rglob("*") if path.name != "log.before.csv"]
    return {str(path.relative_to(folder)): b"" if path.is_dir() else without_times(path) for path in kept}


def without_times(path: Path) -> bytes:
    if path.name == "report.html":  # made of the other files; it shows the speed, and the name of the folder
        return b""
    if path.name != "log.csv":
        return path.read_bytes()
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    kept = [number for number, name in enumerate(head) if not name.endswith("_per_second")]
    return repr([[row[number] for number in kept] for row in (head, *rows)]).encode()


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def draw_nothing() -> None:
    train_qa.plot_losses = lambda *given: None
    for name in ("plot_loss", "plot_sample", "plot_mistakes", "plot_confusion"):
        setattr(plots, name, lambda *given: Figure(figsize=(1, 1)))


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--rounds", type=whole_number(at_least=0), default=100)
    parser.add_argument("--operations", type=whole_number(at_least=0), metavar="N", help="so many; default: all")
    parser.add_argument("--job", choices=JOBS, default="train_qa")
    parser.add_argument("--seed", type=whole_number(at_least=0), default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw_nothing()
    with tempfile.TemporaryDirectory() as folder:
        kill = Kill(args.job, Path(folder), args.seed)
        begun = f"{args.job}, seed {args.seed}: a run of {kill.seconds:.2f} s"
        print(f"{begun} with {kill.operations} operations on the disk", flush=True)
        for _ in range(args.rounds):
            kill.at_random_moments()
        print(f"{args.rounds} rounds at random moments: {kill}", flush=True)
        operations = list(range(kill.operations))
        if args.operations is not None:
            operations = sorted(kill.chance.sample(operations, min(args.operations, len(operations))))
        for number in operations:
            kill.before_operation(number)
        print(f"and {len(operations)} at operations: {kill}", flush=True)
    raise SystemExit(1 if kill.failures else 0)


if __name__ == "__main__":
    main()
