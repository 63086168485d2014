"""Fine-tune a vision transformer to tell classes of images, as the report does: the last block and a new classifier.

python train_vit.py                                                  the embedded demo, two minutes on a laptop
python train_vit.py --recipe deit-small --weights DIR --data cifar-10-python.tar.gz --out runs/NAME
python train_vit.py --recipe cifar-scratch --data DIR --out runs/NAME           a small DeiT from nothing

--data is demo, an archive or folder of CIFAR-10, or a folder of train/CLASS/ and valid/CLASS/ (or val, or test).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.system import files
from minitransformer.system.errors import RecipeError, command_line
from minitransformer.system.shell import command
from minitransformer.training import checkpoint, parallel, recipe
from minitransformer.training.device import choose_device, compile_layers, seed_all
from minitransformer.training.log import Log
from minitransformer.training.optim import linear_rate, parameter_groups, set_rate
from minitransformer.training.order import chunks, count_steps, due, epoch_order
from minitransformer.training.parallel import World
from minitransformer.training.precision import Precision
from minitransformer.training.progress import progress
from minitransformer.training.recipe import option
from minitransformer.training.run_folder import facts as run_facts
from minitransformer.training.run_folder import open_run_folder
from minitransformer.training.run_folder import resume as resume_run
from minitransformer.training.stop import Stop
from vision import data, metrics, plots, report
from vision.augment import flip_and_shift
from vision.freeze import freeze, hold_key_biases, listing
from vision.images import Images, Preprocessing, normalise, prepare_all, read_settings, write_settings
from vision.predict import classify, pixels
from vision.trunk import finish, first_trainable, open_cache, reader
from weights import load_pretrained, save_pretrained
from weights.new_model import new_classifier


@dataclass(frozen=True)
class Recipe:
    weights: str = option("demo-deit", "checkpoint: a folder in Hugging Face layout, or a name; new: a random DeiT")
    data: str = option("demo", "images: demo, demo-pretrain, a CIFAR-10 archive or folder, or a folder of classes")
    only_classes: str = option("", "names of the classes to use, parted by commas or spaces; empty: all")
    limit_train: int = option(0, "only N training images, drawn by chance; 0: all", at_least=0)
    limit_valid: int = option(0, "only N validation images, likewise; 0: all", at_least=0)
    # the sizes of a new model
    image_size: int = option(48, "pixels of a side", at_least=1, at_most=10_000)
    patch: int = option(8, "pixels of a patch's side", at_least=1, at_most=10_000)
    width: int = option(128, "of the hidden states", at_least=1)
    layers: int = option(6, "blocks", at_least=1)
    heads: int = option(4, "of attention", at_least=1)
    ffn_width: int = option(512, "of the feed-forward part", at_least=1)
    initializer_range: float = option(0.02, "standard deviation of fresh weights", at_least=0.0)
    # what trains, and how its input comes about
    trainable: str = option("blocks.11 classifier", "names of parts, parted by spaces; all: everything")
    augment: bool = option(False, "mirror and shift the training images, anew in every epoch")
    trunk_cache: bool = option(True, "run the frozen blocks once and keep what they give, where that is exact")
    cache_gb: float = option(4.0, "10^9 bytes of it that may stay in memory; more goes to a file", at_least=0.0)
    # training
    epochs: int = option(10, "passes over the training images", at_least=0)
    max_steps: int = option(0, "stop after N steps; 0: after the epochs", at_least=0)
    batch_size: int = option(512, "images in a step", at_least=1)
    micro_batch: int = option(64, "images of a step that the model takes at once; their gradients add up", at_least=1)
    learning_rate: float = option(1e-4, "of AdamW, at its highest", at_least=0.0)
    beta2: float = option(0.999, "of AdamW: memory of the squared gradient", at_least=0.0, at_most=1.0)
    weight_decay: float = option(0.0, "of AdamW", at_least=0.0)
    decay_all: bool = option(False, "decay biases and norms too")
    warmup: float = option(0.0, "part of the steps in which the rate rises; then it falls", at_least=0.0, at_most=1.0)
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    label_smoothing: float = option(0.0, "part of the target that all classes share", at_least=0.0, at_most=1.0)
    # the run
    half: bool = option(False, "write the finished model in float16, half the size")
    seed: int = option(0, "of every random choice", at_least=0, at_most=2**32 - 1)
    print_every: int = option(10, "steps between printed lines", at_least=1)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: none", at_least=0)
    validate_every: int = option(0, "steps between validations; the best is what is written; 0: none", at_least=0)
    device: str = option("cpu", "where to run", choices=("cpu", "cuda"))
    precision: str = option("float32", "mixed: matrix products in 16 bits", choices=("float32", "mixed"))
    tf32: bool = option(False, "on a GPU, float32 products may round their factors to 10 bits")
    compile: bool = option(False, "compile the blocks: a GPU saves time with it once it has run a minute")
    deterministic: bool = option(False, "on a GPU, the same bits in every run, from slower operations")
    out: str = option("", "run folder; default runs/RECIPE", passing=True)
    cache_dir: str = option("runs/trunk-cache", "where that file lies; later runs find it again", passing=True)
    resume: bool = option(False, "go on from the newest checkpoint in --out", passing=True)
    may_change: str = option("", "with --resume: fields of the recipe that may differ, with commas", passing=True)


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-vit", description=__doc__)
    began = time.monotonic()
    world = parallel.join(job.device)
    precision = Precision(job.precision, choose_device(job.device), job.tf32)
    seed_all(job.seed, job.deterministic)

    train_set = data.read(job.data, "train", job.limit_train, job.only_classes)
    valid_set = data.read(job.data, "valid", job.limit_valid, job.only_classes)
    model, settings = open_model(job, len(train_set.classes))
    freeze(model.to(precision.device), job.trainable)
    hold_key_biases(model)
    facts = run_facts(train_set.fingerprint, valid_set.fingerprint, world)
    folder = world.from_first(lambda: open_run_folder(job.out, name, job, job.resume, job.may_change, facts))
    print(f"{job.weights}: {len(train_set):,} images to train on, {len(valid_set):,} to validate, "
          f"{len(train_set.classes)} classes; everything goes to {folder}/", flush=True)  # fmt: skip
    print(*filter(None, [listing(model), precision.remark]), sep="\n", flush=True)

    validation = model, valid_set, settings, job, world, precision
    losses = train(model, train_set, settings, job, folder, world, precision,
                   lambda: evaluate(*validation)[0]["accuracy"])  # fmt: skip
    scores, logits = evaluate(*validation)
    if not world.first:
        return
    files.write_json(folder / "metrics.json", scores)
    save_pretrained(model.half() if job.half else model, folder / "model", labels=list(train_set.classes))
    write_settings(settings, folder / "model")
    plots.plot_loss(losses, -(-len(train_set) // job.batch_size), folder)
    plots.plot_sample(train_set, job.seed, folder)
    plots.plot_mistakes(valid_set, logits.argmax(-1), job.seed, folder)
    plots.plot_confusion(np.array(scores["confusion"]), valid_set.classes, folder)
    report.write_pictures(folder, train_set, valid_set, logits, job.seed)
    print(f"accuracy {scores['accuracy']:.2f}  loss {scores['loss']:.4f}  in {time.monotonic() - began:.0f} s")
    print(f"read it:  {report.write(folder)}")
    print(f"show it a picture:  {command('-m', 'vision.predict', '--model', folder / 'model')} IMAGE...")


def train(
    model: nn.Module,
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
    torch.manual_seed(job.seed + world.rank)  # augmentation differs between processes

    checkpoints = folder / "checkpoints"
    held = model, optimizer, world, precision.scaler
    done = resume_run(folder, job, *held)
    log = Log(folder, "images", 1 if device.type == "cpu" else job.print_every, resume_step=done, writes=world.first)
    if job.compile:
        compile_layers(model)

    model.train()
    # The images that this process sees, now and later; all of them are not copied, nor hashed anew.
    mine = images if world.size == 1 else images.take(range(world.rank, len(images), world.size))
    logits_of = to_logits(model, mine, settings, job, precision) if done < steps and len(mine) else None
    with Stop() as stop, progress("training", done, steps, world) as bar:
        for step in range(done, steps):
            epoch, batch_number = divmod(step, steps_per_epoch)
            if step == done or batch_number == 0:
                order = epoch_order(len(images), job.seed, epoch)
            rate = job.learning_rate * linear_rate(step, round(job.warmup * steps), steps)
            set_rate(optimizer, rate)

            chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
            loss = torch.zeros((), device=device)
            for part in chunks(chosen[chosen % world.size == world.rank], job.micro_batch):
                with precision.autocast():
                    logits = logits_of(part // world.size).float()  # (B, K)
                    total = F.cross_entropy(logits, labels[part], reduction="sum", label_smoothing=job.label_smoothing)
                precision.backward(total / len(chosen))
                loss += total.detach() / len(chosen)
            loss = world.sum_gradients(parameters, loss)
            precision.step(optimizer, parameters, job.clip_norm)

            bar.update()
            stopping = False
            if log.add(step=step + 1, epoch=epoch + 1, loss=loss, lr=rate, count=len(chosen)):
                bar.set_postfix_str(str(log), refresh=False)
                if (batch_number + 1) % job.print_every == 0:
                    bar.write(f"Epoch [{epoch + 1}] Batch [{batch_number + 1}] - Loss = {log.running_mean:.4f}")
                stopping = world.any(stop.signal)
            validating = due(step + 1, job.validate_every, steps)
            if stopping or validating or due(step + 1, job.checkpoint_every):
                log.sync()
                score = validate() if validating else None
                model.train()  # which a validation ends
                saved = checkpoint.save_checkpoint(checkpoints, step + 1, *held, score=score)
                if stopping:
                    stop.stop(step + 1, saved)
    log.close()
    if job.validate_every and steps:
        checkpoint.load_best(checkpoints, model, world)
    return [row["loss"] for row in log.rows]


def to_logits(model: nn.Module, images: Images, settings: Preprocessing, job: Recipe, precision: Precision) -> Callable:
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
                model, first, lambda chosen: pixels(images.take(chosen), settings, config.patch).to(device),
                len(images), job.micro_batch, job.cache_gb * 1e9, Path(job.cache_dir), inputs)  # fmt: skip
        read = reader(rows, job.micro_batch, device)
        return lambda chosen: finish(model, read(chosen), first)

    print(f"every step runs the whole model: {hindrance}", flush=True)
    prepared = prepare_all(images.pictures, settings, config.patch)  # (N, 3, H, W) uint8

    def whole(chosen: Tensor) -> Tensor:
        batch = flip_and_shift(prepared[chosen]) if job.augment else prepared[chosen]
        return model(normalise(batch.to(device), settings))

    return whole


def evaluate(
    model: nn.Module, images: Images, settings: Preprocessing, job: Recipe, world: World, precision: Precision
) -> tuple[dict[str, Any], Tensor]:
    """Classify the validation images, each process its share. Returns metrics.json's contents and the logits (N, K)."""
    mine = world.share(range(len(images)))
    with precision.autocast():
        shares = world.gather((mine, classify(model, images.take(mine), settings, job.micro_batch)))
    logits = torch.cat([share for _, share in shares])  # (N, K), process after process
    logits = logits[torch.tensor([number for numbers, _ in shares for number in numbers]).argsort()]
    return metrics.classification(logits, torch.from_numpy(images.labels), images.classes), logits


def open_model(job: Recipe, classes: int) -> tuple[nn.Module, Preprocessing]:
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
