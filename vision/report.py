"""The page of an image classification run: report.html in its folder, one file that opens anywhere.

python -m vision.report runs/demo-vit            builds it anew from what the folder holds
"""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from minitransformer.pages import chart, finished, run_page
from minitransformer.pages.finished import Finished
from minitransformer.pages.page import Html, bars, cards, join, page, picture, table, tag, text
from minitransformer.system import files
from minitransformer.system.errors import RunError, command_line
from minitransformer.system.flags import FlagParser
from minitransformer.training.order import epoch_order
from vision import plots
from vision.images import Images
from vision.plots import READABLE, shown

MISTAKES = 30
LARGEST = 128  # pixels of a picture's side on the page
CONFUSED = 10  # pairs of classes that are told in words
REPORT = "The course report's run of this recipe ended with a training loss of 0.0531; it gives no accuracy."

STYLE = """
.pictures { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); }
.pictures figure { margin: 0; }
.pictures img, .sample img { width: 7rem; image-rendering: pixelated; }
.sample img { width: 12rem; }
.confusion td { text-align: center; padding: .25rem .4rem; min-width: 2.4rem; font-variant-numeric: tabular-nums; }
.confusion thead th { writing-mode: vertical-rl; padding: .4rem; font-weight: 500; }
.confusion tbody th { font-weight: 500; }
"""


def write_pictures(folder: Path, train: Images, valid: Images, logits: Tensor, seed: int) -> None:
    """pictures.json: the classes, how many images each has, a random image, and mistakes drawn by chance.

    logits: (N, K) of the validation images. Pictures are PNG in base64, at most LARGEST pixels a side.
    """
    chances, answers = logits.double().softmax(-1).max(-1)
    number = int(epoch_order(len(train), seed, epoch=0)[0])
    classes = train.classes
    files.write_json(
        folder / "pictures.json",
        {
            "classes": list(classes),
            "train": [int((train.labels == k).sum()) for k in range(len(classes))],
            "valid": [int((valid.labels == k).sum()) for k in range(len(classes))],
            "sample": {"picture": _png(train, number), "true": classes[train.labels[number]]},
            "mistakes": [
                {
                    "picture": _png(valid, number),
                    "true": classes[valid.labels[number]],
                    "answer": classes[answers[number]],
                    "probability": chances[number].item(),
                }
                for number in plots.mistakes(valid, answers, seed)[:MISTAKES]
            ],
        },
    )


def _png(images: Images, number: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(shown(images, number, LARGEST)).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def write(folder: str | Path) -> Path:
    """Write report.html from what the run folder holds, and say where. Raises RunError where something is missing."""
    run = finished.read(folder, "train_vit.py", "trainable")
    path = run.folder / "report.html"
    pictures = run.folder / "pictures.json"
    try:
        made = build(run, finished.read_json(pictures))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{pictures}: not what a run writes ({error}); run it again") from error
    files.write_text(path, made)
    return path


def build(run: Finished, pictures: dict[str, Any]) -> str:
    scores, classes = run.metrics, pictures["classes"]
    title = f"{run.name}: pictures told apart by {run.recipe['weights']}"
    story = (
        f"A picture goes in, one of {len(classes)} classes comes out. Of {scores['total']:,} validation pictures "
        f"{sum(row[k] for k, row in enumerate(scores['confusion'])):,} got the right one. "
        f"Guessing would be right for {100 / len(classes):.1f} % of them, were the classes equally frequent."
    )
    sample = pictures["sample"]
    return page(
        title,
        tag("h1", title),
        tag("p", story),
        cards([(f"{scores['accuracy']:.2f}", "accuracy, %"), (f"{scores['loss']:.4f}", "validation loss, nats"),
               (f"{sum(pictures['train']):,}", "training pictures"), (f"{scores['total']:,}", "validation pictures")]),
        tag("h2", "The data"),
        picture(base64.b64decode(sample["picture"]), f"a picture of {sample['true']}",
                join(["a random training picture: ", text(sample["true"], "b")]), class_="sample"),
        table(["class", "training pictures", "validation pictures"],
              zip(classes, pictures["train"], pictures["valid"], strict=True)),
        tag("h2", "How the training went"), run_page.training(run),
        tag("p", REPORT, class_="note") if Path(run.recipe["weights"]).name == "deit-small" else "",
        tag("h2", "Class by class"), per_class(run, classes),
        tag("h2", "What is taken for what"), confusion(scores["confusion"], classes),
        tag("h2", "Mistakes"), mistakes(run, pictures["mistakes"]),
        tag("h2", "The recipe"), run_page.recipe(run, "train_vit.py"),
        style=chart.STYLE + STYLE,
    )  # fmt: skip


def per_class(run: Finished, classes: list[str]) -> Html:
    accuracy = run.metrics["per_class"]
    rows = [(name, accuracy[name], f"{accuracy[name]:.1f}") for name in classes if name in accuracy]
    rows.sort(key=lambda row: row[1])
    return bars(rows, "Accuracy in %, the hardest class first", largest=100)


def confusion(counts: list[list[int]], classes: list[str]) -> Html:
    """The matrix where it has room, and the pairs that are confused most."""
    pairs = sorted(
        ((count, classes[row], classes[column]) for row, line in enumerate(counts)
         for column, count in enumerate(line) if count and row != column), reverse=True,
    )  # fmt: skip
    rows = [(true, answer, count) for count, true, answer in pairs[:CONFUSED]]
    often = table(["true class", "answer", "pictures"], rows, "The commonest mistakes")
    if len(classes) > READABLE:
        return often
    head = tag("tr", tag("th", ""), *(text(name, "th") for name in classes))
    body = [tag("tr", text(name, "th"), *(_share(count, sum(line)) for count in line))
            for name, line in zip(classes, counts, strict=True)]  # fmt: skip
    caption = tag("caption", "How many pictures of the row's class got the column's answer; colour: share of the row")
    matrix = tag("table", caption, tag("thead", head), tag("tbody", *body), class_="confusion")
    return join([tag("div", matrix, class_="scroll"), often])


def _share(count: int, total: int) -> Html:
    strength = 60 * count / max(1, total)  # beyond, the number could not be read on it
    colour = f"background: color-mix(in srgb, var(--series0) {strength:.0f}%, transparent)" if count else None
    return tag("td", f"{count:,}" if count else "·", style=colour)


def mistakes(run: Finished, wrong: list[dict[str, Any]]) -> Html:
    total = run.metrics["total"] - sum(line[k] for k, line in enumerate(run.metrics["confusion"]))
    figures = [
        picture(
            base64.b64decode(one["picture"]),
            f"a picture of {one['true']}",
            join(
                [
                    text(one["answer"], "b", class_="wrong"),
                    f" {one['probability']:.0%}",
                    Html("<br>"),
                    "is: ",
                    text(one["true"]),
                ]
            ),
        )
        for one in wrong
    ]
    told = (
        f"{len(wrong)} of {total:,}, drawn by chance: the answer in red with its probability, below it the true class."
    )
    return join([tag("p", told), tag("div", *figures, class_="pictures")])


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m vision.report", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a run folder, as runs/demo-vit")
    print(write(parser.parse_args().run))


if __name__ == "__main__":
    main()
