"""What a run must compute and hold, from its shapes: operations, memory by part, and time on machines of given speed.

python -m bench.cost --shape bert-base [--batch-size 16] [--tokens 207] [--examples 63994] [--epochs 1] [--rate 1e12]

Operations are those of `flops_per_step`: matrix products on real tokens, forward and backward. Weights, gradients and
AdamW's two moments are counted; the activations that wait for the backward pass are measured, on one layer of the shape
with its dropouts on, and multiplied by the number of layers.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from bench.common import flops_per_step, table
from bench.shape import SHAPES
from minitransformer.bert import Layer
from minitransformer.errors import command_line
from minitransformer.flags import FlagParser, finite_number, whole_number
from minitransformer.packing import Packing


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m bench.cost", description=__doc__)
    count = whole_number(at_least=1)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--batch-size", type=count, default=16)
    parser.add_argument("--tokens", type=count, default=207, help="of an example, on average (207: PQuAD's)")
    parser.add_argument("--examples", type=count, default=63_994, help="of an epoch (63994: PQuAD's training set)")
    parser.add_argument("--epochs", type=count, default=1)
    parser.add_argument("--rate", type=finite_number, default=1e11, help="operations a second that are reached (1e11)")
    args = parser.parse_args()

    kind, config = SHAPES[args.shape]
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in kind(config).parameters())
    lengths = [args.tokens] * args.batch_size
    flops = flops_per_step(lengths, config)
    steps = args.epochs * -(-args.examples // args.batch_size)
    layers = config.layers * getattr(config, "inner_layers", 1)
    activations = layers * saved_by_layer(config, lengths)
    rows = [
        ["parameters", f"{parameters:,}"],
        ["operations of a step", f"{flops:.3g}"],
        ["operations of the run", f"{flops * steps:.3g} in {steps:,} steps"],
        ["weights, gradients, AdamW", f"{4 * parameters / 1e9:.2f} + {4 * parameters / 1e9:.2f} + "
                                      f"{8 * parameters / 1e9:.2f} GB"],
        ["activations that wait", f"{activations / 1e9:.2f} GB"],
        ["time of the run", f"{flops * steps / args.rate / 3600:.2f} h at {args.rate:.2g} operations a second"],
        ["gradients sent a step, several processes", f"{4 * parameters / 1e9:.2f} GB"],
    ]  # fmt: skip
    print(table(["", f"{args.shape}, batch {args.batch_size}, {args.tokens} tokens, float32"], *rows))


def saved_by_layer(config: object, lengths: Iterable[int]) -> int:
    """Bytes that a layer keeps for its backward pass, its parameters not counted, on texts of these lengths."""
    lengths = list(lengths)
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    packing = Packing.of(keep)
    layer = Layer(config).train()
    x = torch.randn(sum(lengths), config.width, requires_grad=True)
    return saved_bytes(lambda: layer(x, packing), layer, x)


def saved_bytes(forward: Callable[[], Tensor], module: nn.Module, *inputs: Tensor) -> int:
    """Bytes of the distinct tensors that `forward` leaves for the backward pass, but for parameters and `inputs`."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *inputs)}
    saved: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(saved.values())


if __name__ == "__main__":
    main()
