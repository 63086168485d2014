"""Which pictures a job is given: the demo's, CIFAR-10's, or a folder of one's own."""

from pathlib import Path

import numpy as np

from minitransformer.system.errors import DataError
from vision import cifar10, demo
from vision.class_folder import read_folder
from vision.images import Images


def read(source: str, part: str, limit: int = 0, only_classes: str = "") -> Images:
    """Labelled pictures. DataError where there are none.

    source: the name of a set that is drawn (vision/demo.py), CIFAR-10's archive or folder, or a folder of classes.
    part: "train" or "valid". limit: so many of them, drawn by a chance that is always the same; 0: all.
    only_classes: names with commas between, or with spaces; the others are left out. Empty: all.
    """
    path = Path(source)
    if source in demo.SETS:
        data = demo.read(source, part, None if only_classes else limit)  # any of them are as good as the first
    elif not path.exists():
        raise DataError(f"{source}: no such file or folder; python -m vision.download fetches CIFAR-10")
    elif cifar10.is_cifar10(path):
        data = cifar10.read(path, part)
    elif path.is_dir():
        data = read_folder(path, part)
    else:
        raise DataError(f"{source}: neither CIFAR-10's archive nor a folder; give one of them")
    if only_classes:
        names = only_classes.split("," if "," in only_classes else None)
        data = data.only(name.strip() for name in names if name.strip())
    if not len(data):
        raise DataError(f"{source}: no {part} pictures of {only_classes.strip()}")
    if limit and limit < len(data):
        data = data.take(np.random.default_rng(0).permutation(len(data))[:limit])
    return data
