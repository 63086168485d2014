"""Chapter 10's figure: how far two right computations differ, and a wrong one, layer by layer."""

import math

import svg
import torch
from torch import nn

from weights import load_pretrained, load_tokenizer

TEXT = "تهران پایتخت ایران است."


def figure() -> str:
    ids = torch.tensor([load_tokenizer("demo-bert-fa").encode(TEXT).ids])
    right, exact, wrong = (load_pretrained("demo-bert-fa", "encoder") for _ in range(3))
    exact.double()
    for layer in wrong.layers:
        layer.activation = nn.GELU(approximate="tanh")
    truth = states(exact, ids)
    rows = []
    for name, model in (("float32", right), ("tanh GELU", wrong)):
        for number in range(len(model.layers)):
            apart = (states(model, ids)[number].double() - truth[number]).abs().max().item()
            power = round(math.log10(apart))  # no finer: another machine sums in another order
            rows.append((f"{name}, layer {number + 1}", 9 + power, f"about 1e{power}"))
    title = svg.text(330, 16, "Largest difference from float64, in powers of ten")
    return svg.picture(660, 30 + svg.ROW * len(rows), title, *svg.bars(rows, left=150, width=400, top=28))


@torch.no_grad()
def states(model: nn.Module, ids: torch.Tensor) -> list[torch.Tensor]:
    """What every layer gives."""
    found = []
    hooks = [layer.register_forward_hook(lambda _, __, out: found.append(out)) for layer in model.layers]
    model(ids)
    for hook in hooks:
        hook.remove()
    return found


if __name__ == "__main__":
    svg.save(__file__, figure())
