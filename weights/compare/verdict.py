"""What differs between somebody's module and transformers', and where: the first part, in words."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from weights.compare.matching import Matching, joined
from weights.compare.trace import TOLERANCE, Call, Difference, Use, difference, gradient_of

SHOWN = 6  # equal parts that the table shows
ROWS = 4  # almost flat rows that a norm is asked about


class Pair(NamedTuple):
    """A tensor of ours and of theirs."""

    ours: Tensor
    theirs: Tensor

    @property
    def apart(self) -> Difference:
        return difference(self.ours, self.theirs)


class Part(NamedTuple):
    """One use of a part that both have."""

    name: str  # "" for the whole module
    use: int
    theirs: str
    input: Pair
    output: Pair
    gradient: Pair  # of the loss, with respect to the output
    before: tuple[str, ...]  # the parts that end before it in ours
    before_in_theirs: tuple[str, ...]

    @property
    def title(self) -> str:
        return (self.name or "the whole") + (f", use {self.use}" if self.use > 1 else "")


def other_output(outputs: list[Pair], parts: list[Part], missing: list[str], keep: Tensor | None) -> str | None:
    wrong = next((pair for pair in outputs if not pair.apart.equal), None)
    if wrong is None:
        return None
    first = next((part for part in parts if not part.output.apart.equal), None)
    if first is None:
        return f"output {told(wrong, keep)}\nEvery part that both have is equal."
    equal = parts[: parts.index(first)]
    lines = [
        f"output {told(wrong, keep)}",
        *table([*equal[-SHOWN:], first]),
        f"{first.title}: {diagnosis(first, equal)}",
        f"  input {told(first.input, keep)}",
        f"  output {told(first.output, keep)}",
    ]
    if missing:
        lines.append(f"Theirs computes with {', '.join(missing)} too, for which yours has nothing.")
    return "\n".join(lines)


def diagnosis(first: Part, equal: list[Part]) -> str:
    """Where the fault is, given the first part that differs and the equal ones before it."""
    last = equal[-1].title if equal else None
    if first.input.apart.equal:
        inside = [part for part in equal if part.name.startswith(first.name + "." if first.name else "")]
        if inside:
            return f"its input is equal, its parts are equal up to {last}: the fault stands between {last} and its end"
        return "its input is equal, its output is not: the fault is in it"
    early = [name for name in first.before_in_theirs if name not in first.before]
    late = [name for name in first.before if name not in first.before_in_theirs]
    for some, ours, theirs in ((early, "before", "after"), (late, "after", "before")):
        if some:
            return f"yours runs it {ours} {', '.join(some)}, theirs {theirs}: the order is another"
    if last is None:
        return "its input differs already, and nothing is matched before it: the fault stands at the beginning"
    return f"its input differs already: the fault stands between {last}, the last that is equal, and it"


def missing_in_ours(theirs: nn.Module, matching: Matching) -> list[str]:
    """Parameters of theirs that took part in the result and that none of ours stands for."""
    gradients = {name: gradient_of(theirs.get_parameter(name)) for name in matching.unmatched}
    return [name for name, gradient in gradients.items() if gradient.abs().max() > TOLERANCE]


def other_gradient(
    ours: nn.Module,
    theirs: nn.Module,
    our_input: Tensor | None,
    their_input: Tensor | None,
    parts: list[Part],
    matching: Matching,
    keep: Tensor | None,
) -> str | None:
    """The same going backward: from the last part to the first, then the input."""
    if missing := missing_in_ours(theirs, matching):
        return f"the parameters: theirs computes with {', '.join(missing)}, for which yours has nothing"
    # A loss has no scale of its own, and rounding grows with it: gradients above 1 are brought down to it, all alike.
    scale = max([1.0, *(gradient_of(parameter).abs().max().item() for parameter in theirs.parameters())])

    def scaled(pair: Pair) -> Pair:
        return Pair(pair.ours / scale, pair.theirs / scale)

    head, after = "all outputs are equal, the gradients are not", "the end"
    # A container's own parameters may be used at its beginning: they come last.
    containers = [part for part in parts if any(_inside(other, part) for other in parts)]
    for part in [*(part for part in parts[::-1] if part not in containers), *containers[::-1]]:
        if not scaled(part.gradient).apart.equal:
            return (
                f"{head}. Going backward, {part.title} is the first whose output gets another gradient: the fault "
                f"stands between {after} and it\n  gradient {told(scaled(part.gradient), keep)}"
            )
        for name, group in matching.parameters.items():
            gradients = joined([gradient_of(theirs.get_parameter(other)) for other in group], 0)
            pair = scaled(Pair(gradient_of(ours.get_parameter(name)), gradients))
            if name.rpartition(".")[0] == part.name and not pair.apart.equal:
                return (
                    f"{head}. Going backward, {name} is the first; its part's output gets the same gradient: the fault "
                    f"is in {part.title}\n  gradient {told(pair)}"
                )
        after = part.title
    inputs = [gradient_of(x) for x in (our_input, their_input) if x is not None]
    if len(inputs) == 2 and not (pair := scaled(Pair(*inputs))).apart.equal:
        return f"{head}: the input's, while every part's is equal\n  gradient {told(pair)}"
    return None


@torch.no_grad()
def other_norm(ours: nn.Module, theirs: nn.Module, calls: dict[Use, Call], matching: Matching) -> str | None:
    """A norm's epsilon shows in rows that are almost flat alone, which no usual input has: ask each norm about some."""
    generator = torch.Generator().manual_seed(0)
    for (name, use), call in calls.items():
        other = theirs.get_submodule(matching.modules[name][0])
        if use > 1 or not call.alone or type(other) is not nn.LayerNorm:
            continue
        rows = torch.randn(ROWS, *other.normalized_shape, generator=generator).to(call.output) * other.eps**0.5
        pair = Pair(ours.get_submodule(name)(rows), other(rows))
        if not pair.apart.equal:
            return (
                f"{name or 'the norm'}: equal on these inputs, but not on rows whose variance is about epsilon, "
                f"{other.eps:g}: its epsilon is another, or stands elsewhere (theirs is under the root)\n"
                f"  output  {told(pair)}"
            )
    return None


