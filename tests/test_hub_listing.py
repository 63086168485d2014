"""Any repository of the hub, by owner/name[@revision], from a server on this machine that speaks the hub's protocol."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import load_file

from hub_server import HubServer, connect
from minitransformer import bert
from minitransformer.system.errors import WeightsError
from tiny import call, files_under, write_checkpoint
from weights import hub, load_pretrained, load_tokenizer
from weights.compare import __main__ as compare
from weights.find import HUB_ID, find_folder
from weights.hub_file import CAN_BE_WATCHED
from weights.hub_listing import resolve

NAME = "owner/tiny-qa"
FIRST, SECOND = 40 * "a", 40 * "b"
LEFT_OUT = ("README.md", "tf_model.h5", "training_args.bin", "optimizer.pt")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with one repository, whose main branch is at FIRST and holds more than a checkpoint."""
    server = HubServer()
    connect(monkeypatch, server, tmp_path / "home")
    folder = tmp_path / "repository"
    write_checkpoint(folder, bert.BertForQuestionAnswering)
    for file in LEFT_OUT:
        (folder / file).write_bytes(b"not ours to read")
    publish(server, folder)
    yield server
    server.close()


def publish(server: HubServer, folder: Path, commit: str = FIRST) -> None:
    server.add(NAME, folder, "main", commit)
    server.add(NAME, folder, commit)


def folder_of(server: HubServer) -> Path:
    return server.revisions[NAME, "main"].folder


def refusal(name: str = NAME) -> str:
    with pytest.raises(WeightsError) as caught:
        find_folder(name)
    assert "\n" not in str(caught.value)
    left = files_under(hub.cache_folder()) if hub.cache_folder().exists() else []
    assert [file for file in left if not file.endswith(".json")] == []
    return str(caught.value)


def cache_as_others_do(server: HubServer) -> None:
    """What transformers leaves in huggingface_hub's cache."""
    for path in folder_of(server).iterdir():
        if path.name not in LEFT_OUT:
            hf_hub_download(NAME, path.name)


def same(found: torch.nn.Module, folder: Path) -> bool:
    ours, expected = found.state_dict(), load_pretrained(folder, "question-answering").state_dict()
    return ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)


def test_a_hub_id_loads_as_the_folder_does_wherever_a_checkpoint_is_named(server):
    theirs = folder_of(server)
    assert same(load_pretrained(NAME, "question-answering"), theirs)
    assert load_tokenizer(NAME).to_str() == load_tokenizer(theirs).to_str()
    assert call(compare.main, NAME).status == 0


def test_only_the_files_that_are_read_are_fetched(server):
    folder = find_folder(NAME)
    assert set(files_under(folder)).isdisjoint(LEFT_OUT)
    fetched = {request.path.rpartition("/")[2] for request in server.requests if "/resolve/" in request.path}
    assert fetched == {path.name for path in folder_of(server).iterdir()} - set(LEFT_OUT)


def test_the_copy_tells_its_commit_and_stays_at_it(server, tmp_path):
    folder = find_folder(NAME)
    origin = json.loads((folder / "origin.json").read_text())
    assert (origin["repository"], origin["licence"]) == (NAME, "cc-by-4.0")
    assert set(origin["revision"].values()) == {FIRST}
    newer = tmp_path / "newer"
    shutil.copytree(folder_of(server), newer)
    (newer / "config.json").write_text("{}")
    publish(server, newer, SECOND)
    asked = len(server.requests)
    assert find_folder(NAME) == folder
    assert server.requests[asked:] == []
    shutil.rmtree(folder)
    assert json.loads((hub.fetch(NAME) / "origin.json").read_text())["revision"]["config.json"] == SECOND


def test_a_revision_is_a_copy_of_its_own(server, tmp_path):
    branch = tmp_path / "branch"
    write_checkpoint(branch, bert.BertForQuestionAnswering, seed=1)
    server.add(NAME, branch, "v2/final", SECOND)
    server.add(NAME, branch, SECOND)
    assert same(load_pretrained(f"{NAME}@v2/final", "question-answering"), branch)
    assert same(load_pretrained(f"{NAME}@{FIRST}", "question-answering"), folder_of(server))
    assert not same(load_pretrained(NAME, "question-answering"), branch)


def test_a_pickle_is_converted_where_there_are_no_safetensors(server):
    theirs = folder_of(server)
    tensors = load_file(theirs / "model.safetensors")
    expected = load_pretrained(theirs, "question-answering")
    torch.save(tensors, theirs / "pytorch_model.bin")
    (theirs / "model.safetensors").unlink()
    found = load_pretrained(NAME, "question-answering")
    assert all(torch.equal(*pair) for pair in zip(found.parameters(), expected.parameters(), strict=True))
    assert "pytorch_model.bin" not in files_under(find_folder(NAME))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_fetched_together(server, kind):
    theirs = folder_of(server)
    expected = load_pretrained(theirs, "question-answering")
    model = transformers.BertForQuestionAnswering.from_pretrained(theirs)
    (theirs / "model.safetensors").unlink()
    if kind == "safetensors":
        model.save_pretrained(theirs, max_shard_size="20KB")
        assert (theirs / "model.safetensors.index.json").exists()
    else:
        tensors = model.state_dict()
        names = sorted(tensors)
        for number, part in enumerate((names[::2], names[1::2]), start=1):
            torch.save({name: tensors[name] for name in part}, theirs / f"pytorch_model-0000{number}-of-00002.bin")
        (theirs / "pytorch_model.bin.index.json").write_text("{}")
    found = load_pretrained(NAME, "question-answering")
    assert all(torch.equal(*pair) for pair in zip(found.parameters(), expected.parameters(), strict=True))


