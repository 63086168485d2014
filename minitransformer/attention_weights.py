"""Who looks at whom: the attention weights of a forward pass, on request.

The fast path never writes them down, and need not: here each layer's input is caught on its way, and the formula is
applied to it once more, in the open.
"""

import torch
from torch import Tensor, nn

from minitransformer.attention import SelfAttention, attention
from minitransformer.packing import Packing


@torch.no_grad()
def attention_weights(model: nn.Module, *inputs: Tensor | None) -> Tensor:
    """The weights of all layers and heads for `model(*inputs)`, (L, B, H, T, T), without dropout.

    Row i of a (T, T) map says how token i shares out its attention: the row sums to 1. Columns of padding are 0, and so
    are its rows. ALBERT's one layer gives a map for each of its uses.
    """
    maps: list[Tensor] = []

    def catch(layer: SelfAttention, layer_inputs: tuple, _: Tensor) -> None:
        maps.append(weights_of(layer, *layer_inputs))

    layers = [part for part in model.modules() if isinstance(part, SelfAttention)]
    hooks = [layer.register_forward_hook(catch) for layer in layers]
    training = model.training
    try:
        model.eval()(*inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)


def weights_of(layer: SelfAttention, x: Tensor, packing: Packing | None = None) -> Tensor:
    """One layer's weights (B, H, T, T) for its input: packed texts (N, C), or images (B, T, C), as in its `forward`."""
    query, key = (project(x) for project in (layer.query, layer.key))
    keep = x.new_ones(x.shape[:2], dtype=torch.bool)
    if packing is not None:
        query, key, keep = packing.unpack(query), packing.unpack(key), packing.keep
    query, key = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in (query, key))  # (B, H, T, D)
    # Attention mixes the values by its weights: the rows of the identity, mixed, are the weights themselves.
    identity = torch.eye(keep.size(1), dtype=query.dtype, device=query.device).expand(*query.shape[:2], -1, -1)
    weight = attention(query, key, identity, keep[:, None, None, :])
    return weight * keep[:, None, :, None]  # padding asks nothing
