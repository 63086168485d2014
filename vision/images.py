"""Pictures in: from a file or an array to what a ViT reads, as the checkpoint's preprocessor_config.json says.

Files -> upright RGB -> resized and cropped, (3, H, W) uint8 -> normalised, (B, 3, H, W) float32. The first two arrows
are done once, in parallel, and their result is a quarter of the size of the last; that one is a line of arithmetic.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from minitransformer.system import files
from minitransformer.system.errors import DataError, WeightsError
from minitransformer.system.progress import progress
from vision.picture import file_size, opened
from weights import timm
from weights.find import find_folder
from weights.folder import read_json

FILE = "preprocessor_config.json"
LARGEST = 2_048  # pixels along a side that a resize or a crop may ask for; a ViT of 16 makes 16,384 patches of it
LONGEST = 10_000  # along the longer side, where the shorter is resized


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture, in this order. The defaults are those of DeiT's checkpoints."""

    resize: tuple[int, int] | None = (256, 256)  # height and width; (n, 0): the shorter side; None: none
    resample: int = 3  # Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming
    crop: tuple[int, int] | None = (224, 224)  # height and width out of the middle; None: none
    scale: float = 1 / 255  # 1.0: none
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture after the resize."""
        if self.resize is None:
            return height, width
        if self.resize[1]:
            return self.resize
        short, long = sorted((height, width))
        longer = int(self.resize[0] * long / short)
        return (self.resize[0], longer) if height <= width else (longer, self.resize[0])


# ---------------------------------------------------------------------------------------------------- settings

# What transformers fills in where a file is silent, by the kind of processor that the file names.
HALF = (0.5, 0.5, 0.5)
SILENT_DEIT = Preprocessing(mean=HALF, std=HALF)
SILENT_VIT = Preprocessing(resize=(224, 224), resample=2, crop=None, mean=HALF, std=HALF)
SILENT_BIT = Preprocessing(  # which DINOv2's folders name
    resize=(224, 0), mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)


def read_settings(folder: str | Path) -> Preprocessing:
    """preprocessor_config.json of a checkpoint, or timm's config.json; where neither is, what DeiT's checkpoints say.

    Raises WeightsError on settings that are none.
    """
    folder = find_folder(folder)
    path = folder / FILE if (folder / FILE).is_file() else folder / "config.json"
    values = read_json(path) if path.name == FILE else timm.pictures_as_hf(read_json(path), str(path))
    if not values:
        return Preprocessing()
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    default = SILENT_VIT
    if "DeiT" in kind or (not kind and "crop_size" in values):
        default = SILENT_DEIT
    elif kind.startswith("Bit"):
        default = SILENT_BIT
    resize, crop, scale = default.resize, default.crop, default.scale
    if not _switch(values, "do_resize", path):
        resize = None
    elif "size" in values:
        resize = _size(values["size"], "size", path, square=default is not SILENT_BIT)
    if not _switch(values, "do_center_crop", path, default=crop is not None):
        crop = None
    elif "crop_size" in values:
        crop = _size(values["crop_size"], "crop_size", path)
        crop = (crop[0], crop[1] or crop[0])
    if not _switch(values, "do_rescale", path):
        scale = 1.0
    elif "rescale_factor" in values:
        scale = _numbers([values["rescale_factor"]], "rescale_factor", path)[0]
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _switch(values, "do_normalize", path):
        mean = _numbers(values.get("image_mean", default.mean), "image_mean", path)
        std = _numbers(values.get("image_std", default.std), "image_std", path)
    resample = values.get("resample", default.resample)
    if type(resample) is not int or resample not in range(6):  # neither true nor 0.0
        raise WeightsError(f"{path}: resample is {resample!r}, not a whole number from 0 to 5")
    if not all(std):
        raise WeightsError(f"{path}: image_std holds a 0, by which nothing can be divided")
    return Preprocessing(resize, resample, crop, scale, mean, std)


def write_settings(settings: Preprocessing, folder: Path) -> None:
    """preprocessor_config.json, as transformers reads it."""
    resize, crop = settings.resize, settings.crop
    values: dict[str, Any] = {"image_processor_type": "ViTImageProcessor" if crop is None else "DeiTImageProcessor"}
    values |= {"do_resize": resize is not None, "resample": settings.resample}
    if resize is not None:
        values["size"] = {"height": resize[0], "width": resize[1]} if resize[1] else {"shortest_edge": resize[0]}
    values["do_center_crop"] = crop is not None
    if crop is not None:
        values["crop_size"] = {"height": crop[0], "width": crop[1]}
    values |= {"do_rescale": settings.scale != 1.0, "rescale_factor": settings.scale, "do_normalize": True}
    values |= {"image_mean": list(settings.mean), "image_std": list(settings.std)}
    files.write_json(folder / FILE, values)


def _switch(values: dict[str, Any], name: str, path: Path, default: bool = True) -> bool:
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise WeightsError(f"{path}: {name} is {value!r}, not true or false")
    return value


def _size(value: Any, name: str, path: Path, square: bool = True) -> tuple[int, int]:
    """{"height": 224, "width": 224} or {"shortest_edge": 224}, which gives (224, 0). 224 is the first if `square`."""
    told = value
    if not isinstance(value, dict):
        value = {"height": value, "width": value} if square else {"shortest_edge": value}
    shorter = "shortest_edge" in value
    sides: Any = [value["shortest_edge"]] if shorter else [value.get("height"), value.get("width")]
    if not all(type(side) is int and 1 <= side <= LARGEST for side in sides):
        raise WeightsError(f"{path}: {name} is {told!r}, no height and width from 1 to {LARGEST:,} pixels")
    return sides[0], 0 if shorter else sides[1]


def _numbers(values: Any, name: str, path: Path) -> tuple[float, ...]:
    good = isinstance(values, list | tuple) and len(values) in (1, 3)
    if not good or not all(type(value) in (int, float) and abs(value) < 1e6 for value in values):
        raise WeightsError(f"{path}: {name} is {values!r}, not a finite number for each of red, green and blue")
    return tuple(float(value) for value in values)


# ---------------------------------------------------------------------------------------------------- pictures


def prepare(source: str | Path | bytes | np.ndarray, settings: Preprocessing) -> np.ndarray:
    """One picture, resized and cropped, (3, H, W) uint8. source: a file, or an array (H, W, 3) uint8."""
    if isinstance(source, np.ndarray):
        return _fitted(Image.fromarray(source), settings, "a picture")
    with opened(source) as picture:
        return _fitted(picture, settings, "a picture" if isinstance(source, bytes) else source)


def _fitted(picture: Image.Image, settings: Preprocessing, name: str | Path) -> np.ndarray:
    size = settings.resized(picture.height, picture.width)
    if settings.resize is not None and max(size) > LONGEST:
        raise DataError(f"{name}: {picture.width} x {picture.height} pixels would become {size[1]} x {size[0]}")
    if size != (picture.height, picture.width):
        picture = picture.resize(size[::-1], resample=settings.resample)
    if settings.crop is not None:
        height, width = settings.crop
        top, left = (picture.height - height) // 2, (picture.width - width) // 2
        if top < 0 or left < 0:  # what is missing around a small picture is black
            paper = Image.new("RGB", (max(width, picture.width), max(height, picture.height)))
            paper.paste(picture, (max(0, -((picture.width - width) // 2)), max(0, -((picture.height - height) // 2))))
            picture, top, left = paper, max(0, top), max(0, left)
        picture = picture.crop((left, top, left + width, top + height))
    return np.asarray(picture).transpose(2, 0, 1)


def prepare_all(
    sources: Sequence[str | Path | np.ndarray] | np.ndarray,
    settings: Preprocessing,
    patch: int = 1,
    quiet: bool = False,
) -> Tensor:
    """All pictures, (N, 3, H, W) uint8, by as many threads as there are cores: Pillow works outside of Python's lock.

    Raises DataError where they come out in different sizes, or in one that cannot be cut into patches of that side.
    """
    first = prepare(sources[0], settings)
    if first.shape[1] % patch or first.shape[2] % patch:
        raise DataError(
            f"pictures of {first.shape[2]} x {first.shape[1]} pixels cannot be cut into patches of {patch} x {patch}; "
            f"give the checkpoint a size or a crop that can in {FILE}"
        )
    pictures = torch.empty((len(sources), *first.shape), dtype=torch.uint8)

    def fill(number: int) -> None:
        picture = prepare(sources[number], settings)
        if picture.shape != first.shape:
            raise DataError(
                f"{sources[number]}: {picture.shape[2]} x {picture.shape[1]} pixels, where others have "
                f"{first.shape[2]} x {first.shape[1]}; give the checkpoint a crop in {FILE}"
            )
        pictures[number] = torch.from_numpy(np.ascontiguousarray(picture))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(fill, range(len(sources)))
        for _ in progress(done, total=len(sources), unit="image", desc="preparing", shown=not quiet, leave=False):
            pass
    return pictures


def normalise(pictures: Tensor, settings: Preprocessing) -> Tensor:
    """(B, 3, H, W) uint8 -> float32, scaled, mean 0 and deviation 1 by the settings' numbers."""
    mean, std = (torch.tensor(part, device=pictures.device)[:, None, None] for part in (settings.mean, settings.std))
    return (pictures.float() * settings.scale - mean) / std


