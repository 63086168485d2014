"""Every command's --help: what it is for, an example to copy, its flags."""

import importlib
from pathlib import Path

import pytest

from tiny import call

TOP = Path(__file__).parents[1]
PACKAGES = ("", "qa", "vision", "weights", "bench")
COMMANDS = sorted(
    ".".join(path.relative_to(TOP).with_suffix("").parts)
    for package in PACKAGES
    for path in (TOP / package).glob("*.py" if not package else "**/*.py")
    if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
)


def test_no_command_is_overlooked():
    known = {"train_qa", "train_mlm", "train_vit", "qa.ask", "qa.serve.__main__", "vision.predict", "weights.hub"}
    assert known <= {*COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_what_the_command_is_for_and_an_example(name):
    outcome = call(importlib.import_module(name).main, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    example = f"python {name}.py" if "." not in name else f"python -m {name.removesuffix('.__main__')}"
    usage, told, *_ = outcome.out.split("\n\n")
    assert usage.startswith("usage: ")
    assert usage.count("\n") < 8, "long usage hides the rest"
    assert told.strip()
    before_flags = outcome.out[len(usage) :].split("\noptions:")[0].split("\npositional arguments:")[0]
    assert example in before_flags
