"""The course cannot rot: its examples run, its quotations stand in the code, its scripts draw its figures."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
COURSE = TOP / "docs/course"
CHAPTERS = sorted(COURSE.glob("[0-9]*.md"))
FIGURES = sorted(path for path in COURSE.glob("figures/*.py") if path.stem != "svg")
BLOCK = re.compile(r"^```python(?: source=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w#])-?\d+(?:\.\d+)?(?![\w])")


def blocks(chapter: Path) -> list[tuple[str, str]]:
    """(the file that is quoted, or "", and the code)"""
    return BLOCK.findall(chapter.read_text(encoding="utf-8"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_example_prints_what_the_chapter_says(chapter):
    text = "\n".join(code for source, code in blocks(chapter) if not source)
    test = doctest.DocTestParser().get_doctest(text, {}, chapter.stem, str(chapter), 0)
    complaints = []
    doctest.DocTestRunner().run(test, out=complaints.append)
    assert not complaints, "".join(complaints)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_quotation_stands_in_its_file(chapter):
    for source, code in blocks(chapter):
        if source:
            assert code.strip() in (TOP / source).read_text(encoding="utf-8"), f"{chapter.name} misquotes {source}"


def test_every_chapter_has_examples_or_quotations_and_no_fence_is_overlooked():
    assert len(CHAPTERS) == 13
    for chapter in CHAPTERS[:-1]:
        found = blocks(chapter)
        assert any(">>>" in code for _, code in found), chapter
        text = chapter.read_text(encoding="utf-8")
        assert text.count("```") == 2 * len(found)
        assert text.count(">>> ") == sum(code.count(">>> ") for source, code in found if not source)


def test_every_link_leads_to_a_file():
    for page in COURSE.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (COURSE / target).is_file(), f"{page.name}: {target}"


@pytest.mark.parametrize("script", FIGURES, ids=lambda path: path.stem)
def test_every_figure_is_what_its_script_draws(script, monkeypatch):
    """Word for word, and number for number within a unit of the drawing, since sums differ between machines."""
    monkeypatch.syspath_prepend(script.parent)
    spec = importlib.util.spec_from_file_location(f"figure_{script.stem}", script)
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    drawn, kept = drawing.figure(), script.with_suffix(".svg").read_text(encoding="utf-8")
    assert NUMBER.sub("#", drawn) == NUMBER.sub("#", kept)
    assert [float(n) for n in NUMBER.findall(drawn)] == pytest.approx([float(n) for n in NUMBER.findall(kept)], abs=1)


def test_every_figure_is_shown_in_a_chapter():
    shown = {
        name for page in CHAPTERS for name in re.findall(r"\(figures/(\w+)\.svg\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {script.stem for script in FIGURES}


def test_every_exercise_has_its_test():
    """An exercise is a numbered line that begins with its function; the chapter's file of tests asks for the same."""
    for chapter in CHAPTERS:
        named = re.findall(r"^\d\. \*\*`(\w+)\(", chapter.read_text(encoding="utf-8"), flags=re.MULTILINE)
        tests = TOP / f"tests/course/test_chapter_{chapter.name[:2]}.py"
        asked = re.findall(r'solution\("(\w+)"\)', tests.read_text(encoding="utf-8")) if tests.exists() else []
        assert sorted(named) == sorted(set(asked)), chapter.name


def test_the_count_of_pquad_in_chapter_one_is_that_of_the_file(assets):
    from qa import squad

    examples = squad.read(assets / "data/pquad/Validation.json.gz")
    empty = sum(not example.is_answerable for example in examples)
    said = f"has {len(examples):,} validation questions; {empty:,} have no answer"
    assert said in " ".join((COURSE / "01-task.md").read_text(encoding="utf-8").split())


# ------------------------------------------------------------------------------------------- the Persian edition


@pytest.mark.parametrize("chapter", [COURSE / "README.md", *CHAPTERS], ids=lambda path: path.stem)
def test_the_persian_chapter_has_what_the_english_one_has(chapter):
    english, persian = (path.read_text(encoding="utf-8") for path in (chapter, COURSE / "fa" / chapter.name))
    assert blocks(COURSE / "fa" / chapter.name) == blocks(chapter)
    for mark in (r"^#+ ", r"^\d\. \*\*`(\w+\(.*?\))`", r"^    \S.*$", r"^- ", r"^\|"):
        found = [re.findall(mark, text, flags=re.MULTILINE) for text in (english, persian)]
        assert len(found[0]) == len(found[1]), mark
        assert found[0] == found[1] or not mark.startswith((r"^\d", "^    ")), mark
    pictures = [re.findall(r"figures/\w+\.svg", text) for text in (english, persian)]
    assert pictures[0] == pictures[1]
    assert persian.startswith('<div dir="rtl" lang="fa">\n') and persian.endswith("\n</div>\n")
    assert persian.count("<div") == persian.count("</div>")


def test_every_link_of_the_persian_edition_leads_to_a_file():
    pages = list((COURSE / "fa").glob("*.md"))
    assert len(pages) == len(CHAPTERS) + 1
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
