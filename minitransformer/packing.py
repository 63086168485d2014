"""Packing: a padded batch (B, T) without its padding, as (N,) rows of real tokens.

A batch of B texts padded to T tokens is mostly padding when the texts differ in length. Everything in an encoder
but attention looks at one token at a time, so it can work on the N real tokens alone, laid end to end:

    padded  [[a b c . .]          packed  [a b c d e f g h]       lengths [3, 5]
             [d e f g h]]                                         cumulative [0, 3, 8]

Only attention must know which rows belong together, and for that it has the lengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """How N real tokens lie in a padded batch."""

    keep: Tensor  # (B, T) bool, True = a real token
    rows: Tensor  # (N,) int64: place of each real token in the batch flattened to (B * T,)
    cumulative: Tensor  # (B + 1,) int32: text b owns packed rows cumulative[b] to cumulative[b + 1]

    @classmethod
    def of(cls, keep: Tensor) -> "Packing":
        """keep: (B, T), True or non-zero where a token is real; it need not stand at the left."""
        keep = keep.bool()
        cumulative = torch.nn.functional.pad(keep.sum(1).cumsum(0), (1, 0)).int()
        return cls(keep, keep.flatten().nonzero().squeeze(1), cumulative)

    def __iter__(self) -> Iterator[Tensor]:
        """The three, as of a NamedTuple; but torch.compile looks into a tuple, and compiles for its shapes."""
        return iter((self.keep, self.rows, self.cumulative))

    @property
    def lengths(self) -> list[int]:
        """B entries that sum to N. To ask for them holds up a GPU."""
        return self.cumulative.diff().tolist()

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...)"""
        return padded.flatten(0, 1)[self.rows]

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """(N, ...) -> (B, T, ...), `fill` where there is padding."""
        batch, length = self.keep.shape
        padded = packed.new_full((batch * length, *packed.shape[1:]), fill)
        return padded.index_copy(0, self.rows, packed).unflatten(0, (batch, length))


# (B, T), non-zero where a token is real, or the packing made of it, since to make one holds up a GPU. None: all are.
Mask = Tensor | Packing | None


def pack_inputs(
    input_ids: Tensor, token_type_ids: Tensor | None, attention_mask: Mask, positions: int
) -> tuple[tuple[Tensor, Tensor, Tensor], Packing]:
    """What a text encoder embeds, without padding: tokens, segments and positions, (N,) each, and where they stand.

    token_type_ids: (B, T), 0 in text A, 1 in text B; None is all 0. positions: rows of the model's position table.
    Raises ValueError when T exceeds them.
    """
    batch, length = input_ids.shape
    if length > positions:
        raise ValueError(f"{length} tokens, but the model has {positions} positions")
    if token_type_ids is None:
        token_type_ids = torch.zeros_like(input_ids)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids, dtype=torch.bool)
    packing = attention_mask if isinstance(attention_mask, Packing) else Packing.of(attention_mask)
    places = torch.arange(length, device=input_ids.device).expand(batch, length)
    tokens, segments, places = (packing.pack(ids) for ids in (input_ids, token_type_ids, places))
    return (tokens, segments, places), packing
