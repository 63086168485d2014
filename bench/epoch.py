"""Seconds of a whole epoch of train_qa.py, and what HF's padded model would take for it, on any number of questions.

python -m bench.epoch --weights DIR --train FILE [--examples 63994] [--batch-size 16] [--device cuda --precision mixed]

The flags are those of train_qa.py, whose `train` is what is measured, and a few more; the recipe is parsbert. The
questions of --train are repeated until there are --examples of them, PQuAD's training set unless told otherwise. HF's
rows run --hf-steps steps after one that warms up, padded to --max-length, and their epoch is computed from these: one
in a plain loop, and one of its Trainer where accelerate is installed.
"""

import json
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

import train_qa
from bench.common import HFReader, in_turns, machine, matrix_rate, peak_memory, seconds_of, table, widen
from bench.flops import flops_per_step
from bench.train_step import OURS, PADDED, TRAINER, steps, trainer_seconds
from minitransformer.system.errors import command_line
from minitransformer.training import recipe
from minitransformer.training.device import choose_device
from minitransformer.training.order import chunks, epoch_order
from minitransformer.training.parallel import ALONE
from minitransformer.training.precision import Precision
from minitransformer.training.recipe import option
from qa.features import collate, featurise
from weights import load_pretrained, load_tokenizer

HEAD = ("contender", "an epoch", "questions a second", "time over ours", "peak memory", "useful work")


@dataclass(frozen=True)
class Bench(train_qa.Recipe):
    examples: int = option(63_994, "questions of the epoch", at_least=1)
    hf_steps: int = option(20, "steps that HF's rows measure", at_least=1)
    threads: int = option(2, "of torch on a CPU", at_least=1)
    contender: str = option("", "what this process is to measure; set by the command itself")


@command_line
def main() -> None:
    _, job = recipe.parse(Bench, "parsbert", __doc__, ["--checkpoint-every", "0", *sys.argv[1:], "--epochs", "1"])
    if job.contender:
        with redirect_stdout(sys.stderr):  # what train_qa.py tells
            result = measure(job)
        print(json.dumps(result))
        return

    contenders = [OURS, PADDED, *([TRAINER] if find_spec("accelerate") else [])]
    results = {name: runs[0] for name, runs in in_turns("bench.epoch", contenders, rounds=1).items()}
    ours = results[OURS]
    rate = ours["matrix_rate"]
    computed = f", computed from {job.hf_steps} steps"
    rows = [
        [
            name.replace("max", str(job.max_length)) + (computed if name != OURS else ""),
            f"{result['epoch']:.4g} s",
            f"{job.examples / result['epoch']:.4g}",
            f"{result['epoch'] / ours['epoch']:.2f}",
            f"{result['peak'] / 1e9:.2f} GB",
            f"{ours['flops'] / result['epoch'] / rate:.0%} of the matrix rate",
        ]
        for name, result in results.items()
    ]
    print(table(HEAD, *rows))
    print(f"\n{machine(job.threads)}; {job.examples:,} questions, batch {job.batch_size}; a matrix product makes "
          f"{rate / 1e9:,.0f} GFLOP/s in {ours['dtype']}")  # fmt: skip


def measure(job: Bench) -> dict[str, Any]:
    """One contender in this process."""
    torch.set_num_threads(job.threads)
    precision = Precision(job.precision, choose_device(job.device), job.tf32)
    torch.manual_seed(job.seed)
    model = load_pretrained(job.weights, "question-answering")
    model.dropout.p = job.head_dropout
    examples = train_qa.read_examples(job.train, "train", min(job.limit_train or job.examples, job.examples))
    features = featurise(examples, load_tokenizer(job.weights), job.max_length)
    features = list(islice(cycle(features), job.examples))
    pad_id = model.config.pad_id
    if job.contender == OURS:
        model.to(precision.device)
        with tempfile.TemporaryDirectory() as folder:
            seconds = [seconds_of(lambda: train_qa.train(model, features, job, Path(folder), ALONE, precision))]
        epoch = seconds[0]
    else:
        order = epoch_order(len(features), job.seed, epoch=0).tolist()[: (job.hf_steps + 1) * job.batch_size]
        batches = [collate([features[index] for index in part], pad_id) for part in chunks(order, job.batch_size)]
        batches = [widen(batch, job.max_length, pad_id) for batch in batches]
        hf = HFReader(model).to(precision.device).train()
        del model
        if job.contender == TRAINER:
            seconds = trainer_seconds(hf.hf, batches, job)
        else:
            seconds = steps(hf, batches, precision, job.max_length)
        epoch = statistics.mean(seconds) * len(features) / job.batch_size
    result = {"seconds": seconds, "epoch": epoch, "peak": peak_memory(precision.device)}
    if job.contender == OURS:
        lengths = [len(feature.input_ids) for feature in features]
        result |= {
            "flops": flops_per_step(lengths, model.config),
            "matrix_rate": matrix_rate(precision.device, precision.dtype),
            "dtype": str(precision.dtype).removeprefix("torch."),
        }
    return result


if __name__ == "__main__":
    main()
