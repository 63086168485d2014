"""train_vit.py as a user runs it: both ways of computing a step, stopped and resumed, and what it must refuse."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import train_vit
from minitransformer.training import recipe
from minitransformer.training.optim import linear_rate
from minitransformer.training.order import epoch_order
from minitransformer.vit import VitConfig, VitForImageClassification
from tiny import (
    TWELVE_RATES,
    Outcome,
    call,
    files_under,
    groups_by_name,
    last_line,
    log_of,
    rewrite_json,
    stop_after,
)
from vision import demo, plots, predict, trunk
from vision.class_folder import read_folder
from vision.images import FILE, Preprocessing, normalise, prepare_all, read_settings, write_settings
from weights import load_pretrained, save_pretrained
from weights.load import read_labels

CLASSES = ("blue", "green", "red")
SETTINGS = Preprocessing(resize=(12, 12), crop=None, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SMALL = {
    "--recipe": "deit-small",
    "--trainable": "blocks.2 classifier",
    "--batch-size": 6,
    "--micro-batch": 4,
    "--epochs": 3,
    "--learning-rate": 1e-3,
    "--print-every": 2,
    "--checkpoint-every": 2,
    "--seed": 0,
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("plot_loss", "plot_sample", "plot_mistakes", "plot_confusion"):
        monkeypatch.setattr(plots, name, lambda *given: Figure(figsize=(1, 1)))


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of three classes of noise with a tint, 8 images of each to train on and 3 to validate."""
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 3)):
        for number, name in enumerate(CLASSES):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for place in range(count):
                pixels = random.integers(0, 160, (12, 12, 3))
                pixels[..., 2 - number] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{place}.png")
    return tmp_path / "images"


def write_checkpoint(folder: Path, **sizes) -> Path:
    """A random DeiT of three blocks, of which no parameter is all zeros or all ones, with its preprocessing."""
    sizes = {"image_size": 12, "patch": 4, "width": 24, "layers": 3, "heads": 3, "ffn_width": 40} | sizes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VitForImageClassification(VitConfig(**{"distilled": True, "classes": 7} | sizes))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, mean=1.0, std=0.2)
    save_pretrained(model, folder)
    write_settings(SETTINGS, folder)
    return folder


@pytest.fixture
def weights(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "weights")


@pytest.fixture
def train(tmp_path, images, weights):
    """train("--flag", value, ...): a small run into tmp_path/run; later flags win."""

    def run(*flags: object) -> Outcome:
        given = {"--weights": weights, "--data": images, "--out": tmp_path / "run", "--cache-dir": tmp_path / "cache"}
        return call(train_vit.main, *(part for pair in (SMALL | given).items() for part in pair), *flags)

    return run


@pytest.mark.parametrize("flags", [(), ("--no-trunk-cache",), ("--cache-gb", 0)])
def test_pictures_that_cannot_be_cut_into_patches_are_refused_before_the_training(train, weights, tmp_path, flags):
    """They once were cut off, trained on, and refused when the training was over."""
    write_settings(Preprocessing(resize=(14, 14), crop=None), weights)
    refused = train(*flags)
    assert "pictures of 14 x 14 pixels cannot be cut into patches of 4 x 4" in refused.refusal().splitlines()[-1]
    assert len((tmp_path / "run/log.csv").read_text().splitlines()) == 1


def losses_of(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in log_of(folder)]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/model.safetensors")


# ---------------------------------------------------------------------------------------------------- a run


def test_train_vit_takes_one_class_only(train, tmp_path, images):
    """Nothing is left to learn, and nothing goes wrong."""
    for part in ("train", "test"):
        for name in ("blue", "red"):
            shutil.rmtree(images / part / name)
        (images / part / "green").rename(images / part / "7")
    outcome = train()
    assert outcome.status == 0, outcome.err
    assert losses_of(tmp_path / "run") == [0.0] * 6  # 8 images by 6, three times
    assert read_labels(tmp_path / "run/model") == ["7"]
    said = call(predict.main, "--model", tmp_path / "run/model", images / "test/7/0.png")
    assert said.out.split()[-2:] == ["100.0%", "7"]


