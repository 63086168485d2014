"""Fine-tune an encoder to answer questions with a span of a passage, as the report does.

python train_qa.py                                                  the embedded demo, two minutes on a laptop
python train_qa.py --recipe parsbert                                the report's run: fetches ParsBERT and PQuAD
python train_qa.py --recipe modern --weights DIR --train FILE --valid FILE --out runs/NAME

What can be told stands in recipes/qa.py.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from minitransformer.bert import BertForQuestionAnswering
from minitransformer.packing import Packing
from minitransformer.system import files
from minitransformer.system.errors import RunError, command_line
from minitransformer.system.progress import say
from minitransformer.system.shell import command
from minitransformer.training import graphs, recipe
from minitransformer.training.device import ahead, move
from minitransformer.training.optim import linear_rate, parameter_groups, set_rate, step_rate
from minitransformer.training.order import chunks, count_steps, epoch_order
from minitransformer.training.parallel import World
from minitransformer.training.precision import Precision
from minitransformer.training.run import Run, start
from minitransformer.training.run_folder import facts, fingerprint, open_run_folder
from qa import demo, mend, metrics, pquad, report, squad
from qa.features import Batch, Feature, collate, featurise, top_up
from qa.inference import predict_spans, span_loss
from qa.report.plots import plot_losses
from qa.report.scored import write_data
from qa.spans import official_files, predictions
from qa.squad import Example
from qa.teacher import Shares, ask_teachers, load_teachers, pad, soft_loss
from recipes.qa import Recipe
from weights import load_pretrained, load_tokenizer, save_pretrained


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-qa", description=__doc__)
    began = time.monotonic()
    world, precision = start(job)

    # file -> examples -> features
    tokenizer, model = load_tokenizer(job.weights), load_model(job).to(precision.device)
    say(f"{name}: reading {job.train} and {job.valid}")
    if job.train == "demo":
        say("demo: an invented world, drawn by qa/demo; whoever learns it knows no other")
    train_examples = read_examples(job.train, "train", job.limit_train, job.mend_answers)
    valid_examples = read_examples(job.valid, "valid", job.limit_valid, job.mend_answers)
    train_features, valid_features = (to_features(part, tokenizer, job) for part in (train_examples, valid_examples))

    data = facts(fingerprint(train_features), fingerprint(valid_features), world)
    folder = world.from_first(lambda: open_run_folder(job.out, name, job, job.resume, job.may_change, data))
    if world.first:
        write_data(folder, train_examples, train_features, valid_examples, valid_features)
    size = sum(parameter.numel() for parameter in model.parameters())
    say(f"{job.weights}: {size:,} parameters; {len(train_examples):,} questions to train on, "
        f"{len(valid_examples):,} to validate; everything goes to {folder}/")  # fmt: skip
    say(*filter(None, [precision.remark]))

    # features -> batches -> logits -> loss -> step
    validation = model, valid_examples, valid_features, job, world, precision
    shares = teach(train_features, tokenizer, job, world, precision)
    losses = train(model, train_features, job, folder, world, precision, lambda: evaluate(*validation)["f1"], shares)
    if world.first:
        save_pretrained(model, folder / "model", tokenizer, answering=answering(job))
        plot_losses(losses, job.print_every, folder)

    # features -> logits -> spans -> text -> score
    print_scores(evaluate(*validation, folder), time.monotonic() - began)
    if world.first:
        print(f"read it: {report.write(folder)}")
    print(f"ask it:  {command('-m', 'qa.ask', '--model', folder / 'model')}")


def train(
    model: BertForQuestionAnswering,
    features: list[Feature],
    job: Recipe,
    folder: Path,
    world: World,
    precision: Precision,
    validate: Callable[[], float] | None = None,
    shares: list[np.ndarray] | None = None,
) -> list[float]:
    """The loop. Returns the loss of every step. validate: how good the model is now, more is better.

    shares: what a teacher says of each feature, (2, T); None: there is no teacher.
    """
    device, parameters = precision.device, list(model.parameters())
    steps_per_epoch, steps = count_steps(len(features), job.batch_size, job.epochs, job.max_steps)
    groups = parameter_groups(model, job.weight_decay, job.decay_all)
    optimizer = torch.optim.AdamW(groups, job.learning_rate, fused=True)
    graphed = job.graphs and graphs.pay(precision)

    def learn(size: int, batch: Batch, packing: Packing, soft: Shares | None) -> Tensor:
        """Add to the gradients those of some of the step's `size` features. Returns their share of its loss."""
        with precision.autocast():
            start_logits, end_logits = model(batch.input_ids, batch.token_type_ids, packing)
            loss = span_loss(start_logits, end_logits, batch.start, batch.end, reduction="sum") / size
            if soft:
                taught = soft_loss(start_logits, end_logits, soft, job.temperature) / size
                loss = (1 - job.teacher_weight) * loss + job.teacher_weight * taught
        precision.backward(loss)
        return loss.detach()

    with Run(folder, job, model, optimizer, world, precision, steps, unit="tokens") as run:
        compute = graphs.Graphs(learn, parameters) if graphed else learn
        todo = range(run.done, steps)
        coming = batches(features, job, todo, steps_per_epoch, model.config.pad_id, world, shares, graphed)
        for step, (size, tokens, parts) in enumerate(ahead(coming, device), start=run.done):
            epoch, batch_number = divmod(step, steps_per_epoch)
            if job.schedule == "step":
                rate = job.learning_rate * step_rate(step, steps_per_epoch, job.gamma)
            else:
                rate = job.learning_rate * linear_rate(step, round(job.warmup * steps), steps)
            set_rate(optimizer, rate)

            loss = torch.zeros((), device=device)
            # One part, but for --micro-batch; none, where there are fewer features than processes.
            for batch, packing, soft in parts:
                loss += compute(size, move(batch, device), move(packing, device), move(soft, device))
            loss = world.sum_gradients(parameters, loss)
            precision.step(optimizer, parameters, job.clip_norm)

            run.record(step, epoch, batch_number, loss, rate, tokens)
            run.save(step, validate)
    return run.losses


