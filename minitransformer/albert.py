"""ALBERT: Lan et al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations".

BERT with two changes that leave the computation of a layer as it was (section 3.1). Tokens are embedded in E
dimensions, not C, and then projected to C: V * E + E * C parameters in place of V * C. And all layers are one layer,
applied L times over. What stays is a tenth of BERT-base's parameters, not of its work: a step costs what BERT's costs.

Dropout stands where the authors' code has it, after the feed-forward part too, where transformers leaves it out. The
public checkpoints of the second version have a rate of 0.

B batch, T tokens, N packed tokens (see packing.py), E embedding width, C width, L layers.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from minitransformer.bert import BertConfig, BertForMaskedLM, BertForQuestionAnswering, Embeddings, Layer
from minitransformer.packing import Mask, Packing, pack_inputs


@dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """BERT's configuration, and what ALBERT adds. The defaults are those of the xxlarge model, as in transformers."""

    vocabulary: int = 30000
    width: int = 4096
    heads: int = 64
    ffn_width: int = 16384
    activation: str = "gelu_new"
    dropout: float = 0.0  # the large models never overfitted their text, so the second version has none
    attention_dropout: float = 0.0
    embedding_width: int = 128
    groups: int = 1  # sets of weights, each for a run of L / groups layers that follow one another
    inner_layers: int = 1  # layers with weights of their own within one application of a group


class Albert(nn.Module):
    """The encoder: narrow embeddings, E -> C, one layer L times. (B, T) token ids -> (B, T, C), zeros at padding."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, config.embedding_width)
        self.widen = nn.Linear(config.embedding_width, config.width)
        self.groups = nn.ModuleList(
            nn.ModuleList(Layer(config) for _ in range(config.inner_layers)) for _ in range(config.groups)
        )

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None) -> Tensor:
        hidden, packing = self.packed(input_ids, token_type_ids, attention_mask)
        return packing.unpack(hidden)

    def packed(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None
    ) -> tuple[Tensor, Packing]:
        """(B, T) -> hidden states of the real tokens (N, C), and where they stand. Arguments as in `pack_inputs`."""
        ids, packing = pack_inputs(input_ids, token_type_ids, attention_mask, self.config.positions)
        x = self.widen(self.embeddings(*ids))  # (N, E) -> (N, C)
        layers_per_group = self.config.layers / self.config.groups
        for number in range(self.config.layers):
            for layer in self.groups[int(number / layers_per_group)].children():
                x = layer(x, packing)  # the gradients of all its uses add up in its parameters
        return x, packing


class AlbertForQuestionAnswering(BertForQuestionAnswering):
    """BERT's span classifier on ALBERT's hidden states."""

    encoder_type = Albert


class AlbertForMaskedLM(BertForMaskedLM):
    """BERT's masked-LM head, but back from C to E, where the token table is."""

    encoder_type = Albert
