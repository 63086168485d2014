"""RoBERTa, XLM-RoBERTa and CamemBERT against transformers': forward and gradients, every part."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from minitransformer.roberta import (
    Roberta,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForQuestionAnswering,
    count_positions,
)
from minitransformer.system.errors import WeightsError
from qa import documents
from tiny import (
    change_tensors,
    examples,
    learn_to_answer,
    printed_rows,
    rewrite_json,
    same_after_saving,
    same_with_explicit_attention,
    train_both,
    write_byte_pairs,
    write_theirs,
)
from weights import load_pretrained, load_tokenizer
from weights.compare import compare, compare_models, first_difference, random_inputs

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 42,
    "type_vocab_size": 1,
}
CONFIGURATIONS = {
    "as the public ones": {},
    "relu, large epsilon": {"hidden_act": "relu", "layer_norm_eps": 1e-3},  # and gelu in the masked-LM head
    "pad id 7, two segments": {"pad_token_id": 7, "type_vocab_size": 2},
    "pad id 0, wide weights": {"pad_token_id": 0, "initializer_range": 0.3},
}
FAMILIES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}  # transformers' class names
TASKS = {"encoder": "Model", "question-answering": "ForQuestionAnswering", "masked-lm": "ForMaskedLM"}


def theirs_of(task, family="roberta"):
    """transformers' class."""
    return getattr(transformers, FAMILIES[family] + TASKS[task])


