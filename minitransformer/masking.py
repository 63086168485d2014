"""What masked language modelling hides: Devlin et al. 2019, section 3.1, and whole words as their later code does."""

from dataclasses import dataclass

import torch
from torch import Tensor

NO_WORD = -1  # the word number of special tokens and padding, which are never hidden


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

    def __call__(self, input_ids: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """The damaged input_ids (B, T), and what is to be predicted, (B, T) bool. Draws from torch's generator.

        words: (B, T), the number of each token's word in its text, below T; NO_WORD is never hidden.
        """
        draw = torch.rand(words.shape)
        if self.whole_words:
            draw = draw.gather(1, words.clamp(min=0))  # all tokens of word w take the draw at place w
        hidden = (words != NO_WORD) & (draw < self.rate)

        fate = torch.rand(words.shape)
        masked = hidden & (fate < 0.8)
        replaced = hidden & (fate >= 0.8) & (fate < 0.9)
        anything = self.ordinary_ids[torch.randint(len(self.ordinary_ids), words.shape)]
        damaged = input_ids.masked_fill(masked, self.mask_id)
        return torch.where(replaced, anything, damaged), hidden
