"""Checkpoints: what is put back, and what a crash can leave."""

import errno
import random
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from minitransformer.system import files
from minitransformer.system.errors import RunError
from minitransformer.training.checkpoint import last_good, load_best, resume, save_checkpoint, whole_checkpoints
from tiny import files_under

FILES = {"model.safetensors", "optimizer.safetensors", "random-0.safetensors", "state.json", "manifest.json"}


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
        draw()
        save_checkpoint(tmp_path, step, model, optimizer)
    return tmp_path, model, optimizer


def test_checkpoint_puts_float16_s_loss_scale_back(tmp_path):
    model, optimizer = start()
    grown, fresh, off = (torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=2, enabled=on) for on in (1, 1, 0))
    for _ in range(5):
        grown.scale(model(torch.randn(8, 4)).square().mean()).backward()
        grown.step(optimizer)
        grown.update()
    save_checkpoint(tmp_path, 5, model, optimizer, scaler=grown)
    assert grown.get_scale() == 8.0  # twice doubled
    assert resume(tmp_path, *start(seed=1), scaler=fresh) == 5
    assert fresh.state_dict() == grown.state_dict()
    assert resume(tmp_path, *start(seed=1), scaler=off) == 5  # a run in float32 or bfloat16 has none
    save_checkpoint(tmp_path, 6, model, optimizer, scaler=off)
    assert resume(tmp_path, *start(seed=1), scaler=fresh) == 6


