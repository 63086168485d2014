"""A page that is one file: HTML with its style and pictures inside, light or dark as the reader's screen is.

It opens from a disk, asks no network for anything and runs no script. Text from data sets goes into it, so whatever is
not `Html` already is escaped: to forget is safe.
"""

import base64
import html
import unicodedata
from collections.abc import Iterable, Sequence

from minitransformer.system.errors import JOINERS

# Whatever slips through: a browser loads nothing, sends nothing and runs nothing for this page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --card: #fff; --ink: #1d2329; --faint: #5d6873; --line: #d8dde2;
  --soft: #eef1f4; --series0: #1f6fc4; --series1: #c8590a; --series2: #23803f; --series3: #8a46b8;
  --good: #1a7f37; --good-back: #d3f2da; --bad: #b42318; --bad-back: #fde0dc; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --card: #1b2127; --ink: #e4e8ec; --faint: #9aa6b2;
  --line: #353e47; --soft: #242c34; --series0: #6cb0ff; --series1: #ff9d55; --series2: #5fca7e; --series3: #cf9bf2;
  --good: #6fd68b; --good-back: #17472a; --bad: #ff9086; --bad-back: #5c2420; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, "Segoe UI", Roboto, "Noto Sans", "Vazirmatn", Tahoma, "Noto Sans Arabic", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
code { font-size: .9em; background: var(--soft); padding: .1em .35em; border-radius: 4px; overflow-wrap: anywhere; }
.note, figcaption, caption, summary { color: var(--faint); font-size: .92rem; }
summary { cursor: pointer; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .94rem; margin: .6rem 0; }
caption { text-align: start; padding-bottom: .3rem; }
th, td { padding: .28rem .7rem; border-bottom: 1px solid var(--line); text-align: start; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); }
td.number, th.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
.cards, .columns { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); }
.columns { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 1.5rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { color: var(--faint); font-size: .88rem; }
figure { margin: .9rem 0; }
figure > img { max-width: 100%; height: auto; background: #fff; border-radius: 8px; }
.bars td { border: 0; padding: .12rem .6rem .12rem 0; vertical-align: middle; }
.bars, .bars td.bar { width: 100%; }
.bars td.label { white-space: nowrap; }
.bars td.bar div { height: .95rem; min-width: 1px; border-radius: 3px; background: var(--series0); }
mark { color: inherit; border-radius: 3px; padding: 0 .12em; background: var(--good-back); }
.right { color: var(--good); }
.wrong { color: var(--bad); }
"""


class Html(str):
    """Text that is HTML already, made by the functions here."""

    __slots__ = ()


def escape(content: object) -> Html:
    """A value as HTML that shows it and does nothing else.

    Control characters, and those that turn the direction of writing or hide, are left out; the joiners of Persian stay.
    """
    if isinstance(content, Html):
        return content
    kept = (c for c in str(content) if c in JOINERS + "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return Html(html.escape("".join(kept)))


def join(parts: Iterable[object]) -> Html:
    return Html("".join(map(escape, parts)))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element: tag("td", 3, class_="number"). Content that is not Html is escaped; an attribute None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{join(content)}</{name}>")


def text(content: str, name: str = "span", **attributes: object) -> Html:
    """An element for a text of a data set, set in its own direction whatever stands around it."""
    return tag(name, content, dir=direction(content), **attributes)


def direction(content: str) -> str:
    """ "rtl" where most letters are Persian, Arabic or Hebrew. (dir="auto" would go by the first letter alone.)"""
    kinds = [unicodedata.bidirectional(character) for character in content]
    return "rtl" if kinds.count("R") + kinds.count("AL") > kinds.count("L") else "ltr"


def table(header: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Html:
    """Numbers stand to the right; ints get their commas, floats two decimals. A header of nothing is left out."""
    rows = [list(row) for row in rows]
    numeric = [bool(rows) and all(isinstance(row[k], int | float | None) for row in rows) for k in range(len(header))]
    head = tag(
        "tr", *(tag("th", name, class_="number" if n else None) for name, n in zip(header, numeric, strict=True))
    )
    body = [tag("tr", *map(_cell, row)) for row in rows]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else "",
            tag("thead", head) if any(header) else "",
            tag("tbody", *body),
        ),
        class_="scroll",
    )


def bars(rows: Sequence[tuple[object, float, object]], caption: str, largest: float | None = None) -> Html:
    """Horizontal bars: (label, value, what stands behind the bar). `largest` fills the width; default: the highest."""
    full = largest or max((value for _, value, _ in rows), default=1) or 1
    lines = [
        tag(
            "tr",
            text(label, "td", class_="label") if type(label) is str else tag("td", label, class_="label"),
            tag("td", tag("div", style=f"width: {100 * value / full:.1f}%"), class_="bar"),
            tag("td", note, class_="number"),
        )
        for label, value, note in rows
    ]
    return tag("figure", tag("table", tag("caption", caption), tag("tbody", *lines), class_="bars"))


def picture(data: bytes, description: str, caption: object = "", **attributes: object) -> Html:
    """A figure of a PNG or JPEG, which becomes a part of the page."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image = Html(f'<img src="{source}" alt="{escape(str(description))}">')
    return tag("figure", image, tag("figcaption", caption) if caption else "", **attributes)


def cards(values: Iterable[tuple[object, object]]) -> Html:
    """The few numbers that a reader wants first: (value, what it is)."""
    return tag(
        "div", *(tag("div", tag("b", v), tag("span", name), class_="card") for v, name in values), class_="cards"
    )


def page(title: str, *content: object, style: str = "") -> str:
    """The whole file. `style` is CSS beyond that of every page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        + "\n".join(map(escape, content))
        + "\n</body>\n</html>\n"
    )


def _cell(value: object) -> Html:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return text(value, "td") if type(value) is str else tag("td", value)
    shown = "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
    return tag("td", shown, class_="number")
