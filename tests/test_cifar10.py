"""CIFAR-10's archive and folder, and everything that is not one."""

import hashlib
import io
import os
import pickle
import re
import tarfile

import numpy as np
import pytest

from minitransformer.system.errors import DataError
from vision import cifar10, data

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch(count: int = 4, seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (count, 3072)).astype(np.uint8)
    return {b"data": rows, b"labels": random.integers(0, 10, count).tolist(), b"batch_label": b"x", b"filenames": []}


def write(folder, **changes) -> None:
    """A whole folder with random pictures; changes: file name -> what stands in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: batch(seed=seed) for seed, name in enumerate([*cifar10.FILES["train"], "test_batch"])}
    contents[cifar10.META] = {b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}
    for name, value in (contents | changes).items():
        data = value if isinstance(value, bytes) else pickle.dumps(value, protocol=2)
        (folder / name).write_bytes(data)


def archive(path, folder) -> None:
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, arcname=cifar10.FOLDER)


def publish(monkeypatch, path) -> None:
    """From here on the archive is the one whose MD5 is known."""
    monkeypatch.setattr(cifar10, "CHECKSUM", "md5:" + hashlib.md5(path.read_bytes()).hexdigest())


def refusal(path, part: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        cifar10.read(path, part)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_official_layout_is_read(cifar):
    train, valid = (cifar10.read(cifar / "data", part) for part in ("train", "valid"))
    assert (len(train), len(valid)) == (100, 50)
    assert train.classes == tuple(CLASSES)
    assert train.pictures.shape == (100, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [10] * 10
    assert 100 < train.pictures.mean() < 140  # photographs, not noise
    # Neighbouring pixels are alike only if red, green and blue and the rows are where they should be.
    pixels = train.pictures.astype(int)
    assert abs(np.diff(pixels, axis=1)).mean() < 20 > abs(np.diff(pixels, axis=2)).mean()


def test_the_archive_and_the_folder_are_the_same(tmp_path, monkeypatch):
    write(tmp_path / cifar10.FOLDER)
    archive(tmp_path / "cifar.tar.gz", tmp_path / cifar10.FOLDER)
    publish(monkeypatch, tmp_path / "cifar.tar.gz")
    for part, count in (("train", 20), ("valid", 4)):
        sources = [tmp_path / "cifar.tar.gz", tmp_path, tmp_path / cifar10.FOLDER]
        read = [cifar10.read(source, part) for source in sources]
        assert all(cifar10.is_cifar10(source) for source in sources)
        assert [len(one) for one in read] == [count] * 3
        assert all(np.array_equal(one.pictures, read[0].pictures) for one in read)
    red = batch(seed=5)[b"data"][0, :1024].reshape(32, 32)
    assert np.array_equal(cifar10.read(tmp_path, "valid").pictures[0, :, :, 0], red)


def test_another_archive_is_refused(tmp_path):
    write(tmp_path / cifar10.FOLDER)
    archive(tmp_path / "mine.tar.gz", tmp_path / cifar10.FOLDER)
    message = refusal(tmp_path / "mine.tar.gz")
    assert "is not the published md5:c58f30108f718f92721af3b95e74349a" in message
    assert "extract it and give the folder" in message


@pytest.mark.parametrize("damage", ["cut off", "no archive", "empty", "a file missing"])
def test_a_damaged_archive_is_refused(tmp_path, monkeypatch, damage):
    write(tmp_path / cifar10.FOLDER)
    if damage == "a file missing":
        (tmp_path / cifar10.FOLDER / "data_batch_3").unlink()
    path = tmp_path / "cifar.tar.gz"
    archive(path, tmp_path / cifar10.FOLDER)
    data = path.read_bytes()
    path.write_bytes({"cut off": data[: len(data) // 2], "no archive": b"x" * 99, "empty": b""}.get(damage, data))
    publish(monkeypatch, path)
    message = refusal(path)
    assert "fetch it again" in message
    assert damage != "a file missing" or "no file cifar-10-batches-py/data_batch_3" in message


def test_names_in_an_archive_never_become_paths(tmp_path, monkeypatch):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name in ("../escaped", f"{cifar10.FOLDER}/../../escaped", "/tmp/escaped-cifar"):
            member = tarfile.TarInfo(name)
            member.size = 3
            file.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo(f"{cifar10.FOLDER}/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    publish(monkeypatch, path)
    assert "no file cifar-10-batches-py/data_batch_1" in refusal(path)
    assert os.listdir(tmp_path) == ["evil.tar.gz"]
    assert not os.path.exists("/tmp/escaped-cifar")


class Attack:
    def __reduce__(self):
        return os.system, ("touch /tmp/cifar-attack",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Attack(), r"asks for (posix|nt|os)\.system"),
        (b"", "not a batch"),
        (b"\x80\x02junk", "not a batch"),
        (pickle.dumps([1, 2]), "not a batch"),
        ({b"data": np.zeros((4, 3072), np.uint8)}, "no list of as many labels"),
        (batch() | {b"labels": [0, 1, 2]}, "4 pictures, but no list of as many labels"),
        (batch() | {b"labels": [0, 1, 2, 10]}, "a label is not one of the 10 classes"),
        (batch() | {b"labels": [0, 1, 2, -1]}, "a label is not one"),
        (batch() | {b"labels": [0, 1, 2, "3"]}, "a label is not one"),
        (batch() | {b"data": np.zeros((4, 3071), np.uint8)}, "not rows of 3072 bytes"),
        (batch() | {b"data": np.zeros((4, 3072), np.float32)}, "not rows of 3072 bytes"),
        (batch() | {b"data": b"x"}, "not rows of 3072 bytes"),
        (pickle.dumps(batch(count=0)), "no pictures in it"),
    ],
)
def test_a_batch_that_is_none_is_refused(tmp_path, content, message):
    write(tmp_path, data_batch_2=content)
    assert re.search(message, refusal(tmp_path)), refusal(tmp_path)
    assert not os.path.exists("/tmp/cifar-attack")


@pytest.mark.parametrize("meta", [{}, {b"label_names": []}, {b"label_names": [1]}, {b"label_names": [b"\xff"]}])
def test_class_names_that_are_none_are_refused(tmp_path, meta):
    write(tmp_path, **{cifar10.META: meta})
    assert "fetch it again" in refusal(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "test_batch").unlink()
    assert "test_batch: No such file" in refusal(tmp_path, "valid")
    assert len(cifar10.read(tmp_path, "train")) == 20


def test_a_folder_without_its_class_names_is_still_cifar10(tmp_path):
    write(tmp_path)
    (tmp_path / cifar10.META).unlink()
    with pytest.raises(DataError, match=r"batches\.meta: No such file or directory; extract cifar-10-python"):
        data.read(str(tmp_path), "train")


def test_random_damage_is_refused_or_harmless(tmp_path):
    write(tmp_path)
    path = tmp_path / "data_batch_1"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for trial in range(300):
        damaged = bytearray(whole[: random.integers(len(whole))] if trial % 3 == 0 else whole)
        for place in random.integers(0, 400 if trial % 2 else len(whole), 2):  # the first bytes are the structure
            if place < len(damaged):
                damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            assert len(cifar10.read(tmp_path, "train").labels) >= 16
        except DataError as error:
            assert "\n" not in str(error)


def test_a_job_finds_its_pictures_by_their_kind(tmp_path, cifar):
    assert len(data.read(str(cifar / "data"), "train", limit=7)) == 7
    again = [data.read(str(cifar / "data"), "train", limit=7).labels.tolist() for _ in range(2)]
    assert again[0] == again[1]
    animals = data.read(str(cifar / "data"), "valid", only_classes="cat, dog")
    assert animals.classes == ("cat", "dog")
    assert len(animals) == 10
    with pytest.raises(DataError, match="no train pictures of"):
        data.read(str(cifar / "data"), "train", only_classes=",")
    (tmp_path / "note.txt").write_text("x")
    for source, message in ((tmp_path / "absent", "no such file or folder"), (tmp_path / "note.txt", "neither")):
        with pytest.raises(DataError, match=message):
            data.read(str(source), "train")


def test_classes_whose_names_hold_spaces_can_be_chosen():
    chosen = {text: data.read("demo-pretrain", "valid", limit=9, only_classes=text).classes
              for text in ("half disc, heart", "heart ring", "half disc,")}  # fmt: skip
    assert list(chosen.values()) == [("half disc", "heart"), ("heart", "ring"), ("half disc",)]
