"""Seconds and memory of a training step: ours against HF's model, on the same examples in the same order.

python -m bench.train_step --weights DIR --data FILE

Contenders: ours; HF padded to --max-length; HF padded to the longest of the batch; with --explicit, ours with the
formula of attention.py on the padded batch. All train float32 with the dropouts that config.json names and the same
fused AdamW; HF has its default attention, sdpa, and computes its own loss. A round runs each once, in a process of
its own, so that peak memory is its own; rounds repeat, A B C A B C, so that a machine that slows down slows all.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys

import torch

from bench.common import HFReader, flops_per_step, machine, matrix_rate, seconds_of, spread, table, widen
from minitransformer.attention import SelfAttention, explicit_attention
from minitransformer.errors import command_line
from minitransformer.flags import FlagParser
from minitransformer.run import epoch_order
from qa import squad
from qa.features import Batch, collate, featurise
from qa.predict import span_loss
from weights import load_pretrained, load_tokenizer

SEED = 0
HEAD = ("contender", "median step", "least to most", "time over ours", "peak memory", "useful work", "first loss")


@command_line
def main() -> None:
    args = parse()
    if args.contender:
        print(json.dumps(measure(args)))
        return

    # ru_maxrss outlives exec, so this process must stay smaller than its children: it starts them and does no more.
    contenders = ["ours", "HF padded to max", "HF padded per batch", *(["ours, explicit"] if args.explicit else [])]
    results: dict[str, list[dict]] = {name: [] for name in contenders}
    for number in range(args.rounds):
        for name in contenders:
            results[name].append(in_fresh_process(name))
            steps = ", ".join(f"{seconds:.2f}" for seconds in results[name][-1]["seconds"])
            print(f"round {number + 1}, {name}: {steps} s", file=sys.stderr, flush=True)

    rate = max(run["matrix_rate"] for run in results["ours"])
    ours = statistics.median(seconds for run in results["ours"] for seconds in run["seconds"])
    rows = [row(name.replace("max", str(args.max_length)), runs, ours, rate) for name, runs in results.items()]
    print(table(HEAD, *rows))
    print(f"\n{machine(args.threads)}; batch {args.batch_size}, {args.rounds} rounds of {args.steps} steps; a float32 "
          f"matrix product makes {rate / 1e9:.0f} GFLOP/s")  # fmt: skip


def parse() -> argparse.Namespace:
    parser = FlagParser(prog="python -m bench.train_step", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512, help="longest feature, and what HF pads to (512)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes per contender (3)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps in a round, after one that warms up (4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--explicit", action="store_true", help="also ours with padded, explicit attention")
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # what a child process is to measure
    return parser.parse_args()


def in_fresh_process(contender: str) -> dict:
    command = [sys.executable, "-m", "bench.train_step", *sys.argv[1:], "--contender", contender]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if child.returncode:
        raise SystemExit(child.returncode)  # its own message stands above
    return json.loads(child.stdout)


def measure(args: argparse.Namespace) -> dict:
    """One contender in this process: the first loss without dropout, the seconds of each step, the peak memory."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)  # of a fresh head, so that every contender has the same
    model = load_pretrained(args.weights, "question-answering")
    config = model.config
    batches = read_batches(args, config.pad_id)
    lengths = [batch.attention_mask.sum(1).tolist() for batch in batches]
    if args.contender == "HF padded to max":
        batches = [widen(batch, args.max_length, config.pad_id) for batch in batches]
    if args.contender == "ours, explicit":
        for module in model.modules():
            if isinstance(module, SelfAttention):
                module.attend = explicit_attention
    if args.contender.startswith("HF"):
        model = HFReader(model)

    model.eval()
    with torch.no_grad():
        first_loss = loss_of(model, batches[0]).item()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, fused=True)

    def step(batch: Batch) -> None:
        loss = hf_loss(model.hf, batch) if isinstance(model, HFReader) else loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = [seconds_of(lambda batch=batch: step(batch)) for batch in batches]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
    return {
        "loss": first_loss,
        "seconds": seconds[1:],  # the first reserves memory and AdamW's state
        "peak": peak if sys.platform == "darwin" else peak * 1024,
        "flops": sum(flops_per_step(texts, config) for texts in lengths[1:]),
        "matrix_rate": matrix_rate() if args.contender == "ours" else None,
    }


def read_batches(args: argparse.Namespace, pad_id: int) -> list[Batch]:
    """One batch more than are timed, from the beginning of the order in which train_qa.py would take the examples."""
    examples = squad.read(args.data)
    chosen = epoch_order(len(examples), SEED, epoch=0)[: (args.steps + 1) * args.batch_size].tolist()
    features = featurise([examples[i] for i in chosen], load_tokenizer(args.weights), args.max_length)
    batches = [features[i : i + args.batch_size] for i in range(0, len(features), args.batch_size)]
    return [collate(batch, pad_id) for batch in batches]


def loss_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    start, end = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
    return span_loss(start, end, batch.start, batch.end)


def hf_loss(hf: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The loss as HF computes it when it is given the labels; padding takes part in its softmax."""
    return hf(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask.long(),
        token_type_ids=batch.token_type_ids,
        start_positions=batch.start,
        end_positions=batch.end,
    ).loss


def row(name: str, runs: list[dict], ours: float, rate: float) -> list[str]:
    seconds = [value for run in runs for value in run["seconds"]]
    share = sum(run["flops"] for run in runs) / sum(seconds) / rate
    return [
        name,
        *spread(seconds),
        f"{statistics.median(seconds) / ours:.2f}",
        f"{max(run['peak'] for run in runs) / 1e9:.2f} GB",
        f"{share:.0%} of the matrix rate",
        f"{runs[0]['loss']:.6f}",
    ]


if __name__ == "__main__":
    main()
