"""DistilBERT: Sanh et al. 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter".

A student with half of BERT's layers, begun from every second one of them and trained to answer as BERT does. Its
layers compute what BERT's do, but for one dropout; segments and pooler are gone, since a model that is taught what
BERT says has no next sentence to predict.

B batch, T tokens, N packed tokens (see packing.py), C width, F feed-forward width, L layers.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from minitransformer.bert import BertForMaskedLM, BertForQuestionAnswering, Layer
from minitransformer.dropout import Dropout
from minitransformer.packing import Mask, Packing, pack_inputs


@dataclass(frozen=True)
class DistilBertConfig:
    """Sizes and constants of a DistilBERT. The defaults are those of the public checkpoint."""

    vocabulary: int = 30522
    width: int = 768
    layers: int = 6
    heads: int = 12
    ffn_width: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float = 0.1  # of a fresh task head
    positions: int = 512
    norm_eps: float = 1e-12  # the same in all: config.json does not tell it
    initializer_range: float = 0.02
    pad_id: int = 0


class Embeddings(nn.Module):
    """Token + position, normalised: BERT's without segments. Two (N,) -> (N, C)."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocabulary, config.width, padding_idx=config.pad_id)
        self.position = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.dropout(self.norm(self.token(tokens) + self.position(positions)))


class DistilLayer(Layer):
    """BERT's layer without the dropout between the attention and its residual sum."""

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        x = self.attention_norm(x + self.attention(x, packing))
        hidden = self.activation(self.ffn_up(x))  # (N, F)
        return self.ffn_norm(x + self.dropout(self.ffn_down(hidden)))


class DistilBert(nn.Module):
    """The encoder: embeddings and L layers. (B, T) token ids -> (B, T, C), zeros at padding."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        # pyrefly: ignore[bad-argument-type] - a DistilBertConfig has all that a layer asks for
        self.layers = nn.ModuleList(DistilLayer(config) for _ in range(config.layers))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None) -> Tensor:
        hidden, packing = self.packed(input_ids, token_type_ids, attention_mask)
        return packing.unpack(hidden)

    def packed(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None
    ) -> tuple[Tensor, Packing]:
        """(B, T) -> hidden states of the real tokens (N, C), and where they stand. Arguments as in `pack_inputs`.

        token_type_ids: what BERT's tokenizer gives, which makes no difference here.
        """
        (tokens, _, positions), packing = pack_inputs(input_ids, token_type_ids, attention_mask, self.config.positions)
        x = self.embeddings(tokens, positions)  # (N, C)
        for layer in self.layers:
            x = layer(x, packing)
        return x, packing


class DistilBertForQuestionAnswering(BertForQuestionAnswering):
    """BERT's span classifier on DistilBERT's hidden states."""

    encoder_type = DistilBert


class DistilBertForMaskedLM(BertForMaskedLM):
    """BERT's masked-LM head on DistilBERT's hidden states."""

    encoder_type = DistilBert