def test_train_vit_leaves_a_whole_run_folder(train, tmp_path):
    outcome = train()
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "recipe.toml", "facts.json", "log.csv", "checkpoints", "model", "metrics.json", "pictures.json", "report.html",
        "loss.png", "sample.png", "mistakes.png", "confusion.png",
    }  # fmt: skip
    assert {path.name for path in (folder / "model").iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    assert not [name for name in files_under(folder) if "tmp" in name]
    assert read_labels(folder / "model") == list(CLASSES)
    assert read_settings(folder / "model") == SETTINGS

    rows = log_of(folder)
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 13)]  # 24 images by 6, three times
    assert [row["epoch"] for row in rows] == list("111122223333")
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3 * linear_rate(step, 0, 12) for step in range(12)])
    for epoch in (1, 2, 3):
        losses = [float(row["loss"]) for row in rows if row["epoch"] == str(epoch)]
        assert f"Epoch [{epoch}] Batch [2] - Loss = {sum(losses[:2]) / 2:.4f}" in outcome.out


def test_train_vit_metrics_are_those_of_the_model_it_leaves(train, tmp_path, images):
    train("--epochs", 20)
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    valid = read_folder(images, "valid")
    model = load_pretrained(tmp_path / "run/model", "image-classification", fresh_head=False)
    with torch.no_grad():
        logits = model(normalise(prepare_all(valid.pictures, SETTINGS), SETTINGS))
    labels, answers = torch.from_numpy(valid.labels), logits.argmax(-1)
    assert set(scores) == {"accuracy", "loss", "total", "per_class", "confusion"}
    assert scores["total"] == 9
    assert scores["accuracy"] == pytest.approx(100 * (answers == labels).double().mean().item())
    assert scores["accuracy"] > 60
    assert scores["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    for number, name in enumerate(CLASSES):
        found = answers[labels == number]
        assert scores["per_class"][name] == pytest.approx(100 * (found == number).double().mean().item())
        assert scores["confusion"][number] == [int((found == other).sum()) for other in range(3)]


def test_train_vit_prints_what_trains_and_what_does_not(train):
    lines = [line.split() for line in train("--epochs", 0).out.splitlines()]
    assert ["blocks.2"] in [line[:-1] for line in lines]
    assert ["blocks.0", "...", "blocks.1"] in [line[:-1] for line in lines]
    trainable, frozen = (int(line[1].replace(",", "")) for line in lines if line[:1] in (["trainable"], ["frozen"]))
    assert trainable == sum(2 * n for n in (24, 24)) + 4 * (24 * 24 + 24) + 24 * 40 * 2 + 40 + 24 + 3 * 24 + 3
    assert lines.index(["trainable", f"{trainable:,}"]) < lines.index(["frozen", f"{frozen:,}"])


@pytest.mark.parametrize("rule", ["blocks.2 classifier", "blocks.1 blocks.2 norm classifier", "classifier"])
def test_train_vit_from_the_trunk_takes_the_steps_of_the_whole_model(train, tmp_path, rule):
    flags = ("--trainable", rule, "--epochs", 6, "--weight-decay", 0.1, "--decay-all")
    cached, plain = train(*flags), train(*flags, "--no-trunk-cache", "--out", tmp_path / "plain")
    assert "blocks are frozen and run once" in cached.out
    assert "every step runs the whole model: --no-trunk-cache says so" in plain.out
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(tmp_path / "plain"), rel=1e-5, abs=1e-5)
    found, expected = weights_of(tmp_path / "run"), weights_of(tmp_path / "plain")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
    assert losses_of(tmp_path / "run")[-1] < losses_of(tmp_path / "run")[0]


