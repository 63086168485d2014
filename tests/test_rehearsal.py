"""The report's two question answering runs from their first command to the last, against servers on this machine.

The checkpoints have the files and the names of the public ones, and PQuAD's three files their names; all are tiny.
"""

import hashlib
import json

import pytest
import torch
import transformers

import train_qa
from hub_server import HubServer, connect
from public_checkpoints import publish
from qa import pquad
from tiny import call, examples, write_questions
from weights import hub, load_pretrained


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The hub and PQuAD's repository, and a working directory on a machine that has fetched nothing yet."""
    (tmp_path / "served").mkdir()
    server = HubServer(plain=tmp_path / "served")
    connect(monkeypatch, server, tmp_path)
    parts = {}
    for name, part in pquad.PARTS.items():
        path = write_questions(tmp_path / "served" / part.file, examples(12))
        checksum = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        parts[name] = part._replace(questions=12, checksum=part.checksum and checksum)
    monkeypatch.setattr(pquad, "PARTS", parts)
    monkeypatch.setattr(train_qa, "plot_losses", lambda *given: None)  # takes longer than the training
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield server
    server.close()


@pytest.mark.parametrize("name", ["parsbert", "albert-fa"])
def test_reports_run_fetches_trains_evaluates_and_saves_what_transformers_loads(server, tmp_path, monkeypatch, name):
    monkeypatch.setitem(hub.CHECKPOINTS, name, publish(server, name, tmp_path / "public"))
    fetched = call(pquad.main, "--url", f"{server.url}/plain")
    assert fetched.status == 0, fetched.err

    outcome = call(train_qa.main, "--recipe", name, "--batch-size", 4, "--max-steps", 3)
    assert outcome.status == 0, outcome.err
    assert "12 questions to train on, 12 to validate; everything goes to" in outcome.out
    run = tmp_path / "work" / "runs" / name
    assert json.loads((run / "metrics.json").read_text())["total"] == 12
    assert len((run / "log.csv").read_text().splitlines()) == 1 + 3

    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(run / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
    asked = examples(1)[0]
    batch = tokenizer(asked.question, asked.context, return_tensors="pt")
    with torch.no_grad():
        answer = theirs(**batch)
        start, end = load_pretrained(run / "model", "question-answering")(**batch)
    torch.testing.assert_close(start, answer.start_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end, answer.end_logits, rtol=1e-5, atol=1e-5)


def test_reports_run_fetches_pquad_by_itself(server, tmp_path, monkeypatch):
    monkeypatch.setitem(hub.CHECKPOINTS, "parsbert", publish(server, "parsbert", tmp_path / "public"))
    monkeypatch.setattr(pquad, "URL", f"{server.url}/plain")
    outcome = call(train_qa.main, "--recipe", "parsbert", "--max-steps", 1)
    assert outcome.status == 0, outcome.err
    fetched = sorted(path.name for path in (tmp_path / "work" / "data" / "pquad").iterdir())
    assert fetched == ["Train.json", "Train.json.sha256", "Validation.json"]


def test_reports_run_tells_in_one_line_that_the_hub_refuses(server, tmp_path, monkeypatch):
    monkeypatch.setitem(hub.CHECKPOINTS, "parsbert", publish(server, "parsbert", tmp_path / "public"))
    server.statuses["config.json"] = 401
    refused = call(train_qa.main, "--recipe", "parsbert").refusal()
    assert "HooshvareLab/bert-fa-base-uncased, config.json at a04aa40" in refused
    assert "the hub refuses it (401)" in refused
    assert not (tmp_path / "work" / "runs").exists()
