"""Mixed precision and compiled layers, as far as a CPU can show them."""

import pytest
import torch

import tiny
from minitransformer import bert
from minitransformer.training import precision
from minitransformer.training.device import compile_layers
from minitransformer.training.precision import Precision
from weights.compare import random_inputs

CPU = torch.device("cpu")


def test_a_cpu_without_bfloat16_units_stays_in_float32_and_says_so(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    mixed = Precision("mixed", CPU)
    assert mixed.dtype == torch.float32
    assert mixed.remark == "this CPU has no bfloat16 units: the run stays in float32"
    assert Precision("float32", CPU).remark == ""


@pytest.mark.parametrize("units", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_with_them_matrix_products_are_bfloat16_and_losses_float32(monkeypatch, units):
    monkeypatch.setattr(torch.cpu, units, lambda: True, raising=False)
    mixed = Precision("mixed", CPU)
    model = tiny.random_model(bert.BertForQuestionAnswering)
    inputs = random_inputs(model.config)
    seen = []
    model.encoder.layers[0].ffn_up.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    exact, _ = model(**inputs)
    with mixed.autocast():
        rough, _ = model(**inputs)
    assert seen == [torch.float32, torch.bfloat16]
    assert rough.dtype == torch.float32
    keep = inputs["attention_mask"].bool()
    torch.testing.assert_close(rough[keep], exact[keep], rtol=0.1, atol=0.1)
    assert not torch.equal(rough, exact)


def test_a_step_clips_and_clears():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    exact = Precision("float32", CPU)
    exact.backward((weight * torch.tensor([3.0, 4.0])).sum())
    exact.step(optimizer, [weight], clip_norm=1.0)
    torch.testing.assert_close(weight.data, torch.tensor([-0.6, -0.8]))
    assert weight.grad is None
    exact.backward((weight * torch.tensor([3.0, 4.0])).sum())
    exact.step(optimizer, [weight], clip_norm=0.0)
    torch.testing.assert_close(weight.data, torch.tensor([-3.6, -4.8]))


def test_a_step_in_float16_scales_the_loss_and_unscales_before_it_clips(monkeypatch):
    """What a GPU without bfloat16 does; the scaler works on a CPU too."""
    monkeypatch.setattr(precision, "_sixteen_bits", lambda device: torch.float16)
    half = Precision("mixed", CPU)
    scale = half.scaler.get_scale()
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    half.backward((weight * torch.tensor([3.0, 4.0])).sum())
    assert weight.grad.tolist() == [3 * scale, 4 * scale]
    half.step(optimizer, [weight], clip_norm=2.5)
    torch.testing.assert_close(weight.data, torch.tensor([-1.5, -2.0]))
    assert half.scaler.get_scale() == scale

    half.backward((weight * torch.inf).sum())
    half.step(optimizer, [weight], clip_norm=2.5)
    torch.testing.assert_close(weight.data, torch.tensor([-1.5, -2.0]), msg="the step is left out")
    assert half.scaler.get_scale() == scale / 2


def test_tf32_is_what_the_flag_says():
    for wanted in (True, False):
        precision.Precision("float32", CPU, tf32=wanted)
        assert torch.backends.cuda.matmul.allow_tf32 is wanted


def test_compiled_layers_give_the_same_and_are_compiled_once_for_all_numbers_of_rows(monkeypatch):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **flags: compile_module(module, backend=backend, **flags)
    )
    torch.compiler.reset()
    model = tiny.random_model(bert.Bert)
    batches = [random_inputs(model.config, batch, length) for batch, length in ((3, 24), (2, 30), (4, 17), (1, 9))]
    expected = [model(**batch) for batch in batches]
    compile_layers(model)
    torch.testing.assert_close(model(**batches[0]), expected[0])
    model(**batches[1])
    count = len(compiled)
    assert count > 0
    for batch, result in zip(batches, expected, strict=True):
        torch.testing.assert_close(model(**batch), result)
    assert len(compiled) == count, "a new number of rows must not compile anew"
