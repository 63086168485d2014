"""Picture files of every kind that people have: the right pixels, or a refusal that names the file."""

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import EpsImagePlugin, Image, features

from minitransformer.system.errors import DataError
from pictures import COLOUR, GREY, GREY_ALPHA, PALETTE, drawn, encoded, png, tiff
from vision import images, picture
from vision.images import Preprocessing, prepare, prepare_all
from vision.picture import Room, open_picture

KINDS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "TIFF", "PPM"]
ANIMATED = ["GIF", "PNG", "WEBP", "AVIF", "TIFF"]
WITH_NOTE = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"]
LOSSLESS = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}, "JPEG": {"quality": 100}}
# What of 255 a file of a kind may be off by, written as above.
OFF_BY = {"JPEG": 2, "AVIF": 2}


@pytest.fixture(autouse=True)
def built_in(request):
    """Skips what this Pillow cannot write."""
    kind = getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind")
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")


def colours(data: bytes | Path, row: int = 0) -> list[tuple[int, int, int]]:
    """A row of pixels."""
    return [tuple(pixel) for pixel in np.asarray(open_picture(data))[row].tolist()]


def greys(data: bytes) -> list[int]:
    """The first row of a grey picture."""
    row = colours(data)
    assert all(red == green == blue for red, green, blue in row)
    return [red for red, _, _ in row]


# ---------------------------------------------------------------------------------------------------- depths


def test_eight_bits_stay_what_they_are():
    pixels = drawn(20, 30)
    assert np.array_equal(np.asarray(open_picture(encoded(Image.fromarray(pixels)))), pixels)
    grey = Image.fromarray(pixels).convert("L")
    assert np.array_equal(np.asarray(open_picture(encoded(grey))), np.asarray(grey)[..., None].repeat(3, -1))


@pytest.mark.parametrize(
    ("bits", "data", "expected"),
    [(1, b"\x40", [0, 255, 0, 0]), (2, b"\x1b", [0, 85, 170, 255]), (4, b"\x0f\x80", [0, 255, 136, 0])],
)
def test_grey_of_few_bits_goes_from_black_to_white(bits, data, expected):
    assert greys(png((4, 1), bits, GREY, data)) == expected


VALUES = (0, 255, 256, 100 * 256, 65_535)
BIG, LITTLE = struct.pack(">5H", *VALUES), struct.pack("<5H", *VALUES)
DEEP = {
    "PNG": png((5, 1), 16, GREY, BIG),
    "PGM": b"P5 5 1 65535\n" + BIG,
    "TIFF": tiff((5, 1), 16, LITTLE),
    "TIFF, packed": tiff((5, 1), 16, zlib.compress(LITTLE), t259=8),
    "TIFF of 32 bits, as old Pillow wrote 16": encoded(Image.fromarray(np.array([VALUES], np.int32)), "TIFF"),
}


@pytest.mark.parametrize("data", DEEP.values(), ids=DEEP.keys())
def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off(data):
    assert greys(data) == [0, 0, 1, 100, 255]


def test_sixteen_bits_of_colour_are_scaled_alike():
    pixels = struct.pack(">3H", 0, 100 * 257, 65_535)
    assert colours(png((1, 1), 16, COLOUR, pixels)) == [(0, 100, 255)]
    assert colours(b"P6 1 1 65535\n" + pixels) == [(0, 100, 255)]


def test_other_depths_of_grey_go_from_black_to_white():
    assert greys(tiff((2, 1), 12, b"\x80\x0f\xff")) == [128, 255]  # 0x800 and 0xfff
    assert greys(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023)) == [0, 128, 255]
    assert greys(b"P5 3 1 15\n\x00\x08\x0f") == [0, 136, 255]


