"""Download a file: resume where the connection broke, verify, and rename it when it is complete.

For data sets, which lie on ordinary web servers; checkpoints come through hub.py.
"""

import contextlib
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from minitransformer.system import files, lock
from minitransformer.system.errors import DataError
from minitransformer.system.progress import progress, say

SILENCE = 30.0  # seconds that a server may be silent
CHUNK = 1 << 18  # bytes
LARGEST = 2**30  # bytes of a file; a server that sends more sends something else
BUSY = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)
PAUSES = (1, 2, 4, 8, 16)  # seconds before one that is busy is asked again, unless it says how long
LONGEST_PAUSE = 60
SLOWEST = 1000  # bytes a second, over SLOW_SECONDS and more
SLOW_SECONDS = 60


class _HopelessError(Exception):
    """What trying again does not mend, and why."""


def download(url: str, path: Path, checksum: str = "") -> Path:
    """`path`, holding what `url` serves. Where the file is there already, nothing is fetched.

    checksum: "sha256:..." or "md5:..."; a file that differs is an error. "": not known to us; it is recorded at the
    first download, in PATH.sha256 as sha256sum writes it, and a file that differs later is warned of.

    What came before a connection broke stays in PATH.part, and the next call goes on from there. Of several processes
    one downloads and the others wait for it. Raises DataError, in one line.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with _locked(part) as file:
                if not path.exists():  # nor has another process fetched it while this one waited
                    _fetch(url, file, path)
                    if checksum and (found := _checksum(part, checksum)) != checksum:
                        part.unlink()
                        raise DataError(f"{url}: it has {found}, not {checksum}; it was deleted, run this again")
                    os.fsync(file.fileno())
                    part.rename(path)
                    files.sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error

    if not checksum:
        _warn_of_change(path)
    elif (found := _checksum(path, checksum)) != checksum:
        raise DataError(f"{path}: it has {found}, not {checksum}; delete it to fetch it again")
    return path


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _checksum(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{digest(path, algorithm)}"


def _fetch(url: str, file: BinaryIO, path: Path) -> None:
    """Download all of `url` into `file`, which may hold its beginning. Retries as long as each try makes progress."""
    by_hand = f"fetch it by other means to {path}"
    farthest = file.seek(0, os.SEEK_END)
    pauses = iter(PAUSES)
    while True:
        try:
            total = _transfer(url, file, path.name)
            reason = "the connection was cut"
        except _HopelessError as error:
            raise DataError(f"{url}: {error}; {by_hand}") from error
        except urllib.error.HTTPError as error:
            if error.code in BUSY and (pause := next(pauses, None)):
                asked = error.headers.get("Retry-After", "")
                pause = min(int(asked), LONGEST_PAUSE) if asked.isascii() and asked.isdigit() else pause
                say(f"{url}: the server answers {error.code} {error.reason}; trying again in {pause} s")
                time.sleep(pause)
                continue
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or farthest == 0:
                raise DataError(f"{url}: the server answers {error.code} {error.reason}; {by_hand}") from error
            if error.headers.get("Content-Range") == f"bytes */{farthest}":  # all of it is here
                return
            file.truncate(0)  # more than all of it: of another file
            farthest = 0
            continue
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a URL at all
            total, reason = None, _reason(error)
        reached = file.seek(0, os.SEEK_END)
        if reached == total:
            return
        if reached <= farthest:
            kept = f" after {reached:,} bytes, which are kept" if reached else ""
            raise DataError(f"{url}: the download stopped{kept} ({reason}); run this again, or {by_hand}")
        farthest = reached


def _transfer(url: str, file: BinaryIO, name: str) -> int:
    """Append to `file` what it lacks of `url`, as far as the connection lasts. Returns the size of the whole."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=SILENCE) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # the whole, whatever was asked for
            file.truncate(0)
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        began, came = time.monotonic(), 0
        with progress(desc=name, initial=have, total=total, unit="B", unit_scale=True) as bar:
            while chunk := response.read1(CHUNK):  # as it comes, not when so much is there
                came += len(chunk)
                if have + came > LARGEST:
                    file.truncate(0)
                    raise _HopelessError(f"it sends more than {LARGEST:,} bytes, which no file of ours has")
                file.write(chunk)
                bar.update(len(chunk))
                seconds = time.monotonic() - began
                if seconds > SLOW_SECONDS and came < SLOWEST * seconds:
                    raise _HopelessError(f"it sends {came / seconds:.0f} bytes a second; what came is kept")
    return file.seek(0, os.SEEK_END) if total is None else total


def _reason(error: Exception) -> str:
    """Why a connection failed, out of what urllib wraps around it."""
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _warn_of_change(path: Path) -> None:
    record = path.with_name(path.name + ".sha256")
    found = digest(path)
    if not record.is_file():
        files.write_text(record, f"{found}  {path.name}\n")
    elif found not in record.read_text(encoding="utf-8"):
        print(f"warning: {path}: not what first came, by {record}; delete both to begin anew", file=sys.stderr)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The file `part`, to append to, while no other process does. A process that ends, however, loses its lock."""
    while True:
        with part.open("ab") as file:
            lock.hold(file)
            if _is(file, part):
                try:
                    yield file
                finally:
                    if os.fstat(file.fileno()).st_size == 0 and _is(file, part):
                        part.unlink()
                return
        # Whoever held the lock has renamed the file or deleted it: this was the lock of a file that is gone.


def _is(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
