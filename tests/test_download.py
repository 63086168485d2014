"""Files by URL: whole, resumed, checked, and each thing that a server or a disk can do wrong."""

import errno
import hashlib
import os
import threading

import pytest

from hub_server import CUT, HubServer
from minitransformer.system.errors import DataError
from qa import pquad, squad
from tiny import call, examples, failing, files_under, write_questions
from vision import download as cifar10
from weights import download as downloading
from weights.download import download

DATA = os.urandom(3 * CUT + 100)
SHA256 = "sha256:" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "data.bin").write_bytes(DATA)
    server = HubServer(plain=tmp_path / "served")
    yield server
    server.close()


@pytest.fixture
def url(server):
    return f"{server.url}/plain/data.bin"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "data.bin"


def refusal(url: str, path, checksum: str = SHA256) -> str:
    with pytest.raises(DataError) as caught:
        download(url, path, checksum)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("checksum", [SHA256, "md5:" + hashlib.md5(DATA).hexdigest()], ids=["sha256", "md5"])
def test_download_brings_a_file_and_leaves_nothing_else(url, path, checksum):
    assert download(url, path, checksum) == path
    assert path.read_bytes() == DATA
    assert files_under(path.parent) == ["data.bin"]


def test_download_asks_nobody_for_a_file_that_is_there(server, url, path):
    download(url, path, SHA256)
    asked = len(server.requests)
    download(url, path, SHA256)
    assert len(server.requests) == asked


def test_download_does_not_touch_a_file_that_is_there_and_differs(url, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert refusal(url, path).endswith(f"not {SHA256}; delete it to fetch it again")
    assert path.read_bytes() == b"mine"


def test_download_goes_on_by_itself_as_long_as_every_try_gets_farther(server, url, path):
    server.fail("data.bin", "cut", times=2)
    download(url, path, SHA256)
    assert path.read_bytes() == DATA
    assert server.ranges("data.bin") == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]


def test_download_goes_on_where_an_earlier_one_stopped(server, url, path):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(DATA[:1000])
    download(url, path, SHA256)
    assert path.read_bytes() == DATA
    assert server.ranges("data.bin") == ["bytes=1000-"]


def test_download_begins_anew_at_a_server_that_cannot_go_on(server, url, path):
    server.fail("data.bin", "no ranges")
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(DATA[:1000])
    download(url, path, SHA256)
    assert path.read_bytes() == DATA


def test_download_gives_up_where_a_try_gets_no_farther_and_keeps_what_came(server, url, path):
    server.fail("data.bin", "no ranges, cut")
    assert f"the download stopped after {CUT:,} bytes, which are kept (the connection was cut)" in refusal(url, path)
    assert len(server.ranges("data.bin")) == 2
    assert files_under(path.parent) == ["data.bin.part"]
    server.heal()
    download(url, path, SHA256)
    assert path.read_bytes() == DATA
    assert server.ranges("data.bin")[2] == f"bytes={CUT}-"


def test_download_takes_a_part_that_is_whole_already(server, url, path):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(DATA)
    download(url, path, SHA256)
    assert files_under(path.parent) == ["data.bin"]
    assert len(server.ranges("data.bin")) == 1


def test_download_throws_away_a_part_that_is_longer_than_the_whole(server, url, path):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(2 * DATA)
    download(url, path, SHA256)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("fault", ["wrong bytes", "wrong length"])
def test_download_deletes_what_is_not_right(server, url, path, fault):
    server.fail("data.bin", fault, times=1)
    assert f"not {SHA256}; it was deleted, run this again" in refusal(url, path)
    assert files_under(path.parent) == []
    download(url, path, SHA256)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(("status", "said"), [(404, "404 Not Found"), (401, "401 Unauthorized"), (500, "500 Internal")])
def test_download_tells_what_the_server_answers(server, url, path, status, said):
    server.statuses["data.bin"] = status
    message = refusal(url, path)
    assert message.startswith(f"{url}: the server answers {said}")
    assert message.endswith(f"fetch it by other means to {path}")
    assert files_under(path.parent) == []


def test_download_does_not_wait_for_ever(server, url, path, monkeypatch):
    monkeypatch.setattr(downloading, "SILENCE", 0.1)
    server.fail("data.bin", "slow")
    assert "(timed out); run this again" in refusal(url, path)