def test_train_vit_takes_the_steps_of_a_loop_with_hf_s_model(train, tmp_path, images):
    """Twenty steps on the same batches with the same freezing, clipping and falling rate: losses, then weights."""
    assert train("--epochs", 0, "--out", tmp_path / "start").status == 0  # the fresh classifier, as every seed 0 has it
    assert train("--epochs", 5).status == 0
    model = transformers.DeiTForImageClassification.from_pretrained(tmp_path / "start/model").train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layer.2." in name or "layers.2." in name or name.startswith("classifier."))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trainable) == 18

    data = read_folder(images, "train")
    pixels, labels = normalise(prepare_all(data.pictures, SETTINGS), SETTINGS), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (20 - step) / 20)
    losses = []
    for epoch in range(5):
        for chosen in epoch_order(24, seed=0, epoch=epoch).split(6):
            loss = model(pixels[chosen], labels=labels[chosen]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses_of(tmp_path / "run") == pytest.approx(losses, rel=1e-5, abs=1e-5)
    model.save_pretrained(tmp_path / "hf")
    found, expected = weights_of(tmp_path / "run"), load_file(tmp_path / "hf/model.safetensors")
    for name in expected:
        if "key.bias" not in name:  # its gradient is zero but for rounding: see vision.freeze.hold_key_biases
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_train_vit_takes_the_steps_of_a_plain_loop(train, tmp_path, images):
    """AdamW, its groups, the schedule and the smoothed labels by torch's own means: the same losses."""
    flags = ("--beta2", 0.9, "--warmup", 0.25, "--weight-decay", 0.3, "--label-smoothing", 0.2, "--learning-rate", 0.02)
    assert train("--epochs", 0, "--out", tmp_path / "start").status == 0  # the fresh classifier, as every seed 0 has it
    assert train(*flags).status == 0
    model = load_pretrained(tmp_path / "start/model", "image-classification", fresh_head=False)
    trained = [(n, p) for n, p in model.named_parameters() if n.startswith(("encoder.blocks.2.", "classifier."))]
    data = read_folder(images, "train")
    pixels, labels = normalise(prepare_all(data.pictures, SETTINGS), SETTINGS), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(groups_by_name(trained, weight_decay=0.3), lr=0.02, betas=(0.9, 0.9))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, TWELVE_RATES.__getitem__)
    losses = []
    for epoch in range(3):
        for chosen in epoch_order(24, seed=0, epoch=epoch).split(6):
            loss = nn.functional.cross_entropy(model(pixels[chosen]), labels[chosen], label_smoothing=0.2)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([parameter for _, parameter in trained], 1.0)
            optimizer.step()
            scheduler.step()
            model.zero_grad()
            losses.append(loss.item())
    assert losses_of(tmp_path / "run") == pytest.approx(losses, rel=1e-3)


def test_train_vit_parts_of_a_batch_add_up(train, tmp_path):
    train("--clip-norm", 0.1, "--label-smoothing", 0.1)
    train("--clip-norm", 0.1, "--label-smoothing", 0.1, "--micro-batch", 64, "--out", tmp_path / "whole")
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(tmp_path / "whole"), rel=1e-5, abs=1e-5)


def test_train_vit_smooths_labels(train, tmp_path):
    train("--max-steps", 1)
    train("--max-steps", 1, "--label-smoothing", 0.3, "--out", tmp_path / "smooth")
    assert losses_of(tmp_path / "run") != losses_of(tmp_path / "smooth")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--augment",), "augmentation changes the images in every epoch"),
        (("--trainable", "all"), "nothing is frozen before the first block that trains"),
        (("--trainable", "blocks classifier"), "nothing is frozen before the first block that trains"),
        (("--no-trunk-cache",), "--no-trunk-cache says so"),
    ],
)
def test_train_vit_says_why_it_runs_the_whole_model(train, flags, reason):
    outcome = train("--epochs", 1, *flags)
    assert outcome.status == 0, outcome.err
    assert f"every step runs the whole model: {reason}\n" in outcome.out


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout"])
def test_train_vit_with_dropout_runs_the_whole_model(train, tmp_path, kind):
    loose = write_checkpoint(tmp_path / "loose", **{kind: 0.1})
    assert "dropout changes the frozen blocks in every step" in train("--weights", loose, "--epochs", 1).out


def test_train_vit_with_more_than_the_last_block_says_what_is_frozen(train):
    outcome = train("--trainable", "blocks.1 blocks.2 classifier", "--epochs", 1)
    assert "the embedding and 1 of 3 blocks are frozen and run once" in outcome.out


def test_train_vit_augments_anew_in_every_epoch_and_not_what_it_validates(train, tmp_path):
    flags = ("--augment", "--learning-rate", 0, "--batch-size", 24, "--epochs", 3)
    train(*flags)
    assert len(set(losses_of(tmp_path / "run"))) == 3
    train(*flags[1:], "--out", tmp_path / "plain")
    assert len({round(loss, 5) for loss in losses_of(tmp_path / "plain")}) == 1
    assert (tmp_path / "run/metrics.json").read_bytes() == (tmp_path / "plain/metrics.json").read_bytes()


