"""`python -m weights.average`."""

import torch

from minitransformer import bert
from tiny import call, files_under, write_checkpoint
from weights import load_pretrained
from weights.average import main


def test_every_parameter_is_the_mean_of_three(tmp_path):
    folders = [write_checkpoint(tmp_path / str(seed), bert.BertForQuestionAnswering, seed=seed) for seed in range(3)]
    assert call(main, *folders, "--out", tmp_path / "mean").out == f"the mean of 3 checkpoints: {tmp_path / 'mean'}\n"
    mean, *models = (load_pretrained(folder, "question-answering") for folder in (tmp_path / "mean", *folders))
    for name, parameter in mean.named_parameters():
        expected = torch.stack([model.get_parameter(name) for model in models]).mean(0)
        torch.testing.assert_close(parameter.data, expected)
    assert files_under(tmp_path / "mean") == files_under(folders[0])


def test_what_cannot_be_averaged_is_refused(tmp_path):
    one, wide = write_checkpoint(tmp_path / "one"), write_checkpoint(tmp_path / "wide", width=64)
    assert "one checkpoint is its own mean" in call(main, one, "--out", tmp_path / "mean").refusal()
    message = call(main, one, wide, "--out", tmp_path / "mean").refusal()
    assert message == f"error: {wide}: not the model that {one} is; average runs of one model"
    assert "there is a checkpoint in it" in call(main, one, one, "--out", one).refusal()
    assert not (tmp_path / "mean").exists()
