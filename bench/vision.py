"""The report's vision recipe: a frozen trunk run once, against HF's model run whole in every epoch. From image files.

python -m bench.vision [--limit-train 512] [--epochs 10] [--hf-steps N] [--data SOURCE] [--rounds 1] [--threads 2]

The flags are those of train_vit.py, whose `train` is what is measured, and a few more. The recipe is deit-small with
DeiT-small's shape and random weights, on pictures of --data written to files. HF's rows train the same parameters of
the same model in a plain loop: the same order, batches, rates, clipping and fused AdamW, --hf-micro-batch images at
once (64).

    HF, pictures prepared once      by our code, in all threads; each step normalises its own
    HF, prepared in every batch     from the files by its AutoImageProcessor with Pillow, as a collate function does

All seconds begin at the files and end after the last step. --hf-steps N lets HF's rows stop after N steps, which are
all alike; the others' seconds are then computed from them, and the table says so. The command ends with an error where
the loss of a step differs between the rows.
"""

import csv
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import train_vit
from bench.common import (
    hf_copy,
    in_fresh_process,
    in_turns,
    machine,
    matrix_rate,
    peak_memory,
    seconds_of,
    spread,
    table,
)  # fmt: skip
from bench.flops import flops_of_trunk
from minitransformer.system.errors import RunError, command_line
from minitransformer.training import recipe
from minitransformer.training.device import choose_device
from minitransformer.training.optim import linear_rate, set_rate
from minitransformer.training.order import chunks, epoch_order
from minitransformer.training.parallel import ALONE
from minitransformer.training.precision import Precision
from minitransformer.training.recipe import option
from vision import data
from vision.class_folder import read_folder
from vision.freeze import freeze, hold_key_biases
from vision.images import Images, Preprocessing, normalise, prepare_all, write_settings
from weights.new_model import new_classifier

OURS, PREPARED, FROM_FILES = CONTENDERS = "ours", "HF, pictures prepared once", "HF, prepared in every batch"
HEAD = ("contender", "seconds", "least to most", "time over ours", "a further epoch", "peak memory", "without imports")
DEFAULTS = ["--data", "demo", "--limit-train", "512", "--weights", "new", "--image-size", "224", "--patch", "16",
            "--width", "384", "--layers", "12", "--heads", "6", "--ffn-width", "1536"]  # fmt: skip
TOLERANCE = 1e-5  # of a loss, relative and absolute


@dataclass(frozen=True)
class Bench(train_vit.Recipe):
    hf_steps: int = option(0, "steps that HF's rows measure, from which the others are computed; 0: all", at_least=0)
    hf_micro_batch: int = option(64, "images that HF's rows compute at once", at_least=1)
    rounds: int = option(1, "fresh processes per contender", at_least=1)
    threads: int = option(2, "of torch", at_least=1)
    contender: str = option("", "what this process is to measure; set by the command itself")
    pictures: str = option("", "folder of the files; likewise")


@command_line
def main() -> None:
    _, job = recipe.parse(Bench, "deit-small", __doc__, [*DEFAULTS, *sys.argv[1:]])
    if job.contender:
        with redirect_stdout(sys.stderr):  # what train_vit.py tells
            result = measure(job) if job.contender in CONTENDERS else write_pictures(job)
        print(json.dumps(result))
        return

    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process("bench.vision", "--pictures", folder, "--contender", "pictures")  # to read them takes memory
        results = in_turns("bench.vision", CONTENDERS, job.rounds, "--pictures", folder)
    print(report(job, results))


def write_pictures(job: Bench) -> dict[str, int]:
    """The training pictures as files, CLASS/NUMBER.png."""
    images = data.read(job.data, "train", job.limit_train, job.only_classes)
    folders = [Path(job.pictures) / "train" / name for name in images.classes]
    for folder in folders:
        folder.mkdir(parents=True)

    def write(number: int) -> None:
        picture = images.pictures[number]
        image = Image.open(picture) if isinstance(picture, Path) else Image.fromarray(picture)
        image.save(folders[images.labels[number]] / f"{number:06}.png")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(len(images))))
    return {"written": len(images)}