@pytest.mark.parametrize(("bits", "data"), [(8, b"\x00\xc8\xff"), (16, b"\x00\x00\x00\xc8\xff\xff")])
def test_a_tiff_whose_white_is_zero_is_no_negative(bits, data):
    assert greys(tiff((3, 1), bits, data, t262=0)) == [255, 55, 0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.array([[-1, 5]], np.int32), r"numbers from -1 to 5, of which nobody knows the white"),
        (np.array([[0, 65_536]], np.int32), r"numbers from 0 to 65,536, of which nobody knows the white"),
        (np.array([[0.0, 0.5]], np.float32), "fractions, of which nobody knows the white"),
    ],
)
def test_numbers_without_a_white_are_refused(tmp_path, values, problem):
    path = tmp_path / "deep.tif"
    path.write_bytes(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(DataError, match=rf"deep\.tif: its pixels are {problem}; save it in 8 or 16 bits"):
        open_picture(path)


# ------------------------------------------------------------------------------------------ palettes, transparency

PLTE = bytes([200, 0, 0, 0, 200, 0, 0, 0, 200])


def test_a_palette_gives_its_colours():
    assert colours(png((3, 1), 8, PALETTE, b"\2\0\1", PLTE=PLTE)) == [(0, 0, 200), (200, 0, 0), (0, 200, 0)]


TRANSPARENT = {  # on white, x of opacity a / 255 is 255 - (255 - x) * a / 255
    "palette with an alpha of each": (
        png((3, 1), 8, PALETTE, b"\0\1\2", PLTE=PLTE, tRNS=bytes([0, 51])),
        [(255, 255, 255), (204, 244, 204), (0, 0, 200)],
    ),
    "palette with one transparent": (
        png((2, 1), 8, PALETTE, b"\1\0", PLTE=PLTE, tRNS=bytes([255, 0])),
        [(255, 255, 255), (200, 0, 0)],
    ),
    "one colour": (
        png((2, 1), 8, COLOUR, bytes([10, 20, 30, 1, 2, 3]), tRNS=struct.pack(">3H", 10, 20, 30)),
        [(255, 255, 255), (1, 2, 3)],
    ),
    "one grey": (png((2, 1), 8, GREY, b"\x05\x06", tRNS=b"\0\x05"), [(255, 255, 255), (6, 6, 6)]),
    "one grey of 16 bits": (
        png((2, 1), 16, GREY, struct.pack(">2H", 25_600, 25_601), tRNS=struct.pack(">H", 25_600)),
        [(255, 255, 255), (100, 100, 100)],
    ),
    "alpha": (
        encoded(Image.frombytes("RGBA", (3, 1), bytes([9, 8, 7, 0, 100, 0, 255, 51, 9, 8, 7, 255]))),
        [(255, 255, 255), (224, 204, 255), (9, 8, 7)],
    ),
    "grey and alpha": (
        encoded(Image.frombytes("LA", (3, 1), bytes([9, 0, 100, 51, 9, 255]))),
        [(255, 255, 255), (224, 224, 224), (9, 9, 9)],
    ),
    "grey and alpha of 16 bits": (
        png((2, 1), 16, GREY_ALPHA, struct.pack(">4H", 25_600, 65_535, 25_600, 0)),
        [(100, 100, 100), (255, 255, 255)],
    ),
    "alpha in WebP": (
        encoded(Image.new("RGBA", (2, 1), (100, 0, 255, 51)), "WEBP", lossless=True),
        [(224, 204, 255), (224, 204, 255)],
    ),
}


@pytest.mark.parametrize(("data", "expected"), TRANSPARENT.values(), ids=TRANSPARENT.keys())
def test_what_is_transparent_stands_on_white(data, expected):
    assert colours(data) == expected


# ---------------------------------------------------------------------------------------------------- inks


def test_inks_become_colours():
    """Cyan, magenta, yellow, black: red is (255 - C) * (255 - K) / 255."""
    for kind, options in (("JPEG", {"quality": 100}), ("TIFF", {})):
        ink = encoded(Image.new("CMYK", (8, 8), (0, 128, 255, 51)), kind, **options)
        assert colours(ink)[3] == (204, 102, 0), kind


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 cannot read the TIFF it writes")
def test_brightness_and_two_differences_become_colours():
    assert colours(encoded(Image.new("YCbCr", (2, 1), (100, 128, 128)), "TIFF")) == [(100, 100, 100)] * 2


# ---------------------------------------------------------------------------------------------------- upright


@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_stand_upright_as_their_exif_note_says(turn):
    upright = np.zeros((6, 10, 3), np.uint8)
    upright[0, 0], upright[-1, 0] = 255, 120  # corners that tell every turn apart
    # How a camera stores it, from the note's definition: 2 mirrored, 3 turned by 180, 6 and 8 by 90 degrees, ...
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2),
              8: np.rot90(upright, -1)}[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    made = Image.fromarray(np.ascontiguousarray(stored))
    assert np.array_equal(np.asarray(open_picture(encoded(made, exif=exif))), upright)


@pytest.mark.parametrize("kind", WITH_NOTE)
def test_pictures_of_every_kind_with_a_note_are_turned_once(kind):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = (255, 120, 0)  # the corner above, left
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    read = np.asarray(open_picture(encoded(stored, kind, exif=exif, **LOSSLESS.get(kind, {}))))
    assert read.shape == (16, 32, 3)
    assert np.abs(read[2, 2].astype(int) - (255, 120, 0)).max() <= OFF_BY.get(kind, 0)
    assert read[[12, 12, 2], [2, 28, 28]].max() <= OFF_BY.get(kind, 0), "the other corners"


NOTES = {
    "no note at all": b"Exif\0\0garbage",
    "ends at once": b"Exif\0\0II*\0",
    "points out of the file": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "a turn cut off": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0",
    "a turn in letters": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01x\0\0\0\0\0\0\0",
    "a turn that is none": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
}


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES.keys())
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_exif_note_does_not_spoil_a_picture(kind, note):
    made = Image.new("RGB", (16, 8), (200, 100, 50))
    data = encoded(made, kind, exif=note, **LOSSLESS.get(kind, {}))
    assert np.abs(np.asarray(open_picture(data)).astype(int) - (200, 100, 50)).max() <= OFF_BY.get(kind, 0)


