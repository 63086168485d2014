"""Chapter 2's figure: for each token the three rows that are added up (BERT, figure 2), and what comes out."""

import svg
import torch

from weights import load_pretrained, load_tokenizer

QUESTION, PASSAGE = "درازای رود چقدر است؟", "درازای این رود ۴۲۰ کیلومتر است."
CELL, HEIGHT, GAP, LEFT = 53, 30, 14, 92  # units of the drawing
SHOWN, STRIPE = 16, 7  # numbers of each vector, and the height of one
WIDEST = 3.0  # a number of this size has the full colour


def figure() -> str:
    pair = load_tokenizer("demo-bert-fa").encode(QUESTION, PASSAGE)
    tables = load_pretrained("demo-bert-fa", "encoder").embeddings
    vectors = tables(torch.tensor(pair.ids), torch.tensor(pair.type_ids), torch.arange(len(pair))).detach()  # (T, C)
    rows = [
        ("token", pair.ids, svg.ORANGE),
        ("segment", pair.type_ids, svg.GREEN),
        ("position", range(len(pair)), svg.BLUE),
    ]
    shapes = [svg.text(LEFT + (k + 0.5) * CELL, 16, piece, size=12) for k, piece in enumerate(pair.tokens)]
    for number, (name, cells, colour) in enumerate(rows):
        top = 32 + number * (HEIGHT + GAP)
        shapes.append(svg.text(LEFT - 10, top + HEIGHT / 2, name, anchor="end"))
        for k, cell in enumerate(cells):
            shapes.append(svg.box(LEFT + k * CELL + 2, top, CELL - 4, HEIGHT, colour, shade=0.35))
            shapes.append(svg.text(LEFT + (k + 0.5) * CELL, top + HEIGHT / 2, str(cell)))
            shapes.append(svg.text(LEFT + (k + 0.5) * CELL, top + HEIGHT + GAP / 2, "↓" if number == 2 else "+"))
    top = 32 + len(rows) * (HEIGHT + GAP)
    middle = top + SHOWN * STRIPE / 2
    for k, words in enumerate(("what the", "encoder gets:", f"{SHOWN} numbers", f"of {vectors.size(1)}")):
        shapes.append(svg.text(LEFT - 10, middle + 17 * (k - 1.5), words, anchor="end"))
    for k, vector in enumerate(vectors[:, :SHOWN].tolist()):
        shapes += [
            svg.box(
                LEFT + k * CELL + 2,
                top + j * STRIPE,
                CELL - 4,
                STRIPE - 1,
                svg.ORANGE if value > 0 else svg.BLUE,
                min(abs(value) / WIDEST, 1),
            )
            for j, value in enumerate(vector)
        ]
    height = top + SHOWN * STRIPE + 30
    said = "above: which row of each table is taken; below: the sum, normalised, orange above 0 and blue below, "
    said += f"full colour from {WIDEST:g}"
    shapes.append(svg.text(LEFT, height - 13, said, size=12, anchor="start"))
    return svg.picture(LEFT + len(pair) * CELL + 10, height, *shapes)


if __name__ == "__main__":
    svg.save(__file__, figure())
