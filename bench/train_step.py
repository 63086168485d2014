"""Seconds and peak memory of a QA training step, on the batches that train_qa.py would take.

python -m bench.train_step --weights DIR --data FILE

Contenders: ours; HF padded to --max-length; HF padded to the longest of the batch; HF with length grouping, the same
examples sorted into batches of like length by transformers' own function; and, where accelerate is installed, HF's
Trainer with what run_qa.py leaves at its defaults: all padded to --max-length, AdamW, clipping, the linear schedule,
its data loader. --explicit adds ours with the formula of attention.py on the padded batch, --compile the first three
once more after torch.compile. All train with the dropouts that config.json names and a fused AdamW; HF has its default
attention, sdpa, and computes its own loss. A round runs each once, in a process of its own, so that peak memory is its
own; rounds repeat, A B C A B C, so that a machine that slows down slows all.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from importlib.util import find_spec

import torch
from torch import nn

from bench.common import (
    HFReader,
    finish_work,
    in_turns,
    machine,
    matrix_rate,
    peak_memory,
    seconds_of,
    spread,
    table,
    widen,
)
from bench.flops import flops_per_step
from minitransformer.attention import SelfAttention, explicit_attention
from minitransformer.packing import Packing
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser
from minitransformer.training import graphs
from minitransformer.training.device import choose_device, compile_layers, move
from minitransformer.training.order import chunks, epoch_order
from minitransformer.training.precision import Precision
from qa import squad
from qa.features import Batch, Feature, collate, featurise, top_up
from qa.inference import span_loss
from weights import load_pretrained, load_tokenizer

SEED = 0
OURS, PADDED, PER_BATCH, GROUPED = "ours", "HF padded to max", "HF padded per batch", "HF with length grouping"
TRAINER = "HF Trainer as run_qa.py has it, padded to max"
HEAD = ("contender", "median step", "least to most", "time over ours", "peak memory", "useful work", "first loss")


@command_line
def main() -> None:
    args = parse()
    if args.contender:
        print(json.dumps(measure(args)))
        return

    contenders = [OURS, PADDED] if args.quick else [OURS, PADDED, PER_BATCH, GROUPED]
    if find_spec("accelerate") and not args.quick:
        contenders.append(TRAINER)
    if args.explicit:
        contenders.append(f"{OURS}, explicit")
    if args.quick and args.compile:
        contenders = [OURS, f"{OURS}, compiled", f"{PADDED}, compiled"]
    elif args.compile:
        contenders += [f"{name}, compiled" for name in (OURS, PADDED, PER_BATCH)]
    results = in_turns("bench.train_step", contenders, args.rounds)
    rate = max(run["matrix_rate"] for run in results[OURS])
    ours = statistics.mean(seconds for run in results[OURS] for seconds in run["seconds"])
    rows = [row(name.replace("max", str(args.max_length)), runs, ours, rate) for name, runs in results.items()]
    print(table(HEAD, *rows))
    print(f"\n{machine(args.threads)}; batch {args.batch_size}, {args.rounds} rounds of {args.steps} steps; a matrix "
          f"product makes {rate / 1e9:,.0f} GFLOP/s in {results[OURS][0]['dtype']}")  # fmt: skip
    if not args.quick and TRAINER not in results:
        print(f"{TRAINER}: not measured, it needs accelerate (pip install -e '.[bench]')")


def parse() -> argparse.Namespace:
    parser = FlagParser(prog="python -m bench.train_step", description=__doc__)
    parser.add_argument("--weights", required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512, help="longest feature, and what HF pads to (512)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes per contender (3)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps in a round, after one that warms up (4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--explicit", action="store_true", help="also ours with padded, explicit attention")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed"), help="as in train_qa.py")
    parser.add_argument("--tf32", action="store_true", help="as in train_qa.py, on a GPU")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="ours and HF padded alone; with --compile ours, and both compiled",
    )
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # what a child process is to measure
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict:
    """One contender in this process: the first loss without dropout, the seconds of each step, the peak memory."""
    torch.set_num_threads(args.threads)
    precision = Precision(args.precision, choose_device(args.device), args.tf32)
    torch.manual_seed(SEED)  # of a fresh head, so that every contender has the same
    model = load_pretrained(args.weights, "question-answering")
    config = model.config
    first, *features = read_features(args)  # lists, one for a step
    if args.contender == GROUPED:
        features = grouped(features)
    batches = [collate(part, config.pad_id) for part in (first, *features)]
    if PADDED in args.contender or args.contender == TRAINER:
        batches = [widen(batch, args.max_length, config.pad_id) for batch in batches]
    if "explicit" in args.contender:
        for module in model.modules():
            if isinstance(module, SelfAttention):
                module.attend = explicit_attention
    if args.contender.startswith("HF"):
        model = HFReader(model)
    model.to(precision.device).eval()
    with torch.no_grad(), precision.autocast():
        first_loss = loss_of(model, move(batches[0], precision.device)).item()
    if "compiled" in args.contender:
        if isinstance(model, HFReader):
            model.hf.compile(dynamic=None if PADDED in args.contender else True)
        else:
            compile_layers(model)

    model.train()
    if args.contender == TRAINER:
        seconds = trainer_seconds(model.hf, batches, args)
    else:
        seconds = steps(model, batches, precision, args.max_length)
    return {
        "loss": first_loss,
        "seconds": seconds,
        "peak": peak_memory(precision.device),
        "flops": sum(flops_per_step([len(feature.input_ids) for feature in part], config) for part in features),
        "matrix_rate": matrix_rate(precision.device, precision.dtype) if args.contender == OURS else None,
        "dtype": str(precision.dtype).removeprefix("torch."),
    }


def steps(model: nn.Module, batches: list[Batch], precision: Precision, length: int) -> list[float]:
    """Seconds of each step but the first, which reserves memory and AdamW's state. length: of the longest feature.

    On a GPU every batch has been taken twice before: by then kernels are chosen, graphs recorded.
    """
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=5e-5, weight_decay=0.01, fused=True)
    theirs = isinstance(model, HFReader)
    on_gpu = precision.device.type == "cuda"
    graphed = not theirs and graphs.pay(precision)

    def learn(size: int, batch: Batch, packing: Packing | None) -> torch.Tensor:
        with precision.autocast():
            loss = hf_loss(model.hf, batch) if theirs else loss_of(model, batch, packing)
        precision.backward(loss)
        return loss.detach()

    compute = graphs.Graphs(learn, parameters) if graphed else learn

    def step(batch: Batch) -> None:
        size = len(batch.input_ids)
        batch = top_up(batch, length, model.config.pad_id) if graphed else batch
        packing = None if theirs else Packing.of(batch.attention_mask)
        compute(size, move(batch, precision.device), move(packing, precision.device))
        precision.step(optimizer, parameters, clip_norm=0.0)

    for batch in batches * 2 if on_gpu else ():
        step(batch)
    return [seconds_of(lambda batch=batch: step(batch), precision.device) for batch in batches][1:]


def trainer_seconds(hf: nn.Module, batches: list[Batch], args: argparse.Namespace) -> list[float]:
    """The same of HF's Trainer, from the end of a step to the end of the next."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    examples = [
        {"input_ids": ids, "token_type_ids": types, "attention_mask": mask.long(), "start_positions": start,
         "end_positions": end}
        for batch in batches
        for ids, types, mask, _, start, end in zip(*batch, strict=True)
    ]  # fmt: skip
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            finish_work(next(hf.parameters()).device)
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            per_device_train_batch_size=args.batch_size,
            num_train_epochs=1,
            train_sampling_strategy="sequential",  # the examples come in our order
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=args.device == "cpu",
            bf16=args.precision == "mixed" and args.device == "cuda",
        )
        Trainer(hf, settings, train_dataset=examples, callbacks=[Clock()]).train()
    return [later - sooner for sooner, later in itertools.pairwise(ends)]


