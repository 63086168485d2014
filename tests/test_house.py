"""The house: who may import whom, and the picture of it in the READMEs, held against the imports themselves."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = "train_*.py"
PACKAGES = ("bench", "recipes", "qa", "vision", "weights", "minitransformer")
FILES = [*ROOT.glob("train_*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
MODELS = {path.stem for path in (ROOT / "minitransformer").glob("*.py")} - {"__init__"}


def room_of(path: Path) -> str:
    """A folder with code is a room; the three jobs share one."""
    folder = path.relative_to(ROOT).parent.as_posix()
    return JOBS if folder == "." else folder


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, with a name that is imported from a module behind it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def arrows() -> set[tuple[str, str]]:
    """(room, room that it imports from)"""
    rooms = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): room_of(path)
             for path in FILES}  # fmt: skip
    # `from minitransformer.system import files` names the package on the way, which is no import of its room's own.
    pairs = {(room_of(path), rooms[name]) for path in FILES for name in imports(path) & rooms.keys()}
    return {(room, other) for room, other in pairs if room != other}


def below(room: str, pairs: set[tuple[str, str]]) -> set[str]:
    """Every room that can be reached."""
    direct = {other for one, other in pairs if one == room}
    return direct.union(*(below(other, pairs) for other in direct))


def test_no_room_reaches_itself():
    pairs = arrows()
    sys.setrecursionlimit(10_000)
    try:
        circles = [room for room in {one for one, _ in pairs} if room in below(room, pairs)]
    except RecursionError:
        circles = ["somewhere"]
    assert circles == []


def test_models_import_torch_and_each_other_alone():
    for name in sorted(MODELS):
        roots = {module.split(".")[0] for module in imports(ROOT / f"minitransformer/{name}.py")}
        assert roots - {"torch", "minitransformer"} <= sys.stdlib_module_names, name
        ours = {m for m in imports(ROOT / f"minitransformer/{name}.py") if m.startswith("minitransformer.")}
        assert {module.split(".")[1] for module in ours} <= MODELS, name


@pytest.mark.parametrize(("room", "others"), [
    ("minitransformer", {"weights", "qa", "vision", "recipes", "train_qa", "train_mlm", "train_vit", "bench"}),
    ("weights", {"qa", "vision", "recipes", "train_qa", "train_mlm", "train_vit", "bench"}),
    ("qa", {"vision", "recipes", "train_qa", "train_mlm", "train_vit", "bench"}),
    ("vision", {"qa", "recipes", "train_qa", "train_mlm", "train_vit", "bench"}),
    ("recipes", {"qa", "vision", "weights", "train_qa", "train_mlm", "train_vit", "bench"}),
])  # fmt: skip
def test_imports_point_down(room, others):
    for path in (ROOT / room).rglob("*.py"):
        assert not {module.split(".")[0] for module in imports(path)} & others, path


def test_transformers_is_imported_by_the_comparison_alone():
    users = [path for path in FILES if any(module.split(".")[0] == "transformers" for module in imports(path))]
    assert {path.relative_to(ROOT).parts[0] for path in users} <= {"bench", "weights"}
    assert {path.parent.name for path in users if "weights" in path.parts} <= {"compare"}


def picture() -> str:
    """The rooms and their arrows for Mermaid; an arrow that others make up together is left out."""
    pairs = arrows()
    kept = {
        (room, other)
        for room, other in pairs
        if not any(other in below(third, pairs) for one, third in pairs if one == room and third != other)
    }
    lines = [f'  {_id(room)}["{room}"]' for room in sorted({room for pair in kept for room in pair})]
    lines += [f"  {_id(room)} --> {_id(other)}" for room, other in sorted(kept)]
    return "flowchart TD\n" + "\n".join(lines) + "\n"


def _id(room: str) -> str:
    return re.sub(r"\W+", "_", room).strip("_")


@pytest.mark.parametrize("name", ["README.md", "README.fa.md"])
def test_the_picture_of_the_house_shows_the_imports(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    drawn = re.search(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert drawn, "no picture"
    assert drawn[1] == picture()


def test_the_loops_are_short_and_come_first():
    for path in ROOT.glob("train_*.py"):
        functions = {node.name: node for node in ast.parse(path.read_text(encoding="utf-8")).body
                     if isinstance(node, ast.FunctionDef)}  # fmt: skip
        assert list(functions)[:2] == ["main", "train"], path
        for name, most in (("main", 40), ("train", 60)):
            assert functions[name].end_lineno - functions[name].lineno < most, (path.name, name)
