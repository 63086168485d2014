"""Fine-tune a vision transformer to tell classes of images, as the report does: the last block and a new classifier.

python train_vit.py                                                  the embedded demo, two minutes on a laptop
python train_vit.py --recipe deit-small --weights DIR --data cifar-10-python.tar.gz --out runs/NAME
python train_vit.py --recipe cifar-scratch --data DIR --out runs/NAME           a small DeiT from nothing

--data is demo, an archive or folder of CIFAR-10, or a folder of train/CLASS/ and valid/CLASS/ (or val, or test).
What can be told stands in recipes/vit.py.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minitransformer.dinov2 import ImageClassifier
from minitransformer.system import files
from minitransformer.system.errors import RecipeError, command_line
from minitransformer.system.progress import say
from minitransformer.system.shell import command
from minitransformer.training import recipe
from minitransformer.training.optim import cosine_rate, linear_rate, parameter_groups, set_rate
from minitransformer.training.order import chunks, count_steps, epoch_order
from minitransformer.training.parallel import World
from minitransformer.training.precision import Precision
from minitransformer.training.run import Run, start
from minitransformer.training.run_folder import facts, open_run_folder
from recipes.vit import Recipe
from vision import data, metrics, plots, report
from vision.augment import flip_and_shift
from vision.freeze import freeze, hold_key_biases, listing
from vision.images import Images, Preprocessing, normalise, prepare_all, read_settings, write_settings
from vision.predict import classify, pixels
from vision.trunk import finish, first_trainable, open_cache, reader
from weights import load_pretrained, save_pretrained
from weights.new_model import new_classifier


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-vit", description=__doc__)
    began = time.monotonic()
    world, precision = start(job)

    # files -> images; checkpoint -> model, of which a part is frozen
    train_set = data.read(job.data, "train", job.limit_train, job.only_classes)
    valid_set = data.read(job.data, "valid", job.limit_valid, job.only_classes)
    model, settings = open_model(job, len(train_set.classes))
    freeze(model.to(precision.device), job.trainable)
    hold_key_biases(model)

    inputs = facts(train_set.fingerprint, valid_set.fingerprint, world)
    folder = world.from_first(lambda: open_run_folder(job.out, name, job, job.resume, job.may_change, inputs))
    say(f"{job.weights}: {len(train_set):,} images to train on, {len(valid_set):,} to validate, "
        f"{len(train_set.classes)} classes; everything goes to {folder}/")  # fmt: skip
    say(*filter(None, [listing(model), precision.remark]))

    # images -> what the frozen trunk gives -> logits -> loss -> step
    validation = model, valid_set, settings, job, world, precision
    losses = train(model, train_set, settings, job, folder, world, precision,
                   lambda: evaluate(*validation)[0]["accuracy"])  # fmt: skip
    scores, logits = evaluate(*validation)
    if world.first:
        write_results(folder, job, model, settings, train_set, valid_set, losses, scores, logits)
        print(f"accuracy {scores['accuracy']:.2f}  loss {scores['loss']:.4f}  in {time.monotonic() - began:.0f} s")
        print(f"read it:  {report.write(folder)}")
        print(f"show it a picture:  {command('-m', 'vision.predict', '--model', folder / 'model')} IMAGE...")


def train(
    model: ImageClassifier,
    images: Images,
    settings: Preprocessing,
    job: Recipe,
    folder: Path,
    world: World,
    precision: Precision,
    validate: Callable[[], float] | None = None,
) -> list[float]:
    """The loop. Returns the loss of every step. validate: how good the model is now, more is better."""
    device = precision.device
    labels = torch.from_numpy(images.labels).to(device)
    steps_per_epoch, steps = count_steps(len(images), job.batch_size, job.epochs, job.max_steps)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = parameter_groups(model, job.weight_decay, job.decay_all)
    optimizer = torch.optim.AdamW(groups, job.learning_rate, (0.9, job.beta2), fused=True)

    run = Run(folder, job, model, optimizer, world, precision, steps, unit="images")
    # The images that this process sees, now and later; all of them are not copied, nor hashed anew.
    mine = images if world.size == 1 else images.take(range(world.rank, len(images), world.size))
    logits_of = to_logits(model, mine, settings, job, precision) if run.done < steps and len(mine) else None
    order = torch.empty(0)
    with run:
        for step in range(run.done, steps):
            epoch, batch_number = divmod(step, steps_per_epoch)
            if not len(order) or batch_number == 0:
                order = epoch_order(len(images), job.seed, epoch)
            falling = cosine_rate if job.schedule == "cosine" else linear_rate
            rate = job.learning_rate * falling(step, round(job.warmup * steps), steps)
            set_rate(optimizer, rate)

            chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
            loss = torch.zeros((), device=device)
            for part in chunks(chosen[chosen % world.size == world.rank], job.micro_batch):
                with precision.autocast():
                    # pyrefly: ignore[not-callable] - it is None where this process has no images, and no parts
                    logits = logits_of(part // world.size).float()  # (B, K)
                    total = F.cross_entropy(logits, labels[part], reduction="sum", label_smoothing=job.label_smoothing)
                precision.backward(total / len(chosen))
                loss += total.detach() / len(chosen)
            loss = world.sum_gradients(parameters, loss)
            precision.step(optimizer, parameters, job.clip_norm)

            run.record(step, epoch, batch_number, loss, rate, len(chosen))
            run.save(step, validate)
    return run.losses


def to_logits(
    model: ImageClassifier, images: Images, settings: Preprocessing, job: Recipe, precision: Precision
) -> Callable:
    """A function from numbers of images (B,) to logits (B, K): from what the frozen trunk gave, or all the way."""
    device, config, first = precision.device, model.config, first_trainable(model)
    hindrances = {
        "--no-trunk-cache says so": not job.trunk_cache,
        "augmentation changes the images in every epoch": job.augment,
        "nothing is frozen before the first block that trains": first < 1,
        "dropout changes the frozen blocks in every step": config.dropout or config.attention_dropout,
    }
    hindrance = next((text for text, holds in hindrances.items() if holds), None)
    if hindrance is None:
        inputs = repr((settings, precision.dtype, job.tf32, device.type, torch.__version__)), images.fingerprint
        with precision.autocast():
            rows = open_cache(
                model, first, lambda chosen: pixels(images.take(chosen), settings, config.patch, device),
                len(images), job.micro_batch, job.cache_gb * 1e9, Path(job.cache_dir), inputs)  # fmt: skip
        read = reader(rows, job.micro_batch, device)
        return lambda chosen: finish(model, read(chosen), first)

    say(f"every step runs the whole model: {hindrance}")
    prepared = prepare_all(images.pictures, settings, config.patch)  # (N, 3, H, W) uint8

    def whole(chosen: Tensor) -> Tensor:
        batch = flip_and_shift(prepared[chosen]) if job.augment else prepared[chosen]
        return model(normalise(batch.to(device), settings))

    return whole


def evaluate(
    model: ImageClassifier, images: Images, settings: Preprocessing, job: Recipe, world: World, precision: Precision
) -> tuple[dict[str, Any], Tensor]:
    """Classify the validation images, each process its share. Returns metrics.json's contents and the logits (N, K)."""
    mine = world.share(range(len(images)))
    with precision.autocast():
        shares = world.gather((mine, classify(model, images.take(mine), settings, job.micro_batch)))
    logits = torch.cat([share for _, share in shares])  # (N, K), process after process
    logits = logits[torch.tensor([number for numbers, _ in shares for number in numbers]).argsort()]
    return metrics.classification(logits, torch.from_numpy(images.labels), images.classes), logits


