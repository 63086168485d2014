"""Fine-tune a vision transformer to tell classes of images, as the report does: the last block and a new classifier.

python train_vit.py                                                  the embedded demo, two minutes on a laptop
python train_vit.py --recipe deit-small --weights DIR --data cifar-10-python.tar.gz --out runs/NAME
python train_vit.py --recipe cifar-scratch --data DIR --out runs/NAME           a small DeiT from nothing

--data is demo, an archive or folder of CIFAR-10, or a folder of train/CLASS/ and test/CLASS/ (or valid/CLASS/).
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from minitransformer import checkpoint, files, recipe
from minitransformer.errors import command_line
from minitransformer.optim import check_loss, linear_rate, parameter_groups
from minitransformer.recipe import option
from minitransformer.run import Log, choose_device, epoch_order, open_run_folder
from vision import images
from vision.freeze import freeze, listing
from weights import save_pretrained


@dataclass(frozen=True)
class Recipe:
    weights: str = option("demo-deit", "checkpoint: a folder in Hugging Face layout, or a name; new: a random DeiT")
    data: str = option("demo", "images: demo, demo-pretrain, a CIFAR-10 archive or folder, or a folder of classes")
    only_classes: str = option("", "names of the classes to use, parted by spaces; empty: all")
    limit_train: int = option(0, "only N training images, drawn by chance; 0: all", at_least=0)
    limit_valid: int = option(0, "only N validation images, likewise; 0: all", at_least=0)
    # the sizes of a new model
    image_size: int = option(48, "pixels of a side", at_least=1)
    patch: int = option(8, "pixels of a patch's side", at_least=1)
    width: int = option(128, "of the hidden states", at_least=1)
    layers: int = option(6, "blocks", at_least=1)
    heads: int = option(4, "of attention", at_least=1)
    ffn_width: int = option(512, "of the feed-forward part", at_least=1)
    initializer_range: float = option(0.02, "standard deviation of fresh weights", at_least=0.0)
    # what trains, and how its input comes about
    trainable: str = option("blocks.11 classifier", "names of parts, parted by spaces; all: everything")
    augment: bool = option(False, "mirror and shift the training images, anew in every epoch")
    trunk_cache: bool = option(True, "run the frozen blocks once and keep what they give, where nothing else changes it")
    cache_gb: float = option(4.0, "10^9 bytes of it that may stay in memory; more goes to a file", at_least=0.0)
    # training
    epochs: int = option(10, "passes over the training images", at_least=0)
    max_steps: int = option(0, "stop after N steps; 0: after the epochs", at_least=0)
    batch_size: int = option(512, "images in a step", at_least=1)
    part_size: int = option(64, "images of a step that the model takes at once; their gradients add up", at_least=1)
    learning_rate: float = option(1e-4, "of AdamW, at its highest", at_least=0.0)
    beta2: float = option(0.999, "of AdamW: memory of the squared gradient", at_least=0.0, at_most=1.0)
    weight_decay: float = option(0.0, "of AdamW", at_least=0.0)
    decay_all: bool = option(False, "decay biases and norms too")
    warmup: float = option(
        0.0, "part of all steps in which the rate rises; then it falls to 0", at_least=0.0, at_most=1.0
    )
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    label_smoothing: float = option(0.0, "part of the target that all classes share", at_least=0.0, at_most=1.0)
    # the run
    half: bool = option(False, "write the finished model in float16, half the size")
    seed: int = option(0, "of every random choice", at_least=0, at_most=2**32 - 1)
    print_every: int = option(10, "steps between printed lines", at_least=1)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: none", at_least=0)
    device: str = option("cpu", "where to run", choices=("cpu", "cuda"))
    out: str = option("", "run folder; default runs/RECIPE", passing=True)
    cache_dir: str = option("runs/trunk-cache", "where that file lies; later runs find it again", passing=True)
    resume: bool = option(False, "go on from the newest checkpoint in --out", passing=True)


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-vit", description=__doc__)
    began = time.monotonic()
    device = choose_device(job.device)
    torch.manual_seed(job.seed)

    # files -> pictures and labels
    train_set = images.read(job.data, "train", job.limit_train, job.only_classes)
    valid_set = images.read(job.data, "valid", job.limit_valid, job.only_classes)
    model, settings = open_model(job, train_set.classes)
    model.to(device)
    freeze(model, job.trainable)
    folder = open_run_folder(job.out, name, job, job.resume)
    print(f"{job.weights}: {len(train_set.labels):,} images to train on, {len(valid_set.labels):,} to validate, "
          f"{len(classes)} classes; everything goes to {folder}/")  # fmt: skip
    print(listing(model), flush=True)

    losses = train(model, train_set, settings, job, folder)
    scores, answers = evaluate(model, valid_set, settings, job)
    files.write_json(folder / "metrics.json", scores)
    save_pretrained(model.half() if job.half else model, folder / "model", labels=list(train_set.classes))
    images.write_settings(settings, folder / "model")
    draw(losses, train_set, valid_set, answers, scores, job, folder)
    print(f"accuracy {scores['accuracy']:.2f}  loss {scores['loss']:.4f}  in {time.monotonic() - began:.0f} s")
    print(f"show it a picture:  python -m vision.predict --model {folder}/model IMAGE...")


def train(model, data, settings, job: Recipe, folder: Path) -> list[float]:
    """The loop. Returns the loss of every step."""
    device = next(model.parameters()).device
    labels = torch.as_tensor(data.labels)
    steps_per_epoch = -(-len(labels) // job.batch_size)
    steps = job.epochs * steps_per_epoch
    steps = min(steps, job.max_steps) if job.max_steps else steps
    groups = parameter_groups(model, job.weight_decay, job.decay_all)
    optimizer = torch.optim.AdamW(groups, job.learning_rate, (0.9, job.beta2), fused=True)

    done = 0
    saved = checkpoint.whole_checkpoints(folder / "checkpoints")
    if job.resume and saved:
        done = checkpoint.load_checkpoint(saved[-1], model, optimizer)
        print(f"resumed at step {done} of {steps} from {saved[-1]}", flush=True)
    columns = ["step", "epoch", "loss", "running_mean", "lr", "images_per_second"]
    log = Log(folder / "log.csv", columns, resume_step=done if job.resume else None)
    logits_of = forward_from_trunk(...)

    model.train()
    with tqdm(total=steps, initial=done, unit="step", desc="training", smoothing=0.1) as bar:
        for step in range(done, steps):
            epoch, batch_number = divmod(step, steps_per_epoch)
            if step == done or batch_number == 0:
                order = epoch_order(len(labels), job.seed, epoch)
                epoch_losses = [row["loss"] for row in log.rows if row["epoch"] == epoch + 1]

            rate = job.learning_rate * linear_rate(step, round(job.warmup * steps), steps)
            for group in optimizer.param_groups:
                group["lr"] = rate

            started = time.monotonic()
            chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
            loss = 0.0
            for part in chosen.split(job.part_size):
                logits = logits_of(part)  # (b, K)
                part_loss = F.cross_entropy(
                    logits, labels[part].to(device), reduction="sum", label_smoothing=job.label_smoothing
                ) / len(chosen)
                part_loss.backward()
                loss += part_loss.item()
            check_loss(loss, step + 1, checkpoint.last_good(saved, step))
            if job.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), job.clip_norm)
            optimizer.step()
            optimizer.zero_grad()

            epoch_losses.append(loss)
            mean = sum(epoch_losses) / len(epoch_losses)
            speed = len(chosen) / (time.monotonic() - started)
            log.add(step=step + 1, epoch=epoch + 1, loss=loss, running_mean=mean, lr=rate, images_per_second=speed)
            bar.set_postfix_str(f"loss {mean:.3f}, {speed:,.0f} images/s", refresh=False)
            bar.update()
            if (batch_number + 1) % job.print_every == 0:
                bar.write(f"Epoch [{epoch + 1}] Batch [{batch_number + 1}] - Loss = {mean:.4f}")
            if job.checkpoint_every and (step + 1) % job.checkpoint_every == 0:
                log.sync()
                saved.append(checkpoint.save_checkpoint(folder / "checkpoints", step + 1, model, optimizer))
    log.close()
    return [row["loss"] for row in log.rows]
