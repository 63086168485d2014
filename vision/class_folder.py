"""A folder of classes, as torchvision's ImageFolder has it: train/CLASS/picture.jpg, train/CLASS/more/picture.png."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minitransformer.system.errors import DataError, is_unicode
from vision.images import Images

PARTS = {
    "train": ("train",),
    "valid": ("valid", "val", "validation", "test"),  # what is chosen by a test set is not tested by it
}
ENDINGS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# What systems leave in folders: __MACOSX of a zip file, @eaDir of a network drive with small copies of its pictures.
LITTER = ("__MACOSX", "@eaDir")


def read_folder(folder: Path, part: str) -> Images:
    """The pictures of train/, or of valid/ (or val/, validation/, test/), in the order of classes and then of paths.

    Raises DataError where the part or a class is empty, or the part has a class that train/ lacks.
    """
    classes = _classes(folder / "train")
    root = next((folder / name for name in PARTS[part] if (folder / name).is_dir()), None)
    if root is None:
        raise DataError(f"{folder}: no folder {' or '.join(PARTS[part])} in it")
    pictures: list[Path] = []
    labels: list[int] = []
    for name in _classes(root):
        if name not in classes:
            raise DataError(f"{root / name}: a class that {folder / 'train'} does not have")
        found = sorted(_pictures(root / name))
        if not found:
            endings = ", ".join(ENDINGS)
            raise DataError(f"{root / name}: no pictures in it ({endings}); remove the folder, or fill it")
        pictures += found
        labels += [classes.index(name)] * len(found)
    return Images(pictures, np.array(labels, dtype=np.int64), tuple(classes))


def _classes(folder: Path) -> list[str]:
    """Names of classes in order: of numbers where all are numbers, so that class 10 has the label 10, else of names.

    ImageFolder has 0, 1, 10, 2, and takes a hidden folder such as .ipynb_checkpoints for a class.
    """
    inside = folder.iterdir() if folder.is_dir() else ()
    names = sorted(path.name for path in inside if path.is_dir() and not _hidden(path.name))
    if not names:
        raise DataError(f"{folder}: no folders of classes in it: pictures go to {folder}/CLASS/")
    for name in names:
        if not is_unicode(name):
            raise DataError(f"{folder}: the name of the class {name!r} is not UTF-8; rename its folder")
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _pictures(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is called as pictures are, through links too, each folder once."""
    seen = set()
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        place = os.path.realpath(root)
        if place in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(place)
        folders[:] = [name for name in folders if not _hidden(name)]
        yield from (Path(root, name) for name in names if name.lower().endswith(ENDINGS) and not _hidden(name))


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: {error.strerror}") from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in LITTER  # .DS_Store, and ._x.jpg, which is a Mac's note on x.jpg
