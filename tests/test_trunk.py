"""The frozen trunk run once: the same numbers as the whole model, and a file that is never trusted wrongly."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from minitransformer.dinov2 import Dinov2Config, Dinov2ForImageClassification
from minitransformer.system.errors import DataError, RunError
from minitransformer.vit import VitConfig, VitForImageClassification
from tiny import failing, files_under
from vision import trunk
from vision.freeze import freeze, hold_key_biases

RULES = {  # what trains -> the first block that does
    "blocks.2 classifier": 2,
    "blocks.2 norm classifier": 2,
    "blocks.1 blocks.2 classifier": 1,
    "blocks.1": 1,
    "blocks classifier": 0,
    "norm classifier": 3,
    "classifier": 3,
}


def random_model(seed: int = 0, **sizes) -> VitForImageClassification:
    """Three blocks, of which no parameter is all zeros or all ones."""
    sizes = {
        "image_size": 12,
        "patch": 4,
        "width": 24,
        "layers": 3,
        "heads": 3,
        "ffn_width": 40,
        "classes": 5,
        "distilled": True,
    } | sizes
    return drawn(VitForImageClassification, VitConfig(**sizes), seed)


def random_dinov2(**sizes) -> Dinov2ForImageClassification:
    """The same of a DINOv2, whose positions are for larger pictures than those below."""
    sizes = {"image_size": 20, "patch": 4, "width": 24, "layers": 3, "heads": 3, "ffn_ratio": 2, "classes": 5} | sizes
    return drawn(Dinov2ForImageClassification, Dinov2Config(**sizes))


def drawn(kind: type[nn.Module], config: Any, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, mean=1.0, std=0.2)
    return model


def pictures(count: int = 16, seed: int = 1) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 12, 12, generator=random), torch.randint(5, (count,), generator=random)


def gradients(model: nn.Module, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    F.cross_entropy(logits, labels).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# ------------------------------------------------------------------------------------------------ same numbers


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (random_model, sizes)
        for sizes in ({}, {"distilled": False}, {"qkv_bias": False}, {"norm_eps": 0.1}, {"heads": 1})
    ]
    + [(random_dinov2, sizes) for sizes in ({}, {"image_size": 12}, {"qkv_bias": False}, {"norm_eps": 0.1})],
)
def test_two_halves_are_the_whole_model(rule, make, sizes):
    model = make(**sizes)
    freeze(model, rule)
    first = trunk.first_trainable(model)
    assert first == RULES[rule]
    images, labels = pictures()

    whole = model(images)
    halves = trunk.finish(model, trunk.keep(model, images, first), first)
    torch.testing.assert_close(halves, whole, rtol=1e-5, atol=1e-5)
    expected, found = gradients(model, whole, labels), gradients(model, halves, labels)
    assert found.keys() == expected.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
    assert max(gradient.abs().max() for gradient in expected.values()) > 0.01  # the tolerance means something


def test_last_block_gradients_are_exact_in_double_precision():
    model = random_model().double()
    freeze(model, "blocks.2 classifier")
    images, labels = pictures()[0].double(), pictures()[1]
    expected = gradients(model, model.classifier(model.encoder(images)[:, 0]), labels)
    found = gradients(model, trunk.finish(model, trunk.keep(model, images, 2), 2), labels)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", ["all", "embeddings.patches classifier", "embeddings.cls", "embeddings blocks.2"])
def test_what_comes_before_the_blocks_has_no_trunk(rule):
    model = random_model()
    freeze(model, rule)
    assert trunk.first_trainable(model) == -1


def test_keep_makes_no_graph_and_holds_what_its_docstring_says():
    model = random_model()
    images, _ = pictures()
    assert trunk.keep(model, images, 3).shape == (16, 1, 24)
    assert trunk.keep(model, images, 1).shape == (16, 11, 24)
    rows = trunk.keep(model, images, 2)
    assert rows.shape == (16, 12, 24)
    assert not rows.requires_grad
    torch.testing.assert_close(rows[:, 1:].mean(-1), torch.zeros(16, 11), rtol=0, atol=1e-6)
    torch.testing.assert_close(rows[:, 1:].std(-1, unbiased=False), torch.ones(16, 11), rtol=0, atol=1e-5)


def test_keep_holds_all_that_a_classifier_of_patches_reads():
    model = random_dinov2()
    images, _ = pictures()
    for first in (1, 2):
        assert trunk.keep(model, images, first).shape == (16, 10, 24)
    kept = trunk.keep(model, images, 3)
    assert kept.shape == (16, 2, 24)
    assert not kept.requires_grad
    torch.testing.assert_close(kept.mean(-1), torch.zeros(16, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [random_model, random_dinov2])
@pytest.mark.parametrize("rule", ["blocks.2 classifier", "blocks.1 blocks.2 norm classifier", "norm classifier"])
def test_training_from_the_cache_ends_where_plain_training_does(make, rule):
    """Thirty steps of AdamW: the same losses, and the same weights down to norms and biases."""
    images, labels = pictures(count=20)
    losses, weights = [], []
    for cached in (False, True):
        model = make()
        freeze(model, rule)
        hold_key_biases(model)
        first = trunk.first_trainable(model)
        rows = trunk.keep(model, images, first)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1)
        steps = []
        for step in range(30):
            chosen = torch.arange(20).roll(7 * step)[:8]
            logits = trunk.finish(model, rows[chosen], first) if cached else model(images[chosen])
            loss = F.cross_entropy(logits, labels[chosen])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps.append(loss.item())
        losses.append(steps)
        weights.append(dict(model.named_parameters()))
    assert losses[0][-1] < 0.9 * losses[0][0]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    before = dict(make().named_parameters())
    for name, expected in weights[0].items():
        torch.testing.assert_close(
            weights[1][name], expected, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
        assert torch.equal(expected, before[name]) != expected.requires_grad, name


# ------------------------------------------------------------------------------------------------ the cache


class Source:
    """Images that count how often they are asked for."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.asked = 0

    def __call__(self, chosen: Tensor) -> Tensor:
        self.asked += len(chosen)
        return self.images[chosen]


