"""Public checkpoints by name, from a server on this machine that speaks the hub's protocol: fetched, checked, kept."""

import dataclasses
import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from hub_server import CUT, HubServer, connect
from minitransformer import bert
from minitransformer.system.errors import WeightsError
from public_checkpoints import PR_COMMIT, publish
from tiny import VOCABULARY, call, failing, files_under, write_checkpoint
from weights import checkpoints, hub, load_pretrained, load_tokenizer
from weights.find import find_folder

CHECKOUT = Path(__file__).parents[1]
PARSBERT = hub.CHECKPOINTS["parsbert"].repository


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A server with ParsBERT, its line of the table, and the folder of its main branch."""
    server, home = HubServer(), tmp_path_factory.mktemp("public")
    yield server, publish(server, "parsbert", home), home / "parsbert"
    server.close()


@pytest.fixture
def server(public, tmp_path, monkeypatch):
    """The server, asked by a machine that has fetched nothing yet, in a table where ParsBERT is tiny."""
    server, parsbert, _ = public
    revisions = dict(server.revisions)
    connect(monkeypatch, server, tmp_path)
    monkeypatch.setitem(hub.CHECKPOINTS, "parsbert", parsbert)
    server.requests.clear()
    yield server
    server.heal()
    server.revisions = revisions


@pytest.fixture
def main(public, server, tmp_path):
    """A copy of main's folder, to be changed, which is served in its place; and no pull request."""
    folder = tmp_path / "main"
    shutil.copytree(public[2], folder)
    server.add(PARSBERT, folder, checkpoints.PARSBERT)
    del server.revisions[PARSBERT, "refs/pr/1"]
    return folder


def refusal(name: str = "parsbert") -> str:
    """The line with which a fetch ends; nothing but the record may stay, and no bad file in huggingface_hub's cache."""
    with pytest.raises(WeightsError) as caught:
        hub.fetch(name)
    assert "\n" not in str(caught.value)
    left = files_under(hub.cache_folder()) if hub.cache_folder().exists() else []
    assert [file for file in left if file != f"{name}.json"] == []
    return str(caught.value)


def tabulate_pickle(main: Path) -> None:
    """The table has main's pytorch_model.bin alone, of the size that it has now."""
    table = hub.CHECKPOINTS["parsbert"]
    pickled = dataclasses.replace(table.weights[-1], size=(main / "pytorch_model.bin").stat().st_size)
    hub.CHECKPOINTS["parsbert"] = dataclasses.replace(table, weights=(pickled,))


