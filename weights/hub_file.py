"""One file from the Hugging Face hub: downloaded by huggingface_hub, checked, or refused in one line.

It is trusted when it is of the pinned revision, of the right size, and has the sha256 that we know; where we know none,
the one that came first is recorded, and asked of every later download.
"""

import os
import re
from http import HTTPStatus
from inspect import signature
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import tqdm

from minitransformer.system.errors import WeightsError
from weights.checkpoints import File
from weights.download import digest

# Newer versions let a caller watch the bytes come in. Older ones trust the server on where a file ends.
CAN_BE_WATCHED = "tqdm_class" in signature(hf_hub_download).parameters
ROUNDED = 0.05  # of a size that was read off the hub's page: "1.2 MB"


class AbsentError(WeightsError):
    """The hub, or offline its cache, does not have the file: it may have it elsewhere."""


def download(repository: str, file: File, known: dict[str, str]) -> Path:
    """The path of a file in huggingface_hub's cache, checked.

    known: sha256 of earlier downloads by "REVISION/FILE"; this one is added where it is the first.
    """
    place = f"{repository}, {file.name} at {file.revision}"
    most = file.size * (1 + ROUNDED)

    class Bounded(tqdm):
        """huggingface_hub's progress bar, and the end of a file that does not end."""

        def update(self, n: float | None = 1) -> bool | None:
            if self.n + (n or 0) > most:
                raise OSError(f"more than its {file.size:,} bytes came")
            return super().update(n)

    watched: dict[str, Any] = {"tqdm_class": Bounded} if CAN_BE_WATCHED else {}
    try:
        path = Path(hf_hub_download(repository, file.name, revision=file.revision, **watched))
    except Exception as error:  # of which library it is depends on the version (requests, httpx) and on the way (xet)
        raise failure(repository, place, error) from error
    commit = path.parent.name  # snapshots/COMMIT/FILE
    expected = file.commit or file.revision
    if not commit.startswith(expected):
        raise AbsentError(f"{place}: it has moved to {commit} from {expected}, which is the one that we know")
    try:
        sha256 = _check(place, path, file, known)
    except WeightsError:
        discard(path)
        raise
    known[f"{file.revision}/{file.name}"] = sha256
    return path


def failure(repository: str, place: str, error: Exception) -> WeightsError:
    """What to say of an error of huggingface_hub's: what happened, and the remedy."""
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    by_hand = "bring a copy from another machine (python -m weights.hub NAME --to DIR) and say --weights DIR"
    if isinstance(cause, OfflineModeIsEnabled):
        return AbsentError(f"{place}: HF_HUB_OFFLINE is set, and it is not in the cache; unset it, or {by_hand}")
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == HTTPStatus.NOT_FOUND:
        return AbsentError(f"{place}: the hub has no such file (404); {by_hand}")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        remedy = "accept its terms on its page, if it has some, and give your token: hf auth login, or HF_TOKEN"
        return WeightsError(f"{place}: the hub refuses it ({status}); {remedy}")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # older versions go on with a part longer than the whole
        for part in Path(constants.HF_HUB_CACHE).glob(f"models--{repository.replace('/', '--')}/blobs/*.incomplete"):
            part.unlink(missing_ok=True)
        return WeightsError(
            f"{place}: what was left of an earlier download is not of it; it was thrown away; try again"
        )
    said = " ".join(str(cause).split()) or type(cause).__name__
    return WeightsError(f"{place}: the download failed ({said}); try again, set HF_ENDPOINT to a mirror, or {by_hand}")


def _check(place: str, path: Path, file: File, known: dict[str, str]) -> str:
    """The sha256 of a download. WeightsError where it, or the size, is not what is known of the file."""
    remedy = "it was thrown away; try again, or set HF_ENDPOINT to another mirror"
    size = path.stat().st_size
    if abs(size - file.size) > (0 if file.sha256 else ROUNDED * file.size):
        raise WeightsError(f"{place}: {size:,} bytes came where {file.size:,} are right; {remedy}")
    found = digest(path)
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""  # the hub's etag: of large files the sha256
    announced = blob if re.fullmatch("[0-9a-f]{64}", blob) else ""
    recorded = known.get(f"{file.revision}/{file.name}", "")
    for expected, source in (
        (file.sha256, "the one that this project knows"),
        (recorded, "the one of the first download"),
        (announced, "the one that the hub announces"),
    ):
        if expected and found != expected:
            raise WeightsError(f"{place}: its sha256 is {found}, not {expected}, {source}; {remedy}")
    return found


def discard(path: Path) -> None:
    """Take a file out of huggingface_hub's cache: its contents, and the name that points to them."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
