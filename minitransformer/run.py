"""What every training job does around its loop: seed, device, run folder, log."""

import csv
import dataclasses
import os
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from minitransformer import files, recipe
from minitransformer.errors import RunError


def choose_device(name: str) -> torch.device:
    """The device called `name`. RunError when this machine or this build of torch has none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: torch sees no GPU here; use --device cpu")
    return torch.device(name)


def open_run_folder(out: str, name: str, settings: Any, resume: bool) -> Path:
    """The folder of a run, made or found again, with recipe.toml in it.

    out: its path; "" takes the first free one of runs/NAME, runs/NAME-2, ...
    Raises RunError when a run would be overwritten, or resumed under another recipe than it began with.
    """
    if resume and not out:
        raise RunError("--resume needs the --out of the run that is to go on")
    folder = Path(out) if out else next(path for path in _numbered(Path("runs") / name) if not path.exists())
    written = folder / "recipe.toml"
    if resume:
        _check_same_recipe(written, settings)
        return folder
    if written.exists():
        raise RunError(f"{folder}: there is a run in it; choose another --out, or go on with it by --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
    files.write_text(written, recipe.write(settings))
    return folder


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """A permutation of 0 ... count - 1 that seed and epoch alone decide, so that a resumed run finds it again."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class Log:
    """log.csv: a line per step, the whole precision of the loss, so that a resumed run reads its past from here."""

    def __init__(self, path: Path, columns: list[str], resume_step: int | None = None) -> None:
        """resume_step: keep the lines up to this step, and drop what came after the checkpoint."""
        self.rows: list[dict[str, float]] = []
        if resume_step:
            self.rows = _read_log(path, columns, resume_step)
        lines = [",".join(columns), *(",".join(_number(row[name]) for name in columns) for row in self.rows)]
        files.write_text(path, "\n".join(lines) + "\n")
        self._columns = columns
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def add(self, **row: float) -> None:
        self.rows.append(row)
        self._file.write(",".join(_number(row[name]) for name in self._columns) + "\n")

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _read_log(path: Path, columns: list[str], steps: int) -> list[dict[str, float]]:
    """The lines of the first `steps` steps. What follows them, a last line cut short perhaps, is not looked at."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            lines = islice(csv.DictReader(file), steps)
            rows = [{name: float(line[name]) for name in columns} for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read ({error}); the run cannot be resumed without it") from error
    if [row["step"] for row in rows] != list(range(1, steps + 1)):
        raise RunError(f"{path}: it does not hold the {steps} steps before the checkpoint; the run cannot be resumed")
    return rows


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def _check_same_recipe(written: Path, settings: Any) -> None:
    try:
        before = tomllib.loads(written.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{written.parent}: no run in it to resume; leave --resume away to start one") from None
    except ValueError as error:
        raise RunError(f"{written}: not TOML ({error}); the run cannot be resumed") from error
    now = tomllib.loads(recipe.write(settings))
    for field in dataclasses.fields(settings):
        if before.get(field.name) != now.get(field.name):
            raise RunError(
                f"{written}: the run began with {field.name} = {before.get(field.name)!r}, "
                f"this command says {now.get(field.name)!r}; resume with what it began with"
            )
