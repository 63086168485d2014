"""Fine-tune an encoder to answer questions with a span of a passage, as the report does.

python train_qa.py                                                  the embedded demo, two minutes on a laptop
python train_qa.py --recipe parsbert                                the report's run: fetches ParsBERT and PQuAD
python train_qa.py --recipe modern --weights DIR --train FILE --valid FILE --out runs/NAME
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from minitransformer.system import files
from minitransformer.system.errors import RunError, command_line
from minitransformer.system.shell import command
from minitransformer.training import checkpoint, parallel, recipe
from minitransformer.training.device import ahead, choose_device, compile_layers, move, seed_all
from minitransformer.training.log import Log
from minitransformer.training.optim import linear_rate, parameter_groups, set_rate, step_rate
from minitransformer.training.order import chunks, count_steps, due, epoch_order
from minitransformer.training.parallel import World
from minitransformer.training.precision import Precision
from minitransformer.training.progress import progress
from minitransformer.training.recipe import option
from minitransformer.training.run_folder import facts as run_facts
from minitransformer.training.run_folder import fingerprint, open_run_folder
from minitransformer.training.run_folder import resume as resume_run
from minitransformer.training.stop import Stop
from qa import demo, metrics, pquad, report, squad
from qa.features import Batch, Feature, collate, featurise
from qa.plots import plot_losses
from qa.predict import read, span_loss
from qa.spans import official_files, predictions
from qa.squad import Example
from weights import load_pretrained, load_tokenizer, save_pretrained


@dataclass(frozen=True)
class Recipe:
    weights: str = option("demo-bert-fa", "checkpoint: a folder in Hugging Face layout, or a name")
    train: str = option("demo", "training questions: SQuAD .json or .json.gz; demo; pquad, which is fetched")
    valid: str = option("demo", "validation questions, likewise")
    limit_train: int = option(0, "only the first N training questions; 0: all", at_least=0)
    limit_valid: int = option(0, "only the first N validation questions; 0: all", at_least=0)
    # features
    max_length: int = option(512, "longest input in tokens", at_least=1)
    stride: int = option(-1, "tokens that windows share; -1: no windows, long contexts are cut", at_least=-1)
    # training
    epochs: int = option(1, "passes over the training questions", at_least=0)
    max_steps: int = option(0, "stop after N steps; 0: after the epochs", at_least=0)
    batch_size: int = option(16, "features in a step", at_least=1)
    micro_batch: int = option(0, "features computed at once; a step gathers the gradients; 0: all", at_least=0)
    learning_rate: float = option(5e-5, "of AdamW, at its highest", at_least=0.0)
    weight_decay: float = option(0.1, "of AdamW", at_least=0.0)
    decay_all: bool = option(True, "decay biases and norms too")
    schedule: str = option(
        "step", "step: times gamma per epoch; linear: warm-up, then down to 0", choices=("step", "linear")
    )
    gamma: float = option(0.1, "factor of the step schedule", at_least=0.0)
    warmup: float = option(0.0, "part of all steps in which the linear schedule rises", at_least=0.0, at_most=1.0)
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    head_dropout: float = option(0.2, "before the span classifier", at_least=0.0, at_most=1.0)
    # evaluation
    max_answer_tokens: int = option(512, "longest answer", at_least=1)
    n_best: int = option(20, "candidates kept in nbest.json", at_least=1, at_most=1000)
    null_threshold: float = option(0.0, "no answer where its score exceeds the best span's by more")
    eval_tokens: int = option(8192, "padded tokens in an evaluation batch", at_least=1)
    # the machine
    device: str = option("cpu", "where to run", choices=("cpu", "cuda"))
    precision: str = option("float32", "mixed: matrix products in 16 bits", choices=("float32", "mixed"))
    tf32: bool = option(False, "on a GPU, float32 products may round their factors to 10 bits")
    compile: bool = option(False, "compile the layers: a GPU saves time with it once it has run a minute")
    deterministic: bool = option(False, "on a GPU, the same bits in every run, from slower operations")
    # the run
    seed: int = option(0, "of every random choice", at_least=0, at_most=2**32 - 1)
    print_every: int = option(100, "steps between printed lines", at_least=1)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: none", at_least=0)
    validate_every: int = option(0, "steps between validations; the best is what is written; 0: none", at_least=0)
    out: str = option("", "run folder; default runs/RECIPE", passing=True)
    resume: bool = option(False, "go on from the newest checkpoint in --out", passing=True)
    may_change: str = option("", "with --resume: fields of the recipe that may differ, with commas", passing=True)


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-qa", description=__doc__)
    began = time.monotonic()
    world = parallel.join(job.device)
    device = choose_device(job.device)
    precision = Precision(job.precision, device, job.tf32)
    seed_all(job.seed, job.deterministic)

    # file -> examples -> features
    tokenizer = load_tokenizer(job.weights)
    model = load_pretrained(job.weights, "question-answering").to(device)
    model.dropout.p = job.head_dropout
    stride = None if job.stride < 0 else job.stride
    print(f"{name}: reading {job.train} and {job.valid}", flush=True)
    train_examples = read_examples(job.train, "train", job.limit_train)
    valid_examples = read_examples(job.valid, "valid", job.limit_valid)
    train_features = featurise(train_examples, tokenizer, job.max_length, stride)
    valid_features = featurise(valid_examples, tokenizer, job.max_length, stride)
    if job.max_length > model.config.positions:
        raise RunError(f"max_length {job.max_length}: {job.weights} has {model.config.positions} positions; lower it")
    facts = run_facts(fingerprint(train_features), fingerprint(valid_features), world)
    folder = world.from_first(lambda: open_run_folder(job.out, name, job, job.resume, job.may_change, facts))
    if world.first:
        report.write_data(folder, train_examples, train_features, valid_examples, valid_features)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{job.weights}: {parameters:,} parameters; {len(train_examples):,} questions to train on, "
          f"{len(valid_examples):,} to validate; everything goes to {folder}/", flush=True)  # fmt: skip
    if precision.remark:
        print(precision.remark)

    validation = model, valid_examples, valid_features, job, world, precision
    losses = train(model, train_features, job, folder, world, precision, lambda: evaluate(*validation)["f1"])
    if world.first:
        save_pretrained(model, folder / "model", tokenizer)
        plot_losses(losses, job.print_every, folder)
    scores = evaluate(*validation, folder)
    print_scores(scores, time.monotonic() - began)
    if world.first:
        print(f"read it: {report.write(folder)}")
    print(f"ask it:  {command('-m', 'qa.ask', '--model', folder / 'model')}")


def train(
    model: nn.Module,
    features: list[Feature],
    job: Recipe,
    folder: Path,
    world: World,
    precision: Precision,
    validate: Callable[[], float] | None = None,
) -> list[float]:
    """The loop. Returns the loss of every step. validate: how good the model is now, more is better."""
    device = precision.device
    steps_per_epoch, steps = count_steps(len(features), job.batch_size, job.epochs, job.max_steps)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameter_groups(model, job.weight_decay, job.decay_all), job.learning_rate, fused=True
    )
    torch.manual_seed(job.seed + world.rank)  # dropout differs between processes

    checkpoints = folder / "checkpoints"
    held = model, optimizer, world, precision.scaler
    done = resume_run(folder, job, *held)
    every = 1 if device.type == "cpu" else job.print_every
    log = Log(folder, "tokens", every, resume_step=done, writes=world.first)
    if job.compile:
        compile_layers(model)

    model.train()
    coming = ahead(batches(features, job, range(done, steps), steps_per_epoch, model.config.pad_id, world), device)
    with Stop() as stop, progress("training", done, steps, world) as bar:
        for step, (size, tokens, parts) in enumerate(coming, start=done):
            epoch, batch_number = divmod(step, steps_per_epoch)
            if job.schedule == "step":
                rate = job.learning_rate * step_rate(step, steps_per_epoch, job.gamma)
            else:
                rate = job.learning_rate * linear_rate(step, round(job.warmup * steps), steps)
            set_rate(optimizer, rate)

            loss = torch.zeros((), device=device)
            for batch in parts:  # one, but for --micro-batch; none, where there are fewer features than processes
                batch = move(batch, device)
                with precision.autocast():
                    start_logits, end_logits = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
                    part = span_loss(start_logits, end_logits, batch.start, batch.end, reduction="sum") / size
                precision.backward(part)
                loss += part.detach()
            loss = world.sum_gradients(parameters, loss)
            precision.step(optimizer, parameters, job.clip_norm)

            bar.update()
            stopping = False
            if log.add(step=step + 1, epoch=epoch + 1, loss=loss, lr=rate, count=tokens):
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


def batches(
    features: list[Feature], job: Recipe, steps: range, steps_per_epoch: int, pad_id: int, world: World
) -> Iterator[tuple[int, int, list[Batch]]]:
    """For each step the number of its features and tokens, and this process's share in batches of `micro_batch`."""
    for step in steps:
        epoch, batch_number = divmod(step, steps_per_epoch)
        if step == steps.start or batch_number == 0:
            order = epoch_order(len(features), job.seed, epoch).tolist()
        chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
        tokens = sum(len(features[index].input_ids) for index in chosen)
        share = [features[index] for index in world.share(chosen)]
        yield len(chosen), tokens, [collate(part, pad_id) for part in chunks(share, job.micro_batch)]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    examples: list[Example],
    features: list[Feature],
    job: Recipe,
    world: World,
    precision: Precision,
    folder: Path | None = None,
) -> dict[str, float]:
    """Answer the validation questions, return the metrics; write the official files and metrics.json to `folder`."""
    with precision.autocast():
        spans, loss = read(model, features, job.eval_tokens, job.max_answer_tokens, job.n_best, world)
    answers = predictions(examples, features, spans, job.null_threshold)
    official = official_files(answers)
    # The threshold search needs every question's best span, also where "no answer" won.
    best_text = {id: next((c.text for c in answer.n_best if c.text), "") for id, answer in answers.items()}
    scores = metrics.squad_v2(examples, best_text, official.null_odds, threshold=job.null_threshold)
    scores["loss"] = loss
    if folder and world.first:
        files.write_json(folder / "predictions.json", official.predictions)
        files.write_json(folder / "nbest.json", official.nbest)
        files.write_json(folder / "null_odds.json", official.null_odds)
        files.write_json(folder / "places.json", {id: answer.start for id, answer in answers.items()})
        files.write_json(folder / "metrics.json", scores)
    return scores


def read_examples(source: str, part: str, limit: int) -> list[Example]:
    if source == "demo":
        examples = demo.examples(part)
    else:
        examples = squad.read(pquad.fetch(part) if source == "pquad" else source)
    return examples[:limit] if limit else examples


def print_scores(scores: dict[str, float], seconds: float) -> None:
    shown = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "loss")
    print("  ".join(f"{name} {scores[name]:.2f}" for name in shown if name in scores), f" in {seconds:.0f} s")


if __name__ == "__main__":
    main()