def kept(folder: Path) -> int:
    """Files in the cache."""
    return len(list((folder / "cache").iterdir()))


def test_train_vit_keeps_the_trunk_in_a_file_for_a_later_run(train, tmp_path):
    train("--cache-gb", 0)
    (path,) = (tmp_path / "cache").iterdir()
    again = train("--cache-gb", 0, "--out", tmp_path / "again")
    assert f"was kept by an earlier run, {path}" in again.out
    assert kept(tmp_path) == 1
    assert losses_of(tmp_path / "again") == losses_of(tmp_path / "run")
    train("--out", tmp_path / "memory")
    assert losses_of(tmp_path / "memory") == losses_of(tmp_path / "run")
    assert kept(tmp_path) == 1


def test_train_vit_does_not_take_the_trunk_of_other_pictures_or_settings(train, tmp_path, images, weights):
    train("--cache-gb", 0, "--epochs", 1)
    assert kept(tmp_path) == 1
    train("--cache-gb", 0, "--epochs", 1, "--tf32", "--out", tmp_path / "tf32")
    assert kept(tmp_path) == 2
    rewrite_json(weights / FILE, image_mean=[0.4, 0.4, 0.4])
    train("--cache-gb", 0, "--epochs", 1, "--out", tmp_path / "mean")
    assert kept(tmp_path) == 3
    Image.new("RGB", (12, 12)).save(images / "train/red/0.png")
    train("--cache-gb", 0, "--epochs", 1, "--out", tmp_path / "pictures")
    assert kept(tmp_path) == 4


def test_train_vit_runs_the_frozen_trunk_in_mixed_precision_too(train, tmp_path, monkeypatch):
    """And what it keeps in a file is not taken for float32's, nor the other way round."""
    monkeypatch.setattr("minitransformer.training.precision._sixteen_bits", lambda device: torch.bfloat16)
    seen = []
    first = trunk.keep
    monkeypatch.setattr(trunk, "keep", lambda *given: seen.append(torch.is_autocast_enabled("cpu")) or first(*given))
    flags = ("--cache-gb", 0, "--cache-dir", tmp_path / "cache")
    for name, precision in (("mixed", "mixed"), ("exact", "float32")):
        assert train(*flags, "--precision", precision, "--out", tmp_path / name).status == 0
    half = len(seen) // 2
    assert seen == [True] * half + [False] * half
    assert kept(tmp_path) == 2
    mixed, exact = losses_of(tmp_path / "mixed"), losses_of(tmp_path / "exact")
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=0.05)


def test_train_vit_makes_a_new_model_of_the_recipe_s_sizes(train, tmp_path):
    flags = ("--weights", "new", "--image-size", 8, "--patch", 2, "--width", 12, "--layers", 2, "--heads", 2,
             "--ffn-width", 20, "--trainable", "all", "--epochs", 1)  # fmt: skip
    assert train(*flags).status == 0
    model = load_pretrained(tmp_path / "run/model", "image-classification", fresh_head=False)
    sizes = {"image_size": 8, "patch": 2, "width": 12, "layers": 2, "heads": 2, "ffn_width": 20}
    assert model.config == VitConfig(**sizes, distilled=True, classes=3)


def test_train_vit_can_use_some_classes_alone(train, tmp_path):
    assert train("--only-classes", "red green").status == 0
    assert read_labels(tmp_path / "run/model") == ["red", "green"]
    assert json.loads((tmp_path / "run/metrics.json").read_text())["total"] == 6
    assert len(log_of(tmp_path / "run")) == 9  # 16 images by 6


def test_train_vit_limits_images_and_steps_and_may_train_none(train, tmp_path):
    assert train("--limit-train", 13, "--limit-valid", 5, "--epochs", 2).status == 0
    assert len(log_of(tmp_path / "run")) == 6
    assert json.loads((tmp_path / "run/metrics.json").read_text())["total"] == 5
    assert train("--max-steps", 3, "--out", tmp_path / "three").status == 0
    assert len(log_of(tmp_path / "three")) == 3
    assert train("--epochs", 0, "--out", tmp_path / "none").status == 0
    assert log_of(tmp_path / "none") == []


