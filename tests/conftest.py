"""The one place where tests find what is not in the repository."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test asks the real hub
torch.set_num_threads(1)  # the models are tiny: handing work to a second thread costs more than it saves


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with real data and weights: `MT_ASSETS`, or `../shared` beside the checkout."""
    folder = Path(os.environ.get("MT_ASSETS", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data and weights: {folder} is absent (set MT_ASSETS)")
    return folder


@pytest.fixture(scope="session")
def cifar(assets, tmp_path_factory) -> Path:
    """A folder with data/, 150 photographs of CIFAR-10 in the official layout, and jpeg/, ten of them as files."""
    folder = tmp_path_factory.mktemp("cifar")
    tool = assets / "tools/make_cifar10.py"
    limits = ["--limit-train", "100", "--limit-test", "50"]
    subprocess.run([sys.executable, tool, "--out", folder / "data", *limits], check=True, capture_output=True)
    (folder / "jpeg").mkdir()
    with tarfile.open(assets / "data/cifar10/cifar10-jpeg.tar") as archive:
        for member in archive:  # in order of name: all of test/, then train/, which is five times as long
            if member.name.startswith("train/"):
                break
            if member.name.endswith("/0007.jpg"):
                name = member.name.replace("/", "-")
                (folder / "jpeg" / name).write_bytes(archive.extractfile(member).read())
    return folder
