"""Distillation: the formula, and a run that learns from a teacher."""

import math
from unittest import mock

import pytest
import torch

import train_qa
from minitransformer import bert
from minitransformer.system.errors import RunError
from minitransformer.training.parallel import World
from qa.features import collate, featurise
from qa.teacher import Shares, ask_teachers, load_teachers, pad, soft_loss
from tiny import call, examples, files_under, log_of, random_model, tokenizer, write_checkpoint, write_questions

CPU = torch.device("cpu")


def test_soft_loss_is_the_formula_of_hinton_2015():
    generator = torch.Generator().manual_seed(0)
    start, end, teacher_start, teacher_end = torch.randn(4, 2, 3, generator=generator)
    temperature, by_hand = 2.0, 0.0
    for logits, taught in ((start, teacher_start), (end, teacher_end)):
        for row, said in zip(logits.tolist(), taught.tolist(), strict=True):
            wanted = [math.exp(v / temperature) / sum(math.exp(w / temperature) for w in said) for v in said]
            shown = [math.exp(z / temperature) / sum(math.exp(w / temperature) for w in row) for z in row]
            by_hand += temperature**2 * -sum(p * math.log(q) for p, q in zip(wanted, shown, strict=True)) / 2
    shares = Shares(*((part / temperature).softmax(-1) for part in (teacher_start, teacher_end)))
    torch.testing.assert_close(soft_loss(start, end, shares, temperature), torch.tensor(by_hand))


def test_the_gradient_at_a_high_temperature_is_the_difference_of_logits():
    """Hinton et al. 2015, equation 4: of zero-mean logits, (z - v) / N, here for start alone, halved by the average."""
    generator = torch.Generator().manual_seed(1)
    logits, taught = torch.randn(2, 1, 5, generator=generator, dtype=torch.float64)
    logits, taught = (part - part.mean() for part in (logits, taught))
    logits.requires_grad_()
    temperature = 1000.0
    shares = Shares(*[(taught / temperature).softmax(-1)] * 2)
    soft_loss(logits, torch.zeros(1, 5), shares, temperature).backward()
    torch.testing.assert_close(logits.grad, (logits.detach() - taught) / 5 / 2, rtol=1e-2, atol=1e-2)


def test_padding_adds_nothing_to_the_loss():
    shares = pad([torch.full((2, 4), 0.25).numpy(), torch.full((2, 2), 0.5).numpy()], (2, 4))
    assert shares.start.tolist() == [[0.25] * 4, [0.5, 0.5, 0.0, 0.0]]
    logits = torch.zeros(2, 4)
    logits[1, 2:] = bert.PADDING_LOGIT
    torch.testing.assert_close(soft_loss(logits, logits, shares, 1.0), torch.tensor(math.log(4) + math.log(2)))


@pytest.fixture
def features(tmp_path):
    return featurise(examples(), tokenizer(tmp_path / "tokenizer"), 64, 16)


@pytest.mark.parametrize("count", [1, 2])
def test_teachers_are_asked_once_and_averaged(features, count):
    teachers = [random_model(bert.BertForQuestionAnswering, seed=seed) for seed in range(count)]
    shares = ask_teachers(teachers, features, 2.0, batch_tokens=100, device=CPU)
    for feature, share in zip(features, shares, strict=True):
        batch = collate([feature], 0)
        with torch.no_grad():
            said = [torch.cat(teacher(batch.input_ids, batch.token_type_ids)) for teacher in teachers]
        expected = torch.stack([(logits / 2.0).softmax(-1) for logits in said]).mean(0)
        torch.testing.assert_close(torch.from_numpy(share), expected, rtol=1e-5, atol=1e-6)


def test_processes_share_the_asking(features):
    """The second of two processes, with what the first has found."""
    teachers = [random_model(bert.BertForQuestionAnswering)]
    alone = ask_teachers(teachers, features, 1.0, 100, CPU)
    found = []
    with mock.patch.object(World, "gather", lambda world, mine: found.append(mine) or found):
        for rank in (0, 1):
            shares = ask_teachers(teachers, features, 1.0, 100, CPU, World(rank, 2))
    assert len(found[0]) + len(found[1]) == len(features)
    assert found[0].keys().isdisjoint(found[1])
    for share, expected in zip(shares, alone, strict=True):
        torch.testing.assert_close(torch.from_numpy(share), torch.from_numpy(expected))


@pytest.fixture
def run(tmp_path):
    data = write_questions(tmp_path / "data.json")
    weights = write_checkpoint(tmp_path / "weights", dropout=0.0, attention_dropout=0.0)
    lengths = ("--max-length", 64, "--stride", 16, "--batch-size", 4, "--max-steps", 4, "--checkpoint-every", 0)

    def start(name, *flags):
        files = ("--weights", weights, "--train", data, "--valid", data, "--out", tmp_path / name)
        with mock.patch.object(train_qa, "plot_losses"):
            outcome = call(train_qa.main, "--recipe", "modern", *lengths, *files, *flags)
        assert outcome.status == 0, outcome.err
        return tmp_path / name

    return start


def test_a_teacher_of_weight_0_changes_no_bit(run, tmp_path):
    teacher = write_checkpoint(tmp_path / "teacher", bert.BertForQuestionAnswering, seed=3)
    plain, taught = run("plain"), run("taught", "--teacher", teacher, "--teacher-weight", 0)
    assert files_under(plain) == files_under(taught)
    for name in ("model/model.safetensors", "predictions.json", "metrics.json"):
        assert (plain / name).read_bytes() == (taught / name).read_bytes(), name


def test_the_loss_is_the_weighted_mean_of_labels_and_teacher(run, tmp_path):
    """The first step's, before anything is learnt: it is linear in the weight."""
    teacher = write_checkpoint(tmp_path / "teacher", bert.BertForQuestionAnswering, seed=3)
    flags = ("--teacher", teacher, "--temperature", 2, "--head-dropout", 0, "--teacher-weight")
    hard, half, soft = (log_of(run(f"run-{w}", *flags, w))[0]["loss"] for w in (0, 0.25, 1))
    assert float(half) == pytest.approx(0.75 * float(hard) + 0.25 * float(soft), rel=1e-5)
    assert float(soft) != pytest.approx(float(hard), rel=1e-2)


def test_a_student_learns_what_its_teacher_says(run, tmp_path, features):
    teacher = write_checkpoint(tmp_path / "teacher", bert.BertForQuestionAnswering, seed=3)
    flags = ("--teacher", teacher, "--teacher-weight", 1, "--epochs", 30, "--max-steps", 90, "--learning-rate", 5e-3)
    losses = [float(row["loss"]) for row in log_of(run("run", *flags))]
    asked = ask_teachers(load_teachers(str(teacher), tokenizer(tmp_path / "t")), features, 1.0, 999, CPU)
    shares = torch.cat([torch.from_numpy(share).flatten() for share in asked])
    entropy = -(shares * shares.log()).sum().item() / 2 / len(features)  # below which the loss cannot fall
    assert sum(losses[-3:]) / 3 - entropy < (losses[0] - entropy) / 2


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(RunError, match="its vocabulary is not the student's"):
        load_teachers("demo-bert-fa", tokenizer(tmp_path))
