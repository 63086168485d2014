"""ALBERT against transformers' ALBERT: forward and gradients, every part at every use, several configurations."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file

from minitransformer.albert import Albert, AlbertConfig, AlbertForQuestionAnswering
from minitransformer.bert import Bert, BertConfig
from minitransformer.system.errors import WeightsError
from tiny import (
    change_tensors,
    rewrite_json,
    same_after_saving,
    same_with_explicit_attention,
    train_both,
    write_theirs,
)
from weights import load_pretrained
from weights.compare import compare, compare_models, first_difference, random_inputs, table

SMALL = {
    "vocab_size": 99,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
CONFIGURATIONS = {
    "base": {},
    "two groups": {"num_hidden_groups": 2},
    "groups of unequal length": {"num_hidden_groups": 3, "num_hidden_layers": 5},
    "inner layers": {"inner_group_num": 2},
    "groups and inner layers": {"num_hidden_groups": 2, "inner_group_num": 3},
    "erf gelu, as BERT": {"hidden_act": "gelu"},
    "relu, large epsilon": {"hidden_act": "relu", "layer_norm_eps": 1e-3},
    "embedding wider than the model": {"embedding_size": 48},
    "pad id 1, one segment": {"pad_token_id": 1, "type_vocab_size": 1},
}
TASKS = {
    "encoder": transformers.AlbertModel,
    "question-answering": transformers.AlbertForQuestionAnswering,
    "masked-lm": transformers.AlbertForMaskedLM,
}
ENCODER_PARTS, LAYER_PARTS = 5, 8  # three tables, norm, projection; q, k, v, output, norm, up, down, norm
HEAD_PARTS = {"encoder": 0, "question-answering": 1, "masked-lm": 2}


def hf_folder(folder, task="question-answering", **settings):
    torch.manual_seed(0)
    return write_theirs(folder, TASKS[task](transformers.AlbertConfig(**(SMALL | settings))))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_albert_matches_hf(tmp_path, task, settings):
    parts = compare(hf_folder(tmp_path, task, **settings), task)
    assert first_difference(parts) is None
    sizes = SMALL | {"inner_group_num": 1} | settings
    uses = sizes["num_hidden_layers"] * sizes["inner_group_num"]
    assert len(parts) == ENCODER_PARTS + LAYER_PARTS * uses + HEAD_PARTS[task]
    assert any(part.gradient > 0 or part.output > 0 for part in parts), "too equal to be two computations"


def test_albert_matches_hf_without_mask_and_segments(tmp_path):
    folder = hf_folder(tmp_path)
    ids = random_inputs(load_pretrained(folder, "encoder").config)["input_ids"]
    assert first_difference(compare(folder, "question-answering", {"input_ids": ids})) is None


def test_explicit_attention_matches_fast_attention(tmp_path):
    same_with_explicit_attention(load_pretrained(hf_folder(tmp_path), "encoder"))


def test_twenty_training_steps_match_hf(tmp_path):
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "question-answering")
    ours.dropout.p = 0.0  # HF's ALBERT has none there
    assert len(set(train_both(ours, transformers.AlbertForQuestionAnswering.from_pretrained(folder)))) == 20


def apply_every_dropout(layer):
    """The one after the feed-forward part too, which transformers' ALBERT has but leaves out."""
    feed_forward = layer.ff_chunk
    layer.ff_chunk = lambda x: layer.dropout(feed_forward(x))


@pytest.mark.parametrize("task", TASKS)
def test_albert_matches_hf_in_training_with_the_same_dropout(tmp_path, task):
    """As BERT's test of that name."""
    folder = hf_folder(tmp_path, task, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    ours, theirs = load_pretrained(folder, task).double(), TASKS[task].from_pretrained(folder).double()
    for module in theirs.modules():
        if isinstance(module, transformers.models.albert.modeling_albert.AlbertLayer):
            apply_every_dropout(module)
    if task == "question-answering":
        ours.dropout.p = 0.0  # HF's ALBERT has none there
    inputs = random_inputs(ours.config)
    assert first_difference(compare_models(ours, theirs, inputs, training=True)) is None
    with torch.no_grad():
        trained, exact = (ours.train(mode)(**inputs)[0] for mode in (True, False))
    assert (trained - exact).abs().max() > 1e-2, "nothing was dropped"


def test_a_shared_layer_gathers_the_gradients_of_all_its_uses():
    """The sum of what twelve layers of their own would get, each at its place."""
    config = AlbertConfig(
        vocabulary=30, embedding_width=8, width=16, layers=12, heads=2, ffn_width=24, positions=20, head_dropout=0.0
    )
    torch.manual_seed(0)
    shared = Albert(config).eval()
    ids = torch.randint(30, (2, 9))
    shared(ids).square().mean().backward()

    apart = Albert(AlbertConfig(**vars(config) | {"groups": 12})).eval()
    for name in ("embeddings", "widen"):
        getattr(apart, name).load_state_dict(getattr(shared, name).state_dict())
    for group in apart.groups:
        group.load_state_dict(shared.groups[0].state_dict())
    apart(ids).square().mean().backward()
    for name, parameter in shared.groups[0].named_parameters():
        total = sum(group.get_parameter(name).grad for group in apart.groups)
        torch.testing.assert_close(parameter.grad, total, rtol=1e-5, atol=1e-7, msg=name)
        assert apart.groups[0].get_parameter(name).grad.abs().max() < total.abs().max() or "key.bias" in name


def test_compare_names_the_use_that_differs_first(tmp_path):
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "question-answering")
    theirs = transformers.AlbertForQuestionAnswering.from_pretrained(folder)
    layer, uses = ours.encoder.groups[0][0], []
    # From its third use on, the layer adds something that it should not.
    layer.ffn_down.register_forward_hook(
        lambda module, inputs, output: uses.append(1) or output + (len(uses) > 2) * 0.1
    )
    parts = compare_models(ours, theirs, random_inputs(ours.config))
    assert first_difference(parts).startswith("first to differ: encoder.groups.0.0.ffn_down in use 3, output")
    rows = {line[:19].strip(): line.split()[-1] for line in table(parts).splitlines()[1:]}
    assert rows["groups.0.0, use 2"] == "equal"
    assert rows["groups.0.0, use 3"] == rows["groups.0.0, use 4"] == "DIFFERS"


