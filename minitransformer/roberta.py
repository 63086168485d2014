"""RoBERTa: Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach".

BERT, longer trained on more text. Its layers are BERT's; three things that stand around them are not.

- Positions. fairseq, in which it was written, counts them from pad_id + 1, and over the tokens that are not padding:
  the first token of a text has position 2 where pad_id is 1, wherever in its row the text begins.
- Segments. There is no next-sentence prediction to learn them from, so the public checkpoints have one for all. What
  tells the texts of a pair apart is a double separator: <s> text A </s></s> text B </s>.
- The masked-LM head has the exact gelu, whatever the layers have.

XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020) are this model on text of a hundred languages and
of French, with another tokenizer each.

B batch, T tokens, N packed tokens (see packing.py), C width.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.bert import Bert, BertForMaskedLM, BertForQuestionAnswering
from minitransformer.packing import Mask, Packing, pack_inputs


@dataclass(frozen=True)
class RobertaConfig:
    """Sizes and constants of a RoBERTa. The defaults are those that transformers takes where config.json is silent."""

    model_type: str = "roberta"  # or "xlm-roberta", "camembert": HF's names for the same model
    vocabulary: int = 50265
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn_width: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float = 0.1  # of a fresh task head
    position_rows: int = 512  # of the position table; the public checkpoints have 514
    segments: int = 2  # the public checkpoints have 1
    norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_id: int = 1

    @property
    def positions(self) -> int:
        """The longest text: rows 0 to pad_id of the table are of no real token."""
        return self.position_rows - (self.pad_id + 1)


class Roberta(Bert):
    """BERT's encoder with positions of its own. (B, T) token ids -> (B, T, C), zeros at padding."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)  # pyrefly: ignore[bad-argument-type] - it has all that BERT asks for
        # padding_idx: a padding token that a text holds in its midst has that row, and the row gets no gradient.
        self.embeddings.position = nn.Embedding(config.position_rows, config.width, padding_idx=config.pad_id)

    def packed(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None
    ) -> tuple[Tensor, Packing]:
        """(B, T) -> hidden states of the real tokens (N, C), and where they stand. Arguments as in `pack_inputs`."""
        (tokens, segments, _), packing = pack_inputs(input_ids, token_type_ids, attention_mask, self.config.positions)
        places = packing.pack(count_positions(input_ids, self.config.pad_id))
        x = self.embeddings(tokens, segments, places)  # (N, C)
        for layer in self.layers:
            x = layer(x, packing)
        return x, packing


def count_positions(input_ids: Tensor, pad_id: int) -> Tensor:
    """pad_id + 1, pad_id + 2, ... at the tokens that are not padding, pad_id at those that are. (B, T) -> (B, T)

    pad_id 1    [[0 7 8 2 1]    ->    [[2 3 4 5 1]
                 [1 1 0 9 2]]          [1 1 2 3 4]]
    """
    real = (input_ids != pad_id).long()
    return pad_id + real.cumsum(1) * real


class RobertaForQuestionAnswering(BertForQuestionAnswering):
    """BERT's span classifier on RoBERTa's hidden states."""

    encoder_type = Roberta


class RobertaForMaskedLM(BertForMaskedLM):
    """BERT's masked-LM head on RoBERTa's hidden states, always with gelu."""

    encoder_type = Roberta

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)  # pyrefly: ignore[bad-argument-type] - likewise
        self.activation = F.gelu