def blobs() -> list[Path]:
    return [path for path in Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*") if path.is_file()]


def forget() -> None:
    """Everything fetched, but for what was recorded of it."""
    shutil.rmtree(hub.cache_folder() / "parsbert")
    shutil.rmtree(constants.HF_HUB_CACHE)


# -------------------------------------------------------------------------------------------------- the table


def test_table_pins_every_file_to_a_commit():
    for checkpoint in hub.CHECKPOINTS.values():
        for file in (*checkpoint.files, *checkpoint.weights):
            pinned = file.commit if file.revision.startswith("refs/pr/") else file.revision
            assert re.fullmatch("[0-9a-f]{8}|[0-9a-f]{40}", pinned), file
            assert file.size > 0
            assert re.fullmatch("|[0-9a-f]{64}", file.sha256), file


def test_table_has_plain_safetensors_or_a_pickle_at_the_end_of_each_line():
    for checkpoint in hub.CHECKPOINTS.values():
        assert [file.name for file in checkpoint.weights[:-1]] in ([], ["model.safetensors"])
        assert checkpoint.weights[-1].name in ("model.safetensors", "pytorch_model.bin")


# ------------------------------------------------------------------------------------------------ a good fetch


def test_fetch_gives_a_folder_that_we_can_load(server):
    folder = hub.fetch("parsbert")
    assert files_under(folder) == ["config.json", "model.safetensors", "origin.json", "vocab.txt"]
    model = load_pretrained(folder, "masked-lm")
    assert model.config == bert.BertConfig(vocabulary=len(VOCABULARY), width=32, layers=2, heads=4, ffn_width=48)
    assert load_tokenizer(folder).encode("تهران", "پاریس").tokens == ["[CLS]", "تهران", "[SEP]", "پاریس", "[SEP]"]


@pytest.mark.parametrize("name", hub.CHECKPOINTS)
def test_fetch_gives_what_the_command_of_its_line_loads(server, tmp_path, monkeypatch, name):
    monkeypatch.setitem(hub.CHECKPOINTS, name, publish(server, name, tmp_path / "public"))
    if hub.CHECKPOINTS[name].command.startswith("python train_vit.py"):
        assert load_pretrained(name, "image-classification", classes=10).config.classes == 10
    else:
        load_pretrained(name, "question-answering")
        load_tokenizer(name)
    assert {path.suffix for path in (hub.cache_folder() / name).iterdir()} <= {
        ".json",
        ".safetensors",
        ".txt",
        ".model",
    }


def test_fetch_writes_where_a_copy_comes_from(server):
    origin = json.loads((hub.fetch("parsbert") / "origin.json").read_text())
    assert origin["repository"] == PARSBERT
    assert origin["licence"] == "Apache-2.0"
    assert origin["revision"]["model.safetensors"] == "refs/pr/1"
    assert set(origin["sha256"]) == {"config.json", "model.safetensors", "vocab.txt"}


def test_fetch_asks_nobody_for_what_is_here(server):
    folder = hub.fetch("parsbert")
    asked = len(server.requests)
    assert hub.fetch("parsbert") == folder
    assert len(server.requests) == asked


def test_fetch_does_not_store_safetensors_twice(server):
    assert (hub.fetch("parsbert") / "model.safetensors").stat().st_nlink == 2


def test_fetch_sends_the_token_to_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fetch("parsbert")
    assert {request.token for request in server.requests if "/resolve/" in request.path} == {"Bearer hf_secret"}
    assert {request.token for request in server.requests if request.path.startswith("/cdn/")} == {None}


def test_fetch_to_a_folder_makes_a_copy_for_another_machine(server, tmp_path):
    folder = hub.fetch("parsbert", to=tmp_path / "usb" / "parsbert")
    assert folder == tmp_path / "usb" / "parsbert"
    load_pretrained(folder, "encoder")
    with pytest.raises(WeightsError, match=r"parsbert: there is something already; choose another --to$"):
        hub.fetch("parsbert", to=folder)
    assert files_under(tmp_path / "usb") == [
        "parsbert",
        *(f"parsbert/{path.name}" for path in sorted(folder.iterdir())),
    ]


def test_fetch_needs_no_network_where_huggingface_hub_has_the_files(server, monkeypatch):
    folder = hub.fetch("parsbert")
    shutil.rmtree(folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.requests)
    load_pretrained(hub.fetch("parsbert"), "encoder")
    assert len(server.requests) == asked


def test_find_folder_fetches_a_public_checkpoint_by_its_name(server):
    assert find_folder("parsbert") == hub.cache_folder() / "parsbert"
    load_pretrained("parsbert", "encoder")


def test_find_folder_prefers_a_local_folder_to_a_public_checkpoint(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "parsbert")
    assert find_folder("parsbert").resolve() == tmp_path / "parsbert"
    assert server.requests == []


def test_find_folder_names_the_nearest_public_checkpoint():
    with pytest.raises(WeightsError, match=r"parsbret: no such folder \(did you mean 'parsbert'\?\); .* albert-fa, "):
        find_folder("parsbret")


# ---------------------------------------------------------------------------------------------- the conversion


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
def test_fetch_converts_a_pickle_where_there_are_no_safetensors(main, zipped):
    tensors = torch.load(main / "pytorch_model.bin", weights_only=True)
    torch.save(tensors, main / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    folder = hub.fetch("parsbert")
    assert files_under(folder) == ["config.json", "model.safetensors", "origin.json", "vocab.txt"]
    converted = load_file(folder / "model.safetensors")
    assert set(tensors) - set(converted) == {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # tied
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in converted.items())
    load_pretrained(folder, "masked-lm")


def test_fetch_converts_views_of_one_memory_to_tensors_of_their_own(main):
    tensors = torch.load(main / "pytorch_model.bin", weights_only=True)
    name = "bert.pooler.dense.weight"
    tensors[name] = tensors[name].T  # not contiguous
    tensors["bert.pooler.dense.bias"] = tensors[name][0]  # part of another's memory
    torch.save(tensors, main / "pytorch_model.bin")
    converted = load_file(hub.fetch("parsbert") / "model.safetensors")
    assert torch.equal(converted[name], tensors[name])
    assert torch.equal(converted["bert.pooler.dense.bias"], tensors[name][0])


def test_fetch_takes_the_pickle_where_the_pull_request_has_moved(public, server):
    folder = server.revisions[PARSBERT, "refs/pr/1"].folder
    server.add(PARSBERT, folder, "refs/pr/1", commit="0" + PR_COMMIT[1:])
    origin = json.loads((hub.fetch("parsbert") / "origin.json").read_text())
    assert origin["revision"]["pytorch_model.bin"] == checkpoints.PARSBERT


def test_fetch_refuses_a_mirror_that_brings_another_commit_than_the_pinned_one(public, server):
    folder = server.revisions[PARSBERT, checkpoints.PARSBERT].folder
    server.add(PARSBERT, folder, checkpoints.PARSBERT, commit=40 * "f")
    with pytest.raises(WeightsError, match=f"it has moved to {40 * 'f'} from {checkpoints.PARSBERT}, which is the one"):
        hub.fetch("parsbert")


@pytest.mark.parametrize("origin", ["{}", '{"sha256": 3}', '{"sha257": {}}'])
def test_a_copy_whose_record_is_damaged_is_refused(server, origin):
    record = hub.fetch("parsbert") / "origin.json"
    record.write_text(origin)
    with pytest.raises(WeightsError, match=r"origin\.json: it is not what was written; delete .* to fetch it again"):
        hub.fetch("parsbert")


class Bomb:
    """Unpickled by the rules of pickle, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_fetch_does_not_run_what_a_pickle_asks_for(main, tmp_path, save):
    sentinel = tmp_path / "ran"
    save({"bert.pooler.dense.weight": Bomb(sentinel)}, main / "pytorch_model.bin")
    pickle.loads(pickle.dumps(Bomb(sentinel)))  # the bomb is a real one
    sentinel.rmdir()
    tabulate_pickle(main)
    assert (
        "pytorch_model.bin: not a table of tensors alone: damaged, or made to run code, which was not run" in refusal()
    )
    assert not sentinel.exists()
    assert not any(b"mkdir" in path.read_bytes() for path in blobs())


@pytest.mark.parametrize("value", [[torch.zeros(3)], {1: torch.zeros(3)}, {"model": {"weight": torch.zeros(3)}}])
def test_fetch_refuses_a_pickle_that_is_no_table_of_tensors(main, value):
    torch.save(value, main / "pytorch_model.bin")
    tabulate_pickle(main)
    assert "pytorch_model.bin: not a table of tensors alone" in refusal()


def test_fetch_refuses_a_pickle_that_is_damaged(main):
    (main / "pytorch_model.bin").write_bytes(b"<!DOCTYPE html>" + bytes(1000))
    tabulate_pickle(main)
    assert "pytorch_model.bin: not a table of tensors alone" in refusal()


# --------------------------------------------------------------------------------------------- what goes wrong


def test_fetch_goes_on_where_the_connection_broke(server, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CUT)  # what huggingface_hub writes at a time
    server.fail("model.safetensors", "cut", times=2)
    load_pretrained(hub.fetch("parsbert"), "encoder")
    assert server.ranges("model.safetensors") == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]


def test_fetch_begins_anew_at_a_server_that_cannot_go_on(server):
    server.faults["model.safetensors"] = ("no ranges, cut", 1)
    load_pretrained(hub.fetch("parsbert"), "encoder")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no ranges, cut", "the download failed"),
        ("wrong bytes", ", the one that the hub announces; it was thrown away; try again"),
        ("wrong length", "the download failed (Consistency check failed"),
        ("slow", "the download failed"),
    ],
)
def test_fetch_leaves_nothing_bad_after_a_fault_and_succeeds_after_it(server, monkeypatch, fault, said):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    server.fail("model.safetensors", fault)
    message = refusal()
    assert message.startswith(f"{PARSBERT}, model.safetensors at refs/pr/1: ")
    assert said in message
    assert "set HF_ENDPOINT to" in message
    assert all(path.stat().st_size < CUT for path in blobs())  # the small files alone
    server.heal()
    load_pretrained(hub.fetch("parsbert"), "encoder")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the hub refuses it (401); accept its terms on its page, if it has some, and give your token"),
        (403, "the hub refuses it (403)"),
        (404, "the hub has no such file (404); bring a copy from another machine (python"),
        (500, "the download failed (Server error '500 Internal Server Error'"),
    ],
)
def test_fetch_tells_what_the_hub_answers(server, status, said):
    server.statuses["vocab.txt"] = status
    message = refusal()
    assert message.startswith(f"{PARSBERT}, vocab.txt at {checkpoints.PARSBERT}: ")
    assert said in message
    server.heal()
    load_pretrained(hub.fetch("parsbert"), "encoder")


def test_fetch_throws_away_a_part_with_which_it_cannot_go_on(server):
    part = Path(constants.HF_HUB_CACHE) / "models--HooshvareLab--bert-fa-base-uncased" / "blobs" / "0.incomplete"
    part.parent.mkdir(parents=True)
    part.touch()
    server.statuses["model.safetensors"] = 416
    assert "what was left of an earlier download is not of it; it was thrown away; try again" in refusal()
    assert not part.exists()


def test_fetch_tells_that_a_revision_is_gone(server):
    del server.revisions[PARSBERT, checkpoints.PARSBERT]
    assert "config.json at a04aa40c97bcdde570ae11986a534542c2995a62: the hub has no such file (404)" in refusal()


def test_fetch_tells_that_nobody_answers(server, monkeypatch):
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    message = refusal()
    assert "the download failed (" in message
    assert "Connection refused" in message
    assert "say --weights DIR" in message


def test_fetch_tells_that_it_is_offline(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, and it is not in the cache; unset it, or bring a copy from" in refusal()


def test_fetch_refuses_another_size_than_the_table_has(server, monkeypatch):
    table = hub.CHECKPOINTS["parsbert"]
    config, vocabulary = table.files
    wrong = dataclasses.replace(vocabulary, size=1000)
    monkeypatch.setitem(hub.CHECKPOINTS, "parsbert", dataclasses.replace(table, files=(config, wrong)))
    assert f"{vocabulary.size:,} bytes came where 1,000 are right; it was thrown away" in refusal()
    assert len(blobs()) == 1  # config.json


def test_fetch_refuses_another_sha256_than_the_table_has(server, monkeypatch):
    table = hub.CHECKPOINTS["parsbert"]
    config, vocabulary = table.files
    wrong = dataclasses.replace(vocabulary, sha256=64 * "0")
    monkeypatch.setitem(hub.CHECKPOINTS, "parsbert", dataclasses.replace(table, files=(config, wrong)))
    assert f"not {64 * '0'}, the one that this project knows; it was thrown away" in refusal()
    assert len(blobs()) == 1


def test_fetch_refuses_what_differs_from_the_first_download(server):
    hub.fetch("parsbert")
    forget()
    server.fail("vocab.txt", "wrong bytes")
    assert ", the one of the first download; it was thrown away" in refusal()
    assert len(blobs()) == 1
    server.heal()
    load_pretrained(hub.fetch("parsbert"), "encoder")


@pytest.mark.parametrize("change", [lambda path: path.write_text("{}"), Path.unlink], ids=["changed", "gone"])
def test_fetch_refuses_a_copy_that_is_no_longer_what_came(server, change):
    folder = hub.fetch("parsbert")
    change(folder / "config.json")
    with pytest.raises(WeightsError, match=rf"config\.json: it is not what was fetched; delete {folder} to fetch it"):
        hub.fetch("parsbert")
    shutil.rmtree(folder)
    load_pretrained(hub.fetch("parsbert"), "encoder")


def test_fetch_tells_of_a_full_disk(server):
    with failing(os, "fsync", OSError(errno.ENOSPC, "No space left on device")):
        assert re.search(r"No space left on device.*; set HF_HOME to a folder of yours with \d+ MB free$", refusal())
    load_pretrained(hub.fetch("parsbert"), "encoder")


def test_fetch_that_is_interrupted_leaves_nothing(server):
    with failing(os, "fsync", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        hub.fetch("parsbert")
    assert files_under(hub.cache_folder()) == []


# ------------------------------------------------------------------------------------------------ the command


def test_command_lists_the_checkpoints_with_size_and_licence():
    outcome = call(hub.main)
    assert outcome.status == 0
    assert "parsbert          655 MB  Apache-2.0  HooshvareLab/bert-fa-base-uncased\n" in outcome.out
    assert "e5-small          488 MB  MIT         intfloat/multilingual-e5-small\n" in outcome.out


def test_command_fetches_and_says_what_is_next(server):
    outcome = call(hub.main, "parsbert")
    assert outcome.status == 0, outcome.err
    folder = hub.cache_folder() / "parsbert"
    assert outcome.out.splitlines() == [
        "parsbert: HooshvareLab/bert-fa-base-uncased, 0 MB, licence Apache-2.0",
        f"checked and ready: {folder}",
        "use it:  python train_qa.py --recipe parsbert",
    ]


def test_command_names_the_nearest_checkpoint():
    assert (
        call(hub.main, "parsbret")
        .refusal()
        .startswith(
            "error: no public checkpoint 'parsbret' (did you mean 'parsbert'?); there are parsbert, albert-fa, "
        )
    )


def test_command_refuses_a_place_without_a_name():
    assert "--to: the NAME of a checkpoint is missing" in call(hub.main, "--to", "x").refusal()


def test_two_processes_at_once_end_with_one_good_copy(server, tmp_path):
    """As users run them: huggingface_hub finds the mirror and its folder by HF_ENDPOINT and HF_HOME."""
    program = (
        "import sys; from weights import hub; from weights.hub import Checkpoint, File;"
        f"hub.CHECKPOINTS['parsbert'] = {hub.CHECKPOINTS['parsbert']!r}; sys.argv = ['hub', 'parsbert']; hub.main()"
    )
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    settings["PYTHONPATH"] = str(CHECKOUT)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | settings,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        output = process.communicate()[0]
        assert process.returncode == 0, output
    kept = tmp_path / "home" / "assets" / "minitransformer"
    assert sorted(path.name for path in kept.iterdir()) == ["parsbert", "parsbert.json"]
    load_pretrained(kept / "parsbert", "masked-lm")