def measure(job: Bench) -> dict[str, Any]:
    """One contender in this process: seconds in all and of an epoch after the first, losses, memory."""
    torch.set_num_threads(job.threads)
    precision = Precision(job.precision, choose_device(job.device), job.tf32)
    images = read_folder(Path(job.pictures), "train")
    if job.contender != OURS:
        import transformers  # noqa: F401 - before memory is looked at
    load_kernels(precision.device)
    imports = peak_memory(precision.device)

    torch.manual_seed(job.seed)
    model, settings = open_model(job, len(images.classes))
    freeze(model, job.trainable)
    trained = count_trained(model)
    result: dict[str, Any] = {
        "images": len(images),
        "flops": flops_of_trunk(model.config) * len(images),
        "model": 4 * sum(parameter.numel() for parameter in model.parameters()),
        "rows": 4 * len(images) * (1 + model.config.tokens) * model.config.width,  # as vision/trunk.py keeps them
    }
    steps = job.epochs * -(-len(images) // job.batch_size)
    if job.contender == OURS:
        model.to(precision.device)
        result |= measure_ours(model, images, settings, job, precision)
    else:
        hf = hf_copy(model, "AutoModelForImageClassification")
        del model
        hf.requires_grad_(False)
        hf.base_model.layers[-1].requires_grad_(True)
        hf.classifier.requires_grad_(True)
        if count_trained(hf) != trained:
            raise RunError(f"--trainable: HF's rows train the last block and the classifier, not {job.trainable}")
        result |= measure_hf(hf.to(precision.device), images, settings, job, precision, steps)
    peak = peak_memory(precision.device)
    result |= {"steps": steps, "peak": peak, "memory": peak - imports}
    if job.contender == OURS:  # now, when memory has been looked at
        result["matrix_rate"] = matrix_rate(precision.device, torch.float32)
    return result


def load_kernels(device: torch.device) -> None:
    """A training step of a tiny model: torch and the libraries below it load their code when it is first called."""
    model = new_classifier(image_size=64, patch=16, width=64, layers=2, heads=2, ffn_width=128).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.rand(4, 3, 64, 64, device=device)).sum().backward()
    optimizer.step()