def test_albert_base_has_twelve_million_parameters_and_berts_work():
    """Table 1 of the paper: 12M, where BERT-base has 108M."""
    with torch.device("meta"):
        albert = Albert(AlbertConfig(width=768, heads=12, ffn_width=3072))
        bert = Bert(BertConfig())
    assert round(sum(p.numel() for p in albert.parameters()) / 1e6) == 11  # 12 with the pooler
    assert sum(p.numel() for p in albert.groups.parameters()) * 12 == sum(p.numel() for p in bert.layers.parameters())


@pytest.mark.parametrize("task", TASKS)
def test_hf_loads_what_we_save(tmp_path, task):
    folder = hf_folder(tmp_path / "theirs", task, num_hidden_groups=2, inner_group_num=2)
    same_after_saving(folder, TASKS[task], task, tmp_path / "ours")


def test_dropouts_are_those_of_the_configuration(tmp_path):
    model = load_pretrained(hf_folder(tmp_path, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2), "encoder")
    layer = model.groups[0][0]
    assert (layer.dropout.p, layer.attention.dropout, model.embeddings.dropout.p) == (0.3, 0.2, 0.3)
    model = load_pretrained(hf_folder(tmp_path / "second"), "encoder").train()
    inputs = random_inputs(model.config)
    assert torch.equal(model(**inputs), model(**inputs)), "ALBERT's second version has no dropout"


def pretraining_folder(folder):
    """What the public checkpoints hold: pooler, masked-LM head with its tied table, sentence-order head."""
    torch.manual_seed(0)
    transformers.AlbertForPreTraining(transformers.AlbertConfig(**SMALL)).save_pretrained(folder)
    return folder


def test_pooler_and_sentence_order_head_are_dropped_by_name(tmp_path):
    folder = pretraining_folder(tmp_path)
    assert any(name.startswith("sop_classifier.") for name in load_file(folder / "model.safetensors"))
    for task in ("encoder", "masked-lm"):
        assert first_difference(compare(folder, task)) is None
    load_pretrained(folder, "question-answering")  # a fresh head


def test_an_unknown_head_is_refused(tmp_path):
    folder = pretraining_folder(tmp_path)
    change_tensors(folder, lambda tensors: tensors | {"ranker.weight": torch.zeros(2, 32)})
    with pytest.raises(WeightsError, match=r"unexpected tensor ranker\.weight"):
        load_pretrained(folder, "encoder")


@pytest.mark.parametrize("task", ["encoder", "question-answering"])
def test_a_sentence_classifier_lends_its_encoder(tmp_path, task):
    torch.manual_seed(0)
    theirs = transformers.AlbertForSequenceClassification(transformers.AlbertConfig(**SMALL))
    theirs.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path, task)
    encoder = ours if task == "encoder" else ours.encoder
    torch.testing.assert_close(encoder.widen.weight, theirs.albert.encoder.embedding_hidden_mapping_in.weight)


def test_a_table_that_is_not_tied_is_refused(tmp_path):
    folder = pretraining_folder(tmp_path)
    change_tensors(folder, lambda tensors: tensors | {"predictions.decoder.weight": torch.zeros(99, 16)})
    with pytest.raises(WeightsError, match=r"predictions\.decoder\.weight differs from"):
        load_pretrained(folder, "masked-lm")


def test_a_missing_layer_of_a_group_is_named(tmp_path):
    folder = hf_folder(tmp_path, "encoder")
    rewrite_json(folder / "config.json", inner_group_num=2)
    with pytest.raises(WeightsError, match=r"albert_layer_groups\.0\.albert_layers\.1\."):
        load_pretrained(folder, "encoder")


def test_a_fresh_head_learns(tmp_path):
    model = load_pretrained(hf_folder(tmp_path, "encoder"), "question-answering").train()
    assert isinstance(model, AlbertForQuestionAnswering)
    inputs = random_inputs(model.config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        start, _ = model(**inputs)
        loss = F.cross_entropy(start, torch.tensor([5, 3, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
