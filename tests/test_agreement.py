"""Whether 16 bits answer as float32 does: counted, kept in the folder, and what `auto` makes of it."""

import json

import pytest
import torch

from minitransformer import bert
from qa import agreement, squad
from qa.answerer import Answerer
from tiny import call, write_checkpoint
from weights import average

EXAMPLES = [squad.Example(str(n), "", "پایتخت ایران کجاست؟", "تهران پایتخت ایران است.", ()) for n in range(4)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("minitransformer.training.precision._sixteen_bits", lambda device: torch.bfloat16)
    squad.write(tmp_path / "data.json", EXAMPLES)
    return write_checkpoint(tmp_path / "model", bert.BertForQuestionAnswering)


def ask(folder, *flags):
    return call(agreement.main, "--model", folder, "--data", folder.parent / "data.json", *flags)


def told(folder) -> object:
    return json.loads((folder / "config.json").read_text())["answering"]


def test_the_share_is_counted_and_decides_what_auto_means(folder, monkeypatch):
    assert Answerer(folder).precision.name == "float32"
    outcome = ask(folder, "--limit", "2")
    assert outcome.status == 0, outcome.err
    assert outcome.out == f"2 of 2 answers are the same, 100.00%: --precision auto is 16 bits for {folder}\n"
    assert told(folder) == {"agreement": 1.0}
    assert Answerer(folder).precision.name == "bfloat16"
    assert Answerer(folder, "float32").precision.name == "float32"


def test_answers_that_differ_leave_auto_at_float32(folder, monkeypatch):
    predict = Answerer.predict

    def other_in_16_bits(self, examples):
        answers = predict(self, examples)
        if self.precision.dtype == torch.bfloat16:
            answers["0"] = answers["0"]._replace(text="another")
        return answers

    monkeypatch.setattr(Answerer, "predict", other_in_16_bits)
    assert "3 of 4 answers are the same, 75.00%: --precision auto is float32" in ask(folder).out
    assert Answerer(folder).precision.name == "float32"


def test_what_else_the_folder_says_stays(folder):
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"answering": {"null_threshold": 0.5}}))
    assert ask(folder).status == 0
    assert json.loads(path.read_text()) == settings | {"answering": {"null_threshold": 0.5, "agreement": 1.0}}


def test_other_weights_have_no_agreement_yet(folder, tmp_path):
    ask(folder)
    assert call(average.main, folder, folder, "--out", tmp_path / "mean").status == 0
    assert told(tmp_path / "mean") == {}


def test_a_machine_without_units_for_16_bits_is_told_so(folder, monkeypatch):
    monkeypatch.setattr("minitransformer.training.precision._sixteen_bits", lambda device: torch.float32)
    assert "this machine has no units for 16 bits" in ask(folder).refusal()


def test_a_public_copy_stays_as_it_came(folder):
    (folder / "origin.json").write_text("{}")
    assert "a public checkpoint, which stays as it came; give a copy of it" in ask(folder).refusal()
