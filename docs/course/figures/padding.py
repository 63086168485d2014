"""Chapter 4's figure: a batch of the demo, as a rectangle and packed."""

import svg

from qa import demo
from qa.features import featurise
from weights import load_tokenizer

TEXTS, SCALE, HEIGHT = 12, 5.0, 14  # texts of the batch; units of a token; of a row


def figure() -> str:
    features = featurise(demo.examples("train", TEXTS), load_tokenizer("demo-bert-fa"), max_length=256)
    lengths = [len(feature.input_ids) for feature in features]
    longest, tokens = max(lengths), sum(lengths)
    share = 1 - tokens / (longest * TEXTS)
    shapes = [
        svg.text(10, 14, f"padded: {TEXTS} x {longest} rows of numbers, {share:.0%} of them padding", anchor="start")
    ]
    for n, length in enumerate(lengths):
        y = 26 + n * HEIGHT
        shapes.append(svg.box(10, y, SCALE * length, HEIGHT - 2))
        shapes.append(svg.box(10 + SCALE * length, y, SCALE * (longest - length), HEIGHT - 2, svg.FAINT, shade=0.25))
    top = 26 + TEXTS * HEIGHT + 30
    shapes.append(
        svg.text(10, top - 12, f"packed: {tokens} rows, text after text, here in lines of {longest}", anchor="start")
    )
    place = 0
    for n, length in enumerate(lengths):
        while length:
            row, column = divmod(place, longest)
            piece = min(length, longest - column)
            shade = 1.0 if n % 2 == 0 else 0.7
            shapes.append(svg.box(10 + SCALE * column, top + row * HEIGHT, SCALE * piece, HEIGHT - 2, shade=shade))
            place, length = place + piece, length - piece
    return svg.picture(20 + SCALE * longest, top + HEIGHT * (-(-tokens // longest)) + 8, *shapes)


if __name__ == "__main__":
    svg.save(__file__, figure())
