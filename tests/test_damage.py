"""A short run of `python -m tests.damage`, and the damage that it once found."""

import contextlib
import pickle

import pytest
import torch

from minitransformer.system.errors import DataError, WeightsError
from tests import damage
from tiny import change_tensors, random_model, write_checkpoint
from vision import cifar10
from weights import load_pretrained, save_pretrained
from weights.pickled import read_pickle


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> damage.Damage:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10, "CHECKSUM", cifar10.CHECKSUM)  # which becomes that of an archive made here
        yield damage.Damage(tmp_path_factory.mktemp("damage"), seed=1, seconds=60)


@pytest.mark.parametrize("name", damage.KINDS)
def test_damage_is_harmless_or_refused_in_one_line(files, name):
    for _ in range(3):
        deed, outcome = files.round(name)
        assert outcome.verdict in damage.GOOD, (deed, outcome)


def test_a_load_that_goes_wrong_is_seen(tmp_path):
    """The checker itself: crashes, endless loops, floods of memory and of text, and errors that are no UserError."""
    path = tmp_path / "file"
    path.touch()

    def untyped(path):
        raise PermissionError(13, "Permission denied", str(path))

    def talkative(path):
        print("a line too many", file=damage.sys.stderr)
        raise DataError("refused")

    loads = {
        "crashed": lambda path: damage.os._exit(3),
        "slow": lambda path: damage.time.sleep(60),
        "large": lambda path: str(len(b"x" * (8 * damage.ALLOWANCE))),
        "untyped": untyped,
        "talkative": talkative,
        "loaded": lambda path: "values",
    }
    for verdict, load in loads.items():
        seconds = 0.5 if verdict == "slow" else 60
        assert damage.load_apart(load, path, seconds).verdict == verdict


def test_a_weight_with_another_bit_is_refused(tmp_path):
    path = write_checkpoint(tmp_path) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="its tensors are not those that were written"):
        load_pretrained(tmp_path, "encoder")


def test_a_weight_with_another_bit_is_refused_where_the_name_of_the_hash_is_damaged_too(tmp_path):
    path = write_checkpoint(tmp_path) / "model.safetensors"
    data = bytearray(path.read_bytes().replace(b"minitransformer.sha256", b"minitransformer.sha356"))
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="the name of its hash is damaged"):
        load_pretrained(tmp_path, "encoder")


def test_weights_that_another_library_has_changed_have_no_hash_and_are_read(tmp_path):
    write_checkpoint(tmp_path)
    change_tensors(tmp_path, lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()})
    load_pretrained(tmp_path, "encoder")


@pytest.mark.parametrize("half", [False, True])
def test_the_same_model_makes_the_same_bytes_and_is_read_back(tmp_path, half):
    model = random_model().half() if half else random_model()
    for name in "ab":
        save_pretrained(model, tmp_path / name)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == other
    read = load_pretrained(tmp_path / "a", "encoder")
    assert all(torch.equal(model.get_parameter(name).float(), value) for name, value in read.named_parameters())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02\x96\x01" + bytes(7) + b"x.", "BYTEARRAY8 of protocol 5"),  # cut off, Python prints of it
        (b"\x80\x02]r\xff\xff\xff\x7f.", "refers to thing 2,147,483,647"),  # 16 GB for a table of what there is
    ],
)
def test_a_pickle_that_makes_python_take_memory_is_refused_unread(tmp_path, data, message):
    for name in [*cifar10.FILES["train"], cifar10.META]:
        (tmp_path / name).write_bytes(pickle.dumps({b"label_names": [b"cat"]}, protocol=2))
    (tmp_path / "data_batch_1").write_bytes(data)
    with pytest.raises(DataError, match=message):
        cifar10.read(tmp_path, "train")


def test_a_pickle_of_an_old_protocol_makes_torch_say_nothing(tmp_path, recwarn):
    """Found as bit 65.1 of pytorch_model.bin, which says how old the pickle is."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, path)
    path.write_bytes(path.read_bytes().replace(b"\x80\x02", b"\x80\x00", 1))  # protocol 2, 0
    with contextlib.suppress(ValueError):
        read_pickle(path)
    assert [str(warning.message) for warning in recwarn] == []
