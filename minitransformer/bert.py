"""BERT: Devlin et al. 2019, "Pre-training of Deep Bidirectional Transformers for Language Understanding".

An encoder of L Transformer layers, width C, A = H heads. BASE is (L=12, C=768, H=12), 110M parameters;
LARGE is (L=24, C=1024, H=16), 340M. Its input is [CLS] text A [SEP] text B [SEP].

B batch, T tokens, N packed tokens (real ones, see packing.py), C width, F feed-forward width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.attention import SelfAttention
from minitransformer.dropout import Dropout
from minitransformer.packing import Mask, Packing, pack_inputs

# The names that config.json uses. "gelu" is the exact one (erf), "gelu_new" the tanh approximation: not the same.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}

# Logits at padding. Not -inf, so that sums and products of logits stay free of NaN; softmax makes it an exact zero.
PADDING_LOGIT = -1e9


@dataclass(frozen=True)
class BertConfig:
    """Sizes and constants of a BERT. The defaults are BERT-base's; a checkpoint's config.json overrides them."""

    vocabulary: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn_width: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float = 0.1  # of a fresh task head
    positions: int = 512
    segments: int = 2
    norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_id: int = 0


class Embeddings(nn.Module):
    """Token + segment + position, normalised (section 3, figure 2). Three (N,) -> (N, width)."""

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        # padding_idx: the row of the padding token gets no gradient, so it stays what it was.
        self.token = nn.Embedding(config.vocabulary, width, padding_idx=config.pad_id)
        self.position = nn.Embedding(config.positions, width)
        self.segment = nn.Embedding(config.segments, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        x = self.token(tokens) + self.segment(segments) + self.position(positions)
        return self.dropout(self.norm(x))


class Layer(nn.Module):
    """A post-norm Transformer layer: the norm stands after the residual sum, x = norm(x + f(x)).

    The original Transformer and BERT are built so; ViT and later models norm first, x = x + f(norm(x)).
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.width, config.heads, config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.ffn_up = nn.Linear(config.width, config.ffn_width)
        self.ffn_down = nn.Linear(config.ffn_width, config.width)
        self.ffn_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, packing)))
        hidden = self.activation(self.ffn_up(x))  # (N, F)
        return self.ffn_norm(x + self.dropout(self.ffn_down(hidden)))


class Bert(nn.Module):
    """The encoder: embeddings and L layers. (B, T) token ids -> (B, T, C), zeros at padding."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None) -> Tensor:
        hidden, packing = self.packed(input_ids, token_type_ids, attention_mask)
        return packing.unpack(hidden)

    def packed(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None
    ) -> tuple[Tensor, Packing]:
        """(B, T) -> hidden states of the real tokens (N, C), and where they stand. Arguments as in `pack_inputs`."""
        ids, packing = pack_inputs(input_ids, token_type_ids, attention_mask, self.config.positions)
        x = self.embeddings(*ids)  # (N, C)
        for layer in self.layers:
            x = layer(x, packing)
        return x, packing


class BertForQuestionAnswering(nn.Module):
    """Encoder -> dropout -> Linear(C, 2): a start logit and an end logit per token (section 4.2)."""

    encoder_type: type = Bert
    encoder: Bert  # or a family's, which is made and asked alike

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = self.encoder_type(config)
        self.dropout = Dropout(config.head_dropout)
        self.span = nn.Linear(config.width, 2)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Mask = None
    ) -> tuple[Tensor, Tensor]:
        """Start and end logits, (B, T) each, PADDING_LOGIT at padding: softmax gives padding no probability."""
        hidden, packing = self.encoder.packed(input_ids, token_type_ids, attention_mask)
        logits = self.span(self.dropout(hidden)).float()  # (N, 2)
        start, end = packing.unpack(logits, fill=PADDING_LOGIT).unbind(-1)
        return start, end


class BertForMaskedLM(nn.Module):
    """Encoder -> Linear, activation, norm -> the token embedding table again, as a classifier (section 3.1)."""

    encoder_type: type = Bert
    encoder: Bert  # or a family's, which is made and asked alike

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = self.encoder_type(config)
        table_width = self.encoder.embeddings.token.embedding_dim  # C, but ALBERT's table is narrower
        self.transform = nn.Linear(config.width, table_width)
        self.activation = ACTIVATIONS[config.activation]
        self.transform_norm = nn.LayerNorm(table_width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Mask = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits over the vocabulary: (B, T, V), zeros at padding.

        With `positions` (B, T) bool, only there: (M, V) in reading order. The loss sees 15 % of the tokens, and at
        V = 100,000 the other logits would cost more than the encoder.
        """
        hidden, packing = self.encoder.packed(input_ids, token_type_ids, attention_mask)
        if positions is not None:
            return self.logits(hidden[packing.pack(positions)])
        return packing.unpack(self.logits(hidden))

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, C) -> (N, V)"""
        x = self.transform_norm(self.activation(self.transform(hidden)))
        return F.linear(x, self.encoder.embeddings.token.weight, self.bias).float()


def initialise(module: nn.Module, std: float) -> None:
    """BERT's initialisation (google-research/bert, modeling.py): weights normal with `std`, biases 0, norms 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
