"""The charts of a survey, as PNG files: matplotlib draws them."""

import io
from collections.abc import Sequence

from qa.explore import survey
from qa.explore.numbers import Explored, token_lengths

LONGEST_SHOWN = 99.5  # in percent: histograms end there, or a single long passage would squeeze all others


def draw(explored: Sequence[Explored]) -> dict[str, bytes]:
    """The charts as PNG, by name. Numbers and English only: matplotlib does not join Persian letters."""
    surveys = [e.survey for e in explored]
    charts = {
        "answers": _bars("Questions by number of answers", "answers given to a question", "questions",
                         {s.name: s.answer_counts for s in surveys}),
        "words": _histograms("Lengths in words", "words", [(s.name, s.words) for s in surveys]),
        "places": _bars("Where answers begin in their passage", "tenth of the passage", "answers",
                        {s.name: dict(enumerate(survey.tenths(s.places), 1)) for s in surveys}),
    }  # fmt: skip
    if explored[0].tokens:
        lengths = [(e.survey.name, token_lengths(e.tokens)) for e in explored]
        charts["tokens"] = _histograms("Lengths in tokens of the checkpoint", "tokens", lengths)
    return charts


def _bars(title: str, x_name: str, y_name: str, series: dict[str, dict[int, int]]) -> bytes:
    from matplotlib import ticker

    figure, (axes,) = _figure(1)
    places = sorted({x for counts in series.values() for x in counts})
    width = 0.8 / len(series)
    for k, (name, counts) in enumerate(series.items()):
        left = (k - (len(series) - 1) / 2) * width
        drawn = axes.bar([x + left for x in places], [counts.get(x, 0) for x in places], width, label=_plain(name))
        if len(places) * len(series) <= 20:  # more would not be readable
            axes.bar_label(drawn, fmt="{:,.0f}", fontsize=7, padding=2)
    axes.set(title=title, xlabel=x_name, ylabel=y_name, xticks=places)
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if len(series) > 1:
        axes.legend()
    return _png(figure)


def _histograms(title: str, unit: str, named: Sequence[tuple[str, dict]]) -> bytes:
    """A panel for each kind of text, a line for each file: shares, so that files of different sizes compare."""
    import numpy as np
    from matplotlib import ticker

    kinds = list(named[0][1])
    figure, panels = _figure(len(kinds))
    for axes, kind in zip(panels, kinds, strict=True):
        values = [(name, lengths[kind]) for name, lengths in named if len(lengths[kind])]
        top = max((int(np.percentile(some, LONGEST_SHOWN)) for _, some in values), default=1) + 1
        edges = np.arange(0, top + 1, max(1, round(top / 40))) - 0.5
        for name, some in values:
            weights = np.full(len(some), 100 / len(some))
            axes.hist(some, bins=edges, weights=weights, histtype="step", linewidth=1.8, label=_plain(name))
        axes.set(title=kind, xlabel=f"{unit} of the {kind}", ylabel="share of all, %")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6, integer=True))
        axes.grid(alpha=0.3)
    if len(named) > 1:
        panels[0].legend()
    figure.suptitle(title)
    return _png(figure)


def _figure(panels: int):
    from matplotlib.figure import Figure  # only here: the counting must show its progress before this is loaded

    rows, columns = ((panels + 1) // 2, 2) if panels > 3 else (1, panels)
    size = (8, 4.2) if panels == 1 else (4.2 * columns, 3.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).flatten()


def _png(figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def _plain(name: str) -> str:
    """A file's name for matplotlib: without what it cannot draw, and without what it takes for mathematics."""
    return "".join(c if c.isascii() and c.isprintable() and c not in "$_" else " " for c in name).strip() or "file"
