"""ELECTRA: Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators".

Two encoders are trained together: a small one, the generator, fills masks as BERT does, and a large one, the
discriminator, says of every token whether the generator put it there. The discriminator is kept, for every token
teaches it something, not only the masked ones; the head that said so is not. The generator is the masked LM.

Either is BERT but for its embeddings, which may be narrower than the model and are then projected (section 3.3): the
two share one table, and the generator is a fraction as wide. The generator's head has the exact gelu, whatever the
layers have.

B batch, T tokens, N packed tokens (see packing.py), E embedding width, C width, L layers.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.bert import BertConfig, BertForMaskedLM, BertForQuestionAnswering, Embeddings, Layer
from minitransformer.packing import Mask, Packing, pack_inputs


@dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """BERT's configuration and the width of the embeddings. The defaults are those of the small model."""

    width: int = 256
    heads: int = 4
    ffn_width: int = 1024
    embedding_width: int = 128

    @property
    def widens(self) -> bool:
        """Whether embeddings are projected. ALBERT's always are; the base and large ELECTRA have theirs as wide."""
        return self.embedding_width != self.width


class Electra(nn.Module):
    """The encoder: narrow embeddings, E -> C, L layers. (B, T) token ids -> (B, T, C), zeros at padding."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, config.embedding_width)
        self.widen = nn.Linear(config.embedding_width, config.width) if config.widens else nn.Identity()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None) -> Tensor:
        hidden, packing = self.packed(input_ids, token_type_ids, attention_mask)
        return packing.unpack(hidden)

    def packed(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None
    ) -> tuple[Tensor, Packing]:
        """(B, T) -> hidden states of the real tokens (N, C), and where they stand. Arguments as in `pack_inputs`."""
        ids, packing = pack_inputs(input_ids, token_type_ids, attention_mask, self.config.positions)
        x = self.widen(self.embeddings(*ids))  # (N, E) -> (N, C)
        for layer in self.layers:
            x = layer(x, packing)
        return x, packing


class ElectraForQuestionAnswering(BertForQuestionAnswering):
    """BERT's span classifier on the discriminator's hidden states."""

    encoder_type = Electra


class ElectraForMaskedLM(BertForMaskedLM):
    """The generator: BERT's masked-LM head, back from C to E, always with gelu."""

    encoder_type = Electra

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.activation = F.gelu
