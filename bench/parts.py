"""Where the seconds of a QA training step go: products, attention, dropout, norms, activation, optimizer, the rest.

python -m bench.parts --weights DIR --data FILE [--precision mixed] [--batch-size 16]

torch's profiler counts the seconds of each operation without those that it calls, forward and backward, on the batches
of `bench.train_step`. Beside the seconds of the products stand the operations that are useful, and their rate.
"""

import argparse
from collections import defaultdict
from fnmatch import fnmatchcase

import torch
from torch.profiler import ProfilerActivity, profile

from bench.common import machine, matrix_rate, seconds_of, table
from bench.flops import flops_per_step
from bench.train_step import loss_of, read_features
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser
from minitransformer.training.device import choose_device
from minitransformer.training.precision import Precision
from qa.features import collate
from weights import load_pretrained

# A part, and torch's names of its operations; the first part that fits has it.
PARTS = {
    "products of a layer with its weights": ("aten::mm", "aten::addmm", "aten::linear*", "aten::mkldnn_linear*"),
    "products inside attention": ("aten::bmm", "aten::baddbmm", "aten::*scaled_dot_product*"),
    "softmax": ("aten::*softmax*",),
    "random numbers of dropout": ("aten::random_",),
    "masks of dropout": ("aten::ge", "aten::mul_", "_Dropped*"),
    "norms": ("aten::*layer_norm*",),
    "activation": ("aten::gelu*", "aten::tanh*", "aten::relu*"),
    "optimizer": ("aten::_fused_adamw_", "Optimizer*"),
    "embeddings": ("aten::*embedding*", "aten::index*"),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::clone", "aten::contiguous"),
    "sums, of residuals and of biases' gradients": ("aten::add*", "aten::sum", "aten::mul", "aten::div*"),
}
REST = "the rest: Python, autograd's bookkeeping, memory"


@command_line
def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    precision = Precision(args.precision, choose_device("cpu"))
    torch.manual_seed(0)
    model = load_pretrained(args.weights, "question-answering").train()
    features = read_features(args)
    batches = [collate(part, model.config.pad_id) for part in features]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=5e-5, weight_decay=0.01, fused=True)

    def step(batch) -> None:
        with precision.autocast():
            loss = loss_of(model, batch)
        precision.backward(loss)
        precision.step(optimizer, parameters, clip_norm=0.0)

    step(batches[0])  # reserves memory, and AdamW's state
    plain = sum(seconds_of(lambda batch=batch: step(batch)) for batch in batches[1:]) / args.steps
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        watched = sum(seconds_of(lambda batch=batch: step(batch)) for batch in batches[1:]) / args.steps
    seconds = by_part({row.key: row.self_cpu_time_total / 1e6 / args.steps for row in profiled.key_averages()})
    seconds[REST] = watched - sum(seconds.values())

    rate = matrix_rate(dtype=precision.dtype)
    flops = sum(flops_per_step([len(f.input_ids) for f in part], model.config) for part in features[1:]) / args.steps
    rows = [[name, f"{1000 * part:.2f}", f"{part / watched:.1%}"] for name, part in seconds.items()]
    rows.append(["the whole step, under the profiler", f"{1000 * watched:.2f}", ""])
    rows.append(["the whole step without it", f"{1000 * plain:.2f}", ""])
    print(table(["part", "milliseconds of a step", "share"], *rows))
    print(
        f"\nUseful work: {flops / 1e9:,.0f} GFLOP a step, {flops / rate:.3f} s at the matrix rate of "
        f"{rate / 1e9:,.0f} GFLOP/s in {precision.name}: {flops / rate / plain:.0%} of the step"
    )
    print(f"{machine(args.threads)}; batch {args.batch_size}, mean of {args.steps} steps")


def by_part(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds of operations by their names -> by part; what belongs to none is left to the rest."""
    parts: dict[str, float] = defaultdict(float)
    for part, patterns in PARTS.items():
        parts[part] = 0.0
        for name in [name for name in seconds if any(fnmatchcase(name, pattern) for pattern in patterns)]:
            parts[part] += seconds.pop(name)
    return dict(parts)


def parse() -> argparse.Namespace:
    parser = FlagParser(prog="python -m bench.parts", description=__doc__)
    parser.add_argument("--weights", required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4, help="after one that warms up (4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed"), help="as in train_qa.py")
    return parser.parse_args()


if __name__ == "__main__":
    main()
