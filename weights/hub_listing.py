"""Any repository of the Hugging Face hub, owner/name or owner/name@revision: which of its files make a checkpoint.

The hub's own listing tells the commit, and of every file the size and mostly the sha256. Where the hub cannot be
asked, the listing is what huggingface_hub has in its cache.
"""

import re
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from minitransformer.system.errors import WeightsError
from weights.checkpoints import Checkpoint, File
from weights.hub_file import failure

SMALL = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
)
# What the weights are called, the safest first. The index goes with its shards.
WEIGHTS = (
    r"model\.safetensors",
    r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json",
    r"pytorch_model\.bin",
    r"pytorch_model-\d+-of-\d+\.bin",
)


class Listing(NamedTuple):
    """What a repository has at one commit."""

    commit: str
    licence: str
    files: dict[str, tuple[int, str]]  # size, and sha256 or ""


def resolve(name: str) -> Checkpoint:
    """The checkpoint of owner/name, or of owner/name@revision, at the commit that the revision is now.

    Raises WeightsError where there is no such repository or revision, none of its files are weights that we read, or
    nobody answers and nothing is in the cache.
    """
    repository, _, revision = name.partition("@")
    try:
        commit, licence, found = _listing(repository, revision or None)
    except Exception as error:  # of which library it is depends on the version
        raise _refusal(name, repository, revision, error) from error
    small = [file for file in SMALL if file in found]
    weights = next(filter(None, ([file for file in found if re.fullmatch(kind, file)] for kind in WEIGHTS)), [])
    if "config.json" not in small or not weights:
        raise WeightsError(
            f"{name}: no {'config.json' if weights else 'safetensors or pytorch_model.bin'} in the repository: nothing "
            "that this project reads; take another, or convert it with transformers"
        )
    files = tuple(File(file, commit, *found[file]) for file in (*small, *sorted(weights)))
    return Checkpoint(repository, licence, files)


def _listing(repository: str, revision: str | None) -> Listing:
    """What the hub says; where it cannot be asked, what huggingface_hub has in its cache."""
    try:
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:
        if getattr(error, "response", None) is not None:  # the hub has answered, with a refusal
            raise
        try:
            folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
        sizes = {path.name: (path.stat().st_size, "") for path in folder.iterdir() if path.is_file()}
        return Listing(folder.name, "not told", sizes)
    licence = str((info.card_data or {}).get("license") or "not told")
    sizes = {file.rfilename: (file.size or 0, file.lfs.sha256 if file.lfs else "") for file in info.siblings or []}
    return Listing(info.sha or "not told", licence, sizes)


def _refusal(name: str, repository: str, revision: str, error: Exception) -> WeightsError:
    place = f"{name}: no such folder; on the hub"  # a path that is mistyped may look like owner/name
    if isinstance(error, RevisionNotFoundError):
        return WeightsError(f"{name}: the repository has no revision {revision!r}; correct it, or leave it out")
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        remedy = "check the spelling, or give your token: hf auth login, or HF_TOKEN"
        return WeightsError(f"{place}: no such repository, or a private one; {remedy}")
    return failure(repository, place, error)
