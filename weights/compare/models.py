"""One of our models against transformers' on the same folder, part by part.

Both load the folder, read the same random tokens (with segments and padding) and run backward from the same loss. For
every part that has parameters the outputs at real tokens and the gradients of its parameters are compared, in the order
in which the parts compute, so the first one that differs is the one to look at. The tests of the models use this code.
transformers is needed here and nowhere else (pip install transformers).
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minitransformer.dropout import dropout
from minitransformer.packing import Packing
from minitransformer.system.errors import UserError
from weights import maps
from weights.compare.trace import Call, Use, difference, gradient_of, loss_of, recording, tensors_of
from weights.find import find_folder
from weights.folder import read_json
from weights.load import load_pretrained, read_config

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
    our_calls = run(ours.train(training), names, inputs, keep)
    torch.set_rng_state(state)
    with nullcontext() if keep is None or not training else our_dropout(theirs, keep):
        their_calls = run(theirs.train(training), set(names.values()), inputs, keep)

    # A loss has no scale of its own, and rounding grows with it: gradients above 1 are brought down to it, all alike.
    scale = max(1.0, *(gradient_of(parameter).abs().max().item() for parameter in theirs.parameters()))
    parts = []
    for name, use in our_calls:
        output, output_excess = difference(our_calls[name, use].output, their_calls[names[name], use].output)
        gradients = [
            difference(
                gradient_of(ours.get_parameter(our_name)) / scale, gradient_of(theirs.get_parameter(their_name)) / scale
            )
            for our_name, their_name in parameters.items()
            if owner(our_name) == name
        ]
        gradient, gradient_excess = (max(column) for column in zip(*gradients, strict=True))
        parts.append(Part(name, use, output, gradient, output_excess, gradient_excess))
    return parts


def random_inputs(config: Any, batch: int = 3, length: int = 24, seed: int = 0) -> dict[str, Tensor]:
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


def import_transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise UserError("weights.compare needs transformers: pip install transformers") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def load_theirs(folder: Path, task: str) -> nn.Module:
    """transformers' model for a task, from the same folder."""
    transformers = import_transformers()
    architecture, _ = read_config(folder)
    if "model_type" not in read_json(folder / "config.json"):
        raise UserError(f"{folder}: a folder of timm's, which transformers does not read; save_pretrained it first")
    kind = getattr(transformers, architecture.tasks[task].architecture)
    return kind.from_pretrained(folder, dtype=torch.float32)


def run(model: nn.Module, modules: Iterable[str], inputs: dict[str, Tensor], keep: Tensor | None) -> dict[Use, Call]:
    """Forward with a record of the named modules at real tokens, then backward."""
    model.zero_grad()
    with recording(model, modules, keep) as calls:
        result = model(**inputs)
    if isinstance(result, dict):  # transformers' output; it may hold a pooler's too, which we do not build
        result = [result[name] for name in OUTPUTS if name in result]
    loss_of(tensors_of(result), keep).backward()
    return calls


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

    attend_by_formula(theirs)
    with mock.patch.object(nn.functional, "dropout", drawn):
        yield


def attend_by_formula(theirs: nn.Module) -> None:
    """transformers' "eager" attention in all parts of a module: a kernel would draw its dropout for itself."""
    configs: list[Any] = [part.config for part in theirs.modules() if hasattr(part, "config")]
    for config in configs:
        config._attn_implementation = "eager"


def parameter_names(ours: nn.Module, theirs: Any) -> dict[str, str]:
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
        found = file_name if file_name in saved else file_name.removeprefix(architecture.prefix)
        names[our_name] = numbered[saved[found]]
    return names


def owner(parameter: str) -> str:
    """The name of the module that a parameter stands in; "" for the whole model, which is no part of it."""
    return parameter.rpartition(".")[0]


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
