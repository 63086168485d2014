"""Somebody's own module beside transformers' of the same purpose: where is the first difference?

Both read the same inputs and run backward from the same loss. What goes into every part that both have, what comes out
of it, and the gradients are compared in the order in which the parts end. A part that gets the same and gives something
else holds the fault; a part that gets something else already stands behind it.
"""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minitransformer.attention import SelfAttention
from minitransformer.dropout import Dropout
from minitransformer.system.errors import WeightsError
from weights.compare.matching import Matching, Names, joined, match
from weights.compare.models import attend_by_formula, import_transformers, our_dropout
from weights.compare.trace import Call, Use, loss_of, real, recording, tensors_of
from weights.compare.verdict import Pair, Part, missing_in_ours, other_gradient, other_norm, other_output, told
from weights.find import find_folder
from weights.folder import read_json

Inputs = Tensor | tuple | list | Mapping[str, Any]


def assert_same_as_hf(
    ours: nn.Module,
    theirs: nn.Module | str | Path,
    inputs: Inputs,
    names: Names | None = None,
    *,
    their_inputs: Inputs | None = None,
    keep: Tensor | None = None,
    training: bool = False,
    draw_weights: bool = False,
) -> None:
    """Raise AssertionError unless a module of yours computes what one of transformers' does, forward and backward.

    theirs: the module, or a checkpoint's folder. inputs: a tensor, a tuple of arguments or a dictionary of them;
    their_inputs: theirs, where they are passed in another way. names: your parts -> theirs, see matching.py; without,
    both call them the same. keep: (B, T) bool, True at real tokens, the only ones compared; default: an attention_mask
    among the inputs. training: with dropout, the same random numbers in both. draw_weights: give both the same random
    weights first; else they must have the same. Both are copied, and stay what they are.

    The error names the first part that differs. Raises WeightsError where a parameter of yours has no counterpart.
    """
    if not isinstance(theirs, nn.Module):
        theirs = load_as_saved(find_folder(theirs))
    if keep is None and isinstance(inputs, Mapping) and "attention_mask" in inputs:
        keep = inputs["attention_mask"]
    keep = None if keep is None else keep.bool()
    ours, theirs = deepcopy(ours).train(training), deepcopy(theirs).train(training)
    dropout = nullcontext()
    if training:
        attend_by_formula(theirs)
        packed = any(isinstance(part, Dropout | SelfAttention) for part in ours.modules())
        dropout = our_dropout(theirs, keep) if packed and keep is not None else dropout
    found = fault(
        ours, theirs, inputs, inputs if their_inputs is None else their_inputs, names, keep, dropout, draw_weights
    )
    if found:
        raise AssertionError(f"{type(ours).__name__} is not the same as {type(theirs).__name__}: {found}")


def load_as_saved(folder: Path) -> nn.Module:
    """transformers' model of the class that its folder names."""
    transformers = import_transformers()
    written = read_json(folder / "config.json").get("architectures") or ["AutoModel"]
    return getattr(transformers, written[0], transformers.AutoModel).from_pretrained(folder, dtype=torch.float32)


class Traced(NamedTuple):
    """A pass through one module."""

    outputs: list[Tensor]
    calls: dict[Use, Call]
    input: Tensor | None  # the one whose gradient is wanted


def fault(
    ours: nn.Module,
    theirs: nn.Module,
    inputs: Inputs,
    their_inputs: Inputs,
    names: Names | None,
    keep: Tensor | None,
    dropout: AbstractContextManager,
    draw_weights: bool,
) -> str | None:
    """What differs and where, in words; None where nothing does. The modules are changed: give copies.

    dropout: within it theirs drops what ours would. Raises WeightsError where a parameter of ours has no counterpart.
    """
    matching = match(ours, theirs, names)
    if draw_weights:
        draw(theirs)
        copy_weights(ours, theirs, matching)
    if complaint := other_weights(ours, theirs, matching):
        return complaint
    state = torch.get_rng_state()
    our_pass = run(ours, inputs, set(matching.modules), keep)
    torch.set_rng_state(state)
    with dropout:
        their_pass = run(theirs, their_inputs, {name for group in matching.modules.values() for name in group}, keep)
    counts = len(our_pass.outputs), len(their_pass.outputs)
    both = min(counts)  # one may return attention maps besides, or a pooled output
    if not both:
        raise WeightsError("one of the two modules returns no tensor: there is nothing to compare")
    if len(set(counts)) > 1:
        warnings.warn(
            f"tensors returned: yours {counts[0]}, theirs {counts[1]}; compared: the first {both}", stacklevel=3
        )
    outputs = [
        Pair(*(real(tensor, keep) for tensor in pair))
        for pair in zip(our_pass.outputs[:both], their_pass.outputs[:both], strict=True)
    ]
    if all(pair.ours.shape == pair.theirs.shape for pair in outputs):
        for tensors in zip(*outputs, strict=True):
            if (loss := loss_of(tensors, None)).requires_grad:
                loss.backward()
    parts = pair_up(our_pass, their_pass, matching)
    return (
        other_output(outputs, parts, missing_in_ours(theirs, matching), keep)
        or other_gradient(ours, theirs, our_pass.input, their_pass.input, parts, matching, keep)
        or other_norm(ours, theirs, our_pass.calls, matching)
    )


