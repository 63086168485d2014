"""Every benchmark runs to its end on a tiny checkpoint, and the operations it counts are those that torch counts."""

import csv
import dataclasses
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tiny
import train_qa
from bench import __main__ as page
from bench import common, cost, hf_qa, shape, train_step, vision
from bench.common import table
from bench.flops import flops_of_finish, flops_of_trunk, flops_per_step
from bench.spans import postprocess_qa_predictions
from minitransformer import albert, bert
from minitransformer.attention import SelfAttention, explicit_attention
from minitransformer.system.errors import RunError
from qa.features import Feature
from qa.inference import span_loss
from qa.squad import Example
from vision.trunk import finish, keep
from weights import quantise
from weights.new_model import new_classifier

PICTURES = {"--limit-train": 12, "--batch-size": 6, "--micro-batch": 4, "--hf-micro-batch": 5, "--epochs": 3,
            "--image-size": 28, "--patch": 7, "--width": 24, "--layers": 2, "--heads": 3, "--ffn-width": 48,
            "--trainable": "blocks.1 classifier", "--threads": 1}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("bench") / "weights")


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    return tiny.write_questions(tmp_path_factory.mktemp("bench") / "questions.json")


def call(module: str, *flags: object) -> tiny.Outcome:
    return tiny.call(importlib.import_module(module).main, *flags)


def run(module: str, *flags: object) -> str:
    """What `python -m module` prints."""
    done = call(module, *flags)
    assert done.status == 0, done.err
    return done.out


@pytest.fixture(autouse=True)
def no_new_processes(monkeypatch):
    """What the benchmarks start runs here: a new Python would first import torch and transformers for ten seconds."""

    def start(command: list[str], **_: object) -> subprocess.CompletedProcess:
        _, _, module, *flags = command
        done = call(module, *flags)
        sys.stderr.write(done.err)
        return subprocess.CompletedProcess(command, done.status, done.out)

    monkeypatch.setitem(common.MATRIX, "cpu", 64)
    for module in (common, page):
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=start, PIPE=subprocess.PIPE))