def test_train_vit_runs_from_its_own_recipe_alone(train, tmp_path):
    train()
    assert call(train_vit.main, "--recipe", tmp_path / "run/recipe.toml", "--out", tmp_path / "again").status == 0
    assert log_of(tmp_path / "again") == log_of(tmp_path / "run")
    for name in ("recipe.toml", "model/model.safetensors", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_train_vit_writes_half_the_size_on_demand(train, tmp_path):
    train("--half")
    assert {tensor.dtype for tensor in weights_of(tmp_path / "run").values()} == {torch.float16}


def test_train_vit_draws_its_pictures(train, tmp_path, monkeypatch):
    monkeypatch.undo()
    assert train("--epochs", 1).status == 0
    for name, smallest in {"loss": 600, "sample": 400, "mistakes": 900, "confusion": 400}.items():
        with Image.open(tmp_path / f"run/{name}.png") as picture:
            assert min(picture.size) >= smallest * 0.85


def test_train_vit_draws_without_a_loss_and_without_a_mistake(train, tmp_path, monkeypatch):
    monkeypatch.undo()
    assert train("--epochs", 0, "--only-classes", "red").status == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["accuracy"] == 100
    assert (tmp_path / "run/mistakes.png").is_file()


# ---------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    "flags",
    [(), ("--cache-gb", 0), ("--augment",), ("--trainable", "all", "--no-trunk-cache"), ("--validate-every", 3)],
    ids=str,
)
@pytest.mark.parametrize("step", [2, 8])  # inside an epoch, and at the end of one
def test_resumed_run_is_bit_for_bit_the_run_that_never_stopped(train, tmp_path, monkeypatch, flags, step):
    assert train(*flags, "--out", tmp_path / "straight").status == 0
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        stopped = train(*flags)
    assert stopped.status == 130
    assert not (tmp_path / "run/model").exists()

    resumed = train(*flags, "--resume")
    assert resumed.status == 0, resumed.err
    assert f"resumed at step {step} from {tmp_path}/run/checkpoints" in resumed.out
    assert log_of(tmp_path / "run") == log_of(tmp_path / "straight")
    assert files_under(tmp_path / "run") == files_under(tmp_path / "straight")
    for name in files_under(tmp_path / "straight"):
        if (tmp_path / "straight" / name).is_file() and name not in ("log.csv", "report.html"):  # they tell the speed
            assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_the_model_that_is_written_is_the_best_in_validation(train, tmp_path, monkeypatch):
    evaluate, grades, losses = train_vit.evaluate, iter([10.0, 50.0, 20.0]), []

    def graded(*given):
        scores, logits = evaluate(*given)
        losses.append(scores["loss"])
        return scores | {"accuracy": next(grades, scores["accuracy"])}, logits

    monkeypatch.setattr(train_vit, "evaluate", graded)
    outcome = train("--validate-every", 4)
    assert "the best was step-0000008 (50.0000): its weights are kept" in outcome.out
    assert len(set(losses[:3])) == 3, "after steps 4, 8 and 12"
    assert json.loads((tmp_path / "run/metrics.json").read_text())["loss"] == pytest.approx(losses[1])


def test_resumed_run_that_was_finished_is_evaluated_again_without_the_trunk(train, tmp_path):
    train("--cache-gb", 0)
    before = (tmp_path / "run/metrics.json").read_bytes()
    (tmp_path / "run/metrics.json").unlink()
    outcome = train("--cache-gb", 0, "--resume")
    assert "resumed at step 12" in outcome.out
    assert "run once" not in outcome.out
    assert (tmp_path / "run/metrics.json").read_bytes() == before


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (
            ("--trainable", "blocks.3 classifier"),
            "trainable: the model has no part 'blocks.3' (did you mean 'blocks.",
        ),
        (("--trainable", ""), "trainable: it names nothing to train"),
        (("--weights", "new", "--width", 10, "--heads", 4), "width 10 is no multiple of heads 4"),
        (("--weights", "new", "--image-size", 30, "--patch", 8), "image_size 30 is no multiple of patch 8"),
        (("--weights", "runs/absent"), "runs/absent: no such folder"),
        (("--data", "absent"), "absent: no such file or folder"),
        (("--only-classes", "red purple"), "no class 'purple'; there are blue, green, red"),
        (("--cache-gb", -1), "--cache-gb: -1.0 is below 0"),
        (("--micro-batch", 0), "--micro-batch: 0 is below 1"),
        (("--label-smoothing", 2), "--label-smoothing: 2.0 is above 1"),
        (("--cache_gb", 1), "unknown flag '--cache_gb' (did you mean '--cache-gb'?)"),
        (("--recipe", "deit-smal"), "no recipe 'deit-smal' (did you mean 'deit-small'?)"),
    ],
)
def test_train_vit_refuses(train, tmp_path, flags, problem):
    assert problem in train(*flags).refusal()
    assert not (tmp_path / "run").exists()


