"""What every training job does around its loop: device, run folder, order of the data, stopping."""

import dataclasses
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from minitransformer import bert, checkpoint, files, recipe, vit
from minitransformer.attention import SelfAttention
from minitransformer.errors import RunError, Stopped
from minitransformer.flags import nearest
from minitransformer.parallel import World

T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """The device called `name`. RunError when this machine or this build of torch has none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: torch sees no GPU here; use --device cpu")
    return torch.device(name)


def seed_all(seed: int, deterministic: bool = False) -> None:
    """Seed every random generator: torch's, and those of Python and numpy, which checkpoints hold too.

    seed: below 2**32. deterministic: a GPU too gives the same bits every time; an operation that cannot, fails.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add in any order
    torch.use_deterministic_algorithms(deterministic)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the one that is global
    torch.manual_seed(seed)


def open_run_folder(
    out: str, name: str, settings: Any, resume: bool, may_change: str = "", facts: Mapping[str, str | int] | None = None
) -> Path:
    """The folder of a run, made with recipe.toml and facts.json in it, or found again, and then not changed.

    out: its path; "" takes the first free one of runs/NAME, runs/NAME-2, ... may_change: names of the recipe's fields
    that a resumed run may have otherwise, with commas between. facts: see `facts`.
    Raises RunError when a run would be overwritten, or resumed under another recipe or other facts than it began with.
    """
    if resume and not out:
        raise RunError("--resume needs the --out of the run that is to go on")
    folder = Path(out) if out else next(path for path in _numbered(Path("runs") / name) if not path.exists())
    written = folder / "recipe.toml"
    if resume:
        _check_same_recipe(written, settings, [name.strip() for name in may_change.split(",") if name.strip()])
        _check_same_facts(folder / "facts.json", facts or {})
        if (folder / "model/config.json").exists() and not checkpoint.whole_checkpoints(folder / "checkpoints"):
            raise RunError(f"{folder}: it has a finished model, and no checkpoint to go on from; choose another --out")
        for place in (folder, folder / "model"):
            files.remove_leftovers(place)
        return folder
    if written.exists():
        raise RunError(f"{folder}: there is a run in it; choose another --out, or go on with it by --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
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
            print(f"no checkpoint in {folder}: the run begins at its first step", flush=True)
        files.write_text(folder / "recipe.toml", recipe.write(settings))
    return done


def ahead(batches: Iterator[T], device: torch.device) -> Iterator[T]:
    """The same batches, made by a thread while a GPU computes. On a CPU it would only take the time of the others."""
    if device.type == "cpu":
        yield from batches
        return
    with ThreadPoolExecutor(max_workers=1) as worker:
        coming = deque(worker.submit(next, batches, None) for _ in range(2))
        while (batch := coming.popleft().result()) is not None:
            coming.append(worker.submit(next, batches, None))
            yield batch


def count_steps(examples: int, batch_size: int, epochs: int, most: int) -> tuple[int, int]:
    """Steps of an epoch, the last perhaps on fewer examples, and of the run. most: in all; 0: as many as there are."""
    steps_per_epoch = -(-examples // batch_size)
    steps = epochs * steps_per_epoch
    return steps_per_epoch, min(steps, most) if most else steps


def progress(what: str, done: int, steps: int, world: World) -> tqdm:
    """A progress bar of steps; only the first process shows one."""
    return tqdm(total=steps, initial=done, unit="step", desc=what, disable=not world.first)


def due(step: int, every: int, last: int = 0) -> bool:
    """Whether something done every so many steps, and after the last one, is due after `step`. every 0: never."""
    return bool(every) and (step % every == 0 or step == last)


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """A permutation of 0 ... count - 1 that seed and epoch alone decide, so that a resumed run finds it again."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def move(batch: T, device: torch.device) -> T:
    """A NamedTuple of tensors on the device. From pinned memory the copy does not hold up the loop."""
    if device.type == "cpu":
        return batch
    return type(batch)(*(tensor.pin_memory().to(device, non_blocking=True) for tensor in batch))


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Runs of `size` items, the last perhaps shorter; of all items if size is 0. No items make no run."""
    for first in range(0, len(items), size or max(1, len(items))):
        yield items[first : first + (size or len(items))]


def compile_layers(model: nn.Module) -> None:
    """torch.compile every layer, once for all numbers of rows.

    How rows belong together changes with every batch, and attention has kernels of its own, so it is left out.
    """
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.attend = torch.compiler.disable(module.attend)
        if isinstance(module, bert.Layer | vit.Block):
            module.compile(dynamic=True)


def fingerprint(rows: Iterable[Iterable]) -> str:
    """SHA-256 of rows of arrays and numbers: of what a model is trained on, so that a resumed run knows it again."""
    total = hashlib.sha256()
    for row in rows:
        for value in row:
            total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def facts(training: str, validation: str, world: World) -> dict[str, str | int]:
    """What no recipe says of a run, and yet must be the same when it goes on: the hashes of its data, its processes."""
    return {"training data": training, "validation data": validation, "processes": world.size}


class Stop:
    """Ctrl-C or SIGTERM ask the loop inside to stop: it finishes the step in hand, saves, and calls `stop`.

    A second signal ends the process at once, which harms nothing: files appear whole or not at all.
    """

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> "Stop":
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        when = "after this step, on a GPU after the next that is printed"
        print(f"\nstopping {when}; once more to stop at once", file=sys.stderr, flush=True)

    def stop(self, step: int, saved: Path) -> NoReturn:
        """End the run. Raises Stopped, of which `command_line` makes a message and an exit status."""
        words = sys.argv.copy()
        words += [] if "--resume" in words else ["--resume"]
        if not any(word.split("=")[0] == "--out" for word in words):
            words += ["--out", str(saved.parents[1])]
        raise Stopped(f"stopped after step {step}, saved in {saved}; go on:  {command(*words)}", 128 + self.signal)


def command(*words: object) -> str:
    """A line for the shell that gives these words to Python, as this process was started: pasted here, it runs.

    The interpreter is called by its name where the shell finds it by that, else by its path.
    """
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    if processes and words[0] != "-m":
        start = ["torchrun", "--nproc-per-node", processes]
    else:
        path = Path(sys.executable)
        near = os.path.relpath(path)
        start = [path.name if shutil.which(path.name) == str(path) else str(path) if near.startswith("..") else near]
    return shlex.join([*start, *map(str, words)])


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def _check_same_recipe(written: Path, settings: Any, may_change: list[str]) -> None:
    names = [field.name for field in dataclasses.fields(settings)]
    for name in may_change:
        if name not in names:
            raise RunError(f"--may-change: the recipe has no field {name!r}{nearest(name, names)}")
    try:
        before = tomllib.loads(written.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{written.parent}: no run in it to resume; leave --resume away to start one") from None
    except ValueError as error:
        raise RunError(f"{written}: not TOML ({error}); the run cannot be resumed") from error
    now = tomllib.loads(recipe.write(settings))
    for name in names:
        if before.get(name) != now.get(name) and name not in may_change:
            raise RunError(
                f"{written}: the run began with {name} = {before.get(name)!r}, this command says {now.get(name)!r}; "
                f"resume with what it began with, or allow it by --may-change {name}"
            )


def _check_same_facts(written: Path, facts: Mapping[str, str | int]) -> None:
    try:
        recorded = json.loads(written.read_text(encoding="utf-8"))
        began = {name: recorded[name] for name in facts}
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise RunError(f"{written}: not what was written ({error}); the run cannot be resumed") from error
    for name, now in facts.items():
        if began[name] != now:
            before, after = (str(fact)[:12] for fact in (began[name], now))  # enough of a hash to tell it by
            raise RunError(
                f"{written}: the run began with {name} {before}, now it is {after}; resume with what it began with"
            )