def cells(printed: str) -> list[list[str]]:
    """The rows of the table in it."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_train_step_measures_all_contenders_on_the_same_loss(checkpoint, questions):
    sizes = ("--batch-size", 2, "--max-length", 64, "--rounds", 1, "--steps", 1, "--threads", 1)
    printed = run("bench.train_step", "--weights", checkpoint, "--data", questions, *sizes)
    head, *rows = cells(printed)
    trainer = ["HF Trainer as run_qa.py has it, padded to 64"] if find_spec("accelerate") else []
    assert [row[0] for row in rows] == [
        "ours", "HF padded to 64", "HF padded per batch", "HF with length grouping", *trainer
    ]  # fmt: skip
    losses = [float(row[head.index("first loss")]) for row in rows]
    assert losses == pytest.approx([losses[0]] * len(rows), abs=2e-6)
    assert "torch" in printed
    assert ("not measured" in printed) != bool(trainer)


def test_length_grouping_keeps_the_features_and_pads_less():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 100, 64)
    parts = [[Feature(0, np.zeros(n, np.int32), *[None] * 5) for n in lengths[i : i + 8]] for i in range(0, 64, 8)]
    sizes = [[len(feature.input_ids) for feature in part] for part in train_step.grouped(parts)]
    assert sorted(size for part in sizes for size in part) == sorted(lengths)
    assert [len(part) for part in sizes] == [8] * 8
    assert sum(map(max, sizes)) < 0.7 * sum(max(lengths[i : i + 8]) for i in range(0, 64, 8))


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
    assert losses == pytest.approx([losses[0]] * len(rows), abs=2e-6)


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


@pytest.mark.parametrize(("name", "steps"), [("parsbert", 4000), ("albert-fa", 4000)])
def test_the_cost_of_a_text_recipe_is_that_of_its_shape(monkeypatch, name, steps):
    monkeypatch.setitem(shape.SHAPES, cost.TEXTS[name], (albert.AlbertForQuestionAnswering, random_albert().config))
    rows = dict(row[:2] for row in cells(tiny.call(cost.main, "--recipe", name, "--tokens", 3).out))
    assert rows["operations of the run"].endswith(f"in {steps:,} steps")


def test_the_cost_of_the_vision_recipe_is_one_pass_and_little_more():
    rows = dict(row[:2] for row in cells(tiny.call(cost.main, "--recipe", "deit-small").out))
    assert rows["parameters; trained of them"] == "21,670,282; 1,778,314"
    assert rows["kept of the trunk"].startswith("15.28 GB")  # as recipes/deit-small.toml says
    trunk, whole = (
        float(rows[name].split(",")[0]) for name in ("operations of the trunk's one pass", "operations of the run")
    )
    assert trunk < whole < 1.1 * trunk


def flags(**changes: object) -> list[object]:
    given = PICTURES | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [word for flag in given.items() for word in flag]


def test_the_vision_recipe_gives_hf_the_same_losses():
    printed = run("bench.vision", *flags())
    head, ours, *hf, limit = cells(printed)
    assert [row[0] for row in (ours, *hf)] == list(vision.CONTENDERS)
    assert float(ours[head.index("time over ours")]) == 1
    assert "of the trunk pass" in ours[head.index("a further epoch")]
    assert limit[0].startswith("limit")
    assert "12 images, 3 epochs, 6 steps" in printed
    assert 0 < float(printed.split("differ by ")[1].split()[0]) < 1e-5


def test_the_vision_recipe_says_what_it_did_not_measure():
    _, ours, *hf, _ = cells(run("bench.vision", *flags(hf_steps=1)))
    assert ours[0] == "ours"
    assert [row[0] for row in hf] == [f"{name}; computed from 1 of 6 steps" for name in vision.CONTENDERS[1:]]


def test_other_work_is_not_compared():
    refused = call("bench.vision", *flags(hf_steps=1, trainable="classifier"))
    assert refused.status == 2
    assert "error: --trainable: HF's rows train the last block and the classifier, not classifier" in refused.err
    results = {name: [{"losses": [2.0, 1.0]}] for name in vision.CONTENDERS}
    assert vision.largest_difference(results, exact=True) == 0
    results[vision.PREPARED] = [{"losses": [2.0, 1.001]}]
    assert vision.largest_difference(results, exact=False) == pytest.approx(0.001)
    with pytest.raises(RunError, match=r"step 2: the loss of ours is 1.0, that of HF, pictures prepared once 1.001"):
        vision.largest_difference(results, exact=True)


def test_flops_of_the_trunk_are_those_that_torch_counts():
    sizes = {"image_size": 28, "patch": 7, "width": 24, "layers": 3, "heads": 3, "ffn_width": 48}
    model = new_classifier(distilled=True, classes=5, **sizes)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernel is not counted
        kept = keep(model, torch.randn(1, 3, 28, 28), first=2)
    assert flops_of_trunk(model.config) == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        finish(model, kept, first=2)
    assert flops_of_finish(model.config) == counter.get_total_flops()


def test_features_of_ours_and_of_hf_are_equal(checkpoint, questions):
    sizes = ("--max-length", 32, "--stride", 4, "--rounds", 1)
    printed = run("bench.features", "--weights", checkpoint, "--data", questions, *sizes)
    assert [row[0] for row in cells(printed)] == ["contender", "HF's example", "ours"]
    assert "all features equal" in printed


def test_spans_of_ours_and_of_the_loop_are_equal(checkpoint, questions):
    printed = run("bench.spans", "--weights", checkpoint, "--data", questions, "--rounds", 1, "--threads", 1)
    with_table = find_spec("datasets") is not None
    assert len(cells(printed)) == 1 + 2 * (3 + with_table)
    assert printed.count("on a datasets table") == 2 * with_table
    assert printed.count("0 best spans that the loop missed") == 2  # contexts this short are wholly among the 20 best


@pytest.fixture(scope="module")
def answerer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "answerer"
    tiny.write_checkpoint(folder, bert.BertForQuestionAnswering, width=64, ffn_width=256)
    return folder


def test_answers_of_ours_and_of_hf_are_the_same_text(answerer, questions, monkeypatch):
    """Of a quantised folder, too, which transformers cannot read by itself."""
    monkeypatch.setattr("bench.answer.find_spec", lambda name: None)  # ONNX Runtime and OpenVINO: left out, and named
    assert tiny.call(quantise.main, answerer, "--bits", 4, "--out", answerer.parent / "small").status == 0
    for model in (answerer, answerer.parent / "small"):
        printed = run("bench.answer", "--model", model, "--data", questions, "--rounds", 1, "--threads", 1)
        rows = cells(printed)
        assert [row[0] for row in rows] == ["contender", "ours, float32", "ours, 16 bits", "HF"]
        assert rows[1][-1] == rows[3][-1] == "100.0 %"
        assert "not installed: ONNX Runtime, float32, ONNX Runtime, int8, OpenVINO, float32" in printed


def test_sensitivity_rounds_one_matrix_after_the_other(answerer, questions):
    rows = cells(run("bench.sensitivity", "--model", answerer, "--data", questions, "--group", 32))[1:]
    assert {row[0].split(".")[-2] for row in rows} == {"dense"}  # the only ones that are large enough
    changes = [float(row[2]) for row in rows]
    assert all(change > 0 for change in changes)
    assert [float(row[3]) for row in rows] == sorted((float(row[3]) for row in rows), reverse=True)


def test_an_epoch_is_measured_whole_and_hfs_is_computed(checkpoint, questions):
    sizes = ("--examples", 20, "--batch-size", 4, "--max-length", 64, "--hf-steps", 1, "--threads", 1)
    printed = run("bench.epoch", "--weights", checkpoint, "--train", questions, *sizes)
    head, ours, *hf = cells(printed)
    assert ours[0] == "ours"
    assert {row[0].split(", computed")[1] for row in hf} == {" from 1 steps"}
    assert float(ours[head.index("an epoch")].split()[0]) > 0
    assert "20 questions, batch 4" in printed


def test_the_page_holds_every_section_its_command_and_what_failed(tmp_path, monkeypatch):
    """The commands themselves have tests of their own."""

    def start(command: list[str], **_: object) -> subprocess.CompletedProcess:
        broken = "bench.spans" in command
        return subprocess.CompletedProcess(command, int(broken), "" if broken else f"| table of {command[2]} |\n")

    monkeypatch.setattr(page, "subprocess", SimpleNamespace(run=start, PIPE=subprocess.PIPE))
    done = tiny.call(page.main, "--work", tmp_path / "work", "--out", tmp_path / "page.md", "--rounds", 1)
    assert (done.status, done.err.splitlines()[-1].split(";")[0]) == (2, "error: not measured: Spans and answers")
    text = (tmp_path / "page.md").read_text()
    assert text.strip() == done.out.strip()
    assert text.count("## ") == 4
    assert f"    python -m bench.features --weights demo-bert-fa --data {tmp_path}/work/questions.json" in text
    assert "| table of bench.vision |" in text
    assert "## Spans and answers" in text
    assert "not measured: the command ended with status 1" in text


def test_the_page_is_refused_a_place_before_the_work_not_after_it(tmp_path):
    refused = tiny.call(page.main, "--work", tmp_path / "work", "--out", tmp_path / "absent/page.md")
    assert "absent/page.md: cannot be written" in refused.refusal()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_command_of_the_page_takes_its_flags(device, tmp_path, monkeypatch):
    asked = []

    def start(command: list[str], **_: object) -> subprocess.CompletedProcess:
        asked.append(command[2:])
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(page, "subprocess", SimpleNamespace(run=start, PIPE=subprocess.PIPE))
    tiny.call(page.main, "--work", tmp_path, "--device", device)
    for module, *flags in asked:
        # An unknown flag is complained of before all others, so this one alone must be named.
        refusal = call(module, *flags, "--no-such-flag").refusal()
        assert "unknown flag '--no-such-flag'" in refusal
    assert {"cpu": 4, "cuda": 8}[device] == len(asked)


def test_hf_qa_writes_the_files_of_a_run(checkpoint, questions, tmp_path):
    files = ("--weights", checkpoint, "--train", questions, "--valid", questions, "--out", tmp_path / "run")
    sizes = ("--batch-size", 4, "--max-steps", 2, "--max-length", 64, "--stride", 8, "--limit-valid", 6)
    printed = run("bench.hf_qa", *files, *sizes)
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert scores["total"] == 6
    assert f"exact {scores['exact']:.2f}" in printed
    assert len((tmp_path / "run/log.csv").read_text().splitlines()) == 1 + 2


def test_hf_qa_with_the_same_dropout_takes_the_steps_of_train_qa(checkpoint, questions, tmp_path):
    """All dropouts on. With its own draws HF's first loss is another."""

    def losses(main, name: str, *flags: object) -> list[float]:
        files = ("--weights", checkpoint, "--train", questions, "--valid", questions, "--out", tmp_path / name)
        done = tiny.call(main, "--recipe", "modern", *files, "--batch-size", 4, "--max-length", 64, *flags)
        assert done.status == 0, done.err
        log = (tmp_path / name / "log.csv").read_text().splitlines()
        return [float(row["loss"]) for row in csv.DictReader(log)]

    ours = losses(train_qa.main, "ours")
    assert len(ours) == 2 * 3
    assert losses(hf_qa.main, "same", "--same-dropout") == pytest.approx(ours, abs=1e-5)
    assert losses(hf_qa.main, "own", "--max-steps", 1)[0] != pytest.approx(ours[0], abs=1e-3)


