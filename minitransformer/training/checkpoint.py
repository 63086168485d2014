"""Checkpoints: everything that a run needs to go on as if it had never stopped.

A checkpoint is a folder of safetensors and JSON, no pickle: model, optimizer, random state, and what else the loop
counts. The order of the data follows from seed and epoch, and the losses so far stand in log.csv. It is written aside,
with a manifest of every file's size and SHA-256, and renamed when whole; so nobody ever finds half of one, and damage
that comes later is seen.
"""

import contextlib
import hashlib
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from minitransformer.system import files
from minitransformer.system.errors import RunError, printable
from minitransformer.system.progress import say
from minitransformer.training.parallel import ALONE, World

KEPT = 2  # the newest, and one more should the newest be damaged; besides these, the best


class _Damaged(Exception):
    """A checkpoint that is not what was written."""


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    world: World = ALONE,
    scaler: torch.amp.GradScaler | None = None,
    score: float | None = None,
) -> Path:
    """Write `folder`/step-NNNNNNN and drop all but the newest ones and the best. All processes call this together.

    scaler: of float16's losses. score: how well the model did in validation, higher is better; None: it was not
    validated at this step.
    """
    final = folder / _name(step)
    random_states = world.gather(_random_state())
    if not world.first:
        return final
    contents = {
        "model.safetensors": save(dict(model.named_parameters())),
        "optimizer.safetensors": save(_moments(model, optimizer)),
        "state.json": files.json_bytes(
            {
                "step": step,
                "score": score,
                "trained": _trained(model, optimizer),
                "scaler": scaler.state_dict() if scaler else {},  # numbers; none where it is not in use
            }
        ),
    }
    for rank, state in enumerate(random_states):
        contents[f"random-{rank}.safetensors"] = save(state)
    manifest = {name: {"size": len(data), "sha256": _hash(data)} for name, data in contents.items()}

    temporary = folder / f".{final.name}.tmp"
    files.make_folder(folder)
    _remove_leftovers(folder)
    try:
        files.make_folder(temporary)
        for name, data in contents.items():
            files.write_bytes(temporary / name, data)
        files.write_json(temporary / "manifest.json", manifest)
    except OSError:  # a full disk: do not fill it with half a checkpoint
        with contextlib.suppress(OSError):
            files.remove_folder(temporary)
        raise
    files.remove_folder(final)
    files.rename(temporary, final)
    _remove_old(whole_checkpoints(folder))
    if score is not None:
        say(f"{final.name}: validated at {score:.4f}")
    return final


def whole_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first; none where there is no folder. RunError where there is one, out of reach.

    `Path.glob` would find nothing in a folder that may not be read, and the run would begin anew over what it had.
    """
    if not os.path.lexists(folder):
        return []
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.startswith("step-"))
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be read ({error.strerror}): make it readable, or bring back its disk; nothing changed"
        ) from error


def last_good(saved: list[Path], step: int) -> Path | None:
    """The newest checkpoint but the one of `step`, for when the weights after `step` steps give no finite loss."""
    good = [path for path in saved if path.name != _name(step)]
    return good[-1] if good else None


def resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    world: World = ALONE,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Put model, optimizer and random generators back from the newest whole checkpoint. Returns its step, 0 for none.

    What the optimizer was told (rate, decay, betas) stays as it is now; what it remembers is put back. A damaged
    checkpoint is named on stderr and the one before it is used. Raises RunError when all are damaged, or where the
    model has other parameters, or trains others.
    """
    saved = whole_checkpoints(folder)
    for number, path in reversed(list(enumerate(saved, start=1))):
        try:
            step = _load(path, model, optimizer, world, scaler)
        except _Damaged as error:
            if world.first:
                warning = f"warning: {path} is damaged ({error}): going on from the one before"
                print(printable(warning), file=sys.stderr)
            continue
        if world.first:
            _remove_old(saved[:number])  # which a killed process had no time to do
            _remove_leftovers(folder)
            say(f"resumed at step {step} from {folder}")
        return step
    if saved:
        raise RunError(f"{folder}: no checkpoint in it is whole; copy one back, or begin anew with another --out")
    return 0


@torch.no_grad()
def load_best(folder: Path, model: nn.Module, world: World = ALONE) -> None:
    """Put the parameters with the highest score back, the earliest of equals. All processes call this together.

    A damaged checkpoint is named on stderr and the next best is used. Where none is whole that was validated, the
    parameters stay those of the last step, and this is said.
    """
    best = world.from_first(lambda: _best_whole(folder))  # when the first process has written the last one
    if best is None:
        if world.first:
            print(f"warning: {folder} has no whole checkpoint that was validated: the last weights are kept",
                  file=sys.stderr)  # fmt: skip
        return
    held = load(_read(best, only="model.safetensors")["model.safetensors"])
    for name, parameter in model.named_parameters():
        parameter.copy_(held[name])
    if world.first:
        say(f"the best was {best.name} ({_score(best):.4f}): its weights are kept")


