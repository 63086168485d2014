"""How the cost of a step and of an answer grows with the length of the passages and with the size of the batch.

python -m bench.growth --weights DIR [--precision mixed] [--chart FILE.png]

Features are of random tokens: passages of exactly 50, 100, 200 and 400 tokens in batches of 1 to 64, ours and HF's
model on the same ones, a training step and a forward pass. Each cell is the fastest of --repeats after one that warms
up, since whatever else a machine does can only slow it; contenders take turns. Then two processes of one thread
against one of two, on the training step of the middle.
"""

import argparse
import json
import math
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen

import torch
from torch import Tensor, nn

from bench.common import HFReader, machine, seconds_of, table
from bench.train_step import hf_loss, loss_of
from minitransformer.system.errors import DataError, command_line, is_out_of_memory
from minitransformer.system.flags import FlagParser
from minitransformer.training.device import choose_device
from minitransformer.training.precision import Precision
from qa.features import Batch
from weights import load_pretrained

LENGTHS, SIZES = (50, 100, 200, 400), (1, 4, 16, 64)
MIDDLE = 200, 16  # tokens and features of the step that several processes make


@command_line
def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    precision = Precision(args.precision, choose_device("cpu"))
    torch.manual_seed(0)
    ours = load_pretrained(args.weights, "question-answering")
    if max(args.lengths) > ours.config.positions:
        raise DataError(f"--lengths {max(args.lengths)}: the model has {ours.config.positions} positions")
    if args.alone:
        seconds = measure([ours], random_batch(*args.alone, ours.config), precision, args.repeats)[0]["step"]
        print(json.dumps(seconds))
        return
    if args.memory_gb:
        resource.setrlimit(resource.RLIMIT_DATA, (int(args.memory_gb * 1e9), resource.RLIM_INFINITY))
    models = [ours, HFReader(ours)]
    cells = {
        (length, size): measure(models, random_batch(length, size, ours.config), precision, args.repeats)
        for length in args.lengths
        for size in args.sizes
    }
    for what, title in (("step", "A training step"), ("pass", "A forward pass")):
        print(f"{title}: milliseconds of a feature, ours, and HF's as a multiple of it\n")
        rows = [[f"{length} tokens", *(cell(cells[length, size], what, size) for size in args.sizes)]
                for length in args.lengths]  # fmt: skip
        print(table(["passages of", *(f"batch {size}" for size in args.sizes)], *rows) + "\n")
    print(processes(args))
    print(f"\n{precision.name}, {machine(args.threads)}; the fastest of {args.repeats}")
    if args.chart:
        draw(cells, args, args.chart)


def random_batch(length: int, size: int, config: object) -> Batch:
    """Features without padding; which tokens they have makes no difference to the cost."""
    ids = torch.randint(config.vocabulary // 2, config.vocabulary, (size, length))
    ones = torch.ones_like(ids, dtype=torch.bool)
    end = torch.full((size,), length // 2)
    return Batch(ids, torch.zeros_like(ids), ones, ones, end - 1, end)


def measure(models: list[nn.Module], batch: Batch, precision: Precision, repeats: int) -> list[dict[str, float]]:
    """Least seconds of a training step and of a forward pass, of each model; NaN where memory does not suffice."""
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True) for model in models]

    def loss(model: nn.Module) -> Tensor:
        with precision.autocast():
            return hf_loss(model.hf, batch) if isinstance(model, HFReader) else loss_of(model, batch)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        precision.backward(loss(model.train()))
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def forward(model: nn.Module) -> None:
        loss(model.eval())

    seconds = [{"step": [], "pass": []} for _ in models]
    for _ in range(repeats + 1):
        for model, optimizer, measured in zip(models, optimizers, seconds, strict=True):
            measured["step"].append(seconds_where_it_fits(lambda: step(model, optimizer)))  # noqa: B023 - called at once
            measured["pass"].append(seconds_where_it_fits(lambda: forward(model)))  # noqa: B023
    return [{what: min(values[1:]) for what, values in measured.items()} for measured in seconds]


def seconds_where_it_fits(work: Callable[[], None]) -> float:
    """NaN where the memory does not suffice."""
    try:
        return seconds_of(work)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return math.nan


def cell(both: list[dict[str, float]], what: str, size: int) -> str:
    ours, theirs = (measured[what] for measured in both)
    if math.isnan(ours):
        return "too large"
    return f"{1000 * ours / size:.3g}, HF " + ("too large" if math.isnan(theirs) else f"x {theirs / ours:.2f}")


def processes(args: argparse.Namespace) -> str:
    """One process with two threads, alone; and two with one thread each, side by side."""
    length, size = args.alone_at

    def run(count: int, threads: int) -> float:
        command = [sys.executable, "-m", "bench.growth", *sys.argv[1:], "--threads", str(threads)]
        command += ["--alone", str(length), str(size)]
        children = [Popen(command, stdout=PIPE, text=True) for _ in range(count)]
        seconds = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
        return count * size / max(seconds)

    one, two = run(1, 2), run(2, 1)
    return (
        f"A step of {size} passages of {length} tokens: one process with two threads trains on {one:.1f} features a "
        f"second, two processes with one thread each on {two:.1f}"
    )


def draw(cells: dict[tuple[int, int], list[dict[str, float]]], args: argparse.Namespace, path: Path) -> None:
    """Milliseconds of a feature over the length, a line for each batch size, ours and HF's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, what, title in zip(
        figure.subplots(1, 2), ("step", "pass"), ("training step", "forward pass"), strict=True
    ):
        for number, size in enumerate(args.sizes):
            for who, (name, style) in enumerate((("ours", "-o"), ("HF", "--s"))):
                values = [1000 * cells[length, size][who][what] / size for length in args.lengths]
                axes.plot(args.lengths, values, style, color=f"C{number}", label=f"{name}, batch {size}", markersize=4)
        axes.set(
            title=title, xlabel="tokens of a passage", ylabel="milliseconds of a feature", xscale="log", yscale="log"
        )
        axes.set_xticks(args.lengths, [str(length) for length in args.lengths])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    parser = FlagParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--weights", required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, metavar="N", help="50 100 200 400")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="of the batch; 1 4 16 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed"), help="as in train_qa.py")
    parser.add_argument(
        "--memory-gb", type=float, default=0.0, help="what needs more is left out, as too large (0: no limit)"
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="a PNG of the two tables")
    parser.add_argument("--alone-at", type=int, nargs=2, default=MIDDLE, metavar="N", help="tokens and batch; 200 16")
    parser.add_argument("--alone", type=int, nargs=2, help=argparse.SUPPRESS)  # what a process beside others measures
    return parser.parse_args()


if __name__ == "__main__":
    main()
