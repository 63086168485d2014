"""Chapter 8's figure: the small DeiT that ships was never told where its patches lie. It has learnt it."""

import svg
import torch.nn.functional as F

from weights import load_pretrained

CELL, GAP = 15, 12


def figure() -> str:
    model = load_pretrained("demo-deit", "image-classification")
    table = model.encoder.embeddings.position[0, model.config.prefix :].detach()  # (patches, C)
    side = model.encoder.embeddings.side
    likeness = F.cosine_similarity(table[:, None], table[None], dim=-1).clamp(min=0)  # (patches, patches)
    step = side * CELL + GAP
    shapes = [
        svg.text(GAP, 14, "A square for each patch: how like its position is to that of every patch", anchor="start")
    ]
    for place, row in enumerate(likeness.unflatten(1, (side, side)).tolist()):
        top, left = 28 + place // side * step, GAP + place % side * step
        shapes += [
            svg.box(left + x * CELL, top + y * CELL, CELL - 1, CELL - 1, svg.ORANGE, value)
            for y, line in enumerate(row)
            for x, value in enumerate(line)
        ]
    return svg.picture(2 * GAP + side * step, 28 + side * step, *shapes)


if __name__ == "__main__":
    svg.save(__file__, figure())
