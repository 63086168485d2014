"""Useful floating point operations, from shapes: matrix products alone, a multiplication and an addition count as two.

Padding, dropout, norms and recomputation are no useful work, so time spent on them lowers the share of the machine's
rate. The tests compare these counts with torch's own counter.
"""

from collections.abc import Sequence

from minitransformer.albert import AlbertConfig
from minitransformer.bert import BertConfig
from minitransformer.vit import VitConfig


def flops_per_step(lengths: Sequence[int], config: BertConfig | AlbertConfig) -> int:
    """Of one training step of a question answering model on texts of `lengths` tokens.

    For N tokens, width C, feed-forward width F, L layers, and t tokens in a text:

        query, key, value, output     N * 4 * 2 C^2         in every layer
        feed-forward, up and down     N * 2 * 2 C F         in every layer (F = 4 C: 24 N C^2 with the line above)
        scores, and their use         sum of 2 * 2 t^2 C    in every layer
        span classifier               N * 2 * 2 C           once
        ALBERT's projection, E -> C   N * 2 E C             once

    The backward pass is twice the forward pass: a product's gradient is taken for either factor.
    """
    tokens, width = sum(lengths), config.width
    attention = sum(4 * length**2 * width for length in lengths)
    layer = tokens * (8 * width**2 + 4 * width * config.ffn_width) + attention
    ends = tokens * 4 * width
    layers = config.layers
    if isinstance(config, AlbertConfig):
        layers *= config.inner_layers
        ends += tokens * 2 * config.embedding_width * width
    return 3 * (layers * layer + ends)


def flops_of_block(config: VitConfig) -> int:
    """Of a forward pass of one block for one image of T tokens: T * (8 C^2 + 4 C F) + 4 T^2 C."""
    tokens, width = config.tokens, config.width
    return tokens * (8 * width**2 + 4 * width * config.ffn_width) + 4 * tokens**2 * width


def flops_of_trunk(config: VitConfig) -> int:
    """Of a forward pass of the patches and of all blocks but the last, for one image.

    For P patches of p x p pixels: P * 2 * 3 p^2 C, and L - 1 blocks.
    """
    patches = config.tokens - config.prefix
    return patches * 2 * config.channels * config.patch**2 * config.width + (config.layers - 1) * flops_of_block(config)


def flops_of_finish(config: VitConfig) -> int:
    """Of a forward pass of the last block for [CLS] alone, out of what the trunk gave, and of the classifier.

    Query, output, and the weights of key and value on the [CLS] side of their products: 8 C^2; scores and their use by
    H heads, 4 H T C; feed-forward, 4 C F; K classes, 2 C K.
    """
    width = config.width
    attention = 8 * width**2 + 4 * config.heads * config.tokens * width
    return attention + 4 * width * config.ffn_width + 2 * width * config.classes
