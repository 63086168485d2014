"""Chapter 1's figure: in which tenth of its passage an answer begins, in the demo's training questions."""

import svg

from qa import demo
from qa.explore.survey import survey, tenths


def figure() -> str:
    counts = tenths(survey("demo", demo.examples("train")).places)
    rows = [(f"{10 * n} to {10 * (n + 1)} %", float(count), f"{count:,}") for n, count in enumerate(counts)]
    title = svg.text(
        18, 16, "a row: a tenth of the passage; a bar: how many answers begin in it (the demo)", anchor="start"
    )
    return svg.picture(660, 36 + svg.ROW * len(rows), title, *svg.bars(rows, left=110, width=450, top=30))


if __name__ == "__main__":
    svg.save(__file__, figure())
