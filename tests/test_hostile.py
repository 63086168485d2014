"""Files made to do harm: refused in one line, at once, and before they take what they claim.

What else there is of this kind stands with its module: pickles in test_load.py, test_hub.py and test_cifar10.py, names
that lead out of an archive in test_cifar10.py, out of a folder in test_load.py.
"""

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

import train_qa
from minitransformer.system.errors import LONGEST, DataError, UserError, WeightsError, command_line
from minitransformer.training import checkpoint, recipe
from qa import ask, squad
from test_checkpoint import start
from test_cifar10 import publish, refusal
from tiny import call, examples, rewrite_json, write_checkpoint, write_questions
from vision import cifar10, images, picture
from weights import load_pretrained, load_tokenizer

MB = 10**6
DEEP = 100_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkpoint with everything that a folder of ours can hold."""
    from minitransformer.bert import BertForQuestionAnswering

    return write_checkpoint(tmp_path_factory.mktemp("trained"), BertForQuestionAnswering)


# ---------------------------------------------------------------------------------------------------- sizes


def test_a_gzip_bomb_is_refused_while_it_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr(squad, "SMALL", 4 * MB)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (squad.SMALL + 10 * MB)))
    tracemalloc.start()
    with pytest.raises(DataError, match="unpacks to over 100 times its size"):
        squad.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * squad.SMALL


def test_gzip_in_several_members_is_read_whole(tmp_path):
    data = write_questions(tmp_path / "whole.json").read_bytes()
    (tmp_path / "parts.json.gz").write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))
    assert squad.read(tmp_path / "parts.json.gz") == examples()


def test_a_picture_that_claims_more_pixels_than_it_can_hold_is_refused(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xc0") + 5  # the frame's height and width, two bytes each, which no checksum guards
    data[place : place + 4] = (9000).to_bytes(2, "big") * 2
    with pytest.raises(DataError, match=r"9,000 x 9,000 pixels in \d+ bytes: too many to be true"):
        picture.open_picture(bytes(data))


def test_a_large_picture_of_one_colour_is_a_picture():
    for mode in ("1", "L"):
        file = io.BytesIO()
        Image.new(mode, (4000, 3000)).save(file, "PNG")
        assert picture.open_picture(file.getvalue()).size == (4000, 3000)


def test_a_safetensors_header_of_100_mb_is_refused_unread(tmp_path, trained):
    write_checkpoint(tmp_path)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write((100 * MB - 8).to_bytes(8, "little") + b"{")
        file.truncate(100 * MB)  # a hole, which takes no room on the disk
    with pytest.raises(WeightsError, match="a header of 99,999,992 bytes"):
        load_pretrained(tmp_path, "encoder")


def test_a_question_of_10_mb_is_refused_before_it_is_tokenised(trained, tmp_path):
    long = "شهر " * 2_500_000
    said = call(ask.main, "--model", trained, "--context", "شهر تهران", "--question", long)
    assert said.refusal() == "error: the question is 10,000,000 characters long: shorten it"

    one = examples(1)[0]
    data = write_questions(tmp_path / "long.json", [type(one)(one.id, one.title, long, one.context, one.answers)])
    flags = ("--weights", trained, "--train", data, "--valid", data, "--max-length", 64, "--out", tmp_path / "run")
    said = call(train_qa.main, *flags)
    assert said.refusal() == "error: question q0: 10,000,000 characters long: shorten it"
    assert not (tmp_path / "run").exists()


def test_a_message_stays_short_whatever_a_file_says(trained, tmp_path):
    write_checkpoint(tmp_path)
    rewrite_json(tmp_path / "config.json", model_type="t5" * MB)
    line = call(ask.main, "--model", tmp_path, "--context", "a", "--question", "b").refusal()
    assert len(line) < LONGEST + 20
    assert str(tmp_path) in line
    assert line.endswith("camembert, distilbert, electra, vit, deit, dinov2")


# ---------------------------------------------------------------------------------------------------- depth


def nested(kind: str) -> str:
    return {"lists": "[" * DEEP + "]" * DEEP, "objects": '{"a":' * DEEP + "1" + "}" * DEEP}[kind]


@pytest.mark.parametrize("kind", ["lists", "objects"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_json_nested_deep_is_refused(tmp_path, name, kind):
    write_checkpoint(tmp_path)
    (tmp_path / name).write_text(nested(kind))
    load = images.read_settings if name.startswith("pre") else load_tokenizer
    with pytest.raises(WeightsError, match=rf"{name}: not "):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["lists", "objects"])
def test_json_nested_deep_is_refused_in_an_index_and_a_header(tmp_path, kind):
    path = write_checkpoint(tmp_path) / "model.safetensors"
    header = nested(kind).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_pretrained(tmp_path, "encoder")
    path.unlink()
    (tmp_path / "model.safetensors.index.json").write_bytes(header)
    with pytest.raises(WeightsError, match="not JSON"):
        load_pretrained(tmp_path, "encoder")


@pytest.mark.parametrize("kind", ["lists", "objects"])
def test_json_nested_deep_is_refused_in_data_and_damage_in_a_checkpoint(tmp_path, kind):
    (tmp_path / "data.json").write_text(nested(kind))
    with pytest.raises(DataError, match="nested too deep"):
        squad.read(tmp_path / "data.json")

    model, optimizer = start()
    for step in (1, 2):
        checkpoint.save_checkpoint(tmp_path, step, model, optimizer)
    (tmp_path / "step-0000002/manifest.json").write_text(nested(kind))
    assert checkpoint.resume(tmp_path, model, optimizer) == 1


def test_a_recipe_nested_deep_is_refused(tmp_path):
    (tmp_path / "deep.toml").write_text("seed = " + "[" * DEEP)
    with pytest.raises(UserError, match=r"deep\.toml: not TOML"):
        recipe.parse(train_qa.Recipe, "demo-qa", "", ["--recipe", str(tmp_path / "deep.toml")])


# ---------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_what_is_no_file_in_an_archive_is_not_read(tmp_path, monkeypatch, kind):
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(f"{cifar10.FOLDER}/data_batch_1")
        member.type, member.linkname, member.devmajor, member.devminor = kind, "/dev/zero", 1, 5
        archive.addfile(member)
    publish(monkeypatch, path)
    assert "no file cifar-10-batches-py/data_batch_1" in refusal(path)
    assert os.listdir(tmp_path) == ["cifar.tar.gz"]


def test_a_batch_larger_than_any_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST", MB)
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo(f"{cifar10.FOLDER}/data_batch_1")
        member.size = cifar10.LARGEST + 1
        archive.addfile(member, open("/dev/zero", "rb"))  # noqa: SIM115 - until the archive is written
    publish(monkeypatch, path)
    assert "no file cifar-10-batches-py/data_batch_1" in refusal(path)


# ---------------------------------------------------------------------------------------------------- the terminal

COMMANDS = "\x1b]0;owned\x07\x1b[2J\u202e\u2066\u200f\x9b31m\r\b"  # a title, a cleared screen, turned writing


def test_a_warning_prints_no_commands_to_the_terminal(tmp_path, capsys):
    """A manifest names files, and its names are printed where one is not as it was."""
    model, optimizer = start()
    for step in (1, 2):
        checkpoint.save_checkpoint(tmp_path, step, model, optimizer)
    manifest = tmp_path / "step-0000002/manifest.json"
    name = f"{COMMANDS}model\nwarning: all is well"
    manifest.write_text(json.dumps({name: {"size": 9, "sha256": ""}}))
    (manifest.parent / name).write_bytes(b"short")
    assert checkpoint.resume(tmp_path, model, optimizer) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert not set(COMMANDS) - set("]0;owned[2J31m") & set(printed)
    assert "model warning: all is well has 5 bytes, not 9" in printed


def test_an_error_prints_no_commands_to_the_terminal(capsys):
    @command_line
    def command() -> None:
        raise DataError(f"file: {COMMANDS} می\u200cشود\nerror: another line")

    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: file: ]0;owned[2J31m  می\u200cشود error: another line\n"


@pytest.mark.parametrize("place", ["id", "title", "question", "context", "answer"])
def test_questions_that_hold_commands_are_answered_and_refused_without_them(trained, tmp_path, place):
    """Through training and prediction, to the last line of either."""
    text = f"{COMMANDS}شهر{COMMANDS}"
    qa = {"id": "q", "question": "کجاست؟", "answers": [{"text": "تهران", "answer_start": 0}]}
    article = {"title": "t", "paragraphs": [{"context": f"تهران {text}", "qas": [qa]}]}
    if place == "title":
        article["title"] = text
    elif place == "answer":
        qa["answers"][0]["text"] = text  # which the context does not have there
    elif place != "context":
        qa[place] = text
    (tmp_path / "data.json").write_text(json.dumps({"data": [article]}))
    data = tmp_path / "data.json"
    flags = ("--recipe", "modern", "--weights", trained, "--train", data, "--valid", data, "--max-length", 64)
    said = call(train_qa.main, *flags, "--stride", 8, "--epochs", 0, "--out", tmp_path / "run")
    assert said.status == (2 if place == "answer" else 0), said.err
    assert not {"\x1b", "\u202e", "\u2066", "\u200f", "\x9b", "\x07"} & set(said.out + said.err)
