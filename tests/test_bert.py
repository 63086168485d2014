"""BERT against transformers' BERT: forward and gradients, every part, several configurations."""

import pytest
import torch
import torch.nn.functional as F
import transformers

from minitransformer.attention import explicit_attention
from minitransformer.bert import PADDING_LOGIT, Bert, BertConfig, BertForMaskedLM, BertForQuestionAnswering
from tiny import train_both, write_theirs
from weights import load_pretrained
from weights.compare import compare, compare_models, first_difference, random_inputs

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
CONFIGURATIONS = {
    "base": {},
    "one head": {"num_attention_heads": 1, "num_hidden_layers": 1},
    "gelu_new": {"hidden_act": "gelu_new"},
    "relu, large epsilon": {"hidden_act": "relu", "layer_norm_eps": 1e-3},
    "wide weights": {"initializer_range": 0.3},
    "pad id 1, one segment": {"pad_token_id": 1, "type_vocab_size": 1},
    "many heads, narrow feed-forward": {"num_attention_heads": 16, "intermediate_size": 8},
}
TASKS = {
    "encoder": transformers.BertModel,
    "question-answering": transformers.BertForQuestionAnswering,
    "masked-lm": transformers.BertForMaskedLM,
}


def hf_folder(folder, task="question-answering", **settings):
    torch.manual_seed(0)
    return write_theirs(folder, TASKS[task](transformers.BertConfig(**(SMALL | settings))))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_bert_matches_hf(tmp_path, task, settings):
    parts = compare(hf_folder(tmp_path, task, **settings), task)
    assert first_difference(parts) is None
    assert len(parts) == 4 + 8 * (SMALL | settings)["num_hidden_layers"] + {"encoder": 0, "masked-lm": 2}.get(task, 1)
    assert any(part.gradient > 0 or part.output > 0 for part in parts), "too equal to be two computations"


def test_bert_matches_hf_without_mask_and_segments(tmp_path):
    folder = hf_folder(tmp_path)
    ids = random_inputs(load_pretrained(folder, "encoder").config)["input_ids"]
    assert first_difference(compare(folder, "question-answering", {"input_ids": ids})) is None


def test_bert_matches_hf_where_padding_stands_left(tmp_path):
    folder = hf_folder(tmp_path)
    inputs = random_inputs(load_pretrained(folder, "encoder").config)
    inputs = {name: tensor.flip(1) for name, tensor in inputs.items()}
    # HF counts positions from the left edge, padding included; so do we.
    assert first_difference(compare(folder, "encoder", inputs)) is None


def test_bert_matches_hf_on_the_real_checkpoint(assets):
    folder = assets / "weights/e5-small-fa"
    inputs = random_inputs(load_pretrained(folder, "encoder").config, batch=4, length=60)
    assert first_difference(compare(folder, "encoder", inputs)) is None


def test_bert_matches_hf_on_the_checkpoint_that_ships():
    assert first_difference(compare("demo-bert-fa", "masked-lm")) is None


def test_compare_names_the_first_part_that_differs(tmp_path):
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "question-answering")
    theirs = transformers.BertForQuestionAnswering.from_pretrained(folder)
    ours.encoder.layers[1].attention_norm.eps = 1e-2
    parts = compare_models(ours, theirs, random_inputs(ours.config))
    assert first_difference(parts).startswith("first to differ: encoder.layers.1.attention_norm, output")


def test_compare_sees_a_gradient_that_differs(tmp_path):
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "question-answering")
    theirs = transformers.BertForQuestionAnswering.from_pretrained(folder)
    ours.encoder.layers[1].ffn_up.weight.register_hook(lambda gradient: gradient * 1.01)
    parts = compare_models(ours, theirs, random_inputs(ours.config))
    assert first_difference(parts).startswith("first to differ: encoder.layers.1.ffn_up, gradient")


def test_twenty_training_steps_match_hf(tmp_path):
    folder = hf_folder(tmp_path, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ours = load_pretrained(folder, "question-answering")
    assert len(set(train_both(ours, transformers.BertForQuestionAnswering.from_pretrained(folder)))) == 20


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({"width": 768, "layers": 12, "heads": 12, "ffn_width": 3072}, 110),
        ({"width": 1024, "layers": 24, "heads": 16, "ffn_width": 4096}, 340),
    ],
    ids=["BASE", "LARGE"],
)
def test_parameter_counts_are_the_papers(sizes, millions):
    config = BertConfig(**sizes)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Bert(config).parameters())
        theirs = transformers.BertModel(
            transformers.BertConfig(
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.ffn_width,
            ),
            add_pooling_layer=False,
        )
    assert parameters == sum(parameter.numel() for parameter in theirs.parameters())
    pooler = config.width**2 + config.width  # the paper counts it
    assert round((parameters + pooler) / 1e6) == pytest.approx(millions, rel=0.015)


