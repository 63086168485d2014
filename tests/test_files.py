"""Files that appear whole or not at all."""

import json
import os

import pytest

from minitransformer.system import files
from minitransformer.system.errors import RunError
from tiny import failing, files_under, record_syncs


def test_write_bytes_replaces_a_file(tmp_path):
    path = tmp_path / "data.bin"
    files.write_bytes(path, b"old and longer")
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert files_under(tmp_path) == ["data.bin"]


def test_write_bytes_syncs_the_file_and_then_the_name(tmp_path, monkeypatch):
    synced = record_syncs(monkeypatch)
    files.write_bytes(tmp_path / "data.bin", b"new")
    assert synced == ["file", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_bytes_that_fails_leaves_the_old_file_and_no_temporary(tmp_path, step):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    with failing(os, step, OSError(28, "No space left on device")), pytest.raises(OSError, match="No space left"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert files_under(tmp_path) == ["data.bin"]


def test_write_bytes_that_is_interrupted_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    with failing(os, "fsync", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert files_under(tmp_path) == ["data.bin"]


def test_write_bytes_names_the_file_that_was_asked_for_not_its_temporary(tmp_path):
    path = tmp_path / "absent" / "data.bin"
    with pytest.raises(FileNotFoundError) as caught:
        files.write_bytes(path, b"data")
    assert caught.value.filename == str(path)


def test_write_bytes_gives_the_permissions_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    files.write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_write_text_writes_utf_8_and_the_same_line_ends_everywhere(tmp_path):
    files.write_text(tmp_path / "text", "می‌شود\nدو\n")
    assert (tmp_path / "text").read_bytes() == "می‌شود\nدو\n".encode()


def test_write_json_keeps_persian_readable(tmp_path):
    files.write_json(tmp_path / "value.json", {"پاسخ": ["تهران", 1.5, None]})
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert "تهران" in text
    assert json.loads(text) == {"پاسخ": ["تهران", 1.5, None]}


def test_check_writable_leaves_nothing_behind(tmp_path):
    files.check_writable(tmp_path / "new.json")
    assert files_under(tmp_path) == []


def test_check_writable_leaves_an_old_file_as_it_is(tmp_path):
    (tmp_path / "old.json").write_bytes(b"old")
    files.check_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_bytes() == b"old"


def test_check_writable_refuses_a_folder_that_is_absent(tmp_path):
    with pytest.raises(RunError, match=r"new\.json: cannot be written \(No such file or directory\)"):
        files.check_writable(tmp_path / "absent" / "new.json")


def test_check_writable_refuses_a_folder(tmp_path):
    with pytest.raises(RunError, match="it is a folder"):
        files.check_writable(tmp_path)


def test_check_writable_refuses_what_is_read(tmp_path):
    (tmp_path / "in.json").write_bytes(b"old")
    os.link(tmp_path / "in.json", tmp_path / "other name.json")
    files.check_writable(tmp_path / "new.json", tmp_path / "in.json", tmp_path / "absent.json")
    for name in ("in.json", "other name.json"):
        with pytest.raises(RunError, match=f"{name}: it is what is read, and would be lost; give the name of another"):
            files.check_writable(tmp_path / name, tmp_path / "absent.json", tmp_path / "in.json")


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    kept = [".cache", ".notes.tmp", "log.csv", "model", "model/.config.json.abcd1234.tmp", "weights.tmp"]
    (tmp_path / "model").mkdir()
    for name in kept:
        (tmp_path / name).exists() or (tmp_path / name).touch()
    with failing(os, "unlink", OSError()), failing(os, "replace", KeyboardInterrupt()), pytest.raises(OSError):
        files.write_bytes(tmp_path / "log.csv", b"half")  # as a killed process leaves it
    assert len(files_under(tmp_path)) == len(kept) + 1
    files.remove_leftovers(tmp_path)
    assert files_under(tmp_path) == kept
    files.remove_leftovers(tmp_path / "absent")