def test_checkpoint_puts_everything_back(saved):
    folder, model, optimizer = saved
    go(model, optimizer, 3)
    drawn = draw()

    other, other_optimizer = start(seed=1)
    assert resume(folder, other, other_optimizer) == 2
    go(other, other_optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert draw() == drawn


def draw() -> list[float]:
    """A number of each generator; gauss and normal of Python and numpy keep a second one for later."""
    return [torch.rand(1).item(), random.random(), random.gauss(), np.random.rand(), np.random.normal()]  # noqa: NPY002


def test_checkpoint_is_no_pickle(saved):
    assert set(files_under(saved[0] / "step-0000002")) == FILES


def test_checkpoints_are_found_oldest_first_and_only_the_newest_two_are_kept(saved):
    folder, model, optimizer = saved
    for step in (10, 9_999_999):
        save_checkpoint(folder, step, model, optimizer)
    assert names(whole_checkpoints(folder)) == ["step-0000010", "step-9999999"]
    assert names(sorted(folder.iterdir())) == ["step-0000010", "step-9999999"]


@pytest.fixture
def scored(tmp_path):
    """Six checkpoints, of which 2, 3 and 5 were validated, 2 and 3 best; the parameters after each step."""
    model, optimizer = start()
    after = {}
    for step, score in enumerate([None, 7.5, 7.5, None, -2.0, None], start=1):
        go(model, optimizer, 1)
        after[step] = model[0].weight.detach().clone()
        save_checkpoint(tmp_path, step, model, optimizer, score=score)
    return tmp_path, after


def test_the_best_checkpoint_is_kept_besides_the_newest_two_the_earliest_of_equals(scored, capsys):
    folder, after = scored
    assert names(sorted(folder.iterdir())) == ["step-0000002", "step-0000005", "step-0000006"]
    other, _ = start(seed=1)
    load_best(folder, other)
    assert torch.equal(other[0].weight, after[2])
    assert capsys.readouterr().out == "the best was step-0000002 (7.5000): its weights are kept\n"


def test_resume_goes_on_from_the_newest_and_leaves_the_best(scored):
    folder, after = scored
    other, other_optimizer = start(seed=1)
    assert resume(folder, other, other_optimizer) == 6
    assert torch.equal(other[0].weight, after[6])
    assert names(sorted(folder.iterdir())) == ["step-0000002", "step-0000005", "step-0000006"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_where_the_best_checkpoint_is_damaged_the_next_best_is_taken(scored, capsys, name):
    folder, after = scored
    damage_file(folder / "step-0000002" / name, "a bit")
    other, _ = start(seed=1)
    load_best(folder, other)
    assert torch.equal(other[0].weight, after[5])
    said = capsys.readouterr()
    assert ("step-0000002 is damaged (model.safetensors is not what was written): taking" in said.err) == (
        name == "model.safetensors"  # without the other two it does not say that it was validated
    )
    damage_file(folder / "step-0000005/model.safetensors", "absent")
    load_best(folder, other)
    assert "has no whole checkpoint that was validated: the last weights are kept" in capsys.readouterr().err
    assert torch.equal(other[0].weight, after[5])  # as they were


def test_checkpoints_of_a_folder_that_is_absent_are_none(tmp_path):
    assert whole_checkpoints(tmp_path / "absent") == []


OPERATIONS = 32  # of saving a third checkpoint where two are kept


@pytest.mark.parametrize("moment", range(OPERATIONS))
def test_a_save_that_ends_at_any_moment_loses_nothing_and_does_not_stop_the_next(saved, monkeypatch, moment):
    folder, model, optimizer = saved
    with monkeypatch.context() as patch:
        patch.setattr(files, "operation", killer(moment))
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(folder, 3, model, optimizer)
    other, other_optimizer = start(seed=1)
    newest = resume(folder, other, other_optimizer)
    assert newest in (2, 3)
    assert names(sorted(folder.iterdir())) == [f"step-{step:07}" for step in (newest - 1, newest)]
    save_checkpoint(folder, 3, model, optimizer)
    assert names(sorted(folder.iterdir())) == ["step-0000002", "step-0000003"]
    assert resume(folder, other, other_optimizer) == 3
    assert torch.equal(other[0].weight, model[0].weight)


def killer(moment: int):
    """Ends the process, as far as Python can, at the operation on the disk of that number."""
    count = iter(range(OPERATIONS + 1))

    def operation(name, path):
        if next(count) == moment:
            raise KeyboardInterrupt

    return operation


def test_a_save_has_as_many_operations_as_are_tested(saved, monkeypatch):
    folder, model, optimizer = saved
    seen = []
    monkeypatch.setattr(files, "operation", lambda name, path: seen.append(name))
    save_checkpoint(folder, 3, model, optimizer)
    assert len(seen) == OPERATIONS


def test_a_full_disk_leaves_the_last_checkpoint(saved, monkeypatch):
    folder, model, optimizer = saved
    full = OSError(errno.ENOSPC, "No space left on device", str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(files, "operation", mock.Mock(side_effect=[None] * 8 + [full, None]))
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(folder, 3, model, optimizer)
    assert names(whole_checkpoints(folder)) == ["step-0000001", "step-0000002"]
    assert resume(folder, *start()) == 2


def test_checkpoint_of_a_step_that_was_saved_before_is_replaced(saved):
    folder, model, optimizer = saved
    go(model, optimizer, 1)
    save_checkpoint(folder, 2, model, optimizer)
    other, other_optimizer = start(seed=1)
    resume(folder, other, other_optimizer)
    assert torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["absent", "empty", "cut off", "a bit"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(saved, capsys, name, damage):
    folder, *_ = saved
    damage_file(folder / "step-0000002" / name, damage)
    assert resume(folder, *start()) == 1
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {folder / 'step-0000002'} is damaged (")
    assert warning.count("\n") == 1


def damage_file(path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "a bit":
        data[len(data) // 2] ^= 1
    if damage != "absent":
        path.write_bytes({"empty": b"", "cut off": data[: len(data) // 2]}.get(damage, data))


def test_where_all_checkpoints_are_damaged_nothing_is_guessed(saved):
    folder, *_ = saved
    for path in whole_checkpoints(folder):
        damage_file(path / "model.safetensors", "a bit")
    with pytest.raises(
        RunError, match=r"no checkpoint in it is whole; copy one back, or begin anew with another --out"
    ):
        resume(folder, *start())


@pytest.mark.parametrize("manifest", ["[]", "{", "null", "{}", '{"model.safetensors": 3}', '{"model.safetensors": {}}'])
def test_a_manifest_that_is_not_one_is_damage(saved, manifest):
    (saved[0] / "step-0000002/manifest.json").write_text(manifest)
    assert resume(saved[0], *start()) == 1


def test_checkpoint_of_another_model_is_refused(saved):
    with pytest.raises(RunError, match="its parameters are not this model's"):
        resume(saved[0], *start(width=3))
    model = nn.Linear(4, 4)
    with pytest.raises(RunError, match="its parameters are not this model's"):
        resume(saved[0], model, torch.optim.AdamW(model.parameters()))


def test_what_the_optimizer_is_told_now_holds_and_what_it_remembers_is_put_back(saved):
    """Also where it has its parameters in other groups, and so in another order."""
    folder, model, optimizer = saved
    other, _ = start(seed=1)
    biases, weights = [other[0].bias, other[2].bias], [other[2].weight, other[0].weight]
    groups = [{"params": biases, "weight_decay": 0.0}, {"params": weights, "weight_decay": 0.5}]
    grouped = torch.optim.AdamW(groups, lr=0.3, betas=(0.8, 0.9), fused=True)
    assert resume(folder, other, grouped) == 2
    assert [(group["lr"], group["betas"]) for group in grouped.param_groups] == 2 * [(0.3, (0.8, 0.9))]
    assert [group["weight_decay"] for group in grouped.param_groups] == [0.0, 0.5]
    for name, parameter in model.named_parameters():
        remembered = grouped.state[other.get_parameter(name)]
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(remembered[key], value), (name, key)


def test_a_checkpoint_that_trained_other_parameters_is_refused(saved):
    """Of the same shapes and number, so that torch would take the memory of one for that of another."""
    folder, *_ = saved
    model, _ = start()
    fewer = torch.optim.AdamW([model[0].weight, model[0].bias, model[2].weight], fused=True)
    with pytest.raises(RunError, match=r"step-0000002: it trained other parameters than this run is to"):
        resume(folder, model, fewer)


def test_no_checkpoint_is_step_0(tmp_path):
    assert resume(tmp_path / "absent", *start()) == 0


def test_last_good_checkpoint_is_not_the_one_whose_weights_have_failed(saved):
    first, second = whole_checkpoints(saved[0])
    assert last_good([], step=0) is None
    assert last_good([first, second], step=3) == second
    assert last_good([first, second], step=2) == first
    assert last_good([first], step=1) is None
