"""The frozen trunk runs once per image, and of the last block only what the loss sees.

Where the first blocks are frozen and images come unchanged, every epoch computes the same numbers in them. So they are
computed once and kept (`keep`, `open_cache`), and an epoch begins where the training does (`finish`).

ViT's classifier reads [CLS] alone, so the last block owes nobody else an output: query, output projection and
feed-forward run for one token instead of T. With one query per head, keys and values need not be made either. For head
h with token z_t = gamma * x_t + beta, x_t normalised,

    score_t = q . (Wk z_t + bk) = (gamma * (q Wk)) . x_t + what is the same for all t
    mixed   = sum_t w_t (Wv z_t + bv) = Wv (gamma * sum_t w_t x_t + beta) + bv         as the weights w sum to 1

so the query is carried to the tokens and the mean of the tokens is carried back, and x_t, which does not depend on any
parameter, is what is kept. Same numbers, same gradients of every parameter; 2 T C per head instead of 4 T C^2 in all.

DINOv2's classifier reads the patches too, so its last block runs whole. But it reads no more of them than their mean,
and a mean can be taken before the last norm's gamma and beta as well as after them: where all blocks are frozen, two
rows an image are all there is to keep.

B images, N images in all, T tokens, C width, H heads, D = C / H head size, L blocks, K classes.
"""

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from minitransformer.dinov2 import Dinov2ForImageClassification, ImageClassifier
from minitransformer.system import files, lock
from minitransformer.system.errors import DataError, RunError
from minitransformer.system.progress import progress, say
from minitransformer.training.device import ahead
from minitransformer.vit import Block, images_at_once
from vision.images import FILE

VERSION = 1  # of what is kept; raise it when `keep` changes, so that older files are not used


def first_trainable(model: ImageClassifier) -> int:
    """Number of the first block that trains, L where none does, -1 where what comes before the blocks trains."""
    trains = [any(p.requires_grad for p in block.parameters()) for block in model.encoder.blocks]
    after = {id(p) for part in (model.encoder.blocks, model.encoder.norm, model.classifier) for p in part.parameters()}
    if any(p.requires_grad for p in model.parameters() if id(p) not in after):
        return -1
    return trains.index(True) if True in trains else len(trains)


def blocks_of(model: ImageClassifier) -> list[Block]:
    return cast(list[Block], list(model.encoder.blocks))  # a ModuleList does not say of what


# ------------------------------------------------------------------------------------------------ the two halves


@torch.no_grad()
def keep(model: ImageClassifier, pixel_values: Tensor, first: int) -> Tensor:
    """What the trainable half needs of images (B, 3, H, W): the input of block `first`, (B, rows, C).

    Before the last block that is T tokens. At the last it is [CLS] as it is, for the residual sum, and T tokens
    normalised. After it (first = L) it is [CLS].

    Where the classifier reads patches, it is T tokens at the last block too. After it, it is [CLS] and the mean of the
    patches, both normalised.
    """
    x = model.encoder.embeddings(pixel_values)  # (B, T, C)
    blocks = blocks_of(model)
    for block in blocks[:first]:
        x = block(x)
    if isinstance(model, Dinov2ForImageClassification):  # its classifier reads the patches too
        return model.read(_plain(model.encoder.norm, x)).unflatten(1, (2, -1)) if first == len(blocks) else x
    if first == len(blocks):
        return x[:, :1]
    return _normalised(blocks[-1], x) if first == len(blocks) - 1 else x


def finish(model: ImageClassifier, kept: Tensor, first: int) -> Tensor:
    """The trainable half: logits (B, K) out of what was kept, (B, rows, C)."""
    blocks, norm = blocks_of(model), model.encoder.norm
    if isinstance(model, Dinov2ForImageClassification):
        if first == len(blocks):
            return model.classifier((kept * norm.weight + norm.bias).flatten(1))
        for block in blocks[first:]:
            kept = block(kept)
        return model.classifier(model.read(norm(kept)))

    for block in blocks[first:-1]:
        kept = block(kept)
    if first < len(blocks) - 1:
        kept = _normalised(blocks[-1], kept)
    cls = last_block(blocks[-1], kept) if first < len(blocks) else kept[:, 0]
    return model.classifier(norm(cls))


