"""Folders of classes, as the users of torchvision's ImageFolder have them."""

import os
from pathlib import Path

import pytest
from PIL import Image

from minitransformer.system.errors import DataError
from pictures import class_folder, drawn, encoded
from vision.class_folder import ENDINGS, read_folder
from vision.data import read


def places(folder: Path, part: str = "train") -> list[str]:
    """The pictures, each by its path below the part."""
    return [str(path.relative_to(folder / part)) for path in read_folder(folder, part).pictures]


def put(path: Path, data: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


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


LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg", ".0.jpg.swp", ".hidden.jpg", "notes.txt", "0.jpg.part",
          ".ipynb_checkpoints/0-checkpoint.jpg", "@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/0.jpg")  # fmt: skip


def test_what_systems_leave_in_folders_is_neither_a_picture_nor_a_class(tmp_path):
    class_folder(tmp_path, cat=2, dog=1)
    for name in LITTER:
        put(tmp_path / "train/cat" / name, b"no picture")
        put(tmp_path / "train" / name, b"no picture")
    assert places(tmp_path) == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg"]
    assert read_folder(tmp_path, "train").classes == ("cat", "dog")
    with pytest.raises(DataError, match="train/litter: no pictures in it"):
        for name in LITTER:
            put(tmp_path / "train/litter" / name)
        read_folder(tmp_path, "train")


def test_pictures_in_folders_within_a_class_are_of_that_class(tmp_path):
    class_folder(tmp_path, cat=1, dog=1)
    picture = encoded(Image.fromarray(drawn(9, 9)), "JPEG")
    for name in ("b/2.jpg", "b/c/3.jpg", "dog/4.jpg", "x.jpg/5.jpg"):
        put(tmp_path / "train/cat" / name, picture)
    data = read_folder(tmp_path, "train")
    assert places(tmp_path) == [
        "cat/0.jpg", "cat/b/2.jpg", "cat/b/c/3.jpg", "cat/dog/4.jpg", "cat/x.jpg/5.jpg", "dog/0.jpg",
    ]  # fmt: skip
    assert data.labels.tolist() == [0, 0, 0, 0, 0, 1]


def test_links_are_followed_and_none_leads_round_in_circles(tmp_path):
    class_folder(tmp_path, cat=1, dog=1)
    class_folder(tmp_path / "elsewhere", ("train",), bird=2)
    (tmp_path / "train/cat/up").symlink_to(tmp_path / "train/cat")
    (tmp_path / "train/cat/birds").symlink_to(tmp_path / "elsewhere/train/bird")
    (tmp_path / "train/eel").symlink_to(tmp_path / "elsewhere/train/bird")
    assert places(tmp_path) == [
        "cat/0.jpg", "cat/birds/0.jpg", "cat/birds/1.jpg", "dog/0.jpg", "eel/0.jpg", "eel/1.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "0", "1", "2"], ("0", "1", "2", "9", "10")),
        (["010", "002", "2"], ("002", "2", "010")),
        (["۱۰", "۲", "۱"], ("۱", "۲", "۱۰")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1.5", "10", "-1"], ("-1", "1.5", "10")),
        (["b", "A", "a"], ("A", "a", "b")),
    ],
)
def test_classes_are_in_order_of_number_where_all_are_numbers(tmp_path, names, expected):
    data = read_folder(class_folder(tmp_path, **dict.fromkeys(names, 1)), "train")
    assert data.classes == expected
    assert [path.parent.name for path in data.pictures] == list(expected)
    assert data.labels.tolist() == list(range(len(expected)))


def test_one_class_only_is_a_data_set(tmp_path):
    data = read_folder(class_folder(tmp_path, cat=3), "valid")
    assert (data.classes, data.labels.tolist()) == (("cat",), [0, 0, 0])
    assert len(read(str(tmp_path), "train", limit=2)) == 2


@pytest.mark.parametrize("name", ["valid", "val", "validation", "test"])
def test_what_validates_may_have_any_of_its_names(tmp_path, name):
    assert len(read_folder(class_folder(tmp_path, ("train", name), cat=2), "valid")) == 2


def test_endings_in_capitals_are_endings_and_others_are_none(tmp_path):
    for ending in (*ENDINGS, *(ending.upper() for ending in ENDINGS)):
        put(tmp_path / f"train/cat/photo{ending}")
    put(tmp_path / "train/cat/photo.heic")
    put(tmp_path / "train/cat/jpg")
    assert len(places(tmp_path)) == 2 * len(ENDINGS)
    put(tmp_path / "train/dog/photo.heic")
    with pytest.raises(DataError, match=r"train/dog: no pictures in it \(\.jpg, .*\); remove the folder, or fill it"):
        read_folder(tmp_path, "train")


def test_a_link_to_nothing_and_a_pipe_are_refused_by_name_and_not_left_out(tmp_path):
    class_folder(tmp_path, cat=1)
    (tmp_path / "train/cat/1.jpg").symlink_to(tmp_path / "absent.jpg")
    with pytest.raises(DataError, match=r"train/cat/1\.jpg: no such file"):
        _ = read_folder(tmp_path, "train").fingerprint
    (tmp_path / "train/cat/1.jpg").unlink()
    os.mkfifo(tmp_path / "train/cat/1.jpg")
    with pytest.raises(DataError, match=r"train/cat/1\.jpg: a pipe or a device"):
        _ = read_folder(tmp_path, "train").fingerprint


def test_a_folder_that_cannot_be_read_is_refused_and_not_left_out(tmp_path, monkeypatch):
    class_folder(tmp_path, cat=1)
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="train/cat: Permission denied"):
        read_folder(tmp_path, "train")
