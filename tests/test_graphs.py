"""Steps as CUDA graphs compute what steps compute without them. On a GPU alone, but for the shapes they need."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from minitransformer.bert import BertConfig, BertForQuestionAnswering
from minitransformer.packing import Packing
from minitransformer.training.device import move
from minitransformer.training.graphs import Graphs
from qa.features import Batch, top_up
from qa.inference import span_loss

CONFIG = BertConfig(vocabulary=50, width=64, layers=2, heads=2, ffn_width=128, positions=64)
LENGTH = 48


def batch_of(lengths, seed=0):
    torch.manual_seed(seed)
    shape = len(lengths), max(lengths)
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Batch(
        input_ids=torch.randint(1, 50, shape) * keep,
        token_type_ids=torch.zeros(shape, dtype=torch.long),
        attention_mask=keep,
        context_mask=keep,
        start=torch.zeros(len(lengths), dtype=torch.long),
        end=torch.tensor(lengths) - 1,
    )


def model_of(dropout):
    torch.manual_seed(0)
    rates = {"dropout": dropout, "attention_dropout": dropout, "head_dropout": dropout}
    return BertForQuestionAnswering(BertConfig(**{**vars(CONFIG), **rates})).train()


def loss_of(model, batch, packing=None):
    start, end = model(batch.input_ids, batch.token_type_ids, packing or batch.attention_mask)
    return span_loss(start, end, batch.start, batch.end, reduction="sum")


@pytest.mark.parametrize("lengths", [[7], [40, 8], [48, 48], [5, 47, 31, 2]], ids=str)
def test_a_batch_that_is_topped_up_has_the_same_loss_and_gradients(lengths):
    model, batch = model_of(0.0), batch_of(lengths)
    fuller = top_up(batch, LENGTH, pad_id=0)
    assert fuller.input_ids.shape == (len(lengths) + 1, LENGTH)
    assert int(fuller.attention_mask.sum()) % LENGTH == 0  # 256, where texts may be that long
    losses, gradients = [], []
    for given in (batch, fuller):
        losses.append(loss_of(model, given, Packing.of(given.attention_mask)))
        gradients.append(torch.autograd.grad(losses[-1], list(model.parameters())))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    for topped, plain in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(topped, plain, rtol=1e-5, atol=1e-5)


def test_a_shape_is_computed_then_recorded_then_replayed_on_what_was_recorded(monkeypatch):
    """With a stand-in for the GPU: recording computes at once, and a replay counts."""
    replays = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: replays.append(1)))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: nullcontext())
    weight, given = nn.Parameter(torch.ones(3)), []

    def learn(size: int, packing: Packing, soft: None) -> torch.Tensor:
        given.append(packing.keep)
        loss = weight.sum() / size
        loss.backward()
        return loss.detach()

    graphs = Graphs(learn, [weight])
    batches = [Packing.of(torch.tensor([keep])) for keep in ([1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1])]
    for packing in batches:
        graphs(2, packing, None)
    assert (len(given), len(replays)) == (3, 2), "three have two rows, the fourth has three"
    assert torch.equal(given[0], batches[0].keep)
    assert torch.equal(given[1], batches[2].keep), "what was recorded reads what came last"
    assert given[1] is not batches[1].keep
    graphs(1, batches[0], None)
    assert len(given) == 4, "another size is another graph"
    assert weight.grad.data_ptr() == graphs.buffer.data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_run_in_graphs_has_the_losses_of_one_without(dropout):
    """Four batches of two shapes, again and again, two to a step: computed, recorded, replayed."""
    batches = [
        top_up(batch_of(lengths, seed), LENGTH, 0) for seed, lengths in enumerate(([40, 9], [30, 20], [9], [40]))
    ]
    device, runs = torch.device("cuda"), []
    for graphed in (False, True):
        model = model_of(dropout).to(device)
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

        def learn(size: int, batch: Batch, packing: Packing, model: nn.Module = model) -> torch.Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                loss = loss_of(model, batch, packing) / size
            loss.backward()
            return loss.detach()

        compute = Graphs(learn, parameters) if graphed else learn
        torch.manual_seed(1)
        losses = []
        for step in range(12):
            for batch in (batches[step % 4], batches[(step + 1) % 4]):
                packing = Packing.of(batch.attention_mask)
                losses.append(compute(3, move(batch, device), move(packing, device)).item())
            optimizer.step()
            optimizer.zero_grad()
        runs.append(losses)
        if graphed:
            assert len(compute.graphs) == len({batch.input_ids.shape for batch in batches}) == 2
            assert all(compute.graphs.values()), "each was recorded"
    assert runs[1] == pytest.approx(runs[0], rel=2e-3)  # the flash kernel adds in any order
    assert sum(runs[0][-4:]) < sum(runs[0][:4])