def _normalised(block: Block, x: Tensor) -> Tensor:
    """(B, T, C) -> (B, 1 + T, C): [CLS] as it is, then all tokens through the block's norm without its parameters."""
    return torch.cat([x[:, :1], _plain(block.attention_norm, x)], dim=1)


def _plain(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """The norm without its parameters."""
    return F.layer_norm(x, norm.normalized_shape, eps=norm.eps)


def last_block(block: Block, rows: Tensor) -> Tensor:
    """The block's output for [CLS] alone, (B, C), from `_normalised` rows (B, 1 + T, C). No dropout."""
    cls, tokens = rows[:, 0], rows[:, 1:]
    norm, attention = block.attention_norm, block.attention
    key, value = (part.weight.unflatten(0, (attention.heads, -1)) for part in (attention.key, attention.value))

    query = attention.query(tokens[:, 0] * norm.weight + norm.bias).unflatten(1, (attention.heads, -1))  # (B, H, D)
    query = query / math.sqrt(query.size(-1))
    score = (torch.einsum("bhd,hdc->bhc", query, key) * norm.weight) @ tokens.transpose(1, 2)  # (B, H, T)
    if attention.key.bias is not None:  # the same for all scores of a head: here only to have its gradient, zero
        score = score + (query * attention.key.bias.unflatten(0, (attention.heads, -1))).sum(-1, keepdim=True)
    mixed = (score.softmax(-1) @ tokens) * norm.weight + norm.bias  # (B, H, C)
    mixed = torch.einsum("bhc,hdc->bhd", mixed, value).flatten(1)  # (B, C)
    if attention.value.bias is not None:
        mixed = mixed + attention.value.bias

    cls = cls + attention.output(mixed)
    return cls + block.ffn_down(block.activation(block.ffn_up(block.ffn_norm(cls))))


# ------------------------------------------------------------------------------------------------ the cache


def cache_key(model: ImageClassifier, first: int, *inputs: str) -> str:
    """A hash of everything that what is kept depends on: frozen weights, sizes, and `inputs`, which tell the rest."""
    digest = hashlib.sha256(json.dumps([VERSION, repr(model.config), first, *inputs]).encode())
    later = tuple(f"encoder.blocks.{number}." for number in range(first, len(model.encoder.blocks)))
    for name, parameter in model.named_parameters():
        if not name.startswith((*later, "encoder.norm.", "classifier.")):
            digest.update(f"\n{name} {tuple(parameter.shape)}\n".encode())
            digest.update(parameter.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def open_cache(
    model: ImageClassifier,
    first: int,
    pixels: Callable[[Tensor], Tensor],
    count: int,
    batch_size: int,
    budget: float,
    folder: Path,
    inputs: tuple[str, ...],
) -> Tensor:
    """What is kept of all images, (N, rows, C) float32, on the model's device or mapped from a file.

    pixels: numbers of images -> (B, 3, H, W), asked for batch by batch, so that they are never all there. count: N.
    batch_size: images at once on a GPU. budget: bytes that may stay in memory; what is larger goes to a file in
    `folder`, from which the system loads what a step asks for. A later run takes the file when its key, a hash of the
    frozen weights and of `inputs`, is the same. Raises RunError where the file has no room, DataError where
    the pictures are not of one size.
    """
    device = next(model.parameters()).device
    frozen = f"the embedding and {first} of {len(model.encoder.blocks)} blocks are frozen and run once"
    one = pixels(torch.arange(1))  # (1, 3, H, W)
    shape = (count, *keep(model, one, first).shape[1:])
    size = 4 * math.prod(shape)  # float32
    height, width = one.shape[2:]
    # pyrefly: ignore[bad-argument-type] - a Dinov2Config has all that is asked for
    batch_size = images_at_once(model.config, (height, width), device, batch_size)

    def passes() -> Iterator[Tensor]:
        batches = ahead(map(pixels, torch.arange(count).split(batch_size)), device)
        with progress(total=count, unit="image", desc="frozen trunk") as bar:
            for batch in batches:
                kept = keep(model, batch, first)
                if kept.shape[1:] != shape[1:]:
                    raise DataError(f"the pictures come out in different sizes; give the checkpoint a crop in {FILE}")
                yield kept
                bar.update(len(batch))

    if size <= budget:
        say(f"{frozen}; what they give, {size / 1e9:.2f} GB, stays in memory")
        rows = torch.empty(shape, device=device)
        for part, batch in zip(rows.split(batch_size), passes(), strict=True):
            part.copy_(batch)
        return rows

    key = cache_key(model, first, *inputs)
    path = folder / f"{key[:32]}.safetensors"
    rows = _read(path, key, shape)
    if rows is None:
        say(f"{frozen}; what they give, {size / 1e9:.2f} GB, goes to {path}")
        _write(path, key, shape, passes())
        rows = _map(path)
    else:
        say(f"{frozen}; what they give was kept by an earlier run, {path}")
    return rows


def reader(rows: Tensor, most: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from numbers of images, (B,), `most` at most, to their rows on the device, (B, rows, C).

    It fills the same memory again at every call, so what it gave before is gone: batches of 20 MB in fresh memory cost
    time for each page, and the holes that they leave add up.
    """
    buffer = rows.new_empty(min(most, len(rows)), *rows.shape[1:])

    def read(chosen: Tensor) -> Tensor:
        return torch.index_select(rows, 0, chosen.to(rows.device), out=buffer[: len(chosen)]).to(device)

    return read


def _read(path: Path, key: str, shape: tuple[int, ...]) -> Tensor | None:
    """The rows of a whole file of this key, read through once for their hash. None where there is no such file."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_header(key, shape)))
            if start == _header(key, shape, hashlib.file_digest(file, "sha256").hexdigest()):
                return _map(path)
    except OSError:
        pass
    return None


def _map(path: Path) -> Tensor:
    """The rows of a file, mapped, not loaded."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("rows")


def _header(key: str, shape: tuple[int, ...], sha256: str = "0" * 64) -> bytes:
    """How a safetensors file begins: the length of a JSON header, and the header. sha256: of the numbers behind it."""
    rows = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * math.prod(shape)]}
    header = json.dumps({"__metadata__": {"key": key, "sha256": sha256}, "rows": rows}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _write(path: Path, key: str, shape: tuple[int, ...], batches: Iterator[Tensor]) -> None:
    """A safetensors file, batch by batch; the hash in its header is filled in when all have come."""
    size = 4 * math.prod(shape)
    digest = hashlib.sha256()
    remedy = "give --cache-dir on a larger disk, or pass --limit-train or --no-trunk-cache"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        free = shutil.disk_usage(path.parent).free
        if free < size:
            raise RunError(f"{path.parent}: {size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; {remedy}")
        with files.replacing(path) as file:
            lock.hold(file)  # alive: not a leftover
            file.write(_header(key, shape))
            for batch in batches:
                numbers = batch.cpu().contiguous().numpy().data
                digest.update(numbers)
                file.write(numbers)
            file.seek(0)
            file.write(_header(key, shape, digest.hexdigest()))
    except OSError as error:
        raise RunError(f"{path}: {size / 1e9:.2f} GB cannot be written ({error.strerror}); {remedy}") from error


def _remove_leftovers(folder: Path) -> None:
    """Files that runs killed while writing have left half-done: those that no process holds any more."""
    for path in folder.glob(".*.safetensors.*.tmp"):
        held_or_gone = BlockingIOError, FileNotFoundError, PermissionError  # the last is Windows' for an open file
        with contextlib.suppress(*held_or_gone), path.open("rb") as file:
            lock.hold(file, wait=False)
            path.unlink()
