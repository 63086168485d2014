"""Drawn images of shapes and textures: the data set that ships, as a program.

A class is the outline of a plain figure, or the pattern in a figure without an outline of its own. Colours, place,
size, rotation, background and what else lies about are drawn anew for every image, so none of them tells the class.

    python -m vision.demo --out demo.png        writes a sheet of examples, a row for each class
"""

import cmath
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from PIL import Image

from minitransformer.system import files
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser
from minitransformer.system.progress import progress
from vision.images import Images

SIDE = 48  # pixels
PARTS = ("train", "valid")
NOISE = 0.04  # deviation of each pixel's channels, of 1
CONTRAST = 0.3  # how much lighter a figure is than its background, of 1; and their distance in colour

ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5  # centres of the pixels, (SIDE, SIDE)
PIXELS = COLUMNS + 1j * ROWS  # complex numbers turn easily

# ------------------------------------------------------------------------------------------------ outlines
# A shape says how far each point (u, v) lies outside of it, below 0 inside; it has about radius 1.


def _box(u: ndarray, v: ndarray, half_width: float, half_height: float) -> ndarray:
    return np.maximum(abs(u) - half_width, abs(v) - half_height)


def _disc(u: ndarray, v: ndarray, radius: float = 1.0) -> ndarray:
    return np.hypot(u, v) - radius


def _regular(u: ndarray, v: ndarray, corners: int) -> ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.max([np.cos(a) * u + np.sin(a) * v for a in angles], axis=0) - np.cos(np.pi / corners)


def _star(u: ndarray, v: ndarray) -> ndarray:
    half, inner = np.pi / 5, 0.42  # half the angle between two tips; radius of the notches between them
    angle = abs((np.arctan2(v, u) + half) % (2 * half) - half)  # folded into half a tip: 0 at the tip
    point = np.hypot(u, v) * np.exp(1j * angle)
    edge = cmath.rect(inner, half) - 1  # from the tip, which is at 1, to the notch
    return np.imag(edge / abs(edge) * (point - 1).conj())


def _heart(u: ndarray, v: ndarray) -> ndarray:
    u, v, half = abs(u), v - 0.15, 0.8
    return np.minimum((u + abs(v) - half) / np.sqrt(2), _disc(u - half / 2, v + half / 2, half / np.sqrt(2)))


SHAPES: dict[str, Callable[[ndarray, ndarray], ndarray]] = {
    "disc": _disc,
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "triangle": lambda u, v: _regular(u, v, 3),
    "star": _star,
    "cross": lambda u, v: np.minimum(_box(u, v, 1, 0.3), _box(u, v, 0.3, 1)),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.75) - 0.22,
    "crescent": lambda u, v: np.maximum(_disc(u, v), -_disc(u - 0.5, v, 0.8)),
    "half disc": lambda u, v: np.maximum(_disc(u, v + 0.4), -v - 0.4),
    "lens": lambda u, v: np.maximum(_disc(u - 0.75, v, 1.25), _disc(u + 0.75, v, 1.25)),
    "heart": _heart,
    "bar": lambda u, v: _box(u, v, 1, 0.25),
    "L": lambda u, v: np.minimum(_box(u + 0.5, v, 0.25, 0.9), _box(u, v + 0.65, 0.75, 0.25)),
    "T": lambda u, v: np.minimum(_box(u, v - 0.65, 0.85, 0.25), _box(u, v, 0.25, 0.9)),
    "arrow": lambda u, v: np.minimum(_box(u - 0.4, v, 0.6, 0.18), _regular((u + 0.35) / 0.65, v / 0.65, 3) * 0.65),
    "bow": lambda u, v: np.maximum(abs(v) - 0.9 * abs(u), abs(u) - 0.85),
    "U": lambda u, v: np.maximum(_box(u, v, 0.8, 0.8), -_box(u, v - 0.4, 0.35, 0.8)),
}

# ------------------------------------------------------------------------------------------------ patterns
# A texture parts the plane into two colours, above and below 0; it repeats about once in a unit of s and t.


def _wave(t: ndarray) -> ndarray:
    return np.cos(2 * np.pi * t)


def _bricks(s: ndarray, t: ndarray) -> ndarray:
    course = np.floor(1.4 * t)
    return np.minimum(0.75 - _wave(s / 1.4 + course / 2), 0.75 - _wave(1.4 * t)) - 0.25


TEXTURES: dict[str, Callable[[ndarray, ndarray], ndarray]] = {
    "stripes": lambda s, t: _wave(s),
    "checks": lambda s, t: 1.5 * _wave(s / 1.4) * _wave(t / 1.4),
    "dots": lambda s, t: _wave(s) + _wave(t) - 0.6,
    "rings": lambda s, t: _wave(np.hypot(s, t)),
    "waves": lambda s, t: _wave(s + 0.35 * np.sin(np.pi * t)),
    "grid": lambda s, t: np.maximum(_wave(s / 1.2), _wave(t / 1.2)) - 0.75,
    "bricks": _bricks,
    "spiral": lambda s, t: _wave(np.hypot(s, t) - np.arctan2(t, s) / (2 * np.pi)),
    "rays": lambda s, t: _wave(5 * np.arctan2(t, s) / np.pi),
    "zigzag": lambda s, t: _wave(s + abs(2 * (t / 2 % 1) - 1)),
    "scales": lambda s, t: 0.25 - abs(np.hypot((s + np.floor(t) / 2) % 1 - 0.5, t % 1) - 0.55) * 2,
    "triangles": lambda s, t: _wave(s / 1.4) + _wave((s + 1.73 * t) / 2.8 + 1 / 4) + _wave((s - 1.73 * t) / 2.8),
}

