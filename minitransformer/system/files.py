"""Files appear whole or not at all: written under a temporary name, synced, renamed.

Everything that a run changes on a disk, it changes through this module.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from minitransformer.system.errors import RunError


def operation(name: str, path: str | Path) -> None:
    """Called before every change on the disk. Does nothing; tests put a full disk or a killed process in its place."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes `path` when the block ends well and vanishes when it does not."""
    path = Path(path)
    try:
        operation("create", path)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:  # about a name that nobody has asked for: say whose
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            operation("write", path)
            yield file
            file.flush()
            operation("sync", path)
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        operation("rename", path)
        os.replace(temporary, path)
    except OSError as error:  # of a full disk, which the system reports without a name
        os.unlink(temporary)
        raise OSError(error.errno, error.strerror, str(path)) from error
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
    """Write `value` as `json_bytes`."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """Indented UTF-8 JSON; Persian text stays readable."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def make_folder(folder: Path) -> None:
    """Make it, unless it is there. OSError where the one above it is not: somebody has taken it away."""
    operation("make folder", folder)
    folder.mkdir(exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove it with all that is in it, if it is there. It vanishes under its name at once, not file by file."""
    if not folder.exists():
        return
    doomed = folder if folder.name.startswith(".") else folder.with_name(f".{folder.name}.old")
    if doomed != folder:
        remove_folder(doomed)
        rename(folder, doomed)
    operation("remove", doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what a killed process was writing in a folder in which no other process writes: files of that name."""
    for path in folder.glob(f".{name}.????????.tmp"):  # as `replacing` names them
        operation("remove", path)
        path.unlink()


def rename(old: Path, new: Path) -> None:
    """In one step, and durable when this returns. `new` is replaced if it is a file or an empty folder."""
    operation("rename", new)
    os.replace(old, new)
    sync_folder(new.parent)


def check_writable(path: str | Path, *inputs: str | Path) -> None:
    """RunError where a file `path` could not be written, or is one of the `inputs`, files that are read for it.

    To be asked before hours of work, not after them.
    """
    path = Path(path)
    if path.is_dir():
        raise RunError(f"{path}: it is a folder; give the name of a file")
    if path.exists() and any(Path(read).exists() and path.samefile(read) for read in inputs):
        raise RunError(f"{path}: it is what is read, and would be lost; give the name of another file")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); give a file in a folder that exists") from error


def check_regular(path: Path) -> None:
    """OSError where there is something else than a file: to open a FIFO is to wait for whoever writes into it."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def sync_folder(folder: str | Path) -> None:
    """Make the names in `folder` durable: a rename is only safe once its folder is synced."""
    operation("sync", folder)
    if os.name == "nt":  # which does not open folders, and keeps names safe by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
