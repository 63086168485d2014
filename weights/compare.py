"""Our model against transformers' on the same folder, part by part.

python -m weights.compare FOLDER

Both load the folder, read the same random tokens (with segments and padding) and run backward from the same loss. For
every part that has parameters the outputs at real tokens and the gradients of its parameters are compared, in the order
in which the parts compute, so the first one that differs is the one to look at. The tests of the models use this code.
transformers is needed here and nowhere else (pip install transformers).
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minitransformer.dropout import dropout
from minitransformer.packing import Packing
from minitransformer.system.errors import UserError, command_line
from minitransformer.system.flags import FlagParser
from weights import maps
from weights.find import find_folder
from weights.folder import read_json
from weights.load import default_task, load_pretrained, read_config

TOLERANCE = 1e-5  # relative and absolute
TASKS = ("encoder", "question-answering", "masked-lm", "image-classification")
OUTPUTS = ("last_hidden_state", "start_logits", "end_logits", "logits")  # transformers' names of what we return too


class Part(NamedTuple):
    """The largest differences of one part with parameters, as multiples of what is allowed are `..._excess`.

    A part that is applied several times (ALBERT's layer) is a Part for each `use`, 1, 2, ...; its gradient is of all.
    """

    name: str
    use: int
    output: float
    gradient: float
    output_excess: float  # largest |ours - theirs| / (atol + rtol * |theirs|): equal if at most 1
    gradient_excess: float

    @property
    def equal(self) -> bool:
        return self.output_excess <= 1 and self.gradient_excess <= 1  # False for NaN too


def compare(folder: str | Path, task: str, inputs: dict[str, Tensor] | None = None) -> list[Part]:
    """Every part of the folder's model in the order of computation. inputs: as the model's, `random_inputs` if None."""
    folder = find_folder(folder)
    ours = load_pretrained(folder, task, fresh_head=False)
    *_, task, _ = maps.find(ours)  # a classifier may be one of two kinds
    theirs = load_theirs(folder, task)
    return compare_models(ours, theirs, inputs or random_inputs(ours.config))


def compare_models(ours: nn.Module, theirs: nn.Module, inputs: dict[str, Tensor], training: bool = False) -> list[Part]:
    """The same for two models at hand, ours and HF's with the same weights, both put into evaluation mode.

    training: into training mode instead, with the same random numbers for the dropouts of both (texts only).
    """
    keep = None  # images have no padding
    if "input_ids" in inputs:
        keep = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    parameters = parameter_names(ours, theirs)
    names = {owner(our_name): owner(their_name) for our_name, their_name in parameters.items() if owner(our_name)}
    state = torch.get_rng_state()
    our_outputs = run(ours.train(training), dict.fromkeys(names), inputs, keep)
    torch.set_rng_state(state)
    with our_dropout(theirs, keep) if training else nullcontext():
        their_outputs = run(theirs.train(training), dict.fromkeys(names.values()), inputs, keep)

    # A loss has no scale of its own, and rounding grows with it: gradients above 1 are brought down to it, all alike.
    scale = max(1.0, *(_gradient(parameter).abs().max().item() for parameter in theirs.parameters()))
    parts = []
    for name, use in our_outputs:
        output, output_excess = difference(our_outputs[name, use], their_outputs[names[name], use])
        gradients = [
            difference(
                _gradient(ours.get_parameter(our_name)) / scale, _gradient(theirs.get_parameter(their_name)) / scale
            )
            for our_name, their_name in parameters.items()
            if owner(our_name) == name
        ]
        gradient, gradient_excess = (max(column) for column in zip(*gradients, strict=True))
        parts.append(Part(name, use, output, gradient, output_excess, gradient_excess))
    return parts


def random_inputs(config: nn.Module, batch: int = 3, length: int = 24, seed: int = 0) -> dict[str, Tensor]:
    """Random tokens in texts of falling length, down to a single token, each of two segments if the model has any; or
    random pixels."""
    generator = torch.Generator().manual_seed(seed)
    if hasattr(config, "patch"):
        size = (batch, config.channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(size, generator=generator)}
    length = min(length, config.positions)
    lengths = torch.linspace(length, 1, batch).long()
    keep = torch.arange(length) < lengths[:, None]  # (B, T)
    ids = torch.randint(config.vocabulary, (batch, length), generator=generator)
    inputs = {"input_ids": ids.masked_fill(~keep, config.pad_id), "attention_mask": keep.long()}
    if hasattr(config, "segments"):
        segments = (torch.arange(length) >= lengths[:, None] // 3).long() % config.segments
        inputs["token_type_ids"] = segments * keep
    return inputs


def load_theirs(folder: Path, task: str) -> nn.Module:
    """transformers' model for a task, from the same folder."""
    try:
        import transformers
    except ImportError:
        raise UserError("weights.compare needs transformers: pip install transformers") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    architecture, _ = read_config(folder)
    if "model_type" not in read_json(folder / "config.json"):
        raise UserError(f"{folder}: a folder of timm's, which transformers does not read; save_pretrained it first")
    kind = getattr(transformers, architecture.tasks[task].architecture)
    return kind.from_pretrained(folder, dtype=torch.float32)


def run(
    model: nn.Module, modules: dict[str, None], inputs: dict[str, Tensor], keep: Tensor | None
) -> dict[tuple[str, int], Tensor]:
    """Forward with a record of what the named modules return at real tokens, (N, ...), at each use, then backward."""
    outputs: dict[tuple[str, int], Tensor] = {}
    uses: Counter[str] = Counter()

    def recorder(name: str):
        def hook(module: nn.Module, arguments: tuple, output: Tensor) -> None:
            uses[name] += 1
            outputs[name, uses[name]] = _real(output.detach(), keep)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(recorder(name)) for name in modules]
    model.zero_grad()
    result = model(**inputs)
    for handle in handles:
        handle.remove()
    loss_of(result, keep).backward()
    return outputs


