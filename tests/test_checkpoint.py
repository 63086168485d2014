"""Checkpoints: what is put back, and what a crash can leave."""

import os

import pytest
import torch
from torch import nn

from minitransformer.checkpoint import last_good, load_checkpoint, save_checkpoint, whole_checkpoints
from minitransformer.errors import RunError
from tiny import files_under


def start(seed: int = 0, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.5), nn.Linear(width, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def go(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Steps that depend on everything a checkpoint holds, the random generator too."""
    for _ in range(steps):
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def names(paths) -> list[str]:
    return [path.name for path in paths]


@pytest.fixture
def saved(tmp_path):
    """Checkpoints after 1 and 2 steps; the model and the optimizer after 2."""
    model, optimizer = start()
    for step in (1, 2):
        go(model, optimizer, 1)
        save_checkpoint(tmp_path, step, model, optimizer)
    return tmp_path, model, optimizer


def test_checkpoint_puts_everything_back(saved):
    folder, model, optimizer = saved
    go(model, optimizer, 3)
    drawn = torch.rand(1)

    other, other_optimizer = start(seed=1)
    assert load_checkpoint(folder / "step-0000002", other, other_optimizer) == 2
    go(other, other_optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert torch.equal(drawn, torch.rand(1))


def test_checkpoint_is_no_pickle(saved):
    held = {"model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"}
    assert set(files_under(saved[0] / "step-0000002")) == held


def test_checkpoints_are_found_oldest_first_and_only_the_newest_two_are_kept(saved):
    folder, model, optimizer = saved
    for step in (10, 9_999_999):
        save_checkpoint(folder, step, model, optimizer)
    assert names(whole_checkpoints(folder)) == ["step-0000010", "step-9999999"]
    assert names(sorted(folder.iterdir())) == ["step-0000010", "step-9999999"]


def test_checkpoints_of_a_folder_that_is_absent_are_none(tmp_path):
    assert whole_checkpoints(tmp_path / "absent") == []


@pytest.mark.parametrize("moment", ["model.safetensors", "optimizer.safetensors", "state.json", "step-0000003"])
def test_checkpoint_half_written_is_not_found_and_does_not_stop_the_next(saved, monkeypatch, moment):
    folder, model, optimizer = saved
    replace = os.replace

    def crash(source, target):
        if target.name == moment:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(folder, 3, model, optimizer)
    assert names(whole_checkpoints(folder)) == ["step-0000001", "step-0000002"]
    assert names(sorted(folder.iterdir())) == [".step-0000003.tmp", "step-0000001", "step-0000002"]

    save_checkpoint(folder, 3, model, optimizer)
    assert names(sorted(folder.iterdir())) == ["step-0000002", "step-0000003"]
    assert load_checkpoint(folder / "step-0000003", *start()) == 3


def test_checkpoint_of_a_step_that_was_saved_before_is_replaced(saved):
    folder, model, optimizer = saved
    go(model, optimizer, 1)
    save_checkpoint(folder, 2, model, optimizer)
    other, other_optimizer = start(seed=1)
    load_checkpoint(folder / "step-0000002", other, other_optimizer)
    assert torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["absent", "empty", "cut off"])
def test_checkpoint_that_is_damaged_is_named_with_a_way_out(saved, name, damage):
    path = saved[0] / "step-0000002"
    data = (path / name).read_bytes()
    (path / name).unlink()
    if damage != "absent":
        (path / name).write_bytes(data[: len(data) // 2] if damage == "cut off" else b"")
    with pytest.raises(RunError) as caught:
        load_checkpoint(path, *start())
    assert str(caught.value).startswith(f"{path}: this checkpoint cannot be read (")
    assert str(caught.value).endswith("; delete it to go on from the one before")


@pytest.mark.parametrize("state", ["[]", "{}", "null", '{"step": 2}', '{"step": 2, "optimizer_groups": []}'])
def test_checkpoint_whose_state_is_not_one_is_refused(saved, state):
    path = saved[0] / "step-0000002"
    (path / "state.json").write_text(state)
    with pytest.raises(RunError, match="cannot be read"):
        load_checkpoint(path, *start())


def test_checkpoint_of_another_model_is_refused(saved):
    with pytest.raises(RunError, match="cannot be read"):
        load_checkpoint(saved[0] / "step-0000002", *start(width=3))
    model = nn.Linear(4, 4)
    with pytest.raises(RunError, match="its parameters are not this model's"):
        load_checkpoint(saved[0] / "step-0000002", model, torch.optim.AdamW(model.parameters()))


def test_last_good_checkpoint_is_not_the_one_whose_weights_have_failed(saved):
    first, second = whole_checkpoints(saved[0])
    assert last_good([], step=0) is None
    assert last_good([first, second], step=3) == second
    assert last_good([first, second], step=2) == first
    assert last_good([first], step=1) is None