def open_model(job: Bench, classes: int) -> tuple[nn.Module, Preprocessing]:
    """train_vit.py's, but a new model's pictures are prepared like those of DeiT's checkpoints."""
    model, settings = train_vit.open_model(job, classes)
    if job.weights == "new":
        side = job.image_size
        settings = Preprocessing(resize=(side * 256 // 224, side * 256 // 224), crop=(side, side))
    return model, settings


def measure_ours(
    model: nn.Module, images: Images, settings: Preprocessing, job: Bench, precision: Precision
) -> dict[str, Any]:
    """train_vit.py's training. The first step waits for the trunk, so an epoch's seconds are those of later ones."""
    hold_key_biases(model)
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def train() -> None:
            losses.extend(train_vit.train(model, images, settings, job, Path(folder), ALONE, precision))

        seconds = seconds_of(train, precision.device)
        rows = list(csv.DictReader((Path(folder) / "log.csv").open(encoding="utf-8")))
    later = [row for row in rows if int(row["epoch"]) > 1]
    shown = sum(min(job.batch_size, len(images)) / float(row["images_per_second"]) for row in later)
    return {"seconds": [seconds], "epoch": shown / max(1, job.epochs - 1), "losses": losses}


def measure_hf(
    hf: nn.Module, images: Images, settings: Preprocessing, job: Bench, precision: Precision, steps: int
) -> dict[str, Any]:
    """The plain loop with HF's model; where only some of the steps are measured, the others are taken to be alike."""
    prepared: list[Tensor] = []
    if job.contender == PREPARED:
        before = seconds_of(lambda: prepared.append(prepare_all(images.pictures, settings)))

        def pixels(chosen: Sequence[int]) -> Tensor:
            return normalise(prepared[0][chosen], settings)
    else:
        before = 0.0
        pixels = hf_pixels(images.pictures, settings)

    measured = min(steps, job.hf_steps or steps)
    losses, seconds = train_hf(hf, pixels, torch.from_numpy(images.labels), job, precision, steps, measured)
    return {
        "seconds": [before + statistics.mean(seconds) * steps],
        "epoch": statistics.mean(seconds) * steps / job.epochs,
        "losses": losses,
    }


def hf_pixels(files: Sequence[Path], settings: Preprocessing) -> Callable[[Tensor], Tensor]:
    """What a collate function does: open the files of a batch and hand them to HF's image processor."""
    from transformers import AutoImageProcessor

    with tempfile.TemporaryDirectory() as folder:
        write_settings(settings, Path(folder))
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def pixels(chosen: Tensor) -> Tensor:
        pictures = [Image.open(files[number]).convert("RGB") for number in chosen.tolist()]
        return processor(pictures, return_tensors="pt")["pixel_values"]

    return pixels


def train_hf(
    hf: nn.Module,
    pixels: Callable[[Tensor], Tensor],
    labels: Tensor,
    job: Bench,
    precision: Precision,
    steps: int,
    measured: int,
) -> tuple[list[float], list[float]]:
    """train_vit.py's loop, plain. Returns loss and seconds of each of the first `measured` steps."""
    device = precision.device
    parameters = [parameter for parameter in hf.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, job.learning_rate, (0.9, job.beta2), weight_decay=job.weight_decay, fused=True
    )
    forward = torch.compile(hf) if job.compile else hf
    steps_per_epoch = -(-len(labels) // job.batch_size)
    losses: list[float] = []

    def one(step: int) -> None:
        epoch, batch_number = divmod(step, steps_per_epoch)
        order = epoch_order(len(labels), job.seed, epoch)
        set_rate(optimizer, job.learning_rate * linear_rate(step, round(job.warmup * steps), steps))
        chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
        loss = torch.zeros((), device=device)
        for part in chunks(chosen, job.hf_micro_batch):
            with precision.autocast():
                logits = forward(pixel_values=pixels(part).to(device)).logits.float()
                total = F.cross_entropy(logits, labels[part].to(device), reduction="sum") / len(chosen)
            precision.backward(total)
            loss += total.detach()
        precision.step(optimizer, parameters, job.clip_norm)
        losses.append(loss.item())

    hf.train()
    return losses, [seconds_of(lambda step=step: one(step), device) for step in range(measured)]


def count_trained(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def largest_difference(results: dict[str, list[dict[str, Any]]], exact: bool) -> float:
    """Between the losses of a step in any two rows. RunError where it is beyond rounding, if it should not be."""
    runs = [(name, run["losses"]) for name, runs in results.items() for run in runs]
    _, ours = runs[0]
    largest = 0.0
    for name, losses in runs[1:]:
        for step, (a, b) in enumerate(zip(ours[: len(losses)], losses, strict=True), start=1):  # HF's may be fewer
            largest = max(largest, abs(a - b))
            if exact and abs(a - b) > TOLERANCE * (1 + abs(a)):
                raise RunError(f"step {step}: the loss of {OURS} is {a}, that of {name} {b}: they do different work")
    return largest


def report(job: Bench, results: dict[str, list[dict[str, Any]]]) -> str:
    """The table, and what it was made on."""
    exact = job.precision == "float32" and not job.tf32
    difference = largest_difference(results, exact)
    first = results[OURS][0]
    steps, rate = first["steps"], max(run["matrix_rate"] for run in results[OURS])
    ours = statistics.median(run["seconds"][0] for run in results[OURS])
    epoch = statistics.median(run["epoch"] for run in results[OURS])
    trunk = ours - job.epochs * epoch
    rows = []
    for name, runs in results.items():
        seconds = [run["seconds"][0] for run in runs]
        own_epoch = statistics.median(run["epoch"] for run in runs)
        measured = len(runs[0]["losses"])
        rows.append([
            name if measured == steps else f"{name}; computed from {measured} of {steps} steps",
            *spread(seconds),
            f"{statistics.median(seconds) / ours:.2f}",
            f"{own_epoch:.3g} s" + (f", {own_epoch / trunk:.2%} of the trunk pass" if name == OURS else ""),
            f"{max(run['peak'] for run in runs) / 1e9:.2f} GB",
            f"{max(run['memory'] for run in runs) / 1e6:.0f} MB",
        ])  # fmt: skip
    allowed = first["rows"] + 2 * first["model"]
    limit = first["flops"] / rate
    rows.append(["limit: one trunk pass at the matrix rate", f"{limit:.3g} s", "", f"{limit / ours:.2f}", "", "", ""])
    return (
        f"{table(HEAD, *rows)}\n\n{machine(job.threads)}; {first['images']:,} images, {job.epochs} epochs, {steps} "
        f"steps, {job.rounds} rounds; a float32 matrix product makes {rate / 1e9:.0f} GFLOP/s; the trunk pass took "
        f"{trunk:.3g} s, {limit / trunk:.0%} of that rate; the losses of a step differ by {difference:.0e} at most; "
        f"what is kept and twice the model are {allowed / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
