"""Draw chapter 2's figure, embeddings.svg: python docs/course/draw_embeddings.py"""

from html import escape
from pathlib import Path

from tokenizers import Encoding

from weights import load_tokenizer

QUESTION, PASSAGE = "درازای رود چقدر است؟", "درازای این رود ۴۲۰ کیلومتر است."
CELL, HEIGHT, GAP, LEFT = 68, 34, 12, 96  # units of the drawing
COLOURS = ("#fbe3c0", "#cfe6d4", "#cfdcf3")
INK, PAPER = "#1d2329", "#ffffff"


def figure(pair: Encoding) -> str:
    """A column for each token, and in it what is added up: its piece, its text, its place (BERT, figure 2)."""
    rows = [
        ("token", [f"E({piece})" for piece in pair.tokens]),
        ("segment", [f"S({segment})" for segment in pair.type_ids]),
        ("position", [f"P({place})" for place in range(len(pair))]),
    ]
    width, height = LEFT + len(pair) * CELL + GAP, (len(rows) + 1) * (HEIGHT + GAP) + GAP
    lines = [_text(LEFT + k * CELL + CELL / 2, GAP + HEIGHT / 2, piece) for k, piece in enumerate(pair.tokens)]
    for number, ((name, cells), colour) in enumerate(zip(rows, COLOURS, strict=True), 1):
        top = GAP + number * (HEIGHT + GAP)
        lines.append(_text(LEFT / 2, top + HEIGHT / 2, name))
        for k, cell in enumerate(cells):
            left = LEFT + k * CELL
            box = f'x="{left + 2}" y="{top}" width="{CELL - 4}" height="{HEIGHT}" rx="4"'
            lines.append(f'<rect {box} fill="{colour}"/>')
            lines.append(_text(left + CELL / 2, top + HEIGHT / 2, cell))
            if number > 1:
                lines.append(_text(left + CELL / 2, top - GAP / 2, "+"))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>', *lines, "</svg>\n",
    ])  # fmt: skip


def _text(x: float, y: float, words: str) -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="middle" dominant-baseline="central" fill="{INK}"'
    return f"<text {place}>{escape(words)}</text>"


if __name__ == "__main__":
    drawn = figure(load_tokenizer("demo-bert-fa").encode(QUESTION, PASSAGE))
    Path(__file__).with_name("embeddings.svg").write_text(drawn, encoding="utf-8")
