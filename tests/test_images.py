"""Pictures: whatever a file holds, and the preprocessing of checkpoints against transformers' Pillow backend."""

import io
import json
import os
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from minitransformer.system.errors import DataError, WeightsError
from vision.data import read
from vision.images import (
    FILE,
    Images,
    Preprocessing,
    normalise,
    open_picture,
    prepare,
    prepare_all,
    read_folder,
    read_settings,
    write_settings,
)

DEIT = {  # facebook/deit-small-distilled-patch16-224's file
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "DeiTFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 256,
}  # fmt: skip
SETTINGS = {
    "deit": (DEIT, DeiTImageProcessorPil),
    "deit, newer file": (DEIT | {"crop_size": {"height": 224, "width": 224}, "size": {"height": 256, "width": 256}},
                         DeiTImageProcessorPil),
    "shorter side": (DEIT | {"size": {"shortest_edge": 250}}, DeiTImageProcessorPil),
    "crop larger than the picture": (DEIT | {"size": 64, "crop_size": 80}, DeiTImageProcessorPil),
    "no resize": (DEIT | {"do_resize": False, "crop_size": 30}, DeiTImageProcessorPil),
    "vit": ({"do_normalize": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
             "size": 224, "resample": 2}, ViTImageProcessorPil),
    "a vit's file that leaves the rest to transformers": ({"image_processor_type": "ViTImageProcessor"},
                                                           ViTImageProcessorPil),
    "a deit's file that leaves the rest to transformers": ({"image_processor_type": "DeiTImageProcessor"},
                                                            DeiTImageProcessorPil),
    "neither scaled nor normalised": ({"do_normalize": False, "do_rescale": False, "do_resize": True, "resample": 0,
                                       "size": {"height": 40, "width": 60}}, ViTImageProcessorPil),
}  # fmt: skip


