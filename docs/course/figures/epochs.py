"""Chapter 9's figure: what training costs, by epochs, counted by torch in the products of a small ViT."""

import svg
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minitransformer.vit import VitConfig, VitForImageClassification
from vision.freeze import freeze
from vision.trunk import finish, keep

EPOCHS = 10
LEFT, BOTTOM, WIDTH, HEIGHT = 70, 250, 480, 210


def figure() -> str:
    model = VitForImageClassification(VitConfig(width=192, heads=3, ffn_width=768, classes=10))
    freeze(model, "blocks.11 classifier")
    pictures = torch.zeros(1, 3, 224, 224)
    kept = keep(model, pictures, first=11)
    once, part = cost(lambda: keep(model, pictures, first=11)), cost(lambda: learn(finish(model, kept, first=11)))
    whole = cost(lambda: learn(model(pictures)))
    lines = [
        ("the whole model in every epoch", svg.RED, [whole * epoch for epoch in range(EPOCHS + 1)]),
        ("the frozen blocks once", svg.GREEN, [once + part * epoch for epoch in range(EPOCHS + 1)]),
    ]
    most = max(lines[0][2])
    shapes = [svg.text(LEFT, 16, "Billions of multiplications and additions for a picture", anchor="start")]
    for tick in range(0, EPOCHS + 1, 2):
        shapes.append(svg.text(LEFT + WIDTH * tick / EPOCHS, BOTTOM + 16, str(tick)))
    for billions in range(0, int(most / 1e9) + 1, 5):
        y = BOTTOM - HEIGHT * billions * 1e9 / most
        shapes.append(svg.text(LEFT - 8, y, str(billions), anchor="end"))
    for name, colour, values in lines:
        points = [(LEFT + WIDTH * n / EPOCHS, BOTTOM - HEIGHT * value / most) for n, value in enumerate(values)]
        shapes += [svg.line(points, colour, 2.5), svg.text(LEFT + WIDTH + 8, points[-1][1], name, anchor="start")]
    shapes.append(svg.text(LEFT + WIDTH / 2, BOTTOM + 36, "epochs"))
    return svg.picture(LEFT + WIDTH + 220, BOTTOM + 50, *shapes)


def learn(logits: torch.Tensor) -> None:
    nn.functional.cross_entropy(logits, torch.zeros(1, dtype=torch.long)).backward()


def cost(work) -> int:
    # torch counts attention's products where its formula runs, not where a fused kernel does.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


if __name__ == "__main__":
    svg.save(__file__, figure())