def test_safetensors_are_taken_before_a_pickle(server):
    (folder_of(server) / "pytorch_model.bin").write_bytes(b"never fetched")
    load_pretrained(NAME, "question-answering")
    assert not any(request.path.endswith("pytorch_model.bin") for request in server.requests)


def test_the_token_goes_with_the_listing(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find_folder(NAME)
    assert {r.token for r in server.requests if r.path.startswith("/api/")} == {"Bearer hf_secret"}


def test_offline_a_repository_that_others_have_cached_is_enough(server, monkeypatch):
    cache_as_others_do(server)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.requests)
    assert same(load_pretrained(NAME, "question-answering"), folder_of(server))
    assert len(server.requests) == asked
    assert json.loads((find_folder(NAME) / "origin.json").read_text())["revision"]["config.json"] == FIRST


def test_the_cache_is_enough_where_nobody_answers(server, monkeypatch):
    cache_as_others_do(server)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    assert same(load_pretrained(NAME, "question-answering"), folder_of(server))


def test_offline_without_a_cache_is_told(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "owner/tiny-qa: no such folder; on the hub: HF_HUB_OFFLINE is set, and it is not in the cache" in refusal()


def test_nobody_answers_and_nothing_is_cached(server, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refusal().startswith("owner/tiny-qa: no such folder; on the hub: the download failed (")


def test_a_repository_that_is_not_there_is_no_folder_either(server):
    assert refusal("owner/tiny-ga").startswith(
        "owner/tiny-ga: no such folder; on the hub: no such repository, or a private one; check the spelling"
    )


def test_a_revision_that_is_not_there_is_named(server):
    assert "owner/tiny-qa@v9: the repository has no revision 'v9'" in refusal(f"{NAME}@v9")


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_asks_for_a_token(server, status):
    server.statuses["config.json"] = status
    assert f"the hub refuses it ({status}); accept its terms on its page, if it has some, and give your" in refusal()


def test_a_repository_without_weights_that_we_read_is_refused(server):
    (folder_of(server) / "model.safetensors").unlink()
    assert "owner/tiny-qa: no safetensors or pytorch_model.bin in the repository" in refusal()


def test_a_repository_without_a_config_is_refused(server):
    (folder_of(server) / "config.json").unlink()
    assert "owner/tiny-qa: no config.json in the repository" in refusal()


def test_wrong_bytes_are_thrown_away(server):
    server.fail("model.safetensors", "wrong bytes")
    assert "it was thrown away; try again" in refusal()
    server.heal()
    load_pretrained(NAME, "question-answering")


def test_the_listing_tells_sizes_and_sums(server):
    checkpoint = resolve(NAME)
    sizes = {path.name: path.stat().st_size for path in folder_of(server).iterdir()}
    assert all(file.size == sizes[file.name] for file in checkpoint.files)
    assert [bool(file.sha256) for file in checkpoint.files if file.name == "model.safetensors"] == [True]


def test_the_command_fetches_a_hub_id_and_says_what_is_next(server):
    outcome = call(hub.main, NAME)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[1:] == [
        f"checked and ready: {hub.cache_folder() / 'owner--tiny-qa'}",
        "use it:  --weights owner/tiny-qa",
    ]


@pytest.mark.parametrize("name", ["a/b/c", "/a/b", "a", "./a", "../a", "a/", "~/a", "a b/c", "-/../c", "a/b@", "C:\\a"])
def test_paths_are_no_hub_ids(name):
    assert not HUB_ID.fullmatch(name)


def test_a_local_folder_is_taken_before_the_hub(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / NAME)
    assert find_folder(NAME).resolve() == tmp_path / NAME
    assert server.requests == []


def test_a_busy_hub_is_asked_again_and_one_that_stays_busy_is_told(server):
    server.fail("model.safetensors", "429", times=2)
    assert same(load_pretrained(find_folder(NAME), "question-answering"), folder_of(server))
    shutil.rmtree(hub.cache_folder())
    shutil.rmtree(constants.HF_HUB_CACHE)
    server.fail("model.safetensors", "503")
    assert "503 Service Unavailable" in refusal()


@pytest.mark.skipif(not CAN_BE_WATCHED, reason="this huggingface_hub does not let a caller watch the bytes come in")
def test_a_file_of_the_hub_without_an_end_is_stopped_at_its_size(server):
    server.fail("model.safetensors", "endless")
    size = (folder_of(server) / "model.safetensors").stat().st_size
    assert f"more than its {size:,} bytes came" in refusal()
    left = sum(path.stat().st_size for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file())
    assert left < 3 * size + 10**7
