"""Charts as SVG inside a page: lines and dots over two axes, in the page's own colours, light or dark.

Matplotlib's pictures have one background and do not shape Persian; a browser does, and text in SVG can be read aloud.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from minitransformer.pages.page import Html, escape, join, tag

WIDTH, HEIGHT = 480, 280  # units of the drawing: pixels on a wide screen, less on a telephone
LEFT, RIGHT, TOP, BOTTOM = 70, 26, 12, 48  # margins that hold the axes' numbers and names
TICKS = 5  # about so many numbers on an axis
COLOURS = 4  # --series0 ... in the page's style

STYLE = """
svg.chart { width: 100%; height: auto; max-width: 40rem; display: block; font-size: 13px; fill: var(--ink); }
svg.chart .grid { stroke: var(--line); stroke-width: 1; fill: none; }
svg.chart .mark { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; }
svg.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg.chart .dots { fill: none; stroke-width: 3; stroke-linecap: round; stroke-opacity: .6; }
svg.chart .number { fill: var(--faint); font-size: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .9rem; }
.legend i { display: inline-block; width: 1.3em; height: .25em; border-radius: 2px; margin-inline-end: .4em;
  vertical-align: middle; }
""" + "".join(f".stroke{k} {{ stroke: var(--series{k}); }}\n" for k in range(COLOURS))  # fmt: skip


class Series(NamedTuple):
    name: str
    points: Sequence[tuple[float, float]]  # (x, y), x rising
    dots: bool = False  # a dot for each point, no line between them


def chart(
    title: str,
    x_name: str,
    y_name: str,
    series: Sequence[Series],
    marks: Sequence[tuple[float, str]] = (),
    y_range: tuple[float, float] | None = None,
) -> Html:
    """A figure with its title, axes and, where there are several series, a legend. Points that are not finite are
    left out. marks: (x, name) of vertical lines. y_range: what the y axis shows at least."""
    series = [s._replace(points=[p for p in s.points if math.isfinite(p[0]) and math.isfinite(p[1])]) for s in series]
    x_ticks = ticks([x for s in series for x, _ in s.points] + [x for x, _ in marks])
    y_ticks = ticks([y for s in series for _, y in s.points] + list(y_range or ()))
    # A y axis whose numbers were asked for, or leave much room, begins at round numbers; x ends where its points do.
    xs = [x for s in series for x, _ in s.points] + [x for x, _ in marks] or [0.0]
    low, high = min(xs), max(xs)
    span, bottom, top = high - low or 1.0, y_ticks[0], y_ticks[-1]

    def across(x: float) -> float:
        return LEFT + (x - low) / span * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_ticks:
        parts.append(_path(f"M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}", "grid"))
        parts.append(_label(LEFT - 7, up(y) + 4, _short(y), "end"))
    for x in x_ticks:
        if low <= x <= high:
            parts.append(_path(f"M{across(x):.1f} {HEIGHT - BOTTOM}v5", "grid"))
            parts.append(_label(across(x), HEIGHT - BOTTOM + 19, _short(x), "middle"))
    for x, _ in marks:
        parts.append(_path(f"M{across(x):.1f} {TOP}V{HEIGHT - BOTTOM}", "mark"))
    for k, (_, points, dots) in enumerate(series):
        places = [f"{across(x):.1f} {up(y):.1f}" for x, y in points]
        drawing = "".join(f"M{place}h0" for place in places) if dots else "M" + "L".join(places)
        if places:
            parts.append(_path(drawing, f"{'dots' if dots else 'line'} stroke{k % COLOURS}"))
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name, "middle", class_=None))
    parts.append(_label(13, middle, y_name, "middle", class_=None, transform=f"rotate(-90 13 {middle})"))
    drawn = tag("svg", *parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    return tag("figure", tag("h3", title), drawn, _legend(series, marks))


def ticks(values: Sequence[float]) -> list[float]:
    """Round numbers from at or below the lowest value to at or above the highest, at steps of 1, 2 or 5 times 10^k."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        low, high = (0.0, 2 * high) if high > 0 else (low - 1, high + 1)
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def _short(value: float) -> str:
    rounded = float(f"{value:.10g}")
    if rounded == int(rounded) and abs(rounded) < 1e7:
        return f"{int(rounded):,}"
    return f"{rounded:g}"


def _path(drawing: str, kind: str) -> Html:
    return Html(f'<path class="{kind}" d="{drawing}"/>')


def _label(x: float, y: float, words: str, anchor: str, class_: str | None = "number", **attributes: str) -> Html:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_, **attributes)


def _legend(series: Sequence[Series], marks: Sequence[tuple[float, str]]) -> Html:
    names = [
        tag("span", Html(f'<i style="background: var(--series{k % COLOURS})"></i>'), escape(s.name))
        for k, s in enumerate(series)
    ]
    dashed = [tag("span", f"┆ {name}") for _, name in marks]
    return tag("div", join(names if len(names) > 1 or dashed else []), *dashed, class_="legend")