# ---------------------------------------------------------------------------------------------------------------- words


def told(pair: Pair, keep: Tensor | None = None) -> str:
    """How far apart, and where it is worst. keep: as in `real`, to say the place in the padded batch."""
    ours, theirs = pair
    if ours.shape != theirs.shape:
        return f"is {tuple(ours.shape)}, theirs {tuple(theirs.shape)}"
    shape, apart = tuple(ours.shape), pair.apart
    if apart.equal:
        return f"{shape} is equal"
    wrong = ~((ours - theirs).abs() <= TOLERANCE * (1 + theirs.abs())) & (ours != theirs)
    worst = (ours - theirs).abs().masked_fill(~wrong, 0.0).argmax()
    place = [int(n) for n in torch.unravel_index(worst, shape)]
    if keep is not None and shape[0] == int(keep.sum()):
        place = [*keep.nonzero()[place[0]].tolist(), *place[1:]]
    rows = wrong.flatten(0, -2).any(-1) if len(shape) > 1 else wrong
    return (
        f"{shape} is off by {apart.largest:.1e} at {place}: yours {ours.flatten()[worst]:.5g}, theirs "
        f"{theirs.flatten()[worst]:.5g}; {TOLERANCE:.0e} is exceeded in {int(rows.sum()):,} of {len(rows):,} rows"
    )


def table(parts: list[Part]) -> list[str]:
    """A line for each part, the last of which is the first that differs."""
    rows: list[tuple[str, ...]] = [("yours, as it runs", "theirs", "input", "output")]
    for part in parts:
        states = ("equal" if pair.apart.equal else f"{pair.apart.largest:.1e}" for pair in (part.input, part.output))
        rows.append((part.title, part.theirs, *states))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"  {line}" for line in lines[:-1]] + [f"  {lines[-1]}  <- the first that differs"]


def _inside(part: Part, other: Part) -> bool:
    return part.name != other.name and (not other.name or part.name.startswith(other.name + "."))
