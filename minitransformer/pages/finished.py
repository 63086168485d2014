"""A finished run, read from its folder."""

import csv
import json
import tomllib
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from minitransformer.system import files
from minitransformer.system.errors import RunError

COLUMNS = {"step", "epoch", "loss", "running_mean", "lr", "_per_second"}  # of log.csv, whatever the job


class Finished(NamedTuple):
    folder: Path
    recipe: dict[str, Any]
    log: list[dict[str, float]]  # a row per step; its columns are those of minitransformer/training/log.py
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def mean_losses(self) -> list[tuple[float, float]]:
        """(step, mean loss of the steps up to it), as the report plots them."""
        totals = accumulate(row["loss"] for row in self.log)
        return [
            (row["step"], total / count) for count, (row, total) in enumerate(zip(self.log, totals, strict=True), 1)
        ]


def read(folder: str | Path, job: str, field: str) -> Finished:
    """What a run of `job` leaves behind. Raises RunError where the folder holds no such run, ended and whole.

    field: one of the recipe's that no other job has.
    """
    folder = Path(folder)
    if not (folder / "recipe.toml").is_file():
        raise RunError(f"{folder}: no run in it; give a folder with recipe.toml, as runs/demo-qa")
    recipe = _read_recipe(folder / "recipe.toml")
    if field not in recipe:
        raise RunError(f"{folder}: no run of {job}, its recipe has no {field}; give a folder of such a run")
    if not (folder / "metrics.json").is_file():
        raise RunError(f"{folder}: the run has not ended, metrics.json is missing; go on with it by --resume")
    return Finished(folder, recipe, _read_log(folder / "log.csv"), read_json(folder / "metrics.json"))


def read_json(path: Path) -> dict[str, Any]:
    """An object that a run has written. Raises RunError where there is none."""
    try:
        files.check_regular(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; was the run made by an older version? Run it again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not JSON ({error}); run it again") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: not an object; run it again")
    return value


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: not TOML ({error}); run it again") from error


def _read_log(path: Path) -> list[dict[str, float]]:
    try:
        files.check_regular(path)
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; run it again") from None
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:  # no number, too few cells or too many
        raise RunError(f"{path}: cannot be read ({error}); run it again") from error
    names = {"_per_second" if name.endswith("_per_second") else name for name in (rows[0] if rows else COLUMNS)}
    if missing := sorted(COLUMNS - names):
        raise RunError(f"{path}: it has no column {missing[0]}; run it again")
    if [row["step"] for row in rows] != list(range(1, len(rows) + 1)):
        raise RunError(f"{path}: its steps are not 1, 2, 3, ...; run it again")
    return rows
