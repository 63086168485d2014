"""ELECTRA against transformers': forward and gradients, every part, with and without a projection."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from minitransformer.electra import Electra, ElectraConfig
from minitransformer.system.errors import WeightsError
from tiny import (
    VOCABULARY,
    change_tensors,
    examples,
    learn_to_answer,
    printed_rows,
    same_after_saving,
    same_with_explicit_attention,
    train_both,
    write_theirs,
    write_vocabulary,
)
from weights import load_pretrained
from weights.compare import compare, compare_models, first_difference, random_inputs

SMALL = {
    "vocab_size": 99,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
CONFIGURATIONS = {
    "narrow embeddings": {},
    "embeddings as wide as the model": {"embedding_size": 32},
    "embeddings wider than the model": {"embedding_size": 48},
    "relu, large epsilon": {"hidden_act": "relu", "layer_norm_eps": 1e-3},  # and gelu in the generator's head
    "pad id 1, one segment": {"pad_token_id": 1, "type_vocab_size": 1},
}
TASKS = {
    "encoder": transformers.ElectraModel,
    "question-answering": transformers.ElectraForQuestionAnswering,
    "masked-lm": transformers.ElectraForMaskedLM,
}


def hf_folder(folder, task="question-answering", **settings):
    torch.manual_seed(0)
    return write_theirs(folder, TASKS[task](transformers.ElectraConfig(**SMALL | settings)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_electra_matches_hf(tmp_path, task, settings):
    parts = compare(hf_folder(tmp_path, task, **settings), task)
    assert first_difference(parts) is None
    projection = (SMALL | settings)["embedding_size"] != 32
    assert len(parts) == 4 + projection + 8 * 3 + {"encoder": 0, "question-answering": 1, "masked-lm": 2}[task]
    assert any(part.gradient > 0 or part.output > 0 for part in parts), "too equal to be two computations"


def test_electra_matches_hf_without_mask_and_with_padding_at_the_left(tmp_path):
    folder = hf_folder(tmp_path)
    inputs = random_inputs(load_pretrained(folder, "encoder").config)
    assert first_difference(compare(folder, "question-answering", {"input_ids": inputs["input_ids"]})) is None
    flipped = {name: tensor.flip(1) for name, tensor in inputs.items()}
    assert first_difference(compare(folder, "question-answering", flipped)) is None


def test_twenty_training_steps_match_hf(tmp_path):
    folder = hf_folder(tmp_path, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ours = load_pretrained(folder, "question-answering")
    assert len(set(train_both(ours, transformers.ElectraForQuestionAnswering.from_pretrained(folder)))) == 20


@pytest.mark.parametrize("task", TASKS)
def test_electra_matches_hf_in_training_with_the_same_dropout(tmp_path, task):
    """As BERT's test of that name."""
    folder = hf_folder(tmp_path, task, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    ours, theirs = load_pretrained(folder, task).double(), TASKS[task].from_pretrained(folder).double()
    if task == "question-answering":
        ours.dropout.p = 0.0  # HF's reader has none before its classifier
    assert first_difference(compare_models(ours, theirs, random_inputs(ours.config), training=True)) is None


def test_explicit_attention_matches_fast_attention(tmp_path):
    same_with_explicit_attention(load_pretrained(hf_folder(tmp_path), "encoder"))


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({}, 14),
        ({"embedding_width": 768, "width": 768, "heads": 12, "ffn_width": 3072}, 110),
    ],
    ids=["small", "base"],
)
def test_parameter_counts_are_the_papers(sizes, millions):
    """Table 1: 14M and 110M."""
    with torch.device("meta"):
        model = Electra(ElectraConfig(**sizes))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.04)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("width", [16, 32])
def test_hf_loads_what_we_save(tmp_path, task, width):
    folder = hf_folder(tmp_path / "theirs", task, embedding_size=width)
    same_after_saving(folder, TASKS[task], task, tmp_path / "ours")
    written = load_file(tmp_path / "ours/model.safetensors")
    assert ("electra.embeddings_project.weight" in written) == (width == 16)


def test_a_projection_that_config_json_does_not_ask_for_is_refused(tmp_path):
    folder = hf_folder(tmp_path, embedding_size=32)
    change_tensors(folder, lambda tensors: tensors | {"electra.embeddings_project.bias": torch.zeros(32)})
    with pytest.raises(WeightsError, match=r"unexpected tensor electra\.embeddings_project\.bias"):
        load_pretrained(folder, "encoder")


def test_the_discriminators_head_is_dropped_by_name(tmp_path):
    torch.manual_seed(0)
    theirs = transformers.ElectraForPreTraining(transformers.ElectraConfig(**SMALL))
    folder = write_theirs(tmp_path, theirs)
    assert any(name.startswith("discriminator_predictions.") for name in load_file(folder / "model.safetensors"))
    assert first_difference(compare(folder, "encoder")) is None
    load_pretrained(folder, "question-answering")  # a fresh head
    with pytest.raises(WeightsError, match=r"tensors are missing, 5 in all, first generator_lm_head\.bias"):
        load_pretrained(folder, "masked-lm")


def test_a_classifier_of_texts_becomes_a_reader(tmp_path):
    torch.manual_seed(0)
    theirs = transformers.ElectraForSequenceClassification(transformers.ElectraConfig(**SMALL))
    folder = write_theirs(tmp_path, theirs)
    assert first_difference(compare(folder, "encoder")) is None
    load_pretrained(folder, "question-answering")


def test_what_old_files_carry_besides_is_dropped_by_name(tmp_path):
    folder = hf_folder(tmp_path, "masked-lm")
    besides = {"electra.embeddings.position_ids": torch.arange(40)[None]}
    table = "electra.embeddings.word_embeddings.weight"
    change_tensors(folder, lambda tensors: tensors | besides | {"generator_lm_head.weight": tensors[table].clone()})
    for task in ("encoder", "masked-lm"):
        assert first_difference(compare(folder, task)) is None
    change_tensors(folder, lambda tensors: tensors | {"generator_lm_head.weight": torch.zeros(99, 16)})
    with pytest.raises(WeightsError, match=r"generator_lm_head\.weight differs from"):
        load_pretrained(folder, "masked-lm")


def test_compare_prints_the_layers_of_a_random_folder(tmp_path):
    rows = printed_rows(hf_folder(tmp_path, "masked-lm"))
    assert rows == ["embeddings", "widen", "layers.0", "layers.1", "layers.2", "head"]


def test_a_fresh_head_learns_to_answer(tmp_path):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder = hf_folder(tmp_path / "from", "masked-lm", vocab_size=len(VOCABULARY), max_position_embeddings=128, **rates)
    write_vocabulary(folder)
    answers = learn_to_answer(folder, tmp_path / "to")
    assert answers == {example.id: example.answers[0].text if example.answers else "" for example in examples()}
