"""Attention weights on request against transformers' output_attentions, which only its eager attention can give."""

import pytest
import torch
import transformers

import test_albert
import test_bert
import test_vit
from minitransformer.attention_weights import attention_weights
from weights import load_pretrained
from weights.compare import random_inputs
from weights.find import find_folder

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def hf_weights(kind, folder, **inputs) -> torch.Tensor:
    """(L, B, H, T, T)"""
    model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return torch.stack(model(**inputs, output_attentions=True).attentions)


def text_inputs(model) -> dict[str, torch.Tensor]:
    """Rows of several lengths, padded, whose second halves are text B."""
    inputs = random_inputs(model.config)
    keep = inputs["attention_mask"].bool()
    assert not keep.all(), "the test wants padding"
    assert inputs["token_type_ids"].max() == 1, "the test wants segments"
    return inputs


def assert_equal_where_tokens_are(ours: torch.Tensor, theirs: torch.Tensor, keep: torch.Tensor) -> None:
    """HF has padding look about, which nobody sees; ours has zeros there."""
    assert ours.shape == theirs.shape
    asks = keep.bool()[None, :, None, :, None]
    torch.testing.assert_close(ours, theirs * asks, **CLOSE)
    sums = ours.sum(-1)
    torch.testing.assert_close(sums, keep[None, :, None].expand_as(sums).to(sums), **CLOSE)
    assert not (ours * ~keep.bool()[None, :, None, None, :]).any(), "weight on padding"


@pytest.mark.parametrize("task", test_bert.TASKS)
def test_bert_attention_weights_match_hf(tmp_path, task):
    folder = test_bert.hf_folder(tmp_path, task, initializer_range=0.3)
    model = load_pretrained(folder, task)
    inputs = text_inputs(model)
    ours = attention_weights(model, inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
    assert_equal_where_tokens_are(ours, hf_weights(test_bert.TASKS[task], folder, **inputs), inputs["attention_mask"])


@pytest.mark.parametrize("settings", [{}, {"num_hidden_groups": 2, "inner_group_num": 3}], ids=["shared", "groups"])
def test_albert_attention_weights_match_hf(tmp_path, settings):
    folder = test_albert.hf_folder(tmp_path, "question-answering", initializer_range=0.3, **settings)
    model = load_pretrained(folder, "question-answering")
    inputs = text_inputs(model)
    ours = attention_weights(model, inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
    theirs = hf_weights(test_albert.TASKS["question-answering"], folder, **inputs)
    assert len(ours) == test_albert.SMALL["num_hidden_layers"] * settings.get("inner_group_num", 1)
    assert_equal_where_tokens_are(ours, theirs, inputs["attention_mask"])


@pytest.mark.parametrize("name", test_vit.CLASSIFIERS)
def test_vit_attention_weights_match_hf(tmp_path, name):
    folder = test_vit.hf_folder(tmp_path, name, initializer_range=0.2)
    pixels = torch.randn(2, 3, 32, 32)
    ours = attention_weights(load_pretrained(folder, "image-classification"), pixels)
    theirs = hf_weights(test_vit.CLASSIFIERS[name][0], folder, pixel_values=pixels)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    assert (ours - 1 / ours.size(-1)).abs().max() > 0.05, "too even to tell one map from another"


def test_attention_weights_match_hf_on_the_checkpoints_that_ship():
    model, folder = load_pretrained("demo-bert-fa", "encoder"), find_folder("demo-bert-fa")
    inputs = text_inputs(model)
    ours = attention_weights(model, inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
    assert_equal_where_tokens_are(ours, hf_weights(transformers.BertModel, folder, **inputs), inputs["attention_mask"])

    model, folder = load_pretrained("demo-deit", "encoder"), find_folder("demo-deit")
    pixels = random_inputs(model.config)["pixel_values"]
    theirs = hf_weights(transformers.DeiTModel, folder, pixel_values=pixels)
    torch.testing.assert_close(attention_weights(model, pixels), theirs, **CLOSE)


def test_asking_for_weights_leaves_the_model_as_it_was(tmp_path):
    model = load_pretrained(test_bert.hf_folder(tmp_path), "question-answering").train()
    inputs = text_inputs(model)
    order = inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"]
    first, again = attention_weights(model, *order), attention_weights(model, *order)
    assert torch.equal(first, again), "dropout must be off"
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())


def test_a_pass_that_fails_leaves_no_hook(tmp_path):
    model = load_pretrained(test_bert.hf_folder(tmp_path), "question-answering")
    with pytest.raises(ValueError, match="but the model has 40 positions"):
        attention_weights(model, torch.zeros(1, 41, dtype=torch.int64))
    assert not any(part._forward_hooks for part in model.modules())