def opened(folder: Path, model: nn.Module | None = None, source=None, inputs=("data", "settings"), **changes) -> Tensor:
    """The cache of 16 images in a file, in batches of 5."""
    given = {"first": 2, "count": 16, "batch_size": 5, "budget": 0}
    return trunk.open_cache(
        model or random_model(), pixels=source or Source(pictures()[0]), folder=folder, inputs=inputs, **given | changes
    )


def test_a_reader_gives_the_rows_asked_for_from_one_piece_of_memory():
    rows = torch.randn(9, 4, 2)
    assert trunk.reader(rows, 10**9, torch.device("cpu"))(torch.arange(9)).equal(rows), "memory for what there is"
    read = trunk.reader(rows, 5, torch.device("cpu"))
    chosen = torch.tensor([8, 0, 3, 3, 1])
    first = read(chosen)
    assert torch.equal(first, rows[chosen])
    second = read(chosen[:2])
    assert torch.equal(second, rows[[8, 0]])
    assert second.data_ptr() == first.data_ptr()


@pytest.mark.parametrize("budget", [0, 1e9])
def test_pictures_of_different_sizes_are_refused_and_leave_no_file(tmp_path, budget):
    """Each batch is of one size, so that only the whole shows it."""

    def source(chosen: Tensor) -> Tensor:
        return torch.zeros(len(chosen), 3, 12, 12 if chosen[0] < 10 else 16)

    with pytest.raises(DataError, match="the pictures come out in different sizes; give the checkpoint a crop"):
        opened(tmp_path, source=source, budget=budget)
    assert files_under(tmp_path) == []


@pytest.mark.parametrize("budget", [0, 1e9])
def test_cache_holds_every_image_in_its_place(tmp_path, budget):
    model = random_model()
    rows = opened(tmp_path / "cache", model, budget=budget)
    torch.testing.assert_close(rows, trunk.keep(model, pictures()[0], 2), rtol=1e-5, atol=1e-5)
    assert rows.dtype == torch.float32
    assert not rows.requires_grad
    assert len(files_under(tmp_path)) == (0 if budget else 2)  # the folder and the file


def test_cache_stays_in_memory_up_to_the_budget_to_the_byte(tmp_path):
    size = 16 * 12 * 24 * 4
    opened(tmp_path / "memory", budget=size)
    assert files_under(tmp_path) == []
    opened(tmp_path / "file", budget=size - 1)
    assert len(files_under(tmp_path)) == 2


def test_cache_in_a_file_is_mapped_not_loaded(tmp_path):
    """The rows lie in the file's pages: a change of the file shows in them."""
    rows = opened(tmp_path)
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\x80\x3f")  # 1.0 in float32, little end first
    assert rows[-1, -1, -1] == 1.0


def test_cache_in_a_file_is_used_again(tmp_path, capsys):
    first = opened(tmp_path)
    source = Source(pictures()[0])
    again = opened(tmp_path, source=source)
    assert source.asked == 1  # for the shape
    assert torch.equal(again, first)
    assert "was kept by an earlier run" in capsys.readouterr().out
    assert len(files_under(tmp_path)) == 1


def changed(name: str) -> VitForImageClassification:
    model = random_model()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] += 1e-6
    return model


@pytest.mark.parametrize(
    "name", ["embeddings.cls", "embeddings.position", "blocks.0.ffn_up.bias", "blocks.1.ffn_norm.bias"]
)
def test_cache_is_not_used_with_other_frozen_weights(tmp_path, name):
    opened(tmp_path)
    source = Source(pictures()[0])
    opened(tmp_path, changed("encoder." + name), source)
    assert source.asked == 17
    assert len(files_under(tmp_path)) == 2


