"""CIFAR-10 as its author publishes it: cifar-10-python.tar.gz, or the folder cifar-10-batches-py that comes out of it.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". Its batches are Python pickles, which can hold
any program; here they are read by an unpickler that knows arrays and plain values alone, and straight from the archive,
so that no name in it becomes a path.
"""

import hashlib
import io
import pickle
import pickletools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.system.errors import DataError
from vision.download import CHECKSUM
from vision.images import Images

FOLDER = "cifar-10-batches-py"
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "valid": ["test_batch"]}
META = "batches.meta"
SIDE = 32
LARGEST = 64 * 2**20  # bytes of a batch, of which the real ones have 31 million
LARGEST_MEMO = 1_000_000  # things that a pickle may refer back to; the real ones have 10,000 names of files
NEWEST_PROTOCOL = 4  # of pickle; the real ones are of 2

# What a pickled array names. In Python 2's pickles numpy's module is numpy.core, in newer ones numpy._core.
RECONSTRUCT = np.zeros(1).__reduce__()[0]  # the function, wherever numpy has it now
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """Arrays, numbers, texts, lists and dictionaries, and nothing that can be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")


def _check_operations(data: bytes) -> None:
    """UnpicklingError on what makes Python's unpickler take memory, or print, before it looks at what follows."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.proto > NEWEST_PROTOCOL:
            raise pickle.UnpicklingError(f"it has the operation {operation.name} of protocol {operation.proto}")
        if operation.name.endswith("PUT") and isinstance(argument, int) and argument > LARGEST_MEMO:
            raise pickle.UnpicklingError(f"it refers to thing {argument:,}")


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


def is_cifar10(path: Path) -> bool:
    """Whether a path is CIFAR-10's archive or folder, by its names alone."""
    extracted = path / FOLDER if (path / FOLDER).is_dir() else path
    return path.name.endswith((".tar.gz", ".tgz")) or any(
        (extracted / name).is_file() for name in (META, *FILES["train"], *FILES["valid"])
    )


def read(path: Path, part: str) -> Images:
    """The "train" or "valid" pictures, (N, 32, 32, 3) uint8, of the archive or the folder.

    Raises DataError where a file is missing, damaged, or not CIFAR-10's.
    """
    if path.is_file():
        contents = _from_archive(path, [*FILES[part], META])
    else:
        folder = path / FOLDER if (path / FOLDER).is_dir() else path
        contents = {name: _from_folder(folder / name) for name in [*FILES[part], META]}
    classes = _class_names(_unpickle(contents[META], f"{path}: {META}"), f"{path}: {META}")
    batches = [_batch(_unpickle(contents[name], f"{path}: {name}"), len(classes), f"{path}: {name}")
               for name in FILES[part]]  # fmt: skip
    pictures, labels = (np.concatenate(column) for column in zip(*batches, strict=True))
    return Images(pictures, labels, classes)


def _from_archive(path: Path, names: list[str]) -> dict[str, bytes]:
    with path.open("rb") as file:
        found = "md5:" + hashlib.file_digest(file, "md5").hexdigest()
    if found != CHECKSUM:
        raise DataError(
            f"{path}: its {found} is not the published {CHECKSUM}: fetch it again, or, if the archive is your own, "
            f"extract it and give the folder"
        )
    wanted = {f"{FOLDER}/{name}": name for name in names}
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name in wanted and member.isfile() and member.size <= LARGEST:
                    file = archive.extractfile(member)
                    contents[wanted[member.name]] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: not a whole archive ({error}); fetch it again") from error
    for name in names:
        if name not in contents:
            raise DataError(f"{path}: no file {FOLDER}/{name} in it; fetch it again")
    return contents


def _from_folder(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes, more than a batch of CIFAR-10 has")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; extract cifar-10-python.tar.gz again") from error


def _unpickle(data: bytes, where: str) -> dict[str, Any]:
    try:
        _check_operations(data)
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(value, dict):
            raise TypeError("no dictionary")
        return {key.decode() if isinstance(key, bytes) else key: entry for key, entry in value.items()}
    # A damaged pickle can fail in as many ways as there are values.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: not a batch of CIFAR-10 ({reason}); fetch it again") from error


def _batch(values: dict[str, Any], classes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 32, 32, 3) and labels (N,) of a batch, whose rows hold all red values, then green, then blue."""
    data, labels = values.get("data"), values.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * SIDE * SIDE,):
        raise DataError(f"{where}: its data are not rows of {3 * SIDE * SIDE} bytes; fetch it again")
    if not len(data):
        raise DataError(f"{where}: no pictures in it; fetch it again")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise DataError(f"{where}: {len(data)} pictures, but no list of as many labels; fetch it again")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise DataError(f"{where}: a label is not one of the {classes} classes; fetch it again")
    pictures = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures), np.array(labels, dtype=np.int64)


def _class_names(values: dict[str, Any], where: str) -> tuple[str, ...]:
    names = values.get("label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{where}: no names of classes in it; fetch it again")
    try:
        return tuple(name.decode() if isinstance(name, bytes) else name for name in names)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: the names of its classes are no text; fetch it again") from error