def test_train_vit_refuses_weights_of_another_kind(train, tmp_path):
    assert "this model has no task 'image-classification'" in train("--weights", "demo-bert-fa").refusal()
    assert not (tmp_path / "run").exists()


def test_train_vit_validates_on_fewer_classes_than_it_trains(train, tmp_path, images):
    shutil.rmtree(images / "test/red")
    assert train().status == 0
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert set(scores["per_class"]) == {"blue", "green"}
    assert sum(scores["confusion"][2]) == 0


def test_train_vit_names_a_full_disk_while_caching(train, tmp_path):
    """A real refusal by the system: no file of this process may grow beyond 16 KiB."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, limits[1]))
    try:
        message = last_line(train("--cache-gb", 0, "--checkpoint-every", 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written (File too large); give --cache-dir on a larger disk" in message
    assert files_under(tmp_path / "cache") == []
    assert files_under(tmp_path / "run") == ["facts.json", "log.csv", "recipe.toml"]


def test_train_vit_stops_on_weights_that_are_not_finite(train, weights, tmp_path):
    tensors = load_file(weights / "model.safetensors")
    tensors["deit.embeddings.cls_token"].fill_(float("nan"))
    save_file(tensors, weights / "model.safetensors", metadata={"format": "pt"})
    message = last_line(train())
    assert message.startswith("error: loss is nan at step 1: stopped; last good checkpoint: none; the weights")
    assert files_under(tmp_path / "run") == ["facts.json", "log.csv", "recipe.toml"]


# ---------------------------------------------------------------------------------------------------- what ships


@pytest.mark.parametrize("name", ["deit-small", "cifar-best", "demo-vit", "demo-vit-pretrain", "cifar-scratch"])
def test_recipes_that_ship_are_whole(name):
    assert recipe.parse(train_vit.Recipe, default=name, description="", argv=[])[0] == name


def test_deit_small_is_the_report_s_run_number_for_number():
    _, job = recipe.parse(train_vit.Recipe, default="deit-small", description="", argv=[])
    assert (job.learning_rate, job.batch_size, job.epochs, job.max_steps) == (1e-4, 512, 10, 0)
    assert job.epochs * -(-50_000 // job.batch_size) == 980
    assert (job.trainable, job.augment, job.only_classes) == ("blocks.11 classifier", False, "")
    assert (job.limit_train, job.limit_valid) == (0, 0)
    # What the report leaves open: the defaults of transformers' Trainer.
    given = {field.name: field.default for field in dataclasses.fields(transformers.TrainingArguments)}
    assert (job.weight_decay, job.warmup, job.seed) == (given["weight_decay"], given["warmup_steps"], given["seed"])
    assert (job.beta2, job.clip_norm) == (given["adam_beta2"], given["max_grad_norm"])
    assert given["lr_scheduler_type"] == "linear"


def test_demo_recipes_have_the_sizes_of_the_checkpoint_that_ships():
    model = load_pretrained("demo-deit", "image-classification", fresh_head=False)
    for name in ("demo-vit", "demo-vit-pretrain"):
        _, job = recipe.parse(train_vit.Recipe, default=name, description="", argv=[])
        for size in ("image_size", "patch", "width", "layers", "heads", "ffn_width"):
            assert getattr(job, size) == getattr(model.config, size), size
    assert read_labels("demo-deit") == list(demo.PRETRAIN)


def test_checkpoint_that_ships_is_small():
    folder = Path(train_vit.__file__).parent / "weights/demo-deit"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 4_000_000
    assert (folder / "README.md").is_file()
