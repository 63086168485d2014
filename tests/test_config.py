"""config.json: every setting of every family out of its bounds is refused in a line, before anything is built."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch

from minitransformer.system.errors import WeightsError
from weights import load_pretrained, maps
from weights.load import read_config

WRONG = {int: (-1, 2**24, 2**30, 2**62, 10**30, -(10**30), 0.5, "7", True, [1, 2], {}),
         float: (-0.1, 1e9, 1e300, 10**400, float("nan"), float("inf"), float("-inf"), "0.1", True, [0.1]),
         bool: (0, 1, "true", [True]),
         str: ("", "gelo", "\x1b[31m", 3, True, ["gelu"])}  # fmt: skip


def numbers_and_switches():
    """(model_type, the setting's name in config.json, our type) of all families."""
    for model_type, architecture in maps.ARCHITECTURES.items():
        for field in dataclasses.fields(architecture.config):
            if field.name in architecture.fields and field.name not in architecture.given:
                yield model_type, architecture.fields[field.name], field.type


@pytest.mark.parametrize(("model_type", "key", "kind"), list(numbers_and_switches()))
def test_a_setting_out_of_its_bounds_is_refused_by_name(tmp_path, model_type, key, kind):
    path = tmp_path / "config.json"
    zero = (0,) if kind is int and key != "pad_token_id" else ()
    for value in WRONG[kind] + zero:
        path.write_text(json.dumps({"model_type": model_type, key: value}))
        with pytest.raises(WeightsError) as caught:
            read_config(tmp_path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert key in message
        assert "\n" not in message
        assert len(message) < 600


@pytest.mark.parametrize("model_type", maps.ARCHITECTURES)
def test_a_setting_that_is_null_or_absent_is_the_default(tmp_path, model_type):
    architecture = maps.ARCHITECTURES[model_type]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": model_type} | dict.fromkeys(architecture.fields.values())))
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert read_config(tmp_path) == read_config(absent)


@pytest.mark.parametrize("model_type", maps.ARCHITECTURES)
def test_the_largest_that_is_admitted_is_never_allocated(tmp_path, model_type):
    """All at their bounds at once: the file, of one number, does not fit, and that is said."""
    architecture = maps.ARCHITECTURES[model_type]
    settings = {
        hf: maps.LARGEST[ours] for ours, hf in architecture.fields.items() if isinstance(maps.LARGEST.get(ours), int)
    }
    settings |= {architecture.fields[ours]: 1 for ours in ("pad_id",) if ours in architecture.fields}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type} | settings))
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="tensors are missing"):
        load_pretrained(tmp_path, "encoder")
