"""The shapes that the course's figures are made of, as SVG text.

python docs/course/figures/NAME.py draws a figure anew.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

INK, FAINT, PAPER = "#1d2329", "#8a929b", "#ffffff"
ROW = 26  # height of a bar and the room around it
ORANGE, GREEN, BLUE, RED = "#e39b3c", "#4f9d69", "#4a78b5", "#c2504a"


def text(x: float, y: float, words: str, size: float = 13, anchor: str = "middle", colour: str = INK) -> str:
    """Words around (x, y); anchor: which part of them stands there, start, middle or end."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" dominant-baseline="central"'
    return f'<text {place} font-size="{size:g}" fill="{colour}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str = BLUE, shade: float = 1.0) -> str:
    """A filled rectangle; shade: 0 shows nothing of the colour, 1 all of it."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} rx="3" fill="{colour}" fill-opacity="{shade:.2f}"/>'


def line(points: Sequence[tuple[float, float]], colour: str = INK, width: float = 1.5) -> str:
    """A line through all of points, in this order."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'


def bars(
    rows: Sequence[tuple[str, float, str]], left: float, width: float, colour: str = BLUE, top: float = 0
) -> list[str]:
    """A bar lying down for each (name, value, what to print at its end); the longest is `width` long."""
    longest = max(value for _, value, _ in rows)
    shapes = []
    for number, (name, value, said) in enumerate(rows):
        y = top + ROW * number
        long = width * value / longest
        shapes += [text(left - 8, y + ROW / 2, name, anchor="end"), box(left, y + 4, long, ROW - 8, colour)]
        shapes.append(text(left + long + 6, y + ROW / 2, said, size=12, anchor="start", colour=FAINT))
    return shapes


def grid(
    names: Sequence[str],
    shades: Sequence[Sequence[float]],
    left: float,
    top: float,
    cell: float,
    colour: str = BLUE,
    lines: int = 2,
) -> list[str]:
    """A cell for each two of the names, row by row. lines: that the columns' names are spread over, to fit."""
    shapes = []
    for i, (name, row) in enumerate(zip(names, shades, strict=True)):
        middle = i * cell + cell / 2
        shapes.append(text(left - 6, top + middle, name, size=12, anchor="end"))
        shapes.append(text(left + middle, top - 14 - 18 * (i % lines), name, size=12))
        shapes += [
            box(left + j * cell, top + i * cell, cell - 1, cell - 1, colour, shade) for j, shade in enumerate(row)
        ]
    return shapes


def picture(width: float, height: float, *shapes: str) -> str:
    """The whole drawing, on paper, so that it can be read on a dark page too."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{width:g}" height="{height:g}" fill="{PAPER}"/>', *shapes, "</svg>\n"])


def save(script: str, drawn: str) -> None:
    """Write the drawing beside the script that made it: NAME.py, NAME.svg."""
    Path(script).with_suffix(".svg").write_text(drawn, encoding="utf-8")