def hf_folder(folder, task="question-answering", family="roberta", **settings):
    torch.manual_seed(0)
    config = getattr(transformers, FAMILIES[family] + "Config")
    return write_theirs(folder, theirs_of(task, family)(config(**SMALL | settings)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_roberta_matches_hf(tmp_path, task, settings):
    parts = compare(hf_folder(tmp_path, task, **settings), task)
    assert first_difference(parts) is None
    assert len(parts) == 4 + 8 * 3 + {"encoder": 0, "question-answering": 1, "masked-lm": 2}[task]
    assert any(part.gradient > 0 or part.output > 0 for part in parts), "too equal to be two computations"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_matches_hf_and_is_saved_under_its_own_name(tmp_path, task, family):
    folder = hf_folder(tmp_path / "theirs", task, family)
    assert first_difference(compare(folder, task)) is None

    same_after_saving(folder, theirs_of(task, family), task, tmp_path / "ours")
    settings = json.loads((tmp_path / "ours/config.json").read_text(encoding="utf-8"))
    assert (settings["model_type"], settings["max_position_embeddings"]) == (family, 42)


def test_positions_are_counted_from_pad_plus_one_over_real_tokens():
    ids = torch.tensor([[0, 7, 8, 2, 1], [1, 1, 0, 9, 2], [0, 5, 1, 5, 2], [1, 1, 1, 1, 1]])
    assert count_positions(ids, pad_id=1).tolist() == [
        [2, 3, 4, 5, 1],
        [1, 1, 2, 3, 4],  # padding at the left moves nothing
        [2, 3, 1, 4, 5],  # nor does padding within
        [1, 1, 1, 1, 1],
    ]
    assert count_positions(ids, pad_id=5).tolist()[2] == [6, 5, 7, 5, 8]


def test_roberta_reads_the_same_wherever_padding_stands(tmp_path):
    model = load_pretrained(hf_folder(tmp_path), "encoder")
    inputs = random_inputs(model.config)
    ids = inputs["input_ids"].masked_fill((inputs["input_ids"] == 1) & inputs["attention_mask"].bool(), 5)
    mask = inputs["attention_mask"]
    right = model(ids, attention_mask=mask)[mask.bool()]
    moved = torch.stack([row.roll(24 - int(keep.sum())) for row, keep in zip(ids, mask, strict=True)])
    left = model(moved, attention_mask=mask.flip(1))[mask.flip(1).bool()]
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)
    both = {"input_ids": moved, "attention_mask": mask.flip(1)}
    assert first_difference(compare(tmp_path, "question-answering", both)) is None


def test_roberta_matches_hf_where_the_mask_and_the_padding_token_differ(tmp_path):
    """Positions go by the token, attention by the mask, as in transformers."""
    folder = hf_folder(tmp_path)
    inputs = random_inputs(load_pretrained(folder, "encoder").config)
    inputs["input_ids"][:, 2] = 1  # padding that the mask takes for a token
    inputs["input_ids"][1:, 20:] = 9  # and tokens that the mask hides
    assert first_difference(compare(folder, "question-answering", inputs)) is None


def test_roberta_matches_hf_without_mask_and_segments(tmp_path):
    folder = hf_folder(tmp_path, type_vocab_size=2)
    ids = random_inputs(load_pretrained(folder, "encoder").config)["input_ids"]
    assert first_difference(compare(folder, "question-answering", {"input_ids": ids})) is None


def test_twenty_training_steps_match_hf(tmp_path):
    folder = hf_folder(tmp_path, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ours = load_pretrained(folder, "question-answering")
    theirs = theirs_of("question-answering").from_pretrained(folder)
    assert len(set(train_both(ours, theirs))) == 20
    unused = slice(0, 2)  # of the position table, rows of padding and below: nothing but weight decay reaches them
    before = load_file(folder / "model.safetensors")["roberta.embeddings.position_embeddings.weight"][unused]
    torch.testing.assert_close(ours.encoder.embeddings.position.weight[unused], before * (1 - 1e-3 * 0.1) ** 20)


@pytest.mark.parametrize("task", TASKS)
def test_roberta_matches_hf_in_training_with_the_same_dropout(tmp_path, task):
    """As BERT's test of that name."""
    folder = hf_folder(tmp_path, task, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    ours, theirs = load_pretrained(folder, task).double(), theirs_of(task).from_pretrained(folder).double()
    if task == "question-answering":
        ours.dropout.p = 0.0  # HF's reader has none before its classifier
    assert first_difference(compare_models(ours, theirs, random_inputs(ours.config), training=True)) is None


def test_explicit_attention_matches_fast_attention(tmp_path):
    same_with_explicit_attention(load_pretrained(hf_folder(tmp_path), "encoder"))


# ------------------------------------------------------------------------------------------- configuration


def test_roberta_base_reads_512_tokens_and_has_125_million_parameters():
    config = RobertaConfig(position_rows=514, segments=1, norm_eps=1e-5)
    assert config.positions == 512
    with torch.device("meta"):
        model = Roberta(config)
    pooler = config.width**2 + config.width  # HF's count has it
    assert sum(parameter.numel() for parameter in model.parameters()) + pooler == 124_645_632
    with pytest.raises(ValueError, match="513 tokens, but the model has 512 positions"):
        model(torch.zeros(1, 513, dtype=torch.long, device="meta"))


def test_the_longest_text_has_the_last_row_of_the_table(tmp_path):
    model = load_pretrained(hf_folder(tmp_path), "encoder")
    assert model.config.positions == 40
    inputs = {"input_ids": torch.full((2, 40), 5)}
    assert count_positions(inputs["input_ids"], 1)[0, -1] == 41
    assert first_difference(compare(tmp_path, "question-answering", inputs)) is None


@pytest.mark.parametrize("rows", [1, 2])
def test_a_table_without_a_position_is_refused(tmp_path, rows):
    rewrite_json(hf_folder(tmp_path) / "config.json", max_position_embeddings=rows)
    with pytest.raises(WeightsError, match=rf"max_position_embeddings {rows} leaves no position above pad_token_id 1"):
        load_pretrained(tmp_path, "encoder")


def test_config_silence_means_what_hf_means_by_it(tmp_path):
    folder = hf_folder(tmp_path)
    rewrite_json(folder / "config.json", type_vocab_size=..., layer_norm_eps=..., pad_token_id=..., hidden_act=...)
    name = "roberta.embeddings.token_type_embeddings.weight"  # which has two rows by default
    change_tensors(folder, lambda tensors: tensors | {name: torch.cat([tensors[name], torch.ones(1, 32)])})
    assert first_difference(compare(folder, "question-answering")) is None


# --------------------------------------------------------------------------------------------------- files


def test_what_old_files_carry_besides_is_dropped_by_name(tmp_path):
    folder = hf_folder(tmp_path, "masked-lm")
    table, bias = "roberta.embeddings.word_embeddings.weight", "lm_head.bias"
    besides = {
        "roberta.embeddings.position_ids": torch.arange(42)[None],
        "roberta.pooler.dense.weight": torch.zeros(32, 32),
        "roberta.pooler.dense.bias": torch.zeros(32),
    }
    change_tensors(
        folder,
        lambda tensors: (
            tensors
            | besides
            | {"lm_head.decoder.weight": tensors[table].clone(), "lm_head.decoder.bias": tensors[bias].clone()}
        ),
    )
    for task in ("encoder", "masked-lm"):
        assert first_difference(compare(folder, task)) is None
    load_pretrained(folder, "question-answering")  # a fresh head


def test_a_classifier_of_texts_becomes_a_reader(tmp_path):
    torch.manual_seed(0)
    theirs = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**SMALL))
    folder = write_theirs(tmp_path, theirs)
    assert first_difference(compare(folder, "encoder")) is None
    assert isinstance(load_pretrained(folder, "question-answering"), RobertaForQuestionAnswering)
    with pytest.raises(WeightsError, match=r"tensors are missing, 5 in all, first lm_head\.bias"):
        load_pretrained(folder, "masked-lm")


@pytest.mark.parametrize("name", ["lm_head.decoder.weight", "lm_head.decoder.bias"])
def test_a_decoder_that_is_not_tied_is_refused(tmp_path, name):
    folder = hf_folder(tmp_path, "masked-lm")
    shape = (99, 32) if name.endswith("weight") else (99,)
    change_tensors(folder, lambda tensors: tensors | {name: torch.zeros(shape)})
    with pytest.raises(WeightsError, match=f"{name} differs from"):
        load_pretrained(folder, "masked-lm")


def test_a_bert_under_the_name_of_roberta_is_refused(tmp_path):
    torch.manual_seed(0)
    folder = write_theirs(tmp_path, transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)))
    rewrite_json(folder / "config.json", model_type="roberta")
    with pytest.raises(WeightsError, match="tensors are missing"):
        load_pretrained(folder, "encoder")


