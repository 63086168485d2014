"""What the pages of all runs have in common: how the training went, and the recipe."""

import shlex
from statistics import median

from minitransformer.pages.chart import Series, chart
from minitransformer.pages.finished import Finished
from minitransformer.pages.page import Html, join, table, tag


def training(run: Finished) -> Html:
    """Loss as a line and as dots, as the report has it, and the learning rate."""
    if not run.log:
        return tag("p", "No step was made.")
    every = run.recipe.get("print_every", 1)
    losses = [(row["step"], row["loss"]) for row in run.log]
    means = run.mean_losses
    thinned = losses[every - 1 :: every] if len(losses) >= 2 * every else losses
    speed_name = next(name for name in run.log[0] if name.endswith("_per_second"))
    unit, speed = speed_name.removesuffix("_per_second"), median(row[speed_name] for row in run.log)
    last = run.log[-1]
    story = (
        f"Steps: {len(losses):,}; epochs: {last['epoch']:.0f}. Mean loss of the last epoch {last['running_mean']:.4f}, "
        f"of the first {min(10, len(losses))} steps {means[:10][-1][1]:.4f}. "
        f"A typical step did {speed:,.0f} {unit} a second."
    )
    unit_of_loss = "cross-entropy, nats"
    return join([
        tag("p", story),
        tag(
            "div",
            chart("Training loss", "step", unit_of_loss,
                  [Series(f"one step in {every}" if thinned is not losses else "every step", thinned),
                   Series("mean since the start", means)], y_range=(0, 0)),
            chart("Training loss of every step", "step", unit_of_loss,
                  [Series("loss", losses, dots=True)], y_range=(0, 0)),
            chart("Learning rate", "step", "learning rate",
                  [Series("rate", [(row["step"], row["lr"]) for row in run.log])], y_range=(0, 0)),
            class_="columns",
        ),
    ])  # fmt: skip


def recipe(run: Finished, script: str) -> Html:
    """Every number of the run, and the command that does it again."""
    rows = [(tag("code", name), "–" if value == "" else str(value)) for name, value in run.recipe.items()]
    again = shlex.join(["python", script, "--recipe", str(run.folder / "recipe.toml"), "--out", "runs/again"])
    return join([
        tag("p", "Once more, with the same numbers: ", tag("code", again)),
        tag("details", tag("summary", f"All {len(rows)} fields of the recipe"), table(["field", "value"], rows)),
    ])  # fmt: skip
