"""Which parameters train: a rule of names in a recipe, and a list of what it means for a model.

    trainable = "blocks.11 classifier"      the last block of twelve and the classifier; all else stays as it was

A name is a parameter's or the beginning of one up to a dot, without the leading `encoder.`; "all" is every parameter.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import torch
from torch import nn

from minitransformer.system.errors import RecipeError
from minitransformer.system.flags import nearest


class Part(NamedTuple):
    """Parameters of a common name that train, or stay frozen, all together."""

    name: str
    trains: bool
    count: int  # numbers in them


def freeze(model: nn.Module, rule: str) -> None:
    """Set `requires_grad` of every parameter by the rule: names parted by spaces or commas.

    Raises RecipeError on a name that no parameter has, and on a rule without a name.
    """
    names = rule.replace(",", " ").split()
    if not names:
        raise RecipeError("trainable: it names nothing to train; give names such as 'classifier', or 'all'")
    parameters = {_short(name): parameter for name, parameter in model.named_parameters()}
    known = {"all"} | {beginning for name in parameters for beginning in _beginnings(name)}
    for name in names:
        if name not in known:
            raise RecipeError(f"trainable: the model has no part {name!r}{nearest(name, known)}")
    for name, parameter in parameters.items():
        parameter.requires_grad_("all" in names or any(beginning in names for beginning in _beginnings(name)))


def hold_key_biases(model: nn.Module) -> None:
    """Give every trainable bias of a key projection the gradient that is its own: zero.

    It adds the same to all scores of a query, and softmax takes that away again. What backward finds instead is the
    rounding of a sum, and AdamW, which divides by the gradient's size, would make whole steps of it: a drift that no
    output feels, but that no two ways of computing the same loss share.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("attention.key.bias") and parameter.requires_grad:
            parameter.register_hook(torch.zeros_like)


def parts(model: nn.Module) -> list[Part]:
    """The model's parameters in their order, under the shortest names that are wholly trainable or wholly frozen."""
    leaves = [Part(_short(name), p.requires_grad, p.numel()) for name, p in model.named_parameters()]
    return list(_gathered(leaves, depth=1))


def listing(model: nn.Module) -> str:
    """The parts that train and those that do not, with their parameters counted, as lines to print."""
    found = list(_ranges(parts(model)))
    lines = []
    for title, trains in (("trainable", True), ("frozen", False)):
        chosen = [part for part in found if part.trains is trains]
        lines.append(f"{title:<22} {sum(part.count for part in chosen):>12,}")
        lines += [f"  {name:<20} {count:>12,}" for name, _, count in chosen]
    return "\n".join(lines)


def _gathered(leaves: list[Part], depth: int) -> Iterator[Part]:
    """Leaves whose first `depth` names agree, as one part where their states agree too, else as several."""
    for _, same in groupby(leaves, key=lambda leaf: leaf.name.split(".")[:depth]):
        group = list(same)
        if len({leaf.trains for leaf in group}) > 1:
            yield from _gathered(group, depth + 1)
        else:
            name = ".".join(group[0].name.split(".")[:depth])
            yield Part(name, group[0].trains, sum(leaf.count for leaf in group))


def _ranges(found: list[Part]) -> Iterator[Part]:
    """Parts in their order, whole blocks that follow one another in one state as one: blocks.0 ... blocks.10."""
    for _, same in groupby(found, key=lambda part: (part.trains, re.sub(r"^blocks\.\d+$", "blocks", part.name))):
        group = list(same)
        name = group[0].name if len(group) == 1 else f"{group[0].name} ... {group[-1].name}"
        yield Part(name, group[0].trains, sum(part.count for part in group))


def _short(name: str) -> str:
    return name.removeprefix("encoder.")


def _beginnings(name: str) -> list[str]:
    """ "a.b.c" -> "a", "a.b", "a.b.c" """
    pieces = name.split(".")
    return [".".join(pieces[: count + 1]) for count in range(len(pieces))]
