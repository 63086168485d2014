"""Run notebooks from top to bottom and write each, with what it shows, as a page beside it: NAME.ipynb, NAME.html.

python notebooks/render.py                 both; needs pip install -e ".[notebook]"
"""

import base64
import hashlib
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from PIL import Image
from pygments.formatters import HtmlFormatter

from minitransformer.pages.page import Html, page, tag

FOLDER = Path(__file__).parent
STYLE = """
body { max-width: 72rem; }
.highlight pre { overflow-x: auto; padding: .6em .9em; background: #f6f7f9; color: #1d2329; border-radius: 6px;
  font-size: .85rem; }
.output_area { overflow-x: auto; }
.output_area pre { white-space: pre-wrap; font-size: .85rem; }
.output_area img { max-width: 100%; }
"""
WIDGET = "application/vnd.jupyter.widget-view+json"  # a bar: it lives in the kernel, and leaves nothing to show


def main() -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=None, resources={"metadata": {"path": FOLDER}}).execute()
        path.with_suffix(".html").write_text(render(notebook, digest(path)), encoding="utf-8")
        print(path.with_suffix(".html"))


def render(notebook: nbformat.NotebookNode, digest: str) -> str:
    """The page of a notebook that has run."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for data in (output.data for output in cell.outputs if "data" in output and "image/png" in output.data):
                data["image/png"] = smaller(data["image/png"])
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)  # what is printed, in one piece
    body, _ = exporter.from_notebook_node(notebook)
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    made_of = tag("p", f"sha256 of the notebook: {digest}", class_="note")
    return page(title, Html(body), made_of, style=STYLE + HtmlFormatter().get_style_defs(".highlight"))


def smaller(png: str) -> str:
    """The same picture in 128 colours, a third of the size; both base64."""
    out = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(128).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def digest(path: Path) -> str:
    """By which a page can be told to be of this notebook as it is."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
