from pathlib import Path

import pytest
import torch
import transformers

from minitransformer.bert import BertConfig, BertForQuestionAnswering
from minitransformer.system.errors import RunError
from minitransformer.training.optim import check_loss, cosine_rate, linear_rate, parameter_groups, step_rate


def test_step_rate_matches_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    for epoch in range(3):
        for batch in range(4):
            assert step_rate(epoch * 4 + batch, 4, 0.1) == pytest.approx(optimizer.param_groups[0]["lr"])
            optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_linear_rate_matches_hf(warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, warmup, 30)
    for step in range(30):
        assert linear_rate(step, warmup, 30) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_cosine_rate_matches_hf(warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = transformers.get_cosine_schedule_with_warmup(optimizer, warmup, 30)
    for step in range(30):
        assert cosine_rate(step, warmup, 30) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_parameter_groups_hold_every_parameter_once():
    model = BertForQuestionAnswering(BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=20))
    for decay_all in (False, True):
        groups = parameter_groups(model, 0.1, decay_all)
        inside = [parameter for group in groups for parameter in group["params"]]
        assert len(inside) == len({id(parameter) for parameter in inside}) == len(list(model.parameters()))
    spared = {id(parameter) for parameter in parameter_groups(model, 0.1, False)[1]["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in spared) == (name.endswith("bias") or "norm" in name), name


def test_the_spared_parameters_alone_do_not_decay():
    model = BertForQuestionAnswering(BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=20))
    assert [group["weight_decay"] for group in parameter_groups(model, 0.1, decay_all=False)] == [0.1, 0.0]
    assert [group["weight_decay"] for group in parameter_groups(model, 0.1, decay_all=True)] == [0.1]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_check_loss_names_step_and_checkpoint(loss):
    check_loss(1.5, 3, None)
    with pytest.raises(RunError, match=r"at step 7.*last good checkpoint: runs/x/checkpoints/step-0000005"):
        check_loss(loss, 7, Path("runs/x/checkpoints/step-0000005"))
