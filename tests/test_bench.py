"""Every benchmark runs to its end on a tiny checkpoint, and the operations it counts are those that torch counts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tiny
from bench import cost, shape
from bench.common import flops_per_step, table
from bench.spans import postprocess_qa_predictions
from minitransformer import albert, bert
from minitransformer.attention import SelfAttention, explicit_attention
from qa.features import Feature
from qa.predict import span_loss
from qa.squad import Example

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("bench") / "weights")


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    return tiny.write_questions(tmp_path_factory.mktemp("bench") / "questions.json")


def run(module: str, *flags: object) -> str:
    """What `python -m module` prints."""
    command = [sys.executable, "-m", module, *map(str, flags)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(printed: str) -> list[list[str]]:
    """The rows of the table in it."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_train_step_measures_all_contenders_on_the_same_loss(checkpoint, questions):
    sizes = ("--batch-size", 2, "--max-length", 64, "--rounds", 1, "--steps", 1, "--threads", 1)
    printed = run("bench.train_step", "--weights", checkpoint, "--data", questions, *sizes)
    head, *rows = cells(printed)
    assert [row[0] for row in rows] == ["ours", "HF padded to 64", "HF padded per batch"]
    losses = [float(row[head.index("first loss")]) for row in rows]
    assert losses == pytest.approx([losses[0]] * 3, abs=2e-6)
    assert "torch" in printed.splitlines()[-1]


def test_a_random_albert_of_a_public_shape_is_measured_too(checkpoint, questions, tmp_path, monkeypatch):
    monkeypatch.setitem(shape.SHAPES, "albert-base", (albert.AlbertForQuestionAnswering, random_albert().config))
    refused = tiny.call(shape.main, "albert-base", "--tokenizer", checkpoint, "--out", tmp_path / "albert")
    assert "its vocabulary is larger than the 40" in refused.refusal()

    larger = dataclasses.replace(random_albert().config, vocabulary=len(tiny.VOCABULARY) + 7)
    monkeypatch.setitem(shape.SHAPES, "albert-base", (albert.AlbertForQuestionAnswering, larger))
    made = tiny.call(shape.main, "albert-base", "--tokenizer", checkpoint, "--out", tmp_path / "albert")
    assert made.status == 0, made.err
    sizes = ("--batch-size", 2, "--max-length", 64, "--rounds", 1, "--steps", 1, "--threads", 1)
    head, *rows = cells(run("bench.train_step", "--weights", tmp_path / "albert", "--data", questions, *sizes))
    losses = [float(row[head.index("first loss")]) for row in rows]
    assert losses == pytest.approx([losses[0]] * 3, abs=2e-6)


def test_the_memory_that_waits_is_that_of_its_tensors():
    layer = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 8))
    x = torch.randn(10, 8, requires_grad=True)
    # GELU keeps its input, the second product the GELU's output; the first product's input is x itself.
    assert cost.saved_bytes(lambda: layer(x), layer, x) == 2 * 10 * 32 * 4


def test_the_cost_of_a_run_is_counted_from_its_shapes(monkeypatch):
    monkeypatch.setitem(shape.SHAPES, "albert-base", (albert.AlbertForQuestionAnswering, random_albert().config))
    printed = tiny.call(cost.main, "--shape", "albert-base", "--batch-size", 2, "--tokens", 5, "--examples", 7)
    rows = dict(row[:2] for row in cells(printed.out))
    flops = flops_per_step([5, 5], random_albert().config)
    assert rows["operations of a step"] == f"{flops:.3g}"
    assert rows["operations of the run"] == f"{4 * flops:.3g} in 4 steps"
    assert rows["parameters"] == f"{sum(p.numel() for p in random_albert().parameters()):,}"


def test_features_of_ours_and_of_hf_are_equal(checkpoint, questions):
    sizes = ("--max-length", 32, "--stride", 4, "--rounds", 1)
    printed = run("bench.features", "--weights", checkpoint, "--data", questions, *sizes)
    assert [row[0] for row in cells(printed)] == ["contender", "HF's example", "ours"]
    assert "all features equal" in printed


def test_spans_of_ours_and_of_the_loop_are_equal(checkpoint, questions):
    printed = run("bench.spans", "--weights", checkpoint, "--data", questions, "--rounds", 1, "--threads", 1)
    assert len(cells(printed)) == 1 + 2 * 3
    assert printed.count("0 best spans that the loop missed") == 2  # contexts this short are wholly among the 20 best


def test_hf_qa_writes_the_files_of_a_run(checkpoint, questions, tmp_path):
    files = ("--weights", checkpoint, "--train", questions, "--valid", questions, "--out", tmp_path / "run")
    sizes = ("--batch-size", 4, "--max-steps", 2, "--max-length", 64, "--stride", 8, "--limit-valid", 6)
    printed = run("bench.hf_qa", *files, *sizes)
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert scores["total"] == 6
    assert f"exact {scores['exact']:.2f}" in printed
    assert len((tmp_path / "run/log.csv").read_text().splitlines()) == 1 + 2


def random_albert() -> torch.nn.Module:
    sizes = {"embedding_width": 24, "width": 32, "layers": 3, "inner_layers": 2, "heads": 4, "ffn_width": 48}
    config = albert.AlbertConfig(vocabulary=40, dropout=0.1, attention_dropout=0.1, **sizes)
    return albert.AlbertForQuestionAnswering(config)


@pytest.mark.parametrize("make", [lambda: tiny.random_model(bert.BertForQuestionAnswering), random_albert])
@pytest.mark.parametrize(("explicit", "lengths"), [(True, [9, 9, 9]), (False, [3, 9, 6])])
def test_flops_per_step_are_those_that_torch_counts(make, explicit, lengths):
    """To the last one. The explicit formula pads, so its texts are of one length."""
    model = make().train()  # dropout on: no fused kernel
    if explicit:
        for module in model.modules():
            if isinstance(module, SelfAttention):
                module.attend = explicit_attention
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    labels = torch.zeros(3, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        span_loss(*model(torch.ones(3, 9, dtype=torch.long), None, mask), labels, labels).backward()
    assert flops_per_step(lengths, model.config) == counter.get_total_flops()


def test_the_loop_finds_the_answer_among_its_candidates():
    example = Example("a", "", "?", "one two three", ())
    feature = Feature(0, np.zeros(6, np.int32), np.zeros(6, np.int32), 2, np.array([[0, 3], [4, 7], [8, 13]]), 0, 0)
    offsets = [None, None, (0, 3), (4, 7), (8, 13), None]
    start, end = np.zeros((2, 1, 6), np.float32)
    start[0, 3], end[0, 4], end[0, 2] = 2, 3, 9  # the best end stands before the best start
    logits = np.stack([start, end])

    def answer(longest: int) -> str:
        return postprocess_qa_predictions([example], [feature], [offsets], logits, 20, longest).predictions["a"]

    assert answer(1) == "one"
    logits[0, 0, 2] = -9
    assert answer(2) == "two three"
    assert answer(1) == "three"


def test_table_is_markdown():
    assert table(["a", "b"], ["1", "2"]) == "| a | b |\n|---|---|\n| 1 | 2 |"
