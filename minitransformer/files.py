"""Files appear whole or not at all: written under a temporary name, synced, renamed."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from minitransformer.errors import RunError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes `path` when the block ends well and vanishes when it does not."""
    path = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:  # about a name that nobody has asked for: say whose
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace `path` by `data` in one step. A reader, or a crash, sees the old file or the new one."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented UTF-8 JSON; Persian text stays readable."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def check_writable(path: str | Path) -> None:
    """RunError where a file `path` could not be written. To be asked before hours of work, not after them."""
    path = Path(path)
    if path.is_dir():
        raise RunError(f"{path}: it is a folder; give the name of a file")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); give a file in a folder that exists") from error


def sync_folder(folder: str | Path) -> None:
    """Make the names in `folder` durable: a rename is only safe once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
