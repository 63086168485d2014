import pytest
import torch

from minitransformer.packing import Packing


def test_packing_describes_a_batch():
    packing = Packing.of(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    assert packing.lengths == [3, 5]
    assert packing.cumulative.tolist() == [0, 3, 8]
    assert packing.rows.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("keep", [[[1, 0], [1, 1]], [[1]], [[0, 1, 1], [1, 0, 1]], [[0, 0], [0, 1]]], ids=str)
def test_unpack_undoes_pack(keep):
    keep = torch.tensor(keep).bool()
    x = torch.randn(*keep.shape, 3)
    packing = Packing.of(keep)
    assert torch.equal(packing.pack(x), x[keep])
    assert torch.equal(packing.unpack(packing.pack(x)), x * keep[..., None])
    assert (packing.unpack(packing.pack(x), fill=-7.0)[~keep] == -7).all()


def test_pack_and_unpack_pass_gradients_to_real_tokens_only():
    keep = torch.tensor([[True, False], [True, True]])
    x = torch.randn(2, 2, 3, requires_grad=True)
    packing = Packing.of(keep)
    packing.unpack(packing.pack(x)).sum().backward()
    assert torch.equal(x.grad, keep[..., None].expand_as(x).float())
