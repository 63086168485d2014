"""DistilBERT against transformers': forward and gradients, every part."""

import pytest
import torch
import transformers

from minitransformer.distilbert import DistilBert, DistilBertConfig
from minitransformer.system.errors import WeightsError
from tiny import (
    VOCABULARY,
    change_tensors,
    examples,
    learn_to_answer,
    printed_rows,
    rewrite_json,
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
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 40,
}
CONFIGURATIONS = {
    "as the public one": {},
    "relu, one head": {"activation": "relu", "n_heads": 1},
    "pad id 7, wide weights": {"pad_token_id": 7, "initializer_range": 0.3},
    "sine waves for positions": {"sinusoidal_pos_embds": True},
}
TASKS = {
    "encoder": transformers.DistilBertModel,
    "question-answering": transformers.DistilBertForQuestionAnswering,
    "masked-lm": transformers.DistilBertForMaskedLM,
}


def hf_folder(folder, task="question-answering", **settings):
    torch.manual_seed(0)
    return write_theirs(folder, TASKS[task](transformers.DistilBertConfig(**SMALL | settings)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_distilbert_matches_hf(tmp_path, task, settings):
    parts = compare(hf_folder(tmp_path, task, **settings), task)
    assert first_difference(parts) is None
    assert len(parts) == 3 + 8 * 3 + {"encoder": 0, "question-answering": 1, "masked-lm": 2}[task]
    assert any(part.gradient > 0 or part.output > 0 for part in parts), "too equal to be two computations"


def test_distilbert_matches_hf_without_mask_and_with_padding_at_the_left(tmp_path):
    folder = hf_folder(tmp_path)
    inputs = random_inputs(load_pretrained(folder, "encoder").config)
    assert first_difference(compare(folder, "question-answering", {"input_ids": inputs["input_ids"]})) is None
    flipped = {name: tensor.flip(1) for name, tensor in inputs.items()}
    assert first_difference(compare(folder, "question-answering", flipped)) is None


def test_segments_make_no_difference(tmp_path):
    model = load_pretrained(hf_folder(tmp_path), "encoder")
    inputs = random_inputs(model.config)
    assert "token_type_ids" not in inputs
    assert torch.equal(model(**inputs), model(token_type_ids=torch.ones_like(inputs["input_ids"]), **inputs))


def test_twenty_training_steps_match_hf(tmp_path):
    folder = hf_folder(tmp_path, dropout=0.0, attention_dropout=0.0, qa_dropout=0.0)
    ours, theirs = (load(folder) for load in (lambda it: load_pretrained(it, "question-answering"), HF_READER))
    assert len(set(train_both(ours, theirs))) == 20


HF_READER = transformers.DistilBertForQuestionAnswering.from_pretrained


@pytest.mark.parametrize("task", TASKS)
def test_distilbert_matches_hf_in_training_with_the_same_dropout(tmp_path, task):
    """As BERT's test of that name, but for the reader's head, which has a dropout in transformers too."""
    rates = {"dropout": 0.3, "attention_dropout": 0.2, "qa_dropout": 0.4}
    folder = hf_folder(tmp_path, task, **rates)
    ours, theirs = load_pretrained(folder, task).double(), TASKS[task].from_pretrained(folder).double()
    inputs = random_inputs(ours.config)
    assert first_difference(compare_models(ours, theirs, inputs, training=True)) is None
    with torch.no_grad():
        trained, exact = (ours.train(mode)(**inputs)[0] for mode in (True, False))
    assert (trained - exact).abs().max() > 1e-2, "nothing was dropped"


def test_explicit_attention_matches_fast_attention(tmp_path):
    same_with_explicit_attention(load_pretrained(hf_folder(tmp_path), "encoder"))


def test_the_public_distilbert_has_66_million_parameters():
    """66 million, says the paper's table 3; transformers counts as we do."""
    with torch.device("meta"):
        ours, theirs = DistilBert(DistilBertConfig()), transformers.DistilBertModel(transformers.DistilBertConfig())
    count = sum(parameter.numel() for parameter in ours.parameters())
    assert count == sum(parameter.numel() for parameter in theirs.parameters()) == 66_362_880


@pytest.mark.parametrize("task", TASKS)
def test_hf_loads_what_we_save(tmp_path, task):
    same_after_saving(hf_folder(tmp_path / "theirs", task), TASKS[task], task, tmp_path / "ours")


def test_the_config_is_read_by_distilberts_own_names(tmp_path):
    said = {"activation": "gelu_new", "dropout": 0.3, "attention_dropout": 0.2, "qa_dropout": 0.4, "pad_token_id": 7}
    folder = hf_folder(tmp_path, **said)
    expected = DistilBertConfig(
        99, 32, 3, 4, 48, "gelu_new", 0.3, 0.2, head_dropout=0.4, positions=40, norm_eps=1e-12, pad_id=7
    )
    assert load_pretrained(folder, "encoder").config == expected
    rewrite_json(folder / "config.json", qa_dropout=...)
    assert load_pretrained(folder, "encoder").config.head_dropout == 0.1, "HF's default, not that of the layers"
    rewrite_json(folder / "config.json", n_heads=5)
    with pytest.raises(WeightsError, match="dim 32 is not a multiple of n_heads 5"):
        load_pretrained(folder, "encoder")


def test_what_old_files_carry_besides_is_dropped_by_name(tmp_path):
    folder = hf_folder(tmp_path, "masked-lm")
    besides = {"distilbert.embeddings.position_ids": torch.arange(40)[None]}
    table = "distilbert.embeddings.word_embeddings.weight"
    change_tensors(folder, lambda tensors: tensors | besides | {"vocab_projector.weight": tensors[table].clone()})
    for task in ("encoder", "masked-lm"):
        assert first_difference(compare(folder, task)) is None
    load_pretrained(folder, "question-answering")  # a fresh head
    change_tensors(folder, lambda tensors: tensors | {"vocab_projector.weight": torch.zeros(99, 32)})
    with pytest.raises(WeightsError, match=r"vocab_projector\.weight differs from"):
        load_pretrained(folder, "masked-lm")


def test_a_classifier_of_texts_becomes_a_reader(tmp_path):
    torch.manual_seed(0)
    theirs = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**SMALL))
    folder = write_theirs(tmp_path, theirs)
    assert first_difference(compare(folder, "encoder")) is None
    load_pretrained(folder, "question-answering")


def test_compare_prints_the_layers_of_a_random_folder(tmp_path):
    rows = printed_rows(hf_folder(tmp_path, "masked-lm"))
    assert rows == ["embeddings", "layers.0", "layers.1", "layers.2", "head"]


def test_a_fresh_head_learns_to_answer(tmp_path):
    """With BERT's tokenizer, segments and all."""
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "qa_dropout": 0.0}
    folder = hf_folder(tmp_path / "from", "masked-lm", vocab_size=len(VOCABULARY), max_position_embeddings=128, **rates)
    write_vocabulary(folder)
    answers = learn_to_answer(folder, tmp_path / "to")
    assert answers == {example.id: example.answers[0].text if example.answers else "" for example in examples()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
    theirs = HF_READER(tmp_path / "to")
    theirs(**tokenizer("a", "b", return_tensors="pt"))  # which does not take segments
