"""Public checkpoints from the Hugging Face hub: fetched, checked, and kept as folders that load.py reads.

python -m weights.hub                                  the names there are
python -m weights.hub NAME [--to DIR]                  fetch one; `--weights NAME` does so by itself
python -m weights.hub OWNER/NAME[@REVISION] [--to DIR] any repository of the hub; `--weights OWNER/NAME` likewise

huggingface_hub does the downloading, so its cache, its token, a mirror (HF_ENDPOINT) and its offline switch
(HF_HUB_OFFLINE) work as everywhere, and it goes on where a connection broke. The copy says in origin.json of which
commit it is, and stays at it: delete the copy to have a later one.
"""

import contextlib
import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from safetensors import SafetensorError

from minitransformer.system import files
from minitransformer.system.errors import WeightsError, command_line
from minitransformer.system.flags import FlagParser, nearest
from weights.checkpoints import CHECKPOINTS, MB, Checkpoint, File
from weights.download import digest
from weights.find import HUB_ID
from weights.folder import read_json, safetensors_bytes
from weights.hub_file import AbsentError, discard, download
from weights.hub_listing import resolve
from weights.pickled import read_pickle

ORIGIN = "origin.json"  # in the copy: where its files come from, and the sha256 of each


@command_line
def main() -> None:
    flags = parse_flags()
    if flags.name is None:
        print(listing())
        return
    folder = fetch(flags.name, flags.to)
    origin = read_json(folder / ORIGIN)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{flags.name}: {origin['repository']}, {size / MB:.0f} MB, licence {origin['licence']}")
    print(f"checked and ready: {folder}")
    if flags.name in CHECKPOINTS:
        print(f"use it:  {find(flags.name).command}" + (f" --weights {shlex.quote(str(folder))}" if flags.to else ""))
    else:
        print(f"use it:  --weights {shlex.quote(str(folder) if flags.to else flags.name)}")


def parse_flags() -> Any:
    parser = FlagParser(
        prog="python -m weights.hub",
        description=__doc__,
        epilog=f"{listing()}\n\nIt is kept in {cache_folder()}; HF_HOME moves that. Where the hub cannot be reached:\n"
        "set HF_ENDPOINT to a mirror, or fetch on another machine with --to DIR, copy DIR, and say --weights DIR.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="which one, or OWNER/NAME; without it they are listed")
    parser.add_argument("--to", metavar="DIR", help="put a copy there, for another machine")
    flags = parser.parse_args()
    if flags.to and flags.name is None:
        parser.error("--to: the NAME of a checkpoint is missing")
    return flags


def listing() -> str:
    """A line for each checkpoint."""
    return "\n".join(
        f"{name:<16} {checkpoint.megabytes:>4} MB  {checkpoint.licence:<10}  {checkpoint.repository}"
        for name, checkpoint in CHECKPOINTS.items()
    )


def find(name: str) -> Checkpoint:
    """The checkpoint of a name of the table, or of owner/name[@revision], of which the hub is asked."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    if HUB_ID.fullmatch(name):
        return resolve(name)
    known = ", ".join(CHECKPOINTS)
    raise WeightsError(f"no public checkpoint {name!r}{nearest(name, CHECKPOINTS)}; there are {known}, and OWNER/NAME")


def cache_folder() -> Path:
    """Our part of huggingface_hub's folder for what others make of its downloads."""
    return Path(constants.HF_ASSETS_CACHE) / "minitransformer"


def fetch(name: str, to: str | Path | None = None) -> Path:
    """The folder of a checkpoint of the table, or of owner/name[@revision], in HF layout: kept here, or fetched now.

    to: a folder to put another copy into, which must be new or empty.
    Raises WeightsError, in one line, on a name that is unknown, on whatever prevents the download, and on every file
    that is not what it should be; such a file stays neither in the copy nor in huggingface_hub's cache.
    """
    folder = cache_folder() / _file_name(name)
    if to and os.path.lexists(to) and not (Path(to).is_dir() and not any(Path(to).iterdir())):
        raise WeightsError(f"{to}: there is something already; choose another --to")
    if not folder.is_dir():
        checkpoint = find(name)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _install(folder, lambda built: _build(name, checkpoint, built))
        except (OSError, SafetensorError) as error:
            needed = 2 * checkpoint.megabytes
            raise WeightsError(f"{name}: {error}; set HF_HOME to a folder of yours with {needed} MB free") from error
    try:
        _check_copy(folder)
        if not to:
            return folder
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        _install(Path(to), lambda built: shutil.copytree(folder, built, dirs_exist_ok=True))
        return Path(to)
    except OSError as error:
        raise WeightsError(f"{to or folder}: {error}") from error


def _file_name(name: str) -> str:
    return name.replace("/", "--")


def _install(folder: Path, build: Callable[[Path], object]) -> None:
    """A folder that appears whole: built beside its place, then renamed. If another process was faster, its stays."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        built = Path(temporary) / folder.name
        built.mkdir()
        build(built)
        for path in built.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        files.sync_folder(built)
        try:
            built.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        files.sync_folder(folder.parent)


def _build(name: str, checkpoint: Checkpoint, built: Path) -> None:
    """Fetch, check and convert the checkpoint into `built`, an empty folder."""
    record = cache_folder() / f"{_file_name(name)}.json"
    known = read_json(record) if record.is_file() else {}
    paths = {file: download(checkpoint.repository, file, known) for file in checkpoint.files}
    if checkpoint.weights:
        paths |= dict([_first(checkpoint.repository, checkpoint.weights, known)])
    pickles = [path for file, path in paths.items() if file.name.endswith(".bin")]
    for file, path in paths.items():
        if file.name.endswith(".safetensors"):
            _link(path, built / file.name)
        elif path not in pickles:
            shutil.copyfile(path, built / file.name)
    if pickles:
        _convert(pickles, built / "model.safetensors")
    files.write_json(record, known)
    origin = {
        "repository": checkpoint.repository,
        "licence": checkpoint.licence,
        "revision": {file.name: file.revision for file in paths},
        "sha256": {path.name: digest(path) for path in sorted(built.iterdir())},
    }
    files.write_json(built / ORIGIN, origin)


def _check_copy(folder: Path) -> None:
    """WeightsError where a file of the copy has changed since it was made."""
    known = read_json(folder / ORIGIN).get("sha256")
    if not isinstance(known, dict):
        raise WeightsError(f"{folder / ORIGIN}: it is not what was written; delete {folder} to fetch it again")
    for name, sha256 in known.items():
        if not (folder / name).is_file() or digest(folder / name) != sha256:
            raise WeightsError(f"{folder / name}: it is not what was fetched; delete {folder} to fetch it again")


def _first(repository: str, places: tuple[File, ...], known: dict[str, str]) -> tuple[File, Path]:
    """The first of several files with the same contents that is there."""
    for file in places[:-1]:
        with contextlib.suppress(AbsentError):
            return file, download(repository, file, known)
    return places[-1], download(repository, places[-1], known)


def _link(source: Path, target: Path) -> None:
    """A second name for the same bytes, where the disk can do that, so that they lie there once; else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _convert(sources: list[Path], target: Path) -> None:
    """pytorch_model.bin, or its shards, written anew as safetensors."""
    tensors = {}
    for source in sources:
        try:
            tensors |= read_pickle(source)
        except ValueError as error:
            discard(source)
            raise WeightsError(
                f"{source}: {error}; it was thrown away; try again, or set HF_ENDPOINT to another mirror"
            ) from error
    files.write_bytes(target, safetensors_bytes(tensors))


if __name__ == "__main__":
    main()
