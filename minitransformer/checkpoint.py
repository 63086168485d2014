"""Checkpoints: everything that a run needs to go on as if it had never stopped.

A checkpoint is a folder of safetensors and JSON, no pickle: model, optimizer, random state, step. The order of the
data follows from seed and epoch, and the losses so far stand in log.csv. It is written under a temporary name and
renamed when whole, so nobody ever finds half of one.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from minitransformer import files
from minitransformer.errors import RunError


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, keep: int = 2) -> Path:
    """Write `folder`/step-NNNNNNN and drop all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / _name(step)
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    optimizer_tensors, groups = _flatten(optimizer.state_dict())
    files.write_bytes(temporary / "model.safetensors", save(dict(model.named_parameters())))
    files.write_bytes(temporary / "optimizer.safetensors", save(optimizer_tensors))
    files.write_bytes(temporary / "random.safetensors", save(_random_state()))
    files.write_json(temporary / "state.json", {"step": step, "optimizer_groups": groups})
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    files.sync_folder(folder)
    for old in whole_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def whole_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def last_good(saved: list[Path], step: int) -> Path | None:
    """The newest checkpoint but the one of `step`, for when the weights after `step` steps give no finite loss."""
    good = [path for path in saved if path.name != _name(step)]
    return good[-1] if good else None


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put model, optimizer and random generators back. Returns the step."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = {name: load((path / f"{name}.safetensors").read_bytes()) for name in ("model", "optimizer", "random")}
        parameters = dict(model.named_parameters())
        if parameters.keys() != tensors["model"].keys():
            raise ValueError("its parameters are not this model's")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors["model"][name])
        optimizer.load_state_dict(_unflatten(tensors["optimizer"], state["optimizer_groups"]))
        torch.set_rng_state(tensors["random"]["torch"])
        if "cuda" in tensors["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random"]["cuda"])
        return state["step"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise RunError(
            f"{path}: this checkpoint cannot be read ({error}); delete it to go on from the one before"
        ) from error


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _random_state() -> dict[str, Tensor]:
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict]]:
    """An optimizer's state as flat tensors {"12.exp_avg": ...}, and its groups, which JSON can hold."""
    tensors = {f"{number}.{key}": value for number, slot in state["state"].items() for key, value in slot.items()}
    return tensors, state["param_groups"]


def _unflatten(tensors: dict[str, Tensor], groups: list[dict]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    return {"state": state, "param_groups": groups}