def test_a_note_of_which_another_line_is_damaged_still_turns():
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 3, 72.0  # turned by 180; 72 pixels to the inch
    data = encoded(Image.fromarray(drawn(20, 30)), "JPEG", exif=exif)
    at = data.index(b"\x01\x1a\x00\x05")  # big-endian: the resolution, of type 5, two numbers
    typed = data[:at] + b"\x01\x1a\x00\x02" + data[at + 4 :]  # of type 2, a text
    assert np.array_equal(np.asarray(open_picture(typed)), np.asarray(open_picture(data)))


def test_pillow_says_nothing_of_its_own():
    """As it is outside of pytest, which has filters of its own."""
    script = (
        "import sys; from vision.picture import open_picture\n"
        "for data in (bytes.fromhex(text) for text in sys.argv[1:]):\n"
        "    try: open_picture(data)\n"
        "    except Exception as error: print(error)"
    )
    noted = encoded(Image.new("RGB", (4, 4)), exif=NOTES["points out of the file"])
    layered = tiff((1, 1), 8, b"\0", t277=2048)
    ended = subprocess.run(
        [sys.executable, "-c", script, noted.hex(), layered.hex()],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stderr == ""
    assert ended.stdout.count("\n") == 1
    assert "not a picture" in ended.stdout
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):  # there is something to say
        open_picture(noted)


# ---------------------------------------------------------------------------------------------------- frames, ends


@pytest.mark.parametrize("kind", ANIMATED)
def test_of_an_animation_the_first_frame_is_the_picture(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **LOSSLESS.get(kind, {}))
    assert np.abs(np.asarray(open_picture(data)).astype(int) - (255, 0, 0)).max() <= OFF_BY.get(kind, 0)


def test_an_animation_s_picture_is_whole_where_its_first_frame_is_smaller():
    frames = [Image.new("RGBA", (4, 1), (0, 0, 0, 0)) for _ in range(2)]
    frames[0].putpixel((1, 0), (255, 0, 0, 255))
    frames[1].putpixel((2, 0), (0, 0, 255, 255))
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert colours(data) == [(255, 255, 255), (255, 0, 0), (255, 255, 255), (255, 255, 255)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_picture_that_is_cut_off_is_refused_by_name(tmp_path, kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    path = tmp_path / f"photo.{kind.lower()}"
    path.write_bytes(data)
    assert open_picture(path).size == (64, 64)
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=rf"photo\.{kind.lower()}: not a (whole )?picture"):
        open_picture(path)


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_pictures_are_refused(tmp_path, kind):
    data = encoded(Image.fromarray(drawn()), kind)
    path = tmp_path / "a"
    random = np.random.default_rng(0)
    for trial in range(60):
        damaged = bytearray(data[: random.integers(len(data))] if trial % 2 else data)
        for place in random.integers(0, max(1, len(damaged)), 3):
            if damaged:
                damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            assert open_picture(path).mode == "RGB"  # a bit flipped in a colour is no damage that anybody can see
        except DataError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)


def test_files_that_are_no_pictures_are_refused(tmp_path):
    for name, data in (("empty", b""), ("text", b"a cat"), ("cut", encoded(Image.fromarray(drawn()))[:-900])):
        (tmp_path / name).write_bytes(data)
        problem = "not a whole picture" if name == "cut" else "not a picture, or of a kind that is not read here"
        with pytest.raises(DataError, match=f"{name}: {problem}"):
            open_picture(tmp_path / name)
    with pytest.raises(DataError, match=f"{tmp_path}: it is a folder; give the pictures in it"):
        open_picture(tmp_path)
    with pytest.raises(DataError, match="absent: no such file"):
        open_picture(tmp_path / "absent")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="loop: Too many levels of symbolic links"):
        open_picture(tmp_path / "loop")


