"""One picture file, whoever made it: opened without harm, upright, in 8-bit RGB.

A file is a claim. It says which kind it is, and Pillow has kinds that run a program on their contents; it says how many
pixels it holds, and some kilobytes can claim more than a memory does. So only the kinds that are promised are opened,
whatever a name ends in, only regular files, and of all pictures that are open at one time only so many pixels.
"""

import functools
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from minitransformer.system.errors import DataError

KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "TIFF", "PPM")  # Pillow's names
PIXELS = 100_000_000  # of a picture, and of all that are unpacked at one time
SIDE = 65_535  # pixels, JPEG's own limit; Pillow keeps a pointer for every row, and one pixel a row makes it 2 GB
SMALL = 10_000_000  # pixels that any file may claim: WebP and TIFF pack a plain surface of that size in some kilobytes
DENSEST = 1_100  # bytes of pixels, to a byte of the file, that a larger picture may claim; deflate packs 1,032

# EXIF's orientation -> what brings the picture upright. Pillow's exif_transpose would also write the rest of the note
# anew, and fails on the notes of some cameras.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

BITS, WHITE_IS_ZERO, TILE_WIDTH, TILE_HEIGHT = 258, 262, 322, 323  # TIFF's numbers; 262 is 0 where 0 is white

# A refusal is one line. Pillow would add warnings, of pixels, where PIXELS says how many are too many, and of damaged
# notes, which do not matter; and it logs why a TIFF is none.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Room:
    """So many pixels and no more, shared by threads: whoever needs more than are free waits until others are done."""

    def __init__(self, pixels: int) -> None:
        self.free = pixels
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: pixels <= self.free)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


ROOM = Room(PIXELS)


@contextmanager
def opened(source: str | Path | bytes) -> Iterator[Image.Image]:
    """The first frame of a picture file, upright and in 8-bit RGB; until it is done with, it counts among PIXELS.

    Grey, palettes, CMYK and 16 bits become RGB, and what is transparent stands on white. That is torchvision's
    ImageFolder (`convert("RGB")`) but for three things. It shows the colour that lies under what is transparent, mostly
    black, which no viewer shows; it makes 16-bit grey white from 256 of 65,535 on; it lets cameras' pictures lie.

    Raises DataError where the file is no picture of these kinds, is cut off, or claims more pixels than it may.
    """
    name = "picture" if isinstance(source, bytes) else source
    with ExitStack() as until_done:
        try:
            size = len(source) if isinstance(source, bytes) else file_size(source)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            picture = until_done.enter_context(Image.open(file, formats=_known_kinds()))
            until_done.enter_context(ROOM.taken(_checked_pixels(picture, size, name)))
            picture.load()
            turn = _turn(picture)
            picture = _rgb(picture, name)
            picture = picture if turn is None else picture.transpose(turn)
        except DataError:
            raise
        except Image.UnidentifiedImageError:
            kinds = ", ".join(KINDS)
            raise DataError(f"{name}: not a picture, or of a kind that is not read here ({kinds} are)") from None
        except Image.DecompressionBombError as error:
            raise DataError(f"{name}: it claims more than {PIXELS:,} pixels; scale it down first") from error
        # Every format's decoder complains of damage in its own way: RuntimeError, struct.error, zlib.error, ...
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise DataError(f"{name}: {error.strerror}") from error
            reason = " ".join(str(error).split())
            raise DataError(f"{name}: not a whole picture ({reason}); remove it or fetch it again") from error
        yield picture


def open_picture(source: str | Path | bytes) -> Image.Image:
    """One picture to keep; what `opened` says holds."""
    with opened(source) as picture:
        return picture


@functools.cache
def _known_kinds() -> tuple[str, ...]:
    """Of KINDS those that this Pillow was built with."""
    Image.init()
    return tuple(kind for kind in KINDS if kind in Image.OPEN)


def file_size(path: str | Path) -> int:
    """Bytes of a regular file; DataError on anything else, which may never end, or never begin."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: it is a folder; give the pictures in it")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: a pipe or a device and no file; write the picture to a file first")
    return status.st_size


def _checked_pixels(picture: Image.Image, size: int, name: str | Path) -> int:
    """Pixels that the picture is to be unpacked to. DataError where they are too many, for `size` bytes or at all."""
    width, height = picture.size
    if isinstance(picture, TiffImagePlugin.TiffImageFile):  # is unpacked tile by tile, and a tile may be larger
        width = max(width, picture.tag_v2.get(TILE_WIDTH, 1))
        height = max(height, picture.tag_v2.get(TILE_HEIGHT, 1))
    pixels = width * height
    if max(width, height) > SIDE or pixels > PIXELS:
        raise DataError(f"{name}: {width:,} x {height:,} pixels; scale it down first")
    if pixels // (8 if picture.mode == "1" else 1) > max(SMALL, DENSEST * size):
        raise DataError(
            f"{name}: {width:,} x {height:,} pixels in {size:,} bytes: too many to be true; "
            "remove it, fetch it again or scale it down"
        )
    return pixels


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright, by its EXIF note; a note that cannot be read says nothing."""
    try:
        return TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 0))
    except Exception:  # as many kinds as there are ways to damage a note
        return None


def _rgb(picture: Image.Image, name: str | Path) -> Image.Image:
    if picture.mode == "F":
        raise DataError(f"{name}: its pixels are fractions, of which nobody knows the white; save it in 8 or 16 bits")
    if picture.mode.startswith("I"):
        picture = _upper_eight_bits(picture, name)
    if picture.has_transparency_data:
        picture = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        paper = Image.new("RGB", picture.size, "white")
        paper.paste(picture, mask=picture)
        return paper
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _upper_eight_bits(picture: Image.Image, name: str | Path) -> Image.Image:
    """Grey of 16 bits, or 12, as 8: the upper ones, which is what Pillow takes of 16-bit colours. Of grey it would take
    the lower, and 255 where the upper are not 0."""
    values = np.asarray(picture)  # (H, W)
    if picture.mode == "I" and not 0 <= values.min() <= values.max() < 2**16:
        raise DataError(
            f"{name}: its pixels are numbers from {values.min():,} to {values.max():,}, of which nobody knows the "
            "white; save it in 8 or 16 bits"
        )
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}
    grey = (values >> (4 if tags.get(BITS) == (12,) else 8)).astype(np.uint8)
    if tags.get(WHITE_IS_ZERO) == 0:
        grey = 255 - grey
    if "transparency" in picture.info:  # PNG's: one value that is not to be seen
        grey[values == picture.info["transparency"]] = 255
    return Image.fromarray(grey)
