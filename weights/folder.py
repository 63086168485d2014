"""A checkpoint's folder: its two kinds of files, JSON objects and safetensors, and a copy of it with other weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from minitransformer.system import files
from minitransformer.system.errors import RunError, WeightsError

SCHEME = "minitransformer.quantised"  # in the header of a quantised file: see quantise.py
# What lies beside the weights and stays the same when they change.
COPIED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
)
LARGEST_TEXT = 2**26  # bytes; XLM-R's tokenizer.json, of 250,000 pieces, has 17 million
HASH = "minitransformer.sha256"  # in the header of a file of ours: what `tensors_hash` makes of its tensors


def read_bytes(path: Path) -> bytes:
    """A file of a checkpoint folder, other than its weights. WeightsError where it is none, or of an absurd size."""
    try:
        files.check_regular(path)
        size = path.stat().st_size
        if size > LARGEST_TEXT:
            raise WeightsError(f"{path}: {size:,} bytes, which no tokenizer has and no settings; fetch the file again")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """The same as text of UTF-8, with the line ends of any system as \\n."""
    try:
        return read_bytes(path).decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); fetch the file again") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint folder."""
    try:
        value = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object; fetch the file again")
    return value


def check_unused(out: Path) -> None:
    """RunError where a folder has a checkpoint in it. To be asked before the work."""
    if (out / "config.json").exists():
        raise RunError(f"{out}: there is a checkpoint in it; choose another --out")


def write_like(folder: Path, out: Path, tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """A copy of a checkpoint's folder with these tensors. notes: as in `safetensors_bytes`.

    tokenizer.json comes without its indentation, which takes as much room as its vocabulary.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (folder / name).is_file():
            files.write_bytes(out / name, (folder / name).read_bytes())
    if (folder / "tokenizer.json").is_file():
        tokenizer = json.dumps(read_json(folder / "tokenizer.json"), ensure_ascii=False, separators=(",", ":"))
        files.write_text(out / "tokenizer.json", tokenizer)
    files.write_bytes(out / "model.safetensors", safetensors_bytes(tensors, notes))
    settings = read_json(folder / "config.json")
    if isinstance(answering := settings.get("answering"), dict):
        answering.pop("agreement", None)  # of 16 bits with float32: it was found of the old weights
    files.write_json(out / "config.json", settings)  # last: it makes the folder one


def safetensors_bytes(tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file; `format` is what transformers asks for before it reads one.

    notes: what else the header is to say, of quantisation for one.

    The hash goes into the header, where load.py finds it again: the format itself has no checksum, and a flipped bit in
    a weight makes another weight. It is put there by hand: the library would write two entries in an order that chance
    decides, and the same model is to make the same bytes.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    data = save(tensors, metadata={"format": "pt"})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] |= {HASH: tensors_hash(tensors)} | (notes or {})
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[end:]])


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and numbers."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