def _best_whole(folder: Path) -> Path | None:
    saved = whole_checkpoints(folder)
    while best := _best(saved):
        try:
            _read(best)
            return best
        except _Damaged as error:
            print(printable(f"warning: {best} is damaged ({error}): taking the next best"), file=sys.stderr)
            saved.remove(best)
    return None


def _best(saved: list[Path]) -> Path | None:
    """Of checkpoints, oldest first, the earliest of those with the highest score. None where none has a score."""
    scored = [(score, path) for path in saved if (score := _score(path)) is not None]
    return max(scored, key=lambda pair: pair[0], default=(0, None))[1]


def _score(path: Path) -> float | None:
    """None where the checkpoint was not validated, or is damaged."""
    try:
        return json.loads(_read(path, "state.json")["state.json"])["score"]
    except (_Damaged, ValueError, KeyError):  # the two last: a manifest that someone wrote to match
        return None


def _remove_old(saved: list[Path]) -> None:
    """All but the newest ones and the best. saved: oldest first."""
    best = _best(saved)
    for old in saved[:-KEPT]:
        if old != best:
            files.remove_folder(old)


def _remove_leftovers(folder: Path) -> None:
    """What a killed process was writing, or removing."""
    for leftover in folder.glob(".step-*"):
        files.remove_folder(leftover)


def _load(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    world: World,
    scaler: torch.amp.GradScaler | None,
) -> int:
    contents = _read(path)
    try:
        state = json.loads(contents["state.json"])
        held, moments = (load(contents[f"{name}.safetensors"]) for name in ("model", "optimizer"))
    except (ValueError, KeyError, SafetensorError) as error:  # the hashes are right, so the manifest is not
        raise _Damaged(error) from error
    parameters = dict(model.named_parameters())
    if {name: tensor.shape for name, tensor in held.items()} != {name: p.shape for name, p in parameters.items()}:
        raise RunError(f"{path}: its parameters are not this model's; resume with the weights that the run began with")
    if state["trained"] != _trained(model, optimizer):
        raise RunError(f"{path}: it trained other parameters than this run is to; resume with what the run began with")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(held[name])
    _put_moments(moments, model, optimizer)
    if scaler and scaler.is_enabled() and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    _put_random_state(load(contents[f"random-{world.rank}.safetensors"]))
    return state["step"]


def _read(path: Path, only: str = "") -> dict[str, bytes]:
    """Every file of a checkpoint, or `only` one. _Damaged unless each is what the manifest says."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        contents = {}
        for name, entry in manifest.items():
            if only not in ("", name):
                continue
            data = (path / Path(name).name).read_bytes()
            if len(data) != entry["size"]:
                raise _Damaged(f"{name} has {len(data):,} bytes, not {entry['size']:,}")
            if _hash(data) != entry["sha256"]:
                raise _Damaged(f"{name} is not what was written")
            contents[name] = data
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise _Damaged(f"{Path(error.filename or path).name}: {error.strerror}") from error
    except OSError as error:  # it may well be whole
        raise RunError(
            f"{error.filename or path}: cannot be read ({error.strerror}): make it readable; nothing was changed"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _Damaged("manifest.json is not what was written") from error
    return contents


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _random_state() -> dict[str, Tensor]:
    """Where every random generator stands. Python's and numpy's are Mersenne twisters: 624 words and a place."""
    _, words, place, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the one that is global
    _, numbers, next_gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*np.asarray(words).tolist(), place, has_gauss]),
        "numpy_gauss": torch.tensor(gauss, dtype=torch.float64),
        "python": torch.tensor(numbers),
        "python_gauss": torch.tensor([] if next_gauss is None else [next_gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def _put_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    *words, place, has_gauss = state["numpy"].tolist()
    gauss = state["numpy_gauss"].item()
    np.random.set_state(("MT19937", np.array(words, dtype=np.uint32), place, has_gauss, gauss))  # noqa: NPY002
    version = random.getstate()[0]
    random.setstate((version, tuple(state["python"].tolist()), next(iter(state["python_gauss"].tolist()), None)))


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of the parameters that the optimizer has, in the model's order."""
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [name for name, parameter in model.named_parameters() if id(parameter) in own]


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers of each parameter, as flat tensors {"span.weight.exp_avg": ...}."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _put_moments(moments: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give them back by name, so that it does not matter which group a parameter is in now."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    in_order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {name: number for number, name in enumerate(in_order)}  # as torch's state_dict counts them
    state: dict[int, dict[str, Tensor]] = {}
    for place, tensor in moments.items():
        name, _, key = place.rpartition(".")
        state.setdefault(numbers[name], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
