"""The wheel holds what a user needs away from the checkout: recipes, the page of qa.serve, the weights that ship."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "data", "build", "*.egg-info", "__pycache__", "tests", "docs", "bench")


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    """away(arguments): what python prints in an empty folder, where the packages are the wheel's."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(TOP, folder / "source", ignore=LEFT_OUT)  # setuptools leaves its things beside pyproject.toml
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "source"]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    (folder / "elsewhere").mkdir()

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(folder / "site"), "PYTHONUTF8": "1"}
        python = [sys.executable, *arguments]
        done = subprocess.run(python, cwd=folder / "elsewhere", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(folder / "site") in run("-c", "import qa; print(qa.__file__)")
    return run


def test_the_answerer_that_ships_answers(away):
    question = "--context", "تهران پایتخت ایران است.", "--question", "پایتخت ایران کجاست؟"
    assert away("-m", "qa.ask", *question).splitlines()[0] == "تهران"


def test_the_jobs_know_their_recipes(away):
    for job in ("train_qa", "train_vit", "train_mlm"):
        assert "--recipe RECIPE" in away("-m", job, "--help")
    recipes = away("-c", "from minitransformer.training.recipe import find; print(find('parsbert').read_text())")
    assert 'weights = "parsbert"' in recipes


def test_the_page_and_the_marks_of_types_are_in_it(away):
    found = away("-c", "from qa.serve.server import SCRIPT; import weights, pathlib; "
                       "print(len(SCRIPT), pathlib.Path(weights.__file__).with_name('py.typed').exists())")  # fmt: skip
    length, typed = found.split()
    assert int(length) > 1000 and typed == "True"