def write_results(
    folder: Path,
    job: Recipe,
    model: ImageClassifier,
    settings: Preprocessing,
    train_set: Images,
    valid_set: Images,
    losses: list[float],
    scores: dict[str, Any],
    logits: Tensor,
) -> None:
    """metrics.json, the model, and the pictures of loss, mistakes and confusion."""
    files.write_json(folder / "metrics.json", scores)
    save_pretrained(model.half() if job.half else model, folder / "model", labels=list(train_set.classes))
    write_settings(settings, folder / "model")
    plots.plot_loss(losses, -(-len(train_set) // job.batch_size)).savefig(folder / "loss.png", dpi=120)
    plots.plot_sample(train_set, job.seed).savefig(folder / "sample.png", dpi=120)
    plots.plot_mistakes(valid_set, logits.argmax(-1), job.seed).savefig(folder / "mistakes.png", dpi=120)
    plots.plot_confusion(np.array(scores["confusion"]), valid_set.classes).savefig(folder / "confusion.png", dpi=120)
    report.write_pictures(folder, train_set, valid_set, logits, job.seed)


def open_model(job: Recipe, classes: int) -> tuple[ImageClassifier, Preprocessing]:
    """The model with a fresh classifier, and what is to be done to its pictures."""
    if job.weights != "new":
        return load_pretrained(job.weights, "image-classification", classes=classes), read_settings(job.weights)
    for large, small in (("width", "heads"), ("image_size", "patch")):
        if getattr(job, large) % getattr(job, small):
            raise RecipeError(f"{large} {getattr(job, large)} is no multiple of {small} {getattr(job, small)}")
    sizes = ("image_size", "patch", "width", "layers", "heads", "ffn_width", "initializer_range")
    model = new_classifier(distilled=True, classes=classes, **{name: getattr(job, name) for name in sizes})
    side = (job.image_size, job.image_size)
    return model, Preprocessing(resize=side, crop=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


if __name__ == "__main__":
    main()
