"""What masked language modelling hides: Devlin et al. 2019, section 3.1, and whole words as their later code does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

NO_WORD = -1  # the word number of special tokens and padding, which are never hidden


class HiddenWords(NamedTuple):
    """Texts with words hidden, (B, T), and what they were."""

    input_ids: Tensor  # as the model sees them
    token_type_ids: Tensor
    attention_mask: Tensor
    hidden: Tensor  # bool, True where a token is to be predicted
    labels: Tensor  # (M,) those tokens, in reading order

    def texts(self, rows: Sequence[int]) -> "HiddenWords":
        """Some of the texts alone."""
        kept = torch.zeros(len(self.hidden), dtype=torch.bool)
        kept[list(rows)] = True
        labels = self.labels[kept.repeat_interleave(self.hidden.sum(1))]
        rest = {name: tensor[kept] for name, tensor in self._asdict().items() if name != "labels"}
        return HiddenWords(**rest, labels=labels)


@dataclass(frozen=True)
class Masking:
    """Hides a part `rate` of a batch's words, to be predicted from the rest.

    Of their tokens 80 % are replaced by the mask token; since fine-tuning never sees one, 10 % are replaced by any
    token, and 10 % stay as they are.
    """

    rate: float
    whole_words: bool  # all tokens of a word are hidden together; otherwise each token by itself
    mask_id: int
    ordinary_ids: Tensor  # (V - special tokens,): what a replacement is drawn from

    def __call__(self, input_ids: Tensor, words: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The damaged input_ids (B, T), and what is to be predicted, (B, T) bool; `seed` alone decides by what luck.

        words: (B, T), the number of each token's word in its text, below T; NO_WORD is never hidden.
        """
        luck = torch.Generator().manual_seed(seed)
        draw = torch.rand(words.shape, generator=luck)
        if self.whole_words:
            draw = draw.gather(1, words.clamp(min=0))  # all tokens of word w take the draw at place w
        hidden = (words != NO_WORD) & (draw < self.rate)

        fate = torch.rand(words.shape, generator=luck)
        masked = hidden & (fate < 0.8)
        replaced = hidden & (fate >= 0.8) & (fate < 0.9)
        anything = self.ordinary_ids[torch.randint(len(self.ordinary_ids), words.shape, generator=luck)]
        damaged = input_ids.masked_fill(masked, self.mask_id)
        return torch.where(replaced, anything, damaged), hidden

    def hide(self, batch: Any, seed: int) -> HiddenWords:
        """A batch with input_ids, words, token_type_ids and attention_mask, (B, T) each, with words hidden."""
        damaged, hidden = self(batch.input_ids, batch.words, seed)
        labels = batch.input_ids[hidden]
        return HiddenWords(damaged, batch.token_type_ids, batch.attention_mask, hidden, labels)
