"""Picture files to open, and such as Pillow would not write."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def drawn(height: int = 90, width: int = 130, seed: int = 0) -> np.ndarray:
    """Noise over waves, (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 80 * np.sin(x / 7 + seed)[..., None] * np.cos(y / 11)[..., None] * [1.0, 0.7, -0.9]
    return (waves + random.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


GREY, COLOUR, PALETTE, GREY_ALPHA = 0, 2, 3, 4  # PNG's types


def png(size: tuple[int, int], bits: int, kind: int, data: bytes, **chunks: bytes) -> bytes:
    """A PNG of any depth. size: width and height; data: the rows, of one length each; chunks: between head and data."""
    width, height = size
    row = len(data) // height
    rows = b"".join(b"\0" + data[start : start + row] for start in range(0, len(data), row))  # 0: unfiltered
    parts = {"IHDR": struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0), **chunks, "IDAT": zlib.compress(rows)}
    file = b"\x89PNG\r\n\x1a\n"
    for name, part in (parts | {"IEND": b""}).items():
        named = name.encode() + part
        file += struct.pack(">I", len(part)) + named + struct.pack(">I", zlib.crc32(named))
    return file


SHORT, LONG = 3, 4  # TIFF's types


def tiff(size: tuple[int, int], bits: int, data: bytes, **changes: int) -> bytes:
    """A little-endian TIFF of grey, plain and in one strip, or with other tags, by their numbers: t259=8."""
    width, height = size
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    tags |= {int(name[1:]): value for name, value in changes.items()}
    entries = b"".join(
        struct.pack("<HHII", tag, LONG if tag in (273, 279, 324, 325) else SHORT, 1, tags[tag]) for tag in sorted(tags)
    )
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def class_folder(root: Path, parts: tuple[str, ...] = ("train", "test"), **classes: int) -> Path:
    """Some pictures of each class in each part."""
    for part in parts:
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                (root / part / name / f"{number}.jpg").write_bytes(encoded(Image.fromarray(drawn(9, 9)), "JPEG"))
    return root
