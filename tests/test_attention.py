"""The fast path against the formula, and the formula against torch's own."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from minitransformer import attention as attention_file
from minitransformer.attention import (
    SelfAttention,
    attention,
    explicit_attention,
    fast_attention,
    has_flash_kernel,
    padded_attention,
)
from minitransformer.packing import Packing

H, D = 3, 8


def packed_inputs(lengths):
    torch.manual_seed(0)
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    packing = Packing.of(keep)
    return [torch.randn(sum(lengths), H, D, requires_grad=True) for _ in range(3)], packing


def test_attention_matches_torch():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, H, 7, D) for _ in range(3))
    keep = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])[:, None, None, :]
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=keep)
    torch.testing.assert_close(attention(query, key, value, keep), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("drop", [0.0, 1e-12], ids=["fused kernel", "training path"])
@pytest.mark.parametrize("lengths", [[6], [1], [5, 2, 9], [1, 1], [0, 4]], ids=str)
def test_fast_attention_equals_the_formula(lengths, drop):
    inputs, packing = packed_inputs(lengths)
    fast = fast_attention(*inputs, packing, drop)  # a dropout of 1e-12 takes the training path and drops nothing
    explicit = explicit_attention(*inputs, packing, 0.0)
    torch.testing.assert_close(fast, explicit, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(fast)
    for ours, expected in zip(
        torch.autograd.grad(fast, inputs, weight), torch.autograd.grad(explicit, inputs, weight), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[6], [1], [5, 2, 9], [1, 1]], ids=str)
def test_padded_attention_equals_the_formula(lengths):
    inputs, packing = packed_inputs(lengths)
    padded, explicit = (attend(*inputs, packing, 0.0) for attend in (padded_attention, explicit_attention))
    torch.testing.assert_close(padded, explicit, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(padded)
    for ours, expected in zip(
        torch.autograd.grad(padded, inputs, weight), torch.autograd.grad(explicit, inputs, weight), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the flash kernel for packed rows needs a GPU")


def on_the_gpu(lengths):
    inputs, packing = packed_inputs(lengths)
    inputs = [part.detach().cuda().bfloat16().requires_grad_() for part in inputs]
    return inputs, Packing(*(part.cuda() for part in packing))


@on_gpu
def test_packed_flash_attention_equals_the_formula():
    inputs, packing = on_the_gpu([60, 3, 0, 31])
    fast = fast_attention(*inputs, packing, 0.0)
    exact = explicit_attention(*(part.float() for part in inputs), packing, 0.0)
    torch.testing.assert_close(fast.float(), exact, rtol=2e-2, atol=2e-2)
    weight = torch.randn_like(exact)
    for ours, expected in zip(
        torch.autograd.grad(fast, inputs, weight.bfloat16()), torch.autograd.grad(exact, inputs, weight), strict=True
    ):
        torch.testing.assert_close(ours.float(), expected.float(), rtol=5e-2, atol=5e-2)


@on_gpu
def test_packed_flash_attention_drops_weights_and_scales_the_others():
    (query, key, value), packing = on_the_gpu([60, 3, 31])
    mixed = fast_attention(query, key, torch.ones_like(value), packing, 0.5).float()
    torch.testing.assert_close(mixed, mixed[..., :1].expand_as(mixed))
    assert mixed.std() > 0.05
    exact = fast_attention(query, key, value, packing, 0.0).float()
    mean = torch.stack([fast_attention(query, key, value, packing, 0.5).float() for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("gpu", "dtype", "size", "fits"),
    [
        ((8, 0), torch.bfloat16, 64, True),
        ((9, 0), torch.float16, 256, True),
        ((7, 5), torch.float16, 64, False),  # Turing: no bfloat16, so float16 is what it is asked for
        ((8, 0), torch.float32, 64, False),
        ((9, 0), torch.bfloat16, 12, False),
        ((9, 0), torch.bfloat16, 264, False),
    ],
)
def test_the_flash_kernel_is_used_where_it_exists(monkeypatch, gpu, dtype, size, fits):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu)
    assert has_flash_kernel(torch.empty(5, 2, size, dtype=dtype)) == fits


@pytest.mark.parametrize(("fits", "taken"), [(True, "flash"), (False, "padded")])
def test_packed_rows_on_a_gpu_go_to_the_flash_kernel_where_it_takes_them(monkeypatch, fits, taken):
    monkeypatch.setattr(attention_file, "has_flash_kernel", lambda query: fits)
    monkeypatch.setattr(attention_file, "flash_attention", lambda *given: "flash")
    monkeypatch.setattr(attention_file, "padded_attention", lambda *given: "padded")
    on_a_gpu = SimpleNamespace(is_cuda=True)
    assert fast_attention(on_a_gpu, None, None, Packing.of(torch.ones(1, 3)), 0.1) == taken


@pytest.mark.parametrize("attend", [explicit_attention, fast_attention, padded_attention])
def test_attention_drops_weights_not_values(attend):
    inputs, packing = packed_inputs([40, 30])
    ones = torch.ones_like(inputs[2])
    mixed = attend(inputs[0], inputs[1], ones, packing, 0.5)
    # With values of 1 the result is the sum of the weights left, the same in all D dimensions, 1 on average.
    torch.testing.assert_close(mixed, mixed[..., :1].expand_as(mixed))
    assert mixed.std() > 0.05
    assert abs(mixed.mean().item() - 1) < 0.1


def test_images_lose_attention_weights_in_training_alone():
    torch.manual_seed(0)
    layer = SelfAttention(8, 2, dropout=0.5)
    images = torch.randn(2, 10, 8)
    exact = layer.eval()(images)
    assert torch.equal(layer(images), exact)
    assert not torch.allclose(layer.train()(images), exact)
