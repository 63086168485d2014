"""The drawn images: what they depend on, and what does not tell their class."""

import numpy as np
import pytest
from PIL import Image

from tiny import call
from vision import demo


def drawn(*which) -> tuple[np.ndarray, np.ndarray]:
    images = demo.read(*which)
    assert images.classes == demo.SETS[which[0]].classes
    return images.pictures, images.labels


def test_images_are_pictures_of_classes_that_take_turns():
    pictures, labels = drawn("demo", "train", 25)
    assert pictures.shape == (25, demo.SIDE, demo.SIDE, 3)
    assert pictures.dtype == np.uint8
    assert labels.dtype == np.int64
    assert labels.tolist() == [*range(10), *range(10), *range(5)]
    assert min(picture.std() for picture in pictures) > 10


def test_images_depend_on_set_part_and_place_alone():
    pictures, _ = drawn("demo", "train", 12)
    again, _ = drawn("demo", "train", 5)
    assert (pictures[:5] == again).all()
    for other in (drawn("demo", "valid", 12), drawn("demo-pretrain", "train", 12)):
        assert (pictures != other[0]).any(axis=(1, 2, 3)).all()


def test_images_of_one_class_are_all_different():
    pictures, labels = drawn("demo", "valid", 100)
    for label in range(10):
        assert len({picture.tobytes() for picture in pictures[labels == label]}) == 10


def test_images_are_not_more_than_the_set_has():
    assert len(drawn("demo", "valid", 10**9)[1]) == demo.SETS["demo"].count["valid"]


def test_pretraining_has_other_classes_than_the_demo():
    assert len(demo.DEMO) == 10
    assert not set(demo.DEMO) & set(demo.PRETRAIN)
    assert set(demo.DEMO) | set(demo.PRETRAIN) == set(demo.SHAPES) | set(demo.TEXTURES)


@pytest.fixture(scope="module")
def split():
    """Pictures as numbers from -1 to 1, (N, SIDE, SIDE, 3), and labels, to learn from and to be asked about."""
    return [(pictures / 127.5 - 1, labels) for pictures, labels in (
        drawn("demo", "train", 600), drawn("demo", "valid", 200))]  # fmt: skip


def linear_accuracy(features: list[np.ndarray], labels: list[np.ndarray]) -> float:
    """Of the ridge regression from features to classes: what a classifier without any insight reaches."""
    train, valid = (np.hstack([f.reshape(len(f), -1), np.ones((len(f), 1))]) for f in features)
    gram = train @ train.T + 10 * np.eye(len(train))
    answers = valid @ (train.T @ np.linalg.solve(gram, np.eye(10)[labels[0]]))
    return (answers.argmax(1) == labels[1]).mean()


@pytest.mark.parametrize("told_by", ["pixels", "mean colour", "place of what differs from the corners"])
def test_class_is_not_told_by(split, told_by):
    def features(pictures):
        if told_by == "pixels":
            return pictures
        if told_by == "mean colour":
            return pictures.mean(axis=(1, 2))
        corners = pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=1)
        return abs(pictures - corners[:, None, None]).mean(axis=-1)

    accuracy = linear_accuracy([features(pictures) for pictures, _ in split], [labels for _, labels in split])
    assert accuracy < 0.3  # by chance: 0.1


def test_demo_command_writes_a_sheet_with_a_row_for_each_class(tmp_path):
    outcome = call(demo.main, "--out", tmp_path / "sheet.png")
    assert outcome.status == 0, outcome.err
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (10 * demo.SIDE, 12 * demo.SIDE, 3)
    pictures, _ = drawn("demo", "train", 11)
    assert (sheet[: demo.SIDE, : demo.SIDE] == pictures[0]).all()
    assert (sheet[: demo.SIDE, demo.SIDE : 2 * demo.SIDE] == pictures[10]).all()


def test_demo_command_refuses_a_folder_that_is_absent(tmp_path):
    assert "cannot be written" in call(demo.main, "--out", tmp_path / "absent/sheet.png").refusal()