@contextmanager
def our_dropout(theirs: nn.Module, keep: Tensor) -> Iterator[None]:
    """Within it a text encoder of transformers' drops what ours would drop, given the same state of torch's generator.

    keep: (B, T) bool, the real tokens. Both apply their dropouts in the same order, so each of theirs only has to draw
    as ours does: packed rows, and attention weights text by text. Places and rates stay theirs, so an ALBERT with a
    rate above 0 gets out of step: see albert.py. Their attention is set to "eager", the formula: a kernel draws for
    itself. On a CPU only, where ours draws by hand.
    """
    packing = Packing.of(keep)

    def drawn(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training:
            return x
        if x.dim() == 3:  # (B, T, C)
            return x * packing.unpack(dropout(x.new_ones(len(packing.rows), x.size(2)), p))
        factor = torch.zeros_like(x)  # (B, H, T, T)
        for text, real in zip(factor, keep, strict=True):
            rows = real.nonzero().squeeze(1)  # (t,)
            text[:, rows[:, None], rows] = dropout(x.new_ones(x.size(1), len(rows), len(rows)), p)
        return x * factor

    theirs.set_attn_implementation("eager")
    with mock.patch.object(nn.functional, "dropout", drawn):
        yield


def loss_of(result: object, keep: Tensor | None) -> Tensor:
    """One number to run backward from, that every output at a real token enters with a weight of its own."""
    if isinstance(result, dict):  # transformers' output; it may hold a pooler's too, which we do not build
        result = [result[name] for name in OUTPUTS if name in result]
    tensors = [result] if isinstance(result, Tensor) else result
    real = [_real(tensor, keep) for tensor in tensors]
    weighted = [(tensor * torch.linspace(-1, 1, tensor.numel()).view_as(tensor)).sum() for tensor in real]
    return sum(total / tensor.numel() ** 0.5 for total, tensor in zip(weighted, real, strict=True))


def parameter_names(ours: nn.Module, theirs: nn.Module) -> dict[str, str]:
    """Our parameters -> theirs.

    The tables in maps.py know the names in files. What the classes call their parts in memory differs from those in
    some releases of transformers, so we number their parameters, save them, and see under which name each number went.
    """
    in_memory: dict[nn.Parameter, str] = {}
    for name, parameter in theirs.named_parameters(remove_duplicate=False):
        # A table under two names is the embeddings', whichever comes first: the classifier's is the copy.
        if parameter not in in_memory or isinstance(theirs.get_submodule(owner(name)), nn.Embedding):
            in_memory[parameter] = name
    kept = [parameter.detach().clone() for parameter in in_memory]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for number, parameter in enumerate(in_memory):
            parameter.fill_(number)
        theirs.save_pretrained(folder)
        for parameter, value in zip(in_memory, kept, strict=True):
            parameter.copy_(value)
        written = load_file(Path(folder) / "model.safetensors")
        saved = {name: int(tensor.flatten()[0]) for name, tensor in written.items()}
    _, architecture, _, task = maps.find(ours)
    numbered, names = list(in_memory.values()), {}
    for our_name, file_name in maps.expand(task.names, ours.config).items():
        number = saved.get(file_name, saved.get(file_name.removeprefix(architecture.prefix)))
        names[our_name] = numbered[number]
    return names


def owner(parameter: str) -> str:
    """The name of the module that a parameter stands in; "" for the whole model, which is no part of it."""
    return parameter.rpartition(".")[0]


def difference(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """The largest difference, and the largest as a multiple of what is allowed. Infinite where shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf"), float("inf")
    apart = (ours - theirs).abs()
    return apart.max().item(), (apart / (TOLERANCE + TOLERANCE * theirs.abs())).max().item()


def first_difference(parts: list[Part]) -> str | None:
    """In words, the first part whose output differs; where none does, the last whose gradient does."""
    for part in parts:
        if not part.output_excess <= 1:
            use = f" in use {part.use}" if part.use > 1 else ""
            return f"first to differ: {part.name}{use}, output off by {part.output:.1e}"
    for part in reversed(parts):
        if not part.gradient_excess <= 1:
            return f"first to differ: {part.name}, gradient off by {part.gradient:.1e}, all outputs equal"
    return None


def table(parts: list[Part]) -> str:
    """A row per layer with its largest differences."""
    rows: dict[str, list[Part]] = {}
    for part in parts:
        use = f", use {part.use}" if part.use > 1 else ""
        rows.setdefault(_layer(part.name) + use, []).append(part)
    lines = [f"{'layer':<19} {'output':>9} {'gradient':>9}"]
    for layer, members in rows.items():
        output, gradient = max(part.output for part in members), max(part.gradient for part in members)
        verdict = "equal" if all(part.equal for part in members) else "DIFFERS"
        lines.append(f"{layer:<19} {output:9.1e} {gradient:9.1e}  {verdict}")
    return "\n".join(lines)


def _layer(name: str) -> str:
    words = name.removeprefix("encoder.").split(".")
    if words[0] in ("layers", "blocks"):
        return ".".join(words[:2])
    if words[0] == "groups":
        return ".".join(words[:3])
    return words[0] if name.startswith(("embeddings", "widen", "norm", "encoder.")) else "head"


def _real(tensor: Tensor, keep: Tensor | None) -> Tensor:
    """(B, T, ...) or, for positions, (1, T, ...) -> (N, ...); what is packed already stays."""
    if keep is None or tensor.shape[1:2] != keep.shape[1:] or tensor.shape[0] not in (1, keep.size(0)):
        return tensor
    return tensor.expand(keep.size(0), *tensor.shape[1:])[keep]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m weights.compare", description=__doc__)
    parser.add_argument("folder", help="a checkpoint folder in Hugging Face layout, or the name of one that ships")
    parser.add_argument("--task", choices=TASKS, help="default: config.json's")
    args = parser.parse_args()
    folder = find_folder(args.folder)
    task = args.task or default_task(folder, read_config(folder)[0])
    parts = compare(folder, task)
    print(f"{folder} as {task}: largest differences from transformers, {TOLERANCE:.0e} allowed (relative and absolute)")
    print(table(parts))
    verdict = first_difference(parts)
    print(verdict or f"equal in all {len(parts)} parts")
    raise SystemExit(1 if verdict else 0)


if __name__ == "__main__":
    main()
