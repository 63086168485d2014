"""train_qa.py's run with Hugging Face's model in place of ours, to compare exact and f1.

python -m bench.hf_qa --weights DIR --train FILE --valid FILE --out DIR [--same-dropout]

The flags and recipes are train_qa.py's. Features, their order, the first weights (those of a fresh head too), head
dropout, AdamW's groups, learning rates, clipping and the scoring are those of train_qa.py; the model, its attention and
its dropouts are HF's, and the loop is written out again. Dropout draws other numbers, so the scores come close, not
equal; with --same-dropout, on a CPU, HF's dropouts draw what those of ours draw in train_qa.py, and then rounding is
all that differs. There are no checkpoints, so neither --resume nor --validate-every.
"""

import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

import train_qa
from bench.common import HFReader
from minitransformer.system.errors import RunError, command_line
from minitransformer.training import recipe
from minitransformer.training.device import choose_device, move, seed_all
from minitransformer.training.log import Log
from minitransformer.training.optim import linear_rate, parameter_groups, set_rate, step_rate
from minitransformer.training.order import count_steps, epoch_order
from minitransformer.training.parallel import ALONE
from minitransformer.training.precision import Precision
from minitransformer.training.run_folder import open_run_folder
from qa.features import Feature, collate, featurise
from qa.inference import span_loss
from weights import load_pretrained, load_tokenizer


@dataclass(frozen=True)
class Recipe(train_qa.Recipe):
    same_dropout: bool = recipe.option(False, "HF's dropouts draw what ours would, on a CPU")


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="modern", description=__doc__)
    if job.resume or job.validate_every:
        raise RunError("--resume, --validate-every: this benchmark writes no checkpoints; leave them away")
    if job.same_dropout and job.device != "cpu":
        raise RunError("--same-dropout: on a GPU the kernels draw for themselves; leave it away, or --device cpu")
    began = time.monotonic()
    device = choose_device(job.device)
    seed_all(job.seed, job.deterministic)

    tokenizer = load_tokenizer(job.weights)
    model = load_pretrained(job.weights, "question-answering")  # a fresh head is drawn here, as in train_qa.py
    model.dropout.p = job.head_dropout
    model = HFReader(model, job.same_dropout).to(device)
    stride = None if job.stride < 0 else job.stride
    train_examples = train_qa.read_examples(job.train, "train", job.limit_train)
    valid_examples = train_qa.read_examples(job.valid, "valid", job.limit_valid)
    train_features = featurise(train_examples, tokenizer, job.max_length, stride)
    valid_features = featurise(valid_examples, tokenizer, job.max_length, stride)
    folder = open_run_folder(job.out, f"hf-{name}", job, resume=False)

    log = Log(folder, "tokens")
    train(model, train_features, job, log)
    log.close()
    scores = train_qa.evaluate(model, valid_examples, valid_features, job, ALONE, Precision("float32", device), folder)
    train_qa.print_scores(scores, time.monotonic() - began)


def train(model: HFReader, features: list[Feature], job: Recipe, log: Log) -> None:
    """The loop of train_qa.py, plain."""
    device = next(model.parameters()).device
    steps_per_epoch, steps = count_steps(len(features), job.batch_size, job.epochs, job.max_steps)
    groups = parameter_groups(model, job.weight_decay, job.decay_all)
    optimizer = torch.optim.AdamW(groups, job.learning_rate, fused=True)

    if job.same_dropout:
        torch.manual_seed(job.seed)  # where train_qa.py does
    model.train()
    for step in tqdm(range(steps), unit="step", desc="training"):
        epoch, batch_number = divmod(step, steps_per_epoch)
        if batch_number == 0:
            order = epoch_order(len(features), job.seed, epoch).tolist()
        if job.schedule == "step":
            rate = job.learning_rate * step_rate(step, steps_per_epoch, job.gamma)
        else:
            rate = job.learning_rate * linear_rate(step, round(job.warmup * steps), steps)
        set_rate(optimizer, rate)

        chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
        batch = move(collate([features[index] for index in chosen], model.config.pad_id), device)
        start, end = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        loss = span_loss(start, end, batch.start, batch.end)
        loss.backward()
        if job.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), job.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        log.add(step=step + 1, epoch=epoch + 1, loss=loss.detach(), lr=rate, count=int(batch.attention_mask.sum()))


if __name__ == "__main__":
    main()