def test_the_same_dropout_is_not_to_be_had_on_a_gpu():
    assert "error: --same-dropout: on a GPU" in tiny.call(hf_qa.main, "--same-dropout", "--device", "cuda").refusal()


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
    rows = [{"offset_mapping": [None, None, (0, 3), (4, 7), (8, 13), None]}]
    start, end = np.zeros((2, 1, 6), np.float32)
    start[0, 3], end[0, 4], end[0, 2] = 2, 3, 9  # the best end stands before the best start
    logits = np.stack([start, end])

    def answer(longest: int) -> str:
        return postprocess_qa_predictions([example], [feature], rows, logits, 20, longest).predictions["a"]

    assert answer(1) == "one"
    logits[0, 0, 2] = -9
    assert answer(2) == "two three"
    assert answer(1) == "three"


def test_table_is_markdown():
    assert table(["a", "b"], ["1", "2"]) == "| a | b |\n|---|---|\n| 1 | 2 |"


def test_parts_of_a_step_add_up_to_the_step(checkpoint, questions):
    sizes = ("--batch-size", 2, "--max-length", 64, "--steps", 2, "--threads", 1)
    rows = cells(run("bench.parts", "--weights", checkpoint, "--data", questions, *sizes))[1:]
    seconds = {row[0]: float(row[1]) for row in rows}
    whole = seconds.pop("the whole step, under the profiler")
    del seconds["the whole step without it"]
    assert sum(seconds.values()) == pytest.approx(whole, abs=0.006 * len(seconds))
    for part in ("products of a layer with its weights", "products inside attention", "random numbers of dropout",
                 "masks of dropout", "norms", "softmax", "optimizer"):  # fmt: skip
        assert seconds[part] > 0, part