# ---------------------------------------------------------------------------------------------------- data sets


@dataclass(frozen=True)
class Images:
    """Labelled pictures, N of them."""

    pictures: np.ndarray | list[Path]  # (N, H, W, 3) uint8, or files
    labels: np.ndarray  # (N,) int64, numbers of classes
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: ArrayLike | Tensor) -> "Images":
        """Some of the pictures, by their numbers."""
        numbers = np.asarray(chosen, dtype=np.int64)
        if isinstance(self.pictures, np.ndarray):
            return dataclasses.replace(self, pictures=self.pictures[numbers], labels=self.labels[numbers])
        pictures = [self.pictures[number] for number in numbers]
        return dataclasses.replace(self, pictures=pictures, labels=self.labels[numbers])

    def only(self, names: Iterable[str]) -> "Images":
        """The pictures of some classes, which are numbered anew. DataError on a class that there is not."""
        names = tuple(names)
        if len(set(names)) < len(names):
            raise DataError(f"{', '.join(names)}: a class stands twice; name each once")
        for name in names:
            if name not in self.classes:
                raise DataError(f"no class {name!r}; there are {', '.join(self.classes)}")
        numbers = {self.classes.index(name): new for new, name in enumerate(names)}
        kept = self.take(np.flatnonzero(np.isin(self.labels, list(numbers))))
        labels = np.array([numbers[label] for label in kept.labels.tolist()], dtype=np.int64)
        return dataclasses.replace(kept, labels=labels, classes=names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the labels and of the pictures, an array's numbers or the contents of files, in their order."""
        digest = hashlib.sha256(self.labels.tobytes())
        if isinstance(self.pictures, np.ndarray):
            digest.update(f"{self.pictures.shape} ".encode())
            digest.update(np.ascontiguousarray(self.pictures).data)
        else:
            for path in self.pictures:
                file_size(path)  # refuses a pipe, which would be read for ever
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()