@pytest.mark.parametrize("name", ["encoder.blocks.2.attention_norm.weight", "encoder.norm.bias", "classifier.weight"])
def test_cache_is_used_whatever_the_trainable_weights_are(tmp_path, name):
    opened(tmp_path)
    source = Source(pictures()[0])
    opened(tmp_path, changed(name), source)
    assert source.asked == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ("other data", "settings")},
        {"inputs": ("data", "other settings")},
        {"inputs": ("data\nsettings",)},
        {"model": random_model(norm_eps=1e-6)},
        {"count": 15},
        {"first": 1},
        {"first": 3},
    ],
    ids=str,
)
def test_cache_is_not_used_where_anything_else_differs(tmp_path, changes):
    opened(tmp_path)
    source = Source(pictures()[0])
    opened(tmp_path, **{"source": source} | changes)
    assert source.asked == changes.get("count", 16) + 1


def damage_key(path: Path) -> None:
    """A file of another key under this key's name."""
    data = path.read_bytes()
    place = data.index(b'"key": "') + 8
    path.write_bytes(data[:place] + b"0000" + data[place + 4 :])


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize("damage", [damage_key, damage_end, lambda path: path.write_bytes(b""), Path.unlink])
def test_cache_that_is_not_whole_or_not_this_one_is_made_anew(tmp_path, damage):
    expected = opened(tmp_path).clone()
    (path,) = tmp_path.iterdir()
    damage(path)
    source = Source(pictures()[0])
    assert torch.equal(opened(tmp_path, source=source), expected)
    assert source.asked == 17
    assert files_under(tmp_path) == [path.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_cache_that_is_interrupted_leaves_nothing(tmp_path, error):
    source = Source(pictures()[0])

    def stops(chosen: Tensor) -> Tensor:
        if source.asked >= 10:
            raise error
        return source(chosen)

    with pytest.raises(type(error)):
        opened(tmp_path, source=stops)
    assert files_under(tmp_path) == []


KILLED = """
import sys, time
sys.path[:0] = [{tests!r}, {checkout!r}]
from pathlib import Path
from test_trunk import Source, opened, pictures
source = Source(pictures()[0])
def slow(chosen):
    if source.asked >= 10:
        print("half", flush=True)
        time.sleep(60)
    return source(chosen)
opened(Path({folder!r}), source=slow)
"""


def test_cache_of_a_killed_run_is_not_trusted_and_its_remains_are_removed(tmp_path):
    tests = Path(__file__).parent
    script = KILLED.format(tests=str(tests), checkout=str(tests.parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        while child.stdout.readline() != b"half\n":
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    (remains,) = files_under(tmp_path)
    assert remains.endswith(".tmp")

    source = Source(pictures()[0])
    rows = opened(tmp_path, source=source)
    assert source.asked == 17
    torch.testing.assert_close(rows, trunk.keep(random_model(), pictures()[0], 2), rtol=1e-5, atol=1e-5)
    (path,) = files_under(tmp_path)
    assert path.endswith(".safetensors")
    assert not path.startswith(".")


def test_cache_leaves_alone_what_another_run_is_writing(tmp_path):
    other = []

    def meanwhile(chosen: Tensor) -> Tensor:
        """In the middle of one run's writing another begins, and ends."""
        if not other:
            other.append(None)
            other.append(opened(tmp_path, source=Source(pictures()[0])))
        return pictures()[0][chosen]

    def later(chosen: Tensor) -> Tensor:
        return meanwhile(chosen) if files_under(tmp_path) else pictures()[0][chosen]

    rows = opened(tmp_path, source=later)
    assert torch.equal(rows, other[1])
    assert len(files_under(tmp_path)) == 1


def test_cache_names_what_is_needed_where_the_disk_is_too_small(tmp_path):
    source = Source(pictures()[0])
    with failing_disk(free=1000), pytest.raises(RunError) as caught:
        opened(tmp_path, source=source)
    assert str(caught.value).startswith(f"{tmp_path}: 0.0 GB are needed, 0.0 GB are free; give --cache-dir on a larger")
    assert files_under(tmp_path) == []
    assert source.asked == 1  # before the work, not after it


def failing_disk(free: int):
    from unittest import mock

    return mock.patch.object(trunk.shutil, "disk_usage", return_value=trunk.shutil._ntuple_diskusage(free, 0, free))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_cache_on_a_disk_that_fills_up_at_the_end_leaves_nothing(tmp_path, call):
    with failing(os, call, OSError(errno.ENOSPC, "No space left on device")), pytest.raises(RunError, match="No space"):
        opened(tmp_path)
    assert files_under(tmp_path) == []


def test_cache_on_a_disk_that_fills_up_while_it_is_written_leaves_nothing(tmp_path):
    """A real refusal by the system, in the middle: no file of this process may grow beyond 8 KiB."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(RunError) as caught:
            opened(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written (File too large); give --cache-dir on a larger disk" in str(caught.value)
    assert files_under(tmp_path) == []


def test_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/below/.*: .* cannot be written \(Not a directory\)"):
        opened(tmp_path / "file/below")


def test_cache_file_is_plain_safetensors(tmp_path):
    rows = opened(tmp_path)
    (path,) = tmp_path.iterdir()
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["rows"]
        assert path.name == file.metadata()["key"][:32] + ".safetensors"
        assert torch.equal(file.get_tensor("rows"), rows)