@pytest.mark.parametrize("family", FAMILIES)
def test_compare_prints_the_layers_of_a_random_folder(tmp_path, family):
    rows = printed_rows(hf_folder(tmp_path, "masked-lm", family))
    assert rows == ["embeddings", "layers.0", "layers.1", "layers.2", "head"]


# --------------------------------------------------------------------------------------------------- texts


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    """A random RoBERTa with a tokenizer of its own, in the files of the public checkpoints."""
    folder = tmp_path_factory.mktemp("roberta")
    texts = [f"{example.context} {example.question}" for example in examples()]
    write_byte_pairs(folder, texts)
    vocabulary = len(load_tokenizer(folder).get_vocab())
    settings = {"vocab_size": vocabulary, "num_hidden_layers": 2, "max_position_embeddings": 130}
    return hf_folder(folder, "masked-lm", **settings, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def test_a_fresh_head_learns_to_answer(tmp_path, text_folder):
    answers = learn_to_answer(text_folder, tmp_path)
    assert answers == {example.id: example.answers[0].text if example.answers else "" for example in examples()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == 128
    assert "token_type_ids" not in tokenizer("a", "b")


def test_documents_are_cut_between_the_separators(text_folder):
    tokenizer = load_tokenizer(text_folder)
    asked, read = "پایتخت", "شهر شهر شهر شهر"
    whole = tokenizer.encode(asked, read)
    head = [token for token, text in zip(whole.tokens, whole.sequence_ids, strict=True) if text != 1][:-1]
    assert head[0] == "<s>"
    assert head[-2:] == ["</s>", "</s>"]
    pieces = documents.cut([(asked, read)], tokenizer, max_length=len(head) + 3)
    tokens = [[tokenizer.id_to_token(number) for number in piece.input_ids] for piece in pieces]
    assert all(row[: len(head)] == head and row[-1] == "</s>" for row in tokens)
    body = [token for row in tokens for token in row[len(head) : -1]]
    assert body == [token for token, text in zip(whole.tokens, whole.sequence_ids, strict=True) if text == 1]
    assert len(pieces) > 1
    assert all(piece.token_type_ids.count_nonzero() == 0 for piece in pieces)
    assert all((piece.words[[0, len(head) - 2, len(head) - 1, -1]] == -1).all() for piece in pieces)


def test_masked_lm_gives_logits_where_asked(text_folder):
    model = load_pretrained(text_folder, "masked-lm")
    assert isinstance(model, RobertaForMaskedLM)
    inputs = random_inputs(model.config)
    wanted = inputs["attention_mask"].bool() & (torch.arange(24) % 3 == 0)
    torch.testing.assert_close(model(**inputs, positions=wanted), model(**inputs)[wanted])