@pytest.mark.parametrize("lengths", [[1], [7], [5, 1, 9], [4, 4], [0, 3]], ids=str)
def test_packed_and_explicit_paths_agree(lengths):
    torch.manual_seed(0)
    model = BertForQuestionAnswering(
        BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=20, positions=12)
    ).eval()
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(50, keep.shape)
    gradients, logits = [], []
    for explicit in (False, True):
        for layer in model.encoder.layers if explicit else ():
            layer.attention.attend = explicit_attention
        model.zero_grad()
        start, end = model(ids, attention_mask=keep)
        (start[keep].square().sum() + end[keep].sum()).backward()
        logits.append(torch.stack([start, end]))
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing_and_gets_nothing():
    torch.manual_seed(0)
    config = BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=20, positions=12)
    encoder, reader = Bert(config).eval(), BertForQuestionAnswering(config).eval()
    ids = torch.randint(1, 50, (1, 5))
    padded = F.pad(ids, (0, 4), value=7)
    keep = F.pad(torch.ones_like(ids), (0, 4)).bool()
    hidden = encoder(padded, attention_mask=keep)
    torch.testing.assert_close(hidden[:, :5], encoder(ids))
    assert hidden[:, 5:].count_nonzero() == 0
    start, _ = reader(padded, attention_mask=keep)
    assert (start[:, 5:] == PADDING_LOGIT).all()
    assert start.softmax(1)[:, 5:].count_nonzero() == 0


def test_masked_lm_gives_logits_where_asked():
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocabulary=50, width=16, layers=1, heads=2, ffn_width=20)).eval()
    ids = torch.randint(50, (3, 8))
    keep = torch.arange(8) < torch.tensor([8, 3, 5])[:, None]
    positions = keep & (torch.rand(3, 8) < 0.5)
    everywhere = model(ids, attention_mask=keep)
    assert everywhere.shape == (3, 8, 50)
    torch.testing.assert_close(model(ids, attention_mask=keep, positions=positions), everywhere[positions])
    assert everywhere[~keep].count_nonzero() == 0


def test_every_parameter_gets_a_gradient():
    model = BertForQuestionAnswering(BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=20))
    start, end = model(torch.randint(50, (2, 6)), torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(2, 6))
    (start.square() + end.square()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"no gradient for {name}"


def test_a_text_longer_than_the_position_table_is_refused():
    model = Bert(BertConfig(vocabulary=50, width=16, layers=1, heads=2, ffn_width=20, positions=8))
    with pytest.raises(ValueError, match="9 tokens, but the model has 8 positions"):
        model(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_bert_matches_hf_in_training_with_the_same_dropout(tmp_path, task, settings):
    """What was dropped given, training too is equal: each dropout at its place, at its rate, with its scale.

    In float64: under dropout the wide weights' activations are so large that float32 rounds them by more than 1e-5.
    """
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}
    folder = hf_folder(tmp_path, task, **rates, **settings)
    ours, theirs = load_pretrained(folder, task).double(), TASKS[task].from_pretrained(folder).double()
    if task == "question-answering":
        ours.dropout.p = 0.0  # HF's reader has none before its classifier
    inputs = random_inputs(ours.config)
    assert first_difference(compare_models(ours, theirs, inputs, training=True)) is None
    with torch.no_grad():
        trained, exact = (ours.train(mode)(**inputs)[0] for mode in (True, False))
    assert (trained - exact).abs().max() > 1e-2, "nothing was dropped"


@pytest.mark.parametrize("place", ["embeddings", "attention", "layer"])
def test_compare_in_training_sees_a_dropout_that_differs(tmp_path, place):
    folder = hf_folder(tmp_path, "encoder", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    ours, theirs = load_pretrained(folder, "encoder"), transformers.BertModel.from_pretrained(folder)
    if place == "embeddings":
        ours.embeddings.dropout.p = 0.31
    elif place == "attention":
        ours.layers[0].attention.dropout = 0.21
    else:
        ours.layers[0].dropout.p = 0.31
    found = first_difference(compare_models(ours, theirs, random_inputs(ours.config), training=True))
    first = {"embeddings": "layers.0.attention.query", "attention": "layers.0.attention.output"}
    assert found.startswith(f"first to differ: {first.get(place, 'layers.0.attention_norm')}, output")


@pytest.mark.parametrize("place", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_bert_s_dropout_strays_as_far_as_hf_s(tmp_path, place):
    """In training no two draws are alike. So: how far hidden states stray from those without dropout, by many draws."""
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | {place: 0.2}
    folder = hf_folder(tmp_path, "encoder", num_hidden_layers=1, initializer_range=0.3, **rates)
    ours, theirs = load_pretrained(folder, "encoder"), transformers.BertModel.from_pretrained(folder)
    inputs = random_inputs(ours.config)
    keep = inputs["attention_mask"].bool()
    with torch.no_grad():
        exact = ours.eval()(**inputs)[keep]
        torch.manual_seed(0)
        strayed = [
            torch.stack([hidden(model.train())[keep] - exact for _ in range(1000)])
            for model, hidden in (
                (ours, lambda model: model(**inputs)),
                (theirs, lambda model: model(**inputs).last_hidden_state),
            )
        ]
    ours, theirs = (draws.square().mean().sqrt().item() for draws in strayed)
    assert ours == pytest.approx(theirs, rel=0.02)
    ours, theirs = (draws.mean(0) for draws in strayed)  # the mean strays too: norms and softmax are not linear
    assert (ours - theirs).square().mean().sqrt() < 0.1 * strayed[1].std(0).square().mean().sqrt()