def test_memory_is_sampled_along_a_run():
    printed = run("bench.memory", "--max-steps", 40, "--limit-train", 20, "--limit-valid", 4, "--checkpoint-every", 20)
    rows = cells(printed)[1:]
    assert [row[0] for row in rows] == [str(step) for step in range(2, 41, 2)]
    assert all(float(memory.removesuffix(" MiB")) > 50 and int(files) > 0 for _, memory, _, files in rows)
    assert "2 checkpoints, " in printed


def out_of_memory(work):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_growth_measures_each_length_and_batch_and_draws_them(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.growth.processes", lambda args: f"at {args.alone_at}")
    sizes = ("--lengths", 8, 16, "--sizes", 1, 2, "--repeats", 1, "--threads", 1)
    printed = run("bench.growth", "--weights", checkpoint, *sizes, "--chart", tmp_path / "chart.png")
    rows = cells(printed)
    assert [row[0] for row in rows] == 2 * ["passages of", "8 tokens", "16 tokens"]
    assert all(
        re.fullmatch(r"[\d.e+]+, HF x [\d.]+", cell) for row in rows if row[0] != "passages of" for cell in row[1:]
    )
    assert Image.open(tmp_path / "chart.png").size[0] > 800
    monkeypatch.setattr("bench.growth.seconds_of", out_of_memory)
    printed = run("bench.growth", "--weights", checkpoint, *sizes)
    assert {cell for row in cells(printed) if row[0] != "passages of" for cell in row[1:]} == {"too large"}
    monkeypatch.undo()
    alone = run("bench.growth", "--weights", checkpoint, *sizes, "--alone", 8, 2)
    assert float(alone) > 0


FAKE_PYTHON = """#!/bin/sh
case "$2 $*" in
bench.epoch*) echo "round 1, ours: 3.25 s" >&2; sleep 60 ;;
bench.vision*) echo "Traceback" >&2; echo "error: pictures: no such folder" >&2; exit 2 ;;
*) echo "| table of $2 |" ;;
esac
"""


@pytest.mark.skipif(shutil.which("timeout") is None, reason="no timeout(1) on this system")
def test_the_gpu_script_prints_every_part_and_what_a_part_that_ran_over_had(tmp_path):
    (tmp_path / "python").write_text(FAKE_PYTHON)
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PERCENT": "1", "DEVICE": "cpu"}
    script = Path(__file__).parents[1] / "bench/gpu.sh"
    done = subprocess.run(
        [script, "tokenizer", "questions", "pictures"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    parts = done.stdout.split("\n## ")[1:]
    assert len(parts) == 8
    assert parts.pop(2).endswith("not measured: it ran over its 1 seconds; by then:\nround 1, ours: 3.25 s\n")
    assert parts.pop(2).endswith("not measured: it ended with status 2: error: pictures: no such folder\n")
    assert all(part.endswith(f"| table of {'bench.train_step' if number else 'bench.shape'} |\n")
               for number, part in enumerate(parts))  # fmt: skip
    bounds = [int(seconds) for seconds in re.findall(r"^ *part (\d+) ", script.read_text(), re.MULTILINE)]
    assert len(bounds) == 8
    assert sum(bounds) <= 8 * 60 - 10, "and Python's own start"