def drawn(height: int = 90, width: int = 130, seed: int = 0) -> np.ndarray:
    """Noise over waves, (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 80 * np.sin(x / 7 + seed)[..., None] * np.cos(y / 11)[..., None] * [1.0, 0.7, -0.9]
    return (waves + random.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)


def checkpoint(folder, settings):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / FILE).write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return folder


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def same_as_hf(pictures, settings, processor) -> None:
    for picture in pictures:
        ours = normalise(torch.from_numpy(prepare(picture, settings).copy())[None], settings)
        theirs = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("values", "kind"), SETTINGS.values(), ids=SETTINGS.keys())
def test_preprocessing_matches_hf(tmp_path, values, kind):
    folder = checkpoint(tmp_path / "theirs", values)
    settings, processor = read_settings(folder), kind.from_pretrained(folder)
    same_as_hf([drawn(), drawn(130, 90, seed=1), drawn(64, 64, seed=2)], settings, processor)
    again = checkpoint(tmp_path / "ours", {})
    write_settings(settings, again)
    assert read_settings(again) == settings
    same_as_hf([drawn(), drawn(33, 40)], settings, kind.from_pretrained(again))


def test_preprocessing_matches_hf_on_photographs(cifar, tmp_path):
    folder = checkpoint(tmp_path, DEIT)
    pictures = [np.asarray(open_picture(path)) for path in sorted((cifar / "jpeg").iterdir())]
    assert len(pictures) == 10
    same_as_hf(pictures, read_settings(folder), DeiTImageProcessorPil.from_pretrained(folder))


@pytest.mark.parametrize("kind", [DeiTImageProcessorPil, ViTImageProcessorPil])
def test_settings_that_transformers_writes_are_read(tmp_path, kind):
    kind(image_mean=[0.1, 0.2, 0.3]).save_pretrained(checkpoint(tmp_path, {}))
    same_as_hf([drawn(), drawn(31, 20)], read_settings(tmp_path), kind.from_pretrained(tmp_path))


def test_a_checkpoint_without_settings_is_a_deit(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert read_settings(tmp_path) == Preprocessing()


TIMM = {"input_size": [3, 384, 384], "crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.4] * 3}


def test_a_checkpoint_of_timm_says_it_in_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_384", "pretrained_cfg": TIMM}))
    expected = Preprocessing((426, 0), resample=2, crop=(384, 384), mean=(0.5,) * 3, std=(0.4,) * 3)
    assert read_settings(tmp_path) == expected


@pytest.mark.parametrize("change", [{"crop_pct": 0}, {"input_size": []}, {"interpolation": "x"}, {"mean": None}])
def test_a_checkpoint_of_timm_that_says_nothing_sensible_is_refused(tmp_path, change):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": TIMM | change}))
    with pytest.raises(WeightsError, match=r"config\.json: "):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ({"size": -1}, "size is -1, no height and width in pixels"),
        ({"size": {"height": 10}}, "no height and width"),
        ({"size": 10**9}, "no height and width"),
        ({"size": {"height": 10, "width": 0}}, "no height and width"),
        ({"crop_size": "224"}, "crop_size is '224'"),
        ({"do_resize": 1}, "do_resize is 1, not true or false"),
        ({"resample": 9}, "resample is 9, not a number from 0 to 5"),
        ({"resample": "bicubic"}, "resample"),
        ({"image_mean": [0.5, "a", 0.5]}, "image_mean"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_std": [0.0, 1.0, 1.0]}, "image_std holds a 0"),
        ({"rescale_factor": float("nan")}, "rescale_factor"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path, values, message):
    with pytest.raises(WeightsError, match=message) as caught:
        read_settings(checkpoint(tmp_path, values))
    assert FILE in str(caught.value)


# ---------------------------------------------------------------------------------------------------- files


def test_pictures_of_every_mode_become_rgb():
    colours = Image.fromarray(drawn(20, 30))
    grey = colours.convert("L")
    values = np.asarray(grey)
    assert np.array_equal(np.asarray(open_picture(encoded(colours))), drawn(20, 30))
    assert np.array_equal(np.asarray(open_picture(encoded(grey)))[..., 1], values)
    assert np.array_equal(
        np.asarray(open_picture(encoded(grey.convert("1"))))[..., 0] > 0, np.asarray(grey.convert("1"))
    )
    deep = Image.fromarray(values.astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(open_picture(encoded(deep)))[..., 2], values), "scaled, not cut off"
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(np.asarray(open_picture(encoded(palette))), np.asarray(palette.convert("RGB")))
    ink = open_picture(encoded(colours.convert("CMYK"), "TIFF"))
    assert abs(np.asarray(ink).astype(int) - drawn(20, 30)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_stands_on_white(mode):
    picture = Image.new("RGBA", (8, 4), (200, 10, 10, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 4, 4))  # the left half
    options = {}
    if mode == "P":
        picture = Image.new("P", (8, 4), 1)
        picture.putpalette([0, 0, 0, 200, 10, 10])
        picture.paste(0, (0, 0, 4, 4))
        options["transparency"] = 0
    pixels = np.asarray(open_picture(encoded(picture if mode == "P" else picture.convert(mode), **options)))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] < 210).all()


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
    picture = Image.fromarray(np.ascontiguousarray(stored))
    assert np.array_equal(np.asarray(open_picture(encoded(picture, exif=exif))), upright)


def test_a_damaged_exif_note_does_not_spoil_a_picture():
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 3, 72.0  # turned by 180; 72 pixels to the inch
    data = encoded(Image.fromarray(drawn(20, 30)), "JPEG", exif=exif)
    at = data.index(b"\x01\x1a\x00\x05")  # big-endian: the resolution, of type 5, two numbers
    typed = data[:at] + b"\x01\x1a\x00\x02" + data[at + 4 :]  # of type 2, a text
    expected = open_picture(data)
    assert np.array_equal(np.asarray(open_picture(typed)), np.asarray(expected))


def test_a_picture_of_one_pixel_is_a_picture():
    picture = prepare(encoded(Image.new("RGB", (1, 1), (10, 20, 30))), Preprocessing())
    assert picture.shape == (3, 224, 224)
    assert picture[:, 0, 0].tolist() == [10, 20, 30]


def test_a_very_long_picture_is_refused_before_it_is_enlarged():
    with pytest.raises(DataError, match="would become"):
        prepare(np.zeros((1, 5000, 3), np.uint8), Preprocessing(resize=(256, 0)))


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF"])
def test_damaged_pictures_are_refused(tmp_path, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
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


@pytest.mark.filterwarnings("ignore")
def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    for size in ((12_000, 9_000), (60_000, 60_000)):
        header = encoded(Image.new("1", (1, 1)))
        at = header.index(b"IHDR") + 4
        claim = header[:at] + size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + header[at + 8 :]
        checked = claim[: at - 4] + claim[at - 4 : at + 13] + zlib.crc32(claim[at - 4 : at + 13]).to_bytes(4, "big")
        with pytest.raises(DataError, match="pixels; scale it down first"):
            open_picture(checked + claim[at + 17 :])


# ---------------------------------------------------------------------------------------------------- many


def test_all_pictures_are_prepared_in_order():
    pictures = np.stack([drawn(40, 40, seed) for seed in range(30)])
    together = prepare_all(pictures, Preprocessing(), quiet=True)
    assert together.dtype == torch.uint8
    for number in range(30):
        assert np.array_equal(together[number].numpy(), prepare(pictures[number], Preprocessing()))


def test_pictures_of_different_sizes_need_a_crop(tmp_path):
    paths = []
    for number, size in enumerate([(40, 40), (40, 50)]):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(encoded(Image.fromarray(drawn(*size))))
    assert prepare_all(paths, Preprocessing(), quiet=True).shape == (2, 3, 224, 224)
    with pytest.raises(DataError, match=r"1\.png: 50 x 40 pixels, where others have 40 x 40"):
        prepare_all(paths, Preprocessing(resize=None, crop=None), quiet=True)


def class_folder(root, **classes):
    for name, count in classes.items():
        for part in ("train", "test"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                (root / part / name / f"{number}.jpg").write_bytes(encoded(Image.fromarray(drawn(9, 9)), "JPEG"))
    return root


def test_a_folder_of_classes_is_read_in_order_of_name(tmp_path):
    data = read_folder(class_folder(tmp_path, cat=2, ant=1, سگ=3), "valid")
    assert data.classes == ("ant", "cat", "سگ")
    assert data.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert [path.parent.name for path in data.pictures] == ["ant", "cat", "cat", "سگ", "سگ", "سگ"]
    assert len(data.take([5, 0])) == 2


def test_some_of_a_folder_are_drawn_and_not_the_first(tmp_path):
    """Those would be of one class."""
    folder = str(class_folder(tmp_path, ant=8, bee=8, cat=8))
    labels, again = (read(folder, "train", limit=6).labels.tolist() for _ in range(2))
    assert set(labels) == {0, 1, 2}
    assert labels == again


def test_what_chooses_among_checkpoints_is_not_the_test_set_where_there_are_both(tmp_path):
    class_folder(tmp_path, cat=1, dog=1)
    (tmp_path / "test").rename(tmp_path / "val")
    class_folder(tmp_path / "more", cat=2, dog=2)
    (tmp_path / "more/test").rename(tmp_path / "test")
    assert len(read_folder(tmp_path, "valid")) == 2
    assert {path.parents[1].name for path in read_folder(tmp_path, "valid").pictures} == {"val"}


def test_a_plain_surface_in_a_small_file_is_a_picture(tmp_path):
    for name, options in (("logo.webp", {"lossless": True}), ("logo.tif", {"compression": "group4"})):
        Image.new("1" if name == "logo.tif" else "RGB", (3000, 3000), 1).save(tmp_path / name, **options)
        assert (tmp_path / name).stat().st_size < 8_000
        assert open_picture(tmp_path / name).size == (3000, 3000)


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="no folders of classes in it"):
        read_folder(tmp_path, "train")
    class_folder(tmp_path, cat=1, dog=1)
    (tmp_path / "train/dog/0.jpg").unlink()
    with pytest.raises(DataError, match="train/dog: no pictures in it"):
        read_folder(tmp_path, "train")
    odd = tmp_path / "train" / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    with pytest.raises(DataError, match=r"train: the name of the class 'caf\\udce9' is not UTF-8; rename"):
        read_folder(tmp_path, "train")
    odd.rmdir()
    (tmp_path / "test/bird").mkdir()
    with pytest.raises(DataError, match=r"test/bird: a class that .*train does not have"):
        read_folder(tmp_path, "valid")


def test_some_classes_alone_are_numbered_anew():
    data = Images(np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3), np.array([0, 1, 2, 0, 1, 2]), ("a", "b", "c"))
    only = data.only(["c", "a"])
    assert only.classes == ("c", "a")
    assert only.labels.tolist() == [1, 0, 1, 0]
    assert np.array_equal(only.pictures, data.pictures[[0, 2, 3, 5]])
    with pytest.raises(DataError, match="no class 'd'; there are a, b, c"):
        data.only(["d"])
    with pytest.raises(DataError, match="a, b, a: a class stands twice"):
        data.only(["a", "b", "a"])