# ---------------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize("other", ["EPS", "ICO", "PCX", "TGA", "JPEG2000", "PDF"])
def test_only_the_kinds_that_are_promised_are_opened_whatever_they_are_called(tmp_path, monkeypatch, other):
    if other == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow was built without JPEG 2000")
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(drawn(32, 32)), other))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)  # calling it would be a TypeError
    if other != "PDF":
        assert Image.open(path).format == other, "Pillow itself would read it"
    with pytest.raises(DataError, match=r"photo\.jpg: not a picture, or of a kind that is not read here \(JPEG, PNG, "):
        open_picture(path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_that_are_promised_are_opened_whatever_they_are_called(tmp_path, kind):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (16, 16), (200, 100, 50)), kind, **LOSSLESS.get(kind, {})))
    assert np.abs(np.subtract(colours(path)[8], (200, 100, 50))).max() <= OFF_BY.get(kind, 0)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "photo.jpg")
    with pytest.raises(DataError, match=r"photo\.jpg: a pipe or a device and no file; write the picture to a file"):
        open_picture(tmp_path / "photo.jpg")
    with pytest.raises(DataError, match="/dev/zero: a pipe or a device and no file"):
        open_picture("/dev/zero")
    with pytest.raises(DataError, match="a pipe or a device and no file"):
        _ = images.Images([tmp_path / "photo.jpg"], np.zeros(1, np.int64), ("a",)).fingerprint


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(1, 99_999_999), (99_999_999, 1), (65_536, 1), (12_000, 9_000), (60_000, 60_000)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(size):
    whole = png((1, 1), 8, GREY, b"\0")
    head = b"IHDR" + struct.pack(">II", *size) + whole[24:29]
    data = whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:] + bytes(10**6)
    with pytest.raises(DataError, match="pixels; scale it down first"):
        open_picture(data)


@pytest.mark.parametrize(
    ("side", "problem"), [(40_000, "40,000 x 40,000 pixels; scale"), (9_000, "too many to be true")]
)
def test_the_tiles_of_a_tiff_count_however_small_the_picture(side, problem):
    tiles = {"t322": side, "t323": side, "t324": 8, "t325": 17, "t259": 8}
    with pytest.raises(DataError, match=problem):
        open_picture(tiff((16, 16), 8, zlib.compress(bytes(1000)), **tiles))


def test_a_plain_surface_in_a_small_file_is_a_picture(tmp_path):
    for name, options in (("logo.webp", {"lossless": True}), ("logo.tif", {"compression": "group4"})):
        Image.new("1" if name == "logo.tif" else "RGB", (3000, 3000), 1).save(tmp_path / name, **options)
        assert (tmp_path / name).stat().st_size < 8_000
        assert open_picture(tmp_path / name).size == (3000, 3000)


def test_a_room_is_never_fuller_than_it_is_large():
    room, inside, most = Room(10), [], []

    def visit(pixels: int) -> None:
        with room.taken(pixels):
            inside.append(pixels)
            most.append(sum(inside))
            threading.Event().wait(0.002)
            inside.remove(pixels)

    threads = [threading.Thread(target=visit, args=(pixels,)) for pixels in [10, 4, 4, 4, 3, 7, 1] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 6 < max(most) <= 10
    assert room.free == 10


def test_a_room_is_left_when_something_goes_wrong():
    room = Room(5)
    with pytest.raises(ZeroDivisionError), room.taken(5):
        raise ZeroDivisionError
    assert room.free == 5


def test_pictures_take_room_until_they_are_small(tmp_path, monkeypatch):
    """All threads together have room for one picture here: they come one by one, and each has left at the end."""
    free, fitted = [], images._fitted
    monkeypatch.setattr(picture, "ROOM", Room(1000))
    monkeypatch.setattr(images, "_fitted", lambda *given: free.append(picture.ROOM.free) or fitted(*given))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        Image.new("RGB", (30, 30)).save(path)
    small = Preprocessing(resize=(4, 4), crop=None)
    assert prepare_all(paths, small, quiet=True).shape == (12, 3, 4, 4)
    assert free == [100] * 13  # the first is opened twice, for its size
    paths[0].write_bytes(paths[0].read_bytes()[:-30])
    with pytest.raises(DataError):
        prepare(paths[0], small)
    assert picture.ROOM.free == 1000
