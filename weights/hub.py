"""Public checkpoints by name: from the Hugging Face hub, checked, and kept as folders that load.py reads.

python -m weights.hub                       the names there are
python -m weights.hub NAME [--to DIR]       fetch one; `--weights NAME` does so by itself

huggingface_hub does the downloading, so its cache, its token, a mirror (HF_ENDPOINT) and its offline switch
(HF_HUB_OFFLINE) work as everywhere, and it goes on where a connection broke. What it brings is trusted when it is of
the pinned revision, of the right size, and has the sha256 that we know; where we know none, the one that came first is
recorded in NAME.json beside the copy, and asked of every later download.
"""

import contextlib
import errno
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError
from torch import Tensor

from minitransformer.system import files
from minitransformer.system.errors import WeightsError, command_line
from minitransformer.system.flags import FlagParser, nearest
from weights.download import digest
from weights.folder import read_json, safetensors_bytes

ORIGIN = "origin.json"  # in the copy: where its files come from, and the sha256 of each
ROUNDED = 0.05  # of a size that was read off the hub's page: "1.2 MB"
MB = 1_000_000


@dataclass(frozen=True)
class File:
    """One file of a repository at one revision."""

    name: str
    revision: str  # a commit; or a branch, if it is at `commit`
    size: int  # bytes; exact where the sha256 is known, else as the hub's page rounds it
    sha256: str = ""  # "": not known to us
    commit: str = ""  # how the commit begins: the hub's page shortens it


@dataclass(frozen=True)
class Checkpoint:
    """A public checkpoint: one copy of its weights, and the files that go with them."""

    repository: str
    licence: str
    files: tuple[File, ...]
    # The same numbers in several places, of which the first that is there is taken. safetensors stay as they are
    # (timm.py reads timm's); pytorch_model.bin is written anew as model.safetensors.
    weights: tuple[File, ...]
    command: str  # a use of it, to which `--weights` can be added

    @property
    def megabytes(self) -> int:
        return round(sum(file.size for file in (*self.files, self.weights[0])) / MB)


# A pull request's branch (refs/pr/N) may hold safetensors, made by the hub's own converter, that main lacks. A branch
# can be moved, so it is taken at the commit that we know, or not at all.
PARSBERT = "a04aa40c97bcdde570ae11986a534542c2995a62"
ALBERT_FA = "f180b9ec44dbb8260cf7b6c5abd41e5b96bfd412"
DEIT = "f15b75f6aa9b053ba1cf57c6329e55af23e059fd"  # the last to change these files; main has gone on to 3559f91
DEIT_TIMM = "4150668d0839f2da591b2fc5659764c796148243"  # likewise; main has gone on to b53f4f1
E5 = "614241f622f53c4eeff9890bdc4f31cfecc418b3"

CHECKPOINTS = {
    "parsbert": Checkpoint(
        repository="HooshvareLab/bert-fa-base-uncased",
        licence="Apache-2.0",
        files=(File("config.json", PARSBERT, 440), File("vocab.txt", PARSBERT, 1_200_000)),
        weights=(
            File("model.safetensors", "refs/pr/1", 654 * MB, commit="5156f763"),
            File("pytorch_model.bin", PARSBERT, 654 * MB),
        ),
        command="python train_qa.py --recipe parsbert",
    ),
    "albert-fa": Checkpoint(
        repository="m3hrdadfi/albert-fa-base-v2",
        licence="Apache-2.0",
        files=(File("config.json", ALBERT_FA, 684), File("spiece.model", ALBERT_FA, 1_880_000)),
        weights=(File("pytorch_model.bin", ALBERT_FA, 73_100_000),),
        command="python train_qa.py --recipe albert-fa",
    ),
    "deit-small": Checkpoint(
        repository="facebook/deit-small-distilled-patch16-224",
        licence="Apache-2.0",
        files=(File("config.json", DEIT, 69_600), File("preprocessor_config.json", DEIT, 287)),
        weights=(File("pytorch_model.bin", DEIT, 89_800_000),),
        command="python train_vit.py --recipe deit-small",
    ),
    "deit-small-timm": Checkpoint(
        repository="timm/deit_small_distilled_patch16_224.fb_in1k",
        licence="Apache-2.0",
        files=(File("config.json", DEIT_TIMM, 631),),
        weights=(File("model.safetensors", DEIT_TIMM, 89_800_000),),
        command="python train_vit.py --recipe deit-small --weights deit-small-timm",
    ),
    "e5-small": Checkpoint(
        repository="intfloat/multilingual-e5-small",
        licence="MIT",
        files=(
            File("config.json", E5, 655, "69137736cab8b8903a07fe8afaafdda25aac55415a12a55d1bffa9f581abf959"),
            File("tokenizer.json", E5, 17_082_730, "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"),
            File("tokenizer_config.json", E5, 443, "a1d6bc8734a6f635dc158508bef000f8e2e5a759c7d92f984b2c86e5ff53425b"),
        ),
        weights=(
            File(
                "model.safetensors",
                E5,
                470_641_600,
                "1a55775f53449dac10a2bcbc312469fac40b96d53198c407081a831f81c98477",
            ),
        ),
        command="python train_qa.py --recipe modern --train pquad --valid pquad --weights e5-small",
    ),
}


class _AbsentError(WeightsError):
    """The hub, or offline its cache, does not have the file: it may have it elsewhere."""


@command_line
def main() -> None:
    flags = parse_flags()
    if flags.name is None:
        print(listing())
        return
    checkpoint = find(flags.name)
    print(f"{flags.name}: {checkpoint.repository}, {checkpoint.megabytes} MB, licence {checkpoint.licence}", flush=True)
    folder = fetch(flags.name, flags.to)
    print(f"checked and ready: {folder}")
    print(f"use it:  {checkpoint.command}" + (f" --weights {shlex.quote(str(folder))}" if flags.to else ""))


