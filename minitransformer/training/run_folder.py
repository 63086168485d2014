"""The folder of a run: made anew, or found again and checked before the run goes on.

recipe.toml says what was asked for, facts.json what no recipe says and must be the same all the same.
"""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from minitransformer.system import files
from minitransformer.system.errors import RunError
from minitransformer.system.flags import nearest
from minitransformer.system.lock import lock_folder
from minitransformer.system.progress import say
from minitransformer.training import checkpoint, recipe
from minitransformer.training.parallel import World

THREADS = "threads of a process"


def open_run_folder(
    out: str, name: str, settings: Any, resume: bool, may_change: str = "", facts: Mapping[str, str | int] | None = None
) -> Path:
    """The folder of a run, made with recipe.toml and facts.json in it, or found again, and then not changed.

    out: its path; "" takes the first free one of runs/NAME, runs/NAME-2, ... may_change: names of the recipe's fields
    that a resumed run may have otherwise, with commas between. facts: see `facts`.
    Raises RunError when a run would be overwritten, or resumed under another recipe or other facts than it began with,
    or while another process is at work in the folder.
    """
    if resume and not out:
        raise RunError("--resume needs the --out of the run that is to go on")
    folder = Path(out) if out else next(path for path in _numbered(Path("runs") / name) if not path.exists())
    written = folder / "recipe.toml"
    if resume:
        if folder.is_dir():
            lock_folder(folder)
        _check_same_recipe(written, settings, [name.strip() for name in may_change.split(",") if name.strip()])
        _check_same_facts(folder / "facts.json", facts or {})
        if (folder / "model/config.json").exists() and not checkpoint.whole_checkpoints(folder / "checkpoints"):
            raise RunError(f"{folder}: it has a finished model, and no checkpoint to go on from; choose another --out")
        for place in (folder, folder / "model"):
            files.remove_leftovers(place)
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
    lock_folder(folder)
    if written.exists():
        raise RunError(f"{folder}: there is a run in it; choose another --out, or go on with it by --resume")
    for path in (folder / "facts.json", written):
        files.remove_leftovers(folder, path.name)  # the folder may hold what is not ours
    files.write_json(folder / "facts.json", facts or {})
    files.write_text(written, recipe.write(settings))  # last: it makes the folder a run
    return folder


def resume(
    folder: Path,
    settings: Any,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    world: World,
    scaler: torch.amp.GradScaler,
) -> int:
    """The step at which the loop begins: that of the newest checkpoint, which is put back, where `settings` resume.

    Only then does recipe.toml get what --may-change has let through: a run that is refused stays as it was.
    """
    if not settings.resume:
        return 0
    done = checkpoint.resume(folder / "checkpoints", model, optimizer, world, scaler)
    if world.first:
        if not done:
            say(f"no checkpoint in {folder}: the run begins at its first step")
            if (folder / "log.csv").exists():
                files.rename(folder / "log.csv", folder / "log.before.csv")
                say(f"its log so far is kept: {folder / 'log.before.csv'}")
        files.write_text(folder / "recipe.toml", recipe.write(settings))
    return done


def fingerprint(rows: Iterable[Iterable]) -> str:
    """SHA-256 of rows of arrays and numbers: of what a model is trained on, so that a resumed run knows it again."""
    total = hashlib.sha256()
    for row in rows:
        for value in row:
            total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def facts(training: str, validation: str, world: World) -> dict[str, str | int]:
    """What no recipe says of a run, and yet must be the same when it goes on: the hashes of its data, its processes.

    Where the threads are others, sums are rounded otherwise: the run goes on, and says so.
    """
    threads = torch.get_num_threads()
    return {"training data": training, "validation data": validation, "processes": world.size, THREADS: threads}


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def _check_same_recipe(written: Path, settings: Any, may_change: list[str]) -> None:
    fields = {field.name: field.default for field in dataclasses.fields(settings)}
    for name in may_change:
        if name not in fields:
            raise RunError(f"--may-change: the recipe has no field {name!r}{nearest(name, fields)}")
    try:
        before = tomllib.loads(written.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{written.parent}: no run in it to resume; leave --resume away to start one") from None
    except ValueError as error:
        raise RunError(f"{written}: not TOML ({error}); the run cannot be resumed") from error
    now = tomllib.loads(recipe.write(settings))
    for name, default in fields.items():
        began = before.get(name, default)  # a field that is newer than the run: it had its default's effect
        if began != now.get(name, default) and name not in may_change:
            raise RunError(
                f"{written}: the run began with {name} = {began!r}, this command says {now[name]!r}; "
                f"resume with what it began with, or allow it by --may-change {name}"
            )


def _check_same_facts(written: Path, facts: Mapping[str, str | int]) -> None:
    try:
        recorded = json.loads(written.read_text(encoding="utf-8"))
        began = {name: recorded.get(name, now) if name == THREADS else recorded[name] for name, now in facts.items()}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{written}: not what was written ({error}); the run cannot be resumed") from error
    for name, now in facts.items():
        if began[name] != now and name == THREADS:
            say(f"the run began with {began[name]} threads, now it is {now}: the same up to rounding from here on")
        elif began[name] != now:
            before, after = (str(fact)[:12] for fact in (began[name], now))  # enough of a hash to tell it by
            raise RunError(
                f"{written}: the run began with {name} {before}, now it is {after}; resume with what it began with"
            )
