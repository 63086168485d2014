"""The notebooks run from top to bottom, are kept without outputs, and the pages beside them are of today's."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from notebooks import render

TOP = Path(__file__).parents[1]
NOTEBOOKS = sorted(TOP.glob("notebooks/*.ipynb"))
STEPS = 4  # of each training
name_of = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run(path: Path, **parameters: object) -> list[str]:
    """What the notebook's cells print and show, as text, with other values in its cell of parameters."""
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in parameters.items():
        cell.source, found = re.subn(rf"^{name} = \S+", f"{name} = {value!r}", cell.source, flags=re.MULTILINE)
        assert found == 1, name
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert render.render(notebook, "of this test").count("<h2") >= 2
    return [output["text"] if "text" in output else of_kinds(output.data) for output in outputs]


def of_kinds(data: dict[str, str]) -> str:
    return data.get("text/html") or ("a picture" if "image/png" in data else data["text/plain"])


def test_the_report_runs_from_top_to_bottom():
    shown = run(NOTEBOOKS[1], STEPS=STEPS)
    text = "\n".join(shown)
    assert "6,400" in text and "781,186 parameters" in text
    assert re.search(r"training loss \d\.\d{4}, validation loss \d\.\d{4}", text)
    assert sum(">HasAns_f1</th>" in piece for piece in shown) == 1
    assert "<mark>داریوش بزرگ</mark>" in text and "the passage does not say" in text
    accuracy = re.search(r"accuracy (\d+\.\d+) %", text)
    assert float(accuracy[1]) > 20  # of ten classes, after four steps
    assert sum(piece == "a picture" for piece in shown) == 7


def test_the_attention_maps_are_drawn_and_agree_with_the_formula():
    shown = run(NOTEBOOKS[0])
    text = "\n".join(shown)
    assert float(re.search(r"largest difference: (\S+)", text)[1]) < 1e-5
    assert "12 layers, 12 heads" in text
    assert shown.count("a picture") == 2
    assert "<mark>اسکندر مقدونی</mark>" in text


@name_of
def test_a_notebook_is_kept_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@name_of
def test_the_page_beside_a_notebook_is_of_the_notebook_as_it_is(path):
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert render.digest(path) in page, "python notebooks/render.py"
    assert "most recent call last" not in page and not re.search(r'(src|href)="https?://', page)


@name_of
def test_every_link_of_a_notebook_leads_to_a_file(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).is_file(), target
