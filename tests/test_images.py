"""The preprocessing of checkpoints, against transformers' Pillow backend."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from minitransformer.system.errors import DataError, WeightsError
from pictures import drawn, encoded
from vision.images import FILE, Images, Preprocessing, normalise, prepare, prepare_all, read_settings, write_settings
from vision.picture import open_picture

DEIT = {  # facebook/deit-small-distilled-patch16-224's file
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "DeiTFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 256,
}  # fmt: skip
DINOV2 = {  # facebook/dinov2-small's file
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256},
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
    "dinov2": (DINOV2, BitImageProcessorPil),
    "dinov2's processor, a number for the shorter side": ({"image_processor_type": "BitImageProcessor", "size": 250},
                                                          BitImageProcessorPil),
    "a dinov2's file that leaves the rest to transformers": ({"image_processor_type": "BitImageProcessor"},
                                                              BitImageProcessorPil),
    "neither scaled nor normalised": ({"do_normalize": False, "do_rescale": False, "do_resize": True, "resample": 0,
                                       "size": {"height": 40, "width": 60}}, ViTImageProcessorPil),
}  # fmt: skip


def checkpoint(folder, settings):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / FILE).write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return folder


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
        ({"size": -1}, "size is -1, no height and width from 1 to 2,048 pixels"),
        ({"size": {"height": 10}}, "no height and width"),
        ({"size": 10_000}, "size is 10000, no height and width from 1 to 2,048 pixels"),
        ({"size": {"shortest_edge": 2049}}, "no height and width from 1 to 2,048 pixels"),
        ({"crop_size": {"height": 10_000, "width": 10}}, "crop_size is .*, no height and width from 1 to 2,048 pixels"),
        ({"size": {"height": 10, "width": 0}}, "no height and width"),
        ({"crop_size": "224"}, "crop_size is '224'"),
        ({"do_resize": 1}, "do_resize is 1, not true or false"),
        ({"resample": 9}, "resample is 9, not a whole number from 0 to 5"),
        ({"resample": 0.0}, r"resample is 0\.0, not a whole number from 0 to 5"),
        ({"resample": True}, "resample is True, not a whole number from 0 to 5"),
        ({"resample": "bicubic"}, "resample is 'bicubic', not a whole number from 0 to 5"),
        ({"resample": []}, "resample"),
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


# ---------------------------------------------------------------------------------------------------- pictures


def test_a_picture_of_one_pixel_is_a_picture():
    picture = prepare(encoded(Image.new("RGB", (1, 1), (10, 20, 30))), Preprocessing())
    assert picture.shape == (3, 224, 224)
    assert picture[:, 0, 0].tolist() == [10, 20, 30]


def test_a_very_long_picture_is_refused_before_it_is_enlarged():
    with pytest.raises(DataError, match="would become"):
        prepare(np.zeros((1, 5000, 3), np.uint8), Preprocessing(resize=(256, 0)))


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
