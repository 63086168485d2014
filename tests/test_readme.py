"""The READMEs: what they name exists, and the Persian one says what the English one says."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.fa.md"]
CODE = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def numbers_in(row: str) -> set[str]:
    """Numbers with a decimal point, in the digits of either script."""
    return set(re.findall(r"\d+\.\d+", row.translate(str.maketrans("۰۱۲۳۴۵۶۷۸۹٫", "0123456789."))))


def test_both_show_the_same_commands() -> None:
    english, persian = (CODE.findall(text_of(name)) for name in READMES)
    assert english == persian
    assert len(english) >= 6


def test_both_have_the_same_sections_questions_tables_and_numbers() -> None:
    english, persian = map(text_of, READMES)
    for start in ("#", "|", "**"):
        counts = [sum(line.startswith(start) for line in text.splitlines()) for text in (english, persian)]
        assert counts[0] == counts[1], start
    rows = [[line for line in text.splitlines() if line.startswith("|")] for text in (english, persian)]
    for ours, theirs in zip(*rows, strict=True):
        assert numbers_in(ours) == numbers_in(theirs)


@pytest.mark.parametrize("name", READMES)
def test_every_file_that_is_named_exists(name: str) -> None:
    text = text_of(name)
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    paths = re.findall(r"`((?:minitransformer|qa|vision|weights|recipes|bench|docs|tests)/[\w/.-]*)`", text)
    scripts = re.findall(r"\b(train_\w+\.py)\b", text)
    recipes = [f"recipes/{recipe}.toml" for recipe in re.findall(r"--recipe ([\w-]+)", text)]
    assert links
    assert paths
    for path in [*links, *paths, *scripts, *recipes]:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", READMES)
def test_every_module_that_is_run_exists(name: str) -> None:
    modules = set(re.findall(r"python -m ((?:qa|vision|weights|bench)\.\w+)", text_of(name)))
    assert modules
    for module in modules:
        assert importlib.util.find_spec(module), module


def test_the_results_are_those_of_the_results_page() -> None:
    rows = [row for row in text_of("README.md").splitlines() if row.startswith("| `train_") and "|" in row]
    measured = [row.split("|")[2] for row in rows if "not measured" not in row and "/" in row.split("|")[2]]
    page = text_of("docs/RESULTS.md")
    assert measured
    for cell in measured:
        for number in numbers_in(cell):
            assert number in page, number
