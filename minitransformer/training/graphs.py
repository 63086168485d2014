"""CUDA graphs: the kernels of a step, recorded once for each shape of its batch and from then on launched all at once.

A step of BERT-base is over a thousand kernels, and a GPU runs those of a small batch sooner than Python asks for them.
A graph runs the same kernels on the same memory, so what changes must lie where it lay: a batch is copied into the one
that was recorded, and gradients have one buffer for the whole run.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from minitransformer.training.precision import Precision

Part = Iterable[Tensor] | None  # made of its tensors in their order, as a NamedTuple is, or a Packing


def pay(precision: Precision) -> bool:
    """Whether steps are worth recording: in bfloat16 on a GPU. In float32 the GPU takes longer than Python does."""
    return precision.device.type == "cuda" and precision.dtype == torch.bfloat16


class Graphs:
    """`learn`, which adds to the gradients and returns a loss, as graphs.

    A shape that comes for the first time is computed as usual, which also lets libraries choose their kernels; the
    second time it is recorded. All graphs share their memory, since no two run at once.
    """

    def __init__(self, learn: Callable[..., Tensor], parameters: Sequence[nn.Parameter]) -> None:
        """learn: a number, such as the texts of the whole step, and what holds tensors -> loss ().

        It may not look at the values of a tensor.
        """
        self.learn, self.parameters = learn, parameters
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor] | None] = {}
        self.pool = torch.cuda.graph_pool_handle()
        sizes = [-(-parameter.numel() // 64) * 64 for parameter in parameters]  # so that each begins at 256 bytes
        self.buffer = torch.zeros(sum(sizes), device=parameters[0].device)
        self.gradients = [
            room[: parameter.numel()].view_as(parameter)
            for room, parameter in zip(self.buffer.split(sizes), parameters, strict=True)
        ]

    def __call__(self, size: int, *parts: Part) -> Tensor:
        """What `learn` does."""
        if self.parameters[0].grad is None:  # the optimizer has cleared them
            self.buffer.zero_()
            for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
                parameter.grad = gradient
        tensors = [tensor for part in parts if part for tensor in part]
        key = size, *(tensor.shape for tensor in tensors)
        if key not in self.graphs:
            self.graphs[key] = None
            return self.learn(size, *parts)
        recorded = self.graphs[key] = self.graphs[key] or self.record(size, parts)
        graph, held, loss = recorded
        for old, new in zip(held, tensors, strict=True):
            old.copy_(new)
        graph.replay()
        return loss.clone()

    def record(self, size: int, parts: Sequence[Part]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """The graph, the tensors that it reads and the loss that it writes. Nothing is computed yet."""
        held = [type(part)(*(tensor.clone() for tensor in part)) if part else None for part in parts]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss = self.learn(size, *held)
        return graph, [tensor for part in held if part for tensor in part], loss
