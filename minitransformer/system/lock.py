"""One process at a time, in a folder or at a file: the system's lock, which a process that has died does not hold.

Windows has no such locks. Nothing is held there, and two processes in one folder are not told apart.
"""

import os
from pathlib import Path
from typing import IO

from minitransformer.system.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # pyrefly: ignore[bad-assignment]

_held: tuple[tuple[int, int], int] | None = None  # the folder's device and inode, the open folder


def lock_folder(folder: Path) -> None:
    """Hold a folder until this process ends, or holds another. RunError, naming the process, where one holds it.

    No file tells of it, so that none is left behind. Where the system has no such locks, nothing is held.
    """
    global _held
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    status = os.fstat(descriptor)
    place = status.st_dev, status.st_ino
    if _held and _held[0] == place:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunError(
            f"{folder}: {_holder(status.st_ino)} is at work in it; wait until it has ended, or choose another --out"
        ) from None
    except OSError:  # a network's file system without locks
        os.close(descriptor)
        return
    if _held:
        os.close(_held[1])
    _held = place, descriptor


def hold(file: IO, wait: bool = True) -> None:
    """Hold an open file until it is closed. wait: for whoever holds it now; else BlockingIOError where one does."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(inode: int) -> str:
    """The process that holds a lock, as Linux lists them: 7: FLOCK ADVISORY WRITE 4711 08:01:1234567 0 EOF."""
    try:
        listed = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        listed = []
    for line in map(str.split, listed):
        if line[1] == "FLOCK" and line[5].endswith(f":{inode}"):
            return f"process {line[4]}"
    return "another process"
