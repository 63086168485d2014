"""Which parts of somebody's module stand for which parts of transformers'.

By the same name, or by a map of hers: {"norm": "attention.output.LayerNorm"} renames a part and all that is in it, so
norm.weight is attention.output.LayerNorm.weight. A tuple is several of theirs in one of hers, laid end to end along the
first dimension of a parameter: {"qkv": ("query", "key", "value")}. {layer}, or any such word, is a number:
{"blocks.{n}.norm": "layer.{n}.output.LayerNorm"}. Of several names that fit, the longest counts.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minitransformer.system.errors import WeightsError

Names = Mapping[str, str | tuple[str, ...]]
Pairs = dict[str, tuple[str, ...]]  # a name of hers -> of theirs, more than one where hers holds several
LISTED = 12  # parameters that a message names


class Matching(NamedTuple):
    parameters: Pairs
    modules: Pairs
    unmatched: list[str]  # parameters of theirs that none of hers stands for


def match(ours: nn.Module, theirs: nn.Module, names: Names | None) -> Matching:
    """Every parameter of ours, and every part of ours that there is a part of theirs for.

    Raises WeightsError where a parameter of ours has no counterpart, or one of another shape.
    """
    names = names or {}
    _check(names, ours)
    parameters = _match_parameters(ours, theirs, names)
    matched = {name for group in parameters.values() for name in group}
    same = {id(theirs.get_parameter(name)) for name in matched}  # a tied table has two names
    unmatched = [name for name, parameter in theirs.named_parameters() if id(parameter) not in same]

    their_modules = dict(theirs.named_modules())
    modules: Pairs = {"": ("",)}
    for name, _ in ours.named_modules():
        group = counterparts(name, names)
        if not name or not all(other in their_modules for other in group):
            continue
        # A word like "output" names different things in different hands: without a word of hers, the same parameters
        # must be in them.
        inside = {other for own, others in parameters.items() if _within(own, name) for other in others}
        there = {other for other in (*matched, *unmatched) if any(_within(other, part) for part in group)}
        if inside == there or any(re.fullmatch(_pattern(key), name) for key in names):
            modules[name] = group
    return Matching(parameters, modules, unmatched)


def counterparts(name: str, names: Names) -> tuple[str, ...]:
    """What a name of hers is called in theirs, by the longest name in the map that it begins with."""
    for key in sorted(names, key=lambda key: key.count("."), reverse=True):
        found = re.match(_pattern(key) + r"(?=\.|$)", name)
        if found:
            value = names[key]
            values = (value,) if isinstance(value, str) else tuple(value)
            return tuple(value.format_map(found.groupdict()) + name[found.end() :] for value in values)
    return (name,)


def joined(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def _match_parameters(ours: nn.Module, theirs: nn.Module, names: Names) -> Pairs:
    there = dict(theirs.named_parameters(remove_duplicate=False))
    pairs = {name: counterparts(name, names) for name, _ in ours.named_parameters()}
    missing = [name for name, group in pairs.items() if not all(other in there for other in group)]
    if missing:
        taken = {other for group in pairs.values() for other in group}
        free = {name: parameter for name, parameter in there.items() if name not in taken}
        raise WeightsError(
            f"{_listing({name: ours.get_parameter(name) for name in missing})}: {type(theirs).__name__} has no such "
            f"parameter; say in names={{yours: theirs}} which of these it is: {_listing(free)}"
        )
    for name, group in pairs.items():
        shape, theirs_shape = ours.get_parameter(name).shape, joined([there[other] for other in group], 0).shape
        if shape != theirs_shape:
            turned = ", the same turned round" if shape == theirs_shape[::-1] else ""
            raise WeightsError(
                f"{name} is {tuple(shape)}, {' + '.join(group)} of {type(theirs).__name__} is "
                f"{tuple(theirs_shape)}{turned}"
            )
    return pairs


def _check(names: Names, ours: nn.Module) -> None:
    """Raises WeightsError on a name in the map that nothing of hers has: a slip of the pen would go unseen."""
    own = [*dict(ours.named_modules()), *dict(ours.named_parameters())]
    for key in names:
        if not any(re.fullmatch(_pattern(key), name) for name in own):
            raise WeightsError(f"names: {key!r} is no part of {type(ours).__name__}; it has {', '.join(own[1:])}")


def _pattern(key: str) -> str:
    """A name with {words} as a regular expression, a group for each."""
    parts = re.split(r"\{(\w+)\}", key)  # text, word, text, ...
    return "".join(rf"(?P<{part}>\d+)" if n % 2 else re.escape(part) for n, part in enumerate(parts))


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _listing(parameters: Mapping[str, Tensor]) -> str:
    shown = [f"{name} {tuple(parameter.shape)}" for name, parameter in list(parameters.items())[:LISTED]]
    return ", ".join(shown) + (f" and {len(parameters) - LISTED} more" if len(parameters) > LISTED else "")