def grouped(parts: list[list[Feature]]) -> list[list[Feature]]:
    """The same features in batches of like length, as transformers' Trainer groups them within fifty batches."""
    from transformers.trainer_pt_utils import get_length_grouped_indices

    features = [feature for part in parts for feature in part]
    size = len(parts[0])
    generator = torch.Generator().manual_seed(SEED)
    lengths = [len(feature.input_ids) for feature in features]
    order = get_length_grouped_indices(lengths, size, mega_batch_mult=50, generator=generator)
    return [[features[index] for index in part] for part in chunks(order, size)]


def read_features(args: argparse.Namespace) -> list[list[Feature]]:
    """Those of one batch more than are timed, from the beginning of train_qa.py's order of the examples."""
    examples = squad.read(args.data)
    chosen = epoch_order(len(examples), SEED, epoch=0)[: (args.steps + 1) * args.batch_size].tolist()
    features = featurise([examples[i] for i in chosen], load_tokenizer(args.weights), args.max_length)
    return list(chunks(features, args.batch_size))


def loss_of(model: nn.Module, batch: Batch, packing: Packing | None = None) -> torch.Tensor:
    start, end = model(batch.input_ids, batch.token_type_ids, packing or batch.attention_mask)
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
        f"{statistics.mean(seconds) / ours:.2f}",
        f"{max(run['peak'] for run in runs) / 1e9:.2f} GB",
        f"{share:.0%} of the matrix rate",
        f"{runs[0]['loss']:.6f}",
    ]


if __name__ == "__main__":
    main()