DEMO = ("disc", "square", "triangle", "star", "cross", "stripes", "checks", "dots", "rings", "waves")
PRETRAIN = tuple(name for name in (*SHAPES, *TEXTURES) if name not in DEMO)  # what weights/demo-deit has learnt


class Set(NamedTuple):
    """A data set that can be drawn."""

    classes: tuple[str, ...]
    seed: int
    count: dict[str, int]  # images in each part


SETS = {
    "demo": Set(DEMO, seed=1, count={"train": 8000, "valid": 1000}),
    "demo-pretrain": Set(PRETRAIN, seed=2, count={"train": 24_000, "valid": 900}),
}


def read(name: str, part: str, count: int | None = None) -> Images:
    """The pictures of a set in SETS, part "train" or "valid", with classes that take turns.

    count: only the first so many. A picture depends on its set, its part and its place alone.
    """
    chosen = SETS[name]
    count = min(count or chosen.count[part], chosen.count[part])
    labels = np.arange(count) % len(chosen.classes)
    pictures = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for place, label in enumerate(progress(labels, desc=f"drawing {part}", unit="image", leave=False)):
        random = np.random.default_rng([chosen.seed, PARTS.index(part), place])
        pictures[place] = draw(chosen.classes[label], random)
    return Images(pictures, labels, chosen.classes)


def draw(kind: str, random: np.random.Generator) -> ndarray:
    """A picture of one class, (SIDE, SIDE, 3) uint8."""
    background, front, second = _colours(random)
    canvas = _shaded(background, random)
    _litter(canvas, int(random.integers(2, 6)), random)

    radius = random.uniform(0.24, 0.4) * SIDE
    x, y = random.uniform(radius, SIDE - radius), random.uniform(radius, SIDE - radius)
    point = PIXELS - complex(x, y)  # from the middle of the figure
    point *= cmath.rect(1, random.uniform(0, 2 * np.pi))
    if kind in SHAPES:
        outside = SHAPES[kind](point.real / radius, point.imag / radius) * radius
        paint = _shaded(front, random)
    else:
        outside = _blob(point, radius, random)
        period = random.uniform(0.11, 0.17) * SIDE
        pattern = TEXTURES[kind](point.real / period, point.imag / period)
        share = _coverage(-pattern * period / (2 * np.pi))  # a wave's edge becomes about a pixel wide
        paint = share[..., None] * front + (1 - share[..., None]) * second
    _lay(canvas, paint, _coverage(outside))

    _litter(canvas, int(random.integers(0, 3)), random)  # some of it lies on the figure
    canvas += NOISE * random.standard_normal(canvas.shape, np.float32)
    return (canvas.clip(0, 1) * 255).round().astype(np.uint8)


def _colours(random: np.random.Generator) -> ndarray:
    """Background, figure and the second colour of a texture, (3, 3), of any hue; the figure is lighter than the others.

    So light and dark part figure and background, and a small model need not learn that for each pair of colours.
    """
    while True:
        colours = random.uniform(0.02, 0.98, (3, 3)).astype(np.float32)
        background, front, second = colours.mean(axis=1)
        if front - max(background, second) > CONTRAST and np.linalg.norm(colours[0] - colours[2]) > CONTRAST:
            return colours


def _shaded(colour: ndarray, random: np.random.Generator) -> ndarray:
    """A colour that grows lighter in some direction, (SIDE, SIDE, 3)."""
    across, down = random.uniform(-0.15, 0.15), random.uniform(-0.15, 0.15)
    light = across * (COLUMNS / SIDE - 0.5) + down * (ROWS / SIDE - 0.5)
    return colour + light[..., None]


def _litter(canvas: ndarray, count: int, random: np.random.Generator) -> None:
    """Short sticks and crumbs in any colour, `count` of them."""
    for _ in range(count):
        x, y = random.uniform(0, SIDE), random.uniform(0, SIDE)
        half_length, half_width = random.uniform(0.7, 7), random.uniform(0.5, 1.2)
        near = tuple(slice(max(0, int(middle - 9)), int(middle + 9)) for middle in (y, x))
        point = (PIXELS[near] - complex(x, y)) * cmath.rect(1, random.uniform(0, np.pi))
        colour = random.uniform(0, 1, 3).astype(np.float32)
        _lay(canvas[near], colour, _coverage(_box(point.real, point.imag, half_length, half_width)))


def _blob(point: ndarray, radius: float, random: np.random.Generator) -> ndarray:
    """How far outside of a round thing with a random outline each point lies, in pixels."""
    angle = np.angle(point)
    outline = sum(random.uniform(0, 0.12) * np.cos(k * angle + random.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5))
    return abs(point) - radius * (1 + outline)


def _coverage(outside: ndarray) -> ndarray:
    """How much of each pixel is covered, 0 to 1, from how many pixels its centre lies outside."""
    return (0.5 - outside).clip(0, 1)


def _lay(canvas: ndarray, paint: ndarray, share: ndarray) -> None:
    canvas += share[..., None] * (paint - canvas)


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m vision.demo", description=__doc__)
    parser.add_argument("--out", required=True, metavar="FILE", help="a .png file")
    parser.add_argument("--set", default="demo", choices=sorted(SETS))
    args = parser.parse_args()

    files.check_writable(args.out)
    classes = SETS[args.set].classes
    pictures: Any = read(args.set, "train", 12 * len(classes)).pictures  # (12 K, SIDE, SIDE, 3)
    sheet = pictures.reshape(12, len(classes), SIDE, SIDE, 3).transpose(1, 2, 0, 3, 4)
    Image.fromarray(sheet.reshape(len(classes) * SIDE, 12 * SIDE, 3)).save(Path(args.out))
    print(f"{args.out}: from top to bottom {', '.join(classes)}")


if __name__ == "__main__":
    main()