@torch.no_grad()
def draw(model: nn.Module) -> None:
    """Random weights under which every part can be heard, always the same.

    A fresh module's hide mistakes: its norms are 1 and 0 and its biases 0, and its activations so small that every
    formula of GELU is the same straight line.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        width = parameter[0].numel() if parameter.dim() > 1 else 1  # of what is summed
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / width**0.5)


@torch.no_grad()
def copy_weights(ours: nn.Module, theirs: nn.Module, matching: Matching) -> None:
    for name, group in matching.parameters.items():
        ours.get_parameter(name).copy_(joined([theirs.get_parameter(other) for other in group], 0))


def run(model: nn.Module, inputs: Inputs, names: set[str], keep: Tensor | None) -> Traced:
    """Forward, with a record of the named parts. The first input of real numbers is to get a gradient."""
    given = dict(
        inputs if isinstance(inputs, Mapping) else enumerate([inputs] if isinstance(inputs, Tensor) else inputs)
    )
    real_numbers = (key for key, value in given.items() if isinstance(value, Tensor) and value.is_floating_point())
    first, leaf = next(real_numbers, None), None
    if first is not None:
        leaf = given[first].detach().clone().requires_grad_()
        given[first] = leaf.clone()  # which the module may change in place
    model.zero_grad()
    with recording(model, names, keep) as calls:
        result = model(**given) if isinstance(inputs, Mapping) else model(*given.values())
    return Traced(tensors_of(result), calls, leaf)


def pair_up(ours: Traced, theirs: Traced, matching: Matching) -> list[Part]:
    """Every use that both made of a matched part, in the order in which ours end."""
    ends = {use: place for place, use in enumerate(theirs.calls)}
    groups = {(name, use): [(other, use) for other in matching.modules[name]] for name, use in ours.calls}
    groups = {part: group for part, group in groups.items() if all(other in ends for other in group)}
    their_place = {part: max(ends[other] for other in group) for part, group in groups.items()}
    parts = []
    for place, (part, group) in enumerate(groups.items()):
        call, calls = ours.calls[part], [theirs.calls[other] for other in group]
        before = list(groups)[:place]
        before_in_theirs = sorted(
            (other for other in groups if their_place[other] < their_place[part]), key=lambda other: their_place[other]
        )
        nothing = call.output.new_empty(0)  # stands for the input of a part that takes no tensor
        parts.append(
            Part(
                *part,
                " + ".join(other or "the whole" for other, _ in group),
                Pair(*(nothing if x is None else x for x in (call.input, calls[0].input))),
                Pair(call.output, joined([other.output for other in calls], -1)),
                gradients_of(call, calls) or Pair(nothing, nothing),
                *(tuple(name for name, use in some if use == part[1]) for some in (before, before_in_theirs)),
            )
        )
    return parts


def gradients_of(ours: Call, theirs: list[Call]) -> Pair | None:
    """The gradients of the outputs, unless either output is shared by all texts."""
    own, others = ours.gradient, [call.gradient for call in theirs if call.gradient is not None]
    if own is None or len(others) < len(theirs):
        return None
    return Pair(own, joined(others, -1))


def other_weights(ours: nn.Module, theirs: nn.Module, matching: Matching) -> str | None:
    for name, group in matching.parameters.items():
        pair = Pair(ours.get_parameter(name), joined([theirs.get_parameter(other) for other in group], 0))
        if not pair.apart.equal:
            return (
                f"the weights: {name} {told(pair)}\n"
                f"Load {' + '.join(group)} into it, or give both the same random weights: draw_weights=True."
            )
    return None