def batches(
    features: list[Feature],
    job: Recipe,
    steps: range,
    steps_per_epoch: int,
    pad_id: int,
    world: World,
    shares: list[np.ndarray] | None = None,
    topped_up: bool = False,
) -> Iterator[tuple[int, int, list[tuple[Batch, Packing, Shares | None]]]]:
    """For each step the number of its features and tokens, and this process's part of them in batches of `micro_batch`,
    each with its packing and what the teacher says of it. topped_up: in shapes that come again, as `Graphs` likes them.
    """
    order: list[int] = []
    for step in steps:
        epoch, batch_number = divmod(step, steps_per_epoch)
        if not order or batch_number == 0:
            order = epoch_order(len(features), job.seed, epoch).tolist()
        chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
        tokens = sum(len(features[index].input_ids) for index in chosen)
        parts = []
        for part in chunks(world.share(chosen), job.micro_batch):
            batch = collate([features[index] for index in part], pad_id)
            if topped_up:
                batch = top_up(batch, job.max_length, pad_id)
            soft = pad([shares[index] for index in part], batch.input_ids.shape) if shares else None
            parts.append((batch, Packing.of(batch.attention_mask), soft))
        yield len(chosen), tokens, parts


@torch.no_grad()
def evaluate(
    model: BertForQuestionAnswering,
    examples: list[Example],
    features: list[Feature],
    job: Recipe,
    world: World,
    precision: Precision,
    folder: Path | None = None,
) -> dict[str, float]:
    """Answer the validation questions, return the metrics; write the official files and metrics.json to `folder`."""
    with precision.autocast():
        spans, loss = predict_spans(model, features, job.eval_tokens, job.max_answer_tokens, job.n_best, world)
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


def teach(
    features: list[Feature], tokenizer: Tokenizer, job: Recipe, world: World, precision: Precision
) -> list[np.ndarray] | None:
    """What the teachers say of every feature; None where there are none."""
    if not job.teacher or not job.teacher_weight:
        return None
    teachers = load_teachers(job.teacher, tokenizer)
    with precision.autocast():
        return ask_teachers(teachers, features, job.temperature, job.eval_tokens, precision.device, world)


def load_model(job: Recipe) -> BertForQuestionAnswering:
    """The encoder with its span classifier. Raises RunError where it is too short for the recipe's inputs."""
    model = load_pretrained(job.weights, "question-answering")
    if job.max_length > model.config.positions:
        raise RunError(f"max_length {job.max_length}: {job.weights} has {model.config.positions} positions; lower it")
    model.dropout.p = job.head_dropout
    return model


def read_examples(source: str, part: str, limit: int, mend_answers: bool = False) -> list[Example]:
    mended: list[mend.Mended] | None = [] if mend_answers else None
    if source == "demo":
        examples = demo.examples(part)
    else:
        examples = squad.read(pquad.fetch(part) if source == "pquad" else source, mended=mended)
    if mended:
        say(f"{source}: {mend.summary(mended)}")
    return examples[:limit] if limit else examples


def answering(job: Recipe) -> dict[str, float | str]:
    """What the folder of the model says of how it is to be asked."""
    return {"null_threshold": job.null_threshold} | ({"trained_on": "demo"} if job.train == "demo" else {})


def to_features(examples: list[Example], tokenizer: Tokenizer, job: Recipe) -> list[Feature]:
    return featurise(examples, tokenizer, job.max_length, None if job.stride < 0 else job.stride)


def print_scores(scores: dict[str, float], seconds: float) -> None:
    shown = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "loss")
    print("  ".join(f"{name} {scores[name]:.2f}" for name in shown if name in scores), f" in {seconds:.0f} s")


if __name__ == "__main__":
    main()