@pytest.fixture
def pauses(monkeypatch):
    """How long a download would have slept."""
    slept = []
    monkeypatch.setattr(downloading.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("status", ["429", "503"])
def test_download_waits_for_a_busy_server_as_long_as_that_says(server, url, path, pauses, capsys, status):
    server.fail("data.bin", status, times=3)
    download(url, path, SHA256)
    assert path.read_bytes() == DATA
    assert pauses == [7, 7, 7]
    assert capsys.readouterr().out.count(f"the server answers {status} ") == 3


def test_download_gives_up_on_a_server_that_stays_busy(server, url, path, pauses):
    server.fail("data.bin", "503")
    assert refusal(url, path).startswith(f"{url}: the server answers 503 ")
    assert len(pauses) == len(downloading.PAUSES)
    assert files_under(path.parent) == []


def test_download_stops_an_endless_one_and_keeps_nothing_of_it(server, url, path, monkeypatch):
    monkeypatch.setattr(downloading, "LARGEST", 10**6)
    server.fail("data.bin", "endless")
    assert "it sends more than 1,000,000 bytes, which no file of ours has; fetch it by other means" in refusal(
        url, path
    )
    assert files_under(path.parent) == []


def test_download_ends_one_that_drips(server, url, path, monkeypatch):
    """No wait is long, and every try would get farther."""
    monkeypatch.setattr(downloading, "SLOW_SECONDS", 0.3)
    server.fail("data.bin", "drip")
    assert "bytes a second; what came is kept; fetch it by other means" in refusal(url, path)


def test_download_tells_that_nobody_answers(server, url, path):
    server.close()
    assert "the download stopped (Connection refused); run this again" in refusal(url, path)
    assert files_under(path.parent) == []


def test_download_refuses_what_is_no_address(path):
    assert "unknown url type" in refusal("data.bin", path)


def test_download_tells_of_a_full_disk(server, url, path, monkeypatch):
    with failing(os, "fsync", OSError(errno.ENOSPC, "No space left on device")):
        assert f"{path}: cannot be written (No space left on device)" in refusal(url, path)
    download(url, path, SHA256)
    assert path.read_bytes() == DATA


def test_download_records_a_checksum_that_is_not_known_and_warns_when_it_changes(url, path, capsys):
    download(url, path)
    record = path.with_name("data.bin.sha256")
    assert record.read_text() == f"{SHA256.removeprefix('sha256:')}  data.bin\n"
    download(url, path)
    assert "warning" not in capsys.readouterr().err
    path.write_bytes(b"other")
    download(url, path)
    assert f"warning: {path}: not what first came, by {record}; delete both to begin anew" in capsys.readouterr().err
    path.unlink()
    download(url, path)
    assert "warning" not in capsys.readouterr().err


def test_download_by_many_at_once_fetches_once(server, url, path):
    threads = [threading.Thread(target=download, args=(url, path, SHA256)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == DATA
    assert files_under(path.parent) == ["data.bin"]
    assert server.ranges("data.bin") == [None]


# ----------------------------------------------------------------------------------------------- the data sets


def refusal_of(main, *flags) -> str:
    """The line that a command ends with, below the bar of its progress."""
    outcome = call(main, *flags)
    assert outcome.status == 2, outcome
    return outcome.err.splitlines()[-1]


@pytest.fixture
def questions(tmp_path, monkeypatch):
    """PQuAD in small, its three files on the server."""
    parts = {}
    for number, (name, part) in enumerate(pquad.PARTS.items()):
        path = tmp_path / "served" / part.file
        write_questions(path, examples(4 + number))
        found = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        parts[name] = part._replace(questions=4 + number, checksum=part.checksum and found)
    monkeypatch.setattr(pquad, "PARTS", parts)
    return parts


def test_pquad_fetches_its_three_files_and_counts_their_questions(server, questions, tmp_path):
    outcome = call(pquad.main, "--to", tmp_path / "pquad", "--url", f"{server.url}/plain/")
    assert outcome.status == 0, outcome.err
    assert files_under(tmp_path / "pquad") == ["Test.json", "Train.json", "Train.json.sha256", "Validation.json"]
    assert f"{tmp_path / 'pquad' / 'Validation.json'}: 5 questions" in outcome.out
    assert len(squad.read(tmp_path / "pquad" / "Train.json")) == 4


def test_pquad_refuses_a_training_set_of_another_size(server, questions, tmp_path):
    write_questions(tmp_path / "served" / "Train.json", examples(3))
    refused = refusal_of(pquad.main, "--to", tmp_path / "pquad", "--url", f"{server.url}/plain")
    path = tmp_path / "pquad" / "Train.json"
    assert refused == f"error: {path}: 3 questions, PQuAD has 4; delete {path}* to fetch it again"


def test_pquad_tells_in_one_line_that_the_server_has_nothing(server, tmp_path):
    refused = refusal_of(pquad.main, "--to", tmp_path / "pquad", "--url", f"{server.url}/plain")
    assert "Train.json: the server answers 404 Not Found" in refused


def test_pquad_knows_the_real_files(assets, tmp_path):
    """The checksums are those of the public files."""
    for part in ("valid", "test"):
        source = assets / "data" / "pquad" / (pquad.PARTS[part].file + ".gz")
        path = tmp_path / pquad.PARTS[part].file
        path.write_bytes(squad.gzip.decompress(source.read_bytes()))
        assert pquad.fetch(part, tmp_path, url="not needed") == path


def test_cifar10_is_fetched_and_checked(server, tmp_path, monkeypatch):
    (tmp_path / "served" / cifar10.FILE).write_bytes(DATA)
    flags = ["--to", tmp_path / "data", "--url", f"{server.url}/plain/"]
    assert f"not {cifar10.CHECKSUM}; it was deleted" in refusal_of(cifar10.main, *flags)
    monkeypatch.setattr(cifar10, "CHECKSUM", "md5:" + hashlib.md5(DATA).hexdigest())
    outcome = call(cifar10.main, *flags)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "data" / cifar10.FILE).read_bytes() == DATA
