"""What the parts of a module take in and give, forward and backward, and how two such tensors differ."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5  # relative and absolute

Use = tuple[str, int]  # a part, and whether it is its first, second, ... use: ALBERT's layer has twelve


class Call(NamedTuple):
    """One use of a part: the first tensor that went in, and the first that came out, at real tokens."""

    input: Tensor | None
    output: Tensor
    alone: bool  # nothing but that one tensor went in
    given: Tensor  # the output itself, which a backward pass leaves its gradient in
    keep: Tensor | None

    @property
    def gradient(self) -> Tensor | None:
        """Of what backward ran from, with respect to the output; zeros where nothing came back.

        None for an output that all texts share, as positions may be: its gradient is the sum over the texts.
        """
        if self.keep is not None and len(self.given) == 1 < len(self.output):
            return None
        return real(gradient_of(self.given), self.keep)


@contextmanager
def recording(model: nn.Module, names: Iterable[str], keep: Tensor | None = None) -> Iterator[dict[Use, Call]]:
    """Within it every use of the named parts is recorded, in the order in which they end. keep: as in `real`."""
    calls: dict[Use, Call] = {}
    uses: Counter[str] = Counter()
    begun: list[tuple[Tensor | None, bool]] = []  # of the parts that run now, the innermost last

    def copy(tensor: Tensor) -> Tensor:  # what follows may work in place
        return real(tensor.detach(), keep).clone()

    def begin(module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
        taken = [value for value in (*arguments, *keywords.values()) if value is not None]
        first = next((value for value in taken if isinstance(value, Tensor)), None)
        begun.append((None if first is None else copy(first), len(taken) == 1))

    def end(name: str, output: object) -> None:
        first, alone = begun.pop()
        given = next(iter(tensors_of(output)), None)
        if given is None:
            return
        if given.requires_grad:
            given.retain_grad()
        uses[name] += 1
        calls[name, uses[name]] = Call(first, copy(given), alone, given, keep)

    handles = []
    for name in names:
        part = model.get_submodule(name)
        handles.append(part.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(part.register_forward_hook(lambda module, arguments, output, name=name: end(name, output)))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def tensors_of(result: object) -> list[Tensor]:
    """The tensors with a gradient's kind of numbers in what a module returns: one, several, or transformers' output."""
    if isinstance(result, Tensor):
        return [result] if result.is_floating_point() else []
    values = result.values() if isinstance(result, Mapping) else result if isinstance(result, tuple | list) else ()
    return [tensor for value in values for tensor in tensors_of(value)]


def loss_of(tensors: Iterable[Tensor], keep: Tensor | None) -> Tensor:
    """One number to run backward from, that every output at a real token enters with a weight of its own."""
    kept = [real(tensor, keep) for tensor in tensors]
    weighted = [(tensor * torch.linspace(-1, 1, tensor.numel()).to(tensor).view_as(tensor)).sum() for tensor in kept]
    return sum((total / tensor.numel() ** 0.5 for total, tensor in zip(weighted, kept, strict=True)), torch.zeros(()))


def real(tensor: Tensor, keep: Tensor | None) -> Tensor:
    """(B, T, ...) or, for positions, (1, T, ...) -> (N, ...); what is packed already stays.

    keep: (B, T) bool, the real tokens; None: there is no padding, and every tensor stays.
    """
    if keep is None or tensor.shape[1:2] != keep.shape[1:] or tensor.shape[0] not in (1, keep.size(0)):
        return tensor
    return tensor.expand(keep.size(0), *tensor.shape[1:])[keep]


def gradient_of(tensor: Tensor) -> Tensor:
    """What backward has left in a parameter, or in a tensor that retains it; zeros where it left nothing."""
    gradient = tensor.grad if tensor.requires_grad else None  # torch warns where one asks a tensor that has none
    return torch.zeros_like(tensor) if gradient is None else gradient


class Difference(NamedTuple):
    largest: float  # infinite where shapes differ
    excess: float  # largest |ours - theirs| / (TOLERANCE + TOLERANCE * |theirs|)

    @property
    def equal(self) -> bool:
        return self.excess <= 1  # False for NaN too


def difference(ours: Tensor, theirs: Tensor) -> Difference:
    """How far two tensors are apart."""
    if ours.shape != theirs.shape:
        return Difference(float("inf"), float("inf"))
    if not ours.numel():
        return Difference(0.0, 0.0)
    apart = (ours - theirs).abs().masked_fill(ours == theirs, 0.0)  # infinity too is equal to itself
    return Difference(apart.max().item(), (apart / (TOLERANCE + TOLERANCE * theirs.abs())).max().item())