def parse_flags() -> Any:
    parser = FlagParser(
        prog="python -m weights.hub",
        description=__doc__,
        epilog=f"{listing()}\n\nIt is kept in {cache_folder()}; HF_HOME moves that. Where the hub cannot be reached:\n"
        "set HF_ENDPOINT to a mirror, or fetch on another machine with --to DIR, copy DIR, and say --weights DIR.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="which one; without it they are listed")
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
    """The checkpoint of a name."""
    if name not in CHECKPOINTS:
        known = ", ".join(CHECKPOINTS)
        raise WeightsError(f"no public checkpoint {name!r}{nearest(name, CHECKPOINTS)}; there are {known}")
    return CHECKPOINTS[name]


def cache_folder() -> Path:
    """Our part of huggingface_hub's folder for what others make of its downloads."""
    return Path(constants.HF_ASSETS_CACHE) / "minitransformer"


def fetch(name: str, to: str | Path | None = None) -> Path:
    """The folder of a named checkpoint, in HF layout: the one kept here, or fetched now.

    to: a folder to put another copy into, which must be new or empty.
    Raises WeightsError, in one line, on a name that is unknown, on whatever prevents the download, and on every file
    that is not what it should be; such a file stays neither in the copy nor in huggingface_hub's cache.
    """
    checkpoint = find(name)
    folder = cache_folder() / name
    if to and os.path.lexists(to) and not (Path(to).is_dir() and not any(Path(to).iterdir())):
        raise WeightsError(f"{to}: there is something already; choose another --to")
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _install(folder, lambda built: _build(name, checkpoint, built))
        _check_copy(folder)
        if not to:
            return folder
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        _install(Path(to), lambda built: shutil.copytree(folder, built, dirs_exist_ok=True))
        return Path(to)
    except (OSError, SafetensorError) as error:
        needed = 2 * checkpoint.megabytes
        raise WeightsError(f"{name}: {error}; set HF_HOME to a folder of yours with {needed} MB free") from error


def _install(folder: Path, build: Callable[[Path], None]) -> None:
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
    record = cache_folder() / f"{name}.json"
    known = read_json(record) if record.is_file() else {}
    for file in checkpoint.files:
        shutil.copyfile(_download(checkpoint.repository, file, known), built / file.name)
    weights, path = _first(checkpoint.repository, checkpoint.weights, known)
    if weights.name == "pytorch_model.bin":
        _convert(path, built / "model.safetensors")
    else:
        _link(path, built / weights.name)
    files.write_json(record, known)
    origin = {
        "repository": checkpoint.repository,
        "licence": checkpoint.licence,
        "revision": {file.name: file.revision for file in (*checkpoint.files, weights)},
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
        with contextlib.suppress(_AbsentError):
            return file, _download(repository, file, known)
    return places[-1], _download(repository, places[-1], known)


def _download(repository: str, file: File, known: dict[str, str]) -> Path:
    """The path of a file in huggingface_hub's cache, checked.

    known: sha256 of earlier downloads by "REVISION/FILE"; this one is added where it is the first.
    """
    place = f"{repository}, {file.name} at {file.revision}"
    try:
        path = Path(hf_hub_download(repository, file.name, revision=file.revision))
    except Exception as error:  # of which library it is depends on the version (requests, httpx) and on the way (xet)
        raise _failure(repository, place, error) from error
    commit = path.parent.name  # snapshots/COMMIT/FILE
    expected = file.commit or file.revision
    if not commit.startswith(expected):
        raise _AbsentError(f"{place}: it has moved to {commit} from {expected}, which is the one that we know")
    try:
        sha256 = _check(place, path, file, known)
    except WeightsError:
        _discard(path)
        raise
    known[f"{file.revision}/{file.name}"] = sha256
    return path


def _failure(repository: str, place: str, error: Exception) -> WeightsError:
    """What to say of an error of huggingface_hub's: what happened, and the remedy."""
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    by_hand = "bring a copy from another machine (python -m weights.hub NAME --to DIR) and say --weights DIR"
    if isinstance(cause, OfflineModeIsEnabled):
        return _AbsentError(f"{place}: HF_HUB_OFFLINE is set, and it is not in the cache; unset it, or {by_hand}")
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == HTTPStatus.NOT_FOUND:
        return _AbsentError(f"{place}: the hub has no such file (404); {by_hand}")
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


def _discard(path: Path) -> None:
    """Take a file out of huggingface_hub's cache: its contents, and the name that points to them."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """A second name for the same bytes, where the disk can do that, so that they lie there once; else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _convert(source: Path, target: Path) -> None:
    """pytorch_model.bin, which is a pickle, written anew as safetensors.

    Only tensors are read of it, and nothing that it asks to run is run. A tensor under two names (a head tied to the
    embeddings) is written once, under its first name; load.py ties it again.
    """
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
        is_table = all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items())
    except (
        Exception
    ):  # damaged bytes make torch raise whatever they lead to; of a pickle with code it says how to run it
        is_table = False
    if not is_table:
        _discard(source)
        raise WeightsError(
            f"{source}: not a table of tensors alone: damaged, or made to run code, which was not run; "
            "it was thrown away; try again, or set HF_ENDPOINT to another mirror"
        )
    tensors: dict[str, Tensor] = {}
    seen = set()
    for name, tensor in state.items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if memory not in seen:
            tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        seen.add(memory)
    files.write_bytes(target, safetensors_bytes(tensors))


if __name__ == "__main__":
    main()
