"""What a run must compute and hold, from its shapes: operations, memory by part, and time on machines of given speed.

python -m bench.cost --recipe parsbert [--batch-size 16] [--tokens 207] [--rate 1e12]
python -m bench.cost --recipe deit-small
python -m bench.cost --shape bert-large

Operations are those of flops.py: matrix products on real tokens, forward and backward. Weights, gradients and AdamW's
two moments are counted; the activations that wait for the backward pass are measured, on one layer of the shape with
its dropouts on, and multiplied by the number of layers.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

import train_qa
import train_vit
from bench.common import table
from bench.flops import flops_of_block, flops_of_finish, flops_of_trunk, flops_per_step
from bench.shape import SHAPES
from minitransformer.bert import Layer
from minitransformer.packing import Packing
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser, finite_number, whole_number
from minitransformer.training import recipe
from minitransformer.vit import VitConfig, VitForImageClassification
from vision.freeze import freeze

TEXTS = {"parsbert": "bert-base", "albert-fa": "albert-base"}  # the shapes of the recipes' models
PICTURES = "deit-small"
DEIT_SMALL = VitConfig(width=384, heads=6, ffn_width=1536, distilled=True, classes=10)
IMAGES = 50_000  # CIFAR-10's training images


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m bench.cost", description=__doc__)
    count = whole_number(at_least=1)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipe", choices=[*TEXTS, PICTURES], help="a run of the report's")
    what.add_argument("--shape", choices=SHAPES, help="another model, with ParsBERT's recipe")
    parser.add_argument("--batch-size", type=count, help="default: the recipe's")
    parser.add_argument("--tokens", type=count, default=207, help="of a text, on average (207: PQuAD's)")
    parser.add_argument("--examples", type=count, help="of an epoch (63994 texts: PQuAD's; 50000 images: CIFAR-10's)")
    parser.add_argument("--rate", type=finite_number, default=1e11, help="operations a second that are reached (1e11)")
    args = parser.parse_args()

    if args.recipe == PICTURES:
        _, job = recipe.parse(train_vit.Recipe, PICTURES, "", argv=[])
        head, rows = of_images(job.epochs, job.trainable, args.examples or IMAGES, args.rate)
    else:
        _, job = recipe.parse(train_qa.Recipe, args.recipe or "parsbert", "", argv=[])
        shape, batch_size = args.shape or TEXTS[args.recipe], args.batch_size or job.batch_size
        head, rows = of_texts(shape, batch_size, args.tokens, job.epochs, args.examples or 63_994, args.rate)
    print(table(["", head], *rows))


def of_texts(
    shape: str, batch_size: int, tokens: int, epochs: int, examples: int, rate: float
) -> tuple[str, list[list[str]]]:
    """Question answering: what the table's column is of, and its rows."""
    kind, config = SHAPES[shape]
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in kind(config).parameters())
    lengths = [tokens] * batch_size
    flops = flops_per_step(lengths, config)
    steps = epochs * -(-examples // batch_size)
    layers = config.layers * getattr(config, "inner_layers", 1)
    activations = layers * saved_by_layer(config, lengths)
    return f"{shape}, batch {batch_size}, {tokens} tokens, float32", [
        ["parameters", f"{parameters:,}"],
        ["operations of a step", f"{flops:.3g}"],
        ["operations of the run", f"{flops * steps:.3g} in {steps:,} steps"],
        ["weights, gradients, AdamW", f"{4 * parameters / 1e9:.2f} + {4 * parameters / 1e9:.2f} + "
                                      f"{8 * parameters / 1e9:.2f} GB"],
        ["activations that wait", f"{activations / 1e9:.2f} GB"],
        ["time of the run", hours(flops * steps, rate)],
        ["gradients sent a step, several processes", f"{4 * parameters / 1e9:.2f} GB"],
    ]  # fmt: skip


def of_images(epochs: int, trainable: str, images: int, rate: float) -> tuple[str, list[list[str]]]:
    """Image classification with all but the last block and the classifier frozen."""
    config = DEIT_SMALL
    with torch.device("meta"):
        model = VitForImageClassification(config)
    freeze(model, trainable)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    trunk = images * flops_of_trunk(config)
    epoch = 3 * images * flops_of_finish(config)  # forward, and twice that backward
    plain = epochs * (trunk + 3 * images * flops_of_block(config))  # backward through the last block alone
    kept = 4 * images * (1 + config.tokens) * config.width
    return f"deit-small, {images:,} images, {epochs} epochs, float32", [
        ["parameters; trained of them", f"{parameters:,}; {trained:,}"],
        ["operations of the trunk's one pass", f"{trunk:.3g}"],
        ["operations of an epoch after it", f"{epoch:.3g}, {epoch / trunk:.2%} of the trunk's"],
        ["operations of the run", f"{trunk + epochs * epoch:.3g}"],
        ["with the whole model in every step", f"{plain:.3g}, {plain / (trunk + epochs * epoch):.1f} times as many"],
        ["weights; gradients, AdamW of what trains", f"{4e-9 * parameters:.2f}; {4e-9 * trained:.2f} + "
                                                     f"{8e-9 * trained:.2f} GB"],
        ["kept of the trunk", f"{kept / 1e9:.2f} GB, in memory or in a file"],
        ["time of the run", hours(trunk + epochs * epoch, rate)],
        ["gradients sent a step, several processes", f"{4e-9 * trained:.3f} GB"],
    ]  # fmt: skip


def hours(flops: float, rate: float) -> str:
    return f"{flops / rate / 3600:.2f} h at {rate:.2g} operations a second"


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
