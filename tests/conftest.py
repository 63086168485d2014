"""The one place where tests find what is not in the repository."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the models are tiny: handing work to a second thread costs more than it saves


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with real data and weights: `MT_ASSETS`, or `../shared` beside the checkout."""
    folder = Path(os.environ.get("MT_ASSETS", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data and weights: {folder} is absent (set MT_ASSETS)")
    return folder
