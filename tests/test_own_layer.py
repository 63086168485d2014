"""`assert_same_as_hf`: somebody's own layer beside transformers', and the page that shows it."""

import doctest
import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers.models.bert.modeling_bert import BertIntermediate, BertLayer, BertSelfOutput

import tiny
from minitransformer import bert
from minitransformer.packing import Packing
from minitransformer.system.errors import WeightsError
from weights.compare import assert_same_as_hf, random_inputs

PAGE = Path(__file__).parents[1] / "docs/your-own-layer.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CONFIG = transformers.BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=64)
X = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))


def test_the_page_says_what_one_sees():
    """The five usual faults among it: variance, epsilon, GELU, pre-norm, the scale of the scores."""
    code = "\n".join(code for code in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if ">>>" in code)
    assert code.count(">>> ask(") == 6
    assert code.count("is not the same as BertLayer") == 5
    complaints = []
    doctest.DocTestRunner().run(
        doctest.DocTestParser().get_doctest(code, {}, "page", str(PAGE), 0), out=complaints.append
    )
    assert not complaints, "".join(complaints)


def difference(*arguments, **settings) -> str:
    with pytest.raises(AssertionError) as caught:
        assert_same_as_hf(*arguments, **settings)
    return str(caught.value)


class Intermediate(nn.Module):
    def __init__(self, bias=True, change=lambda x: x):
        super().__init__()
        self.dense, self.change = nn.Linear(32, 64, bias=bias), change

    def forward(self, x):
        return self.change(nn.functional.gelu(self.dense(x)))


def test_the_same_is_the_same_and_both_modules_stay_what_they_were():
    ours, theirs = Intermediate(), BertIntermediate(CONFIG)
    ours.load_state_dict(theirs.state_dict())
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    assert_same_as_hf(ours, theirs, X)
    assert_same_as_hf(ours, theirs, X, draw_weights=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())
    assert ours.training
    assert ours.dense.weight.grad is None


def test_weights_that_differ_are_named_before_anything_runs():
    said = difference(Intermediate(), BertIntermediate(CONFIG), X)
    assert "the weights: dense.weight (64, 32) is off by" in said
    assert said.endswith("Load dense.weight into it, or give both the same random weights: draw_weights=True.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda x: x.detach() + 0 * x,
            "all outputs are equal, the gradients are not. Going backward, dense is the first",
        ),
        (lambda x: x[:, :-1], "output is (2, 6, 64), theirs (2, 7, 64)"),
        (lambda x: x * float("nan"), "its parts are equal up to dense: the fault stands between dense and its end"),
        (lambda x: x + 2e-5, "its parts are equal up to dense: the fault stands between dense and its end"),
    ],
)
def test_what_differs_is_told_with_its_place(change, said):
    assert said in difference(Intermediate(change=change), BertIntermediate(CONFIG), X, draw_weights=True)


def test_a_difference_below_the_tolerance_is_none():
    assert_same_as_hf(Intermediate(change=lambda x: x + 1e-7), BertIntermediate(CONFIG), X, draw_weights=True)


def test_a_parameter_that_only_theirs_has_is_told():
    said = difference(Intermediate(bias=False), BertIntermediate(CONFIG), X, draw_weights=True)
    assert "Theirs computes with dense.bias too, for which yours has nothing." in said


def test_a_parameter_without_a_counterpart_asks_for_its_name():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(32, 64)

        def forward(self, x):
            return nn.functional.gelu(self.up(x))

    with pytest.raises(WeightsError, match=r"^up\.weight \(64, 32\), up\.bias \(64,\): BertIntermediate has no"):
        assert_same_as_hf(Other(), BertIntermediate(CONFIG), X)
    with pytest.raises(WeightsError, match=r"names: 'upp' is no part of Other; it has up, up\.weight, up\.bias"):
        assert_same_as_hf(Other(), BertIntermediate(CONFIG), X, {"upp": "dense"})
    assert_same_as_hf(Other(), BertIntermediate(CONFIG), X, {"up": "dense"}, draw_weights=True)


def test_a_matrix_the_other_way_round_is_told():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(32, 64)), nn.Parameter(torch.zeros(64))

        def forward(self, x):
            return nn.functional.gelu(x @ self.weight + self.bias)

    with pytest.raises(
        WeightsError, match=r"^weight is \(32, 64\), dense\.weight .* \(64, 32\), the same turned round"
    ):
        assert_same_as_hf(Turned(), BertIntermediate(CONFIG), X, {"weight": "dense.weight", "bias": "dense.bias"})


class Output(nn.Module):
    """BERT's sum of a residual, with its dropout."""

    def __init__(self, p, early=False):
        super().__init__()
        self.dense, self.LayerNorm, self.p, self.early = nn.Linear(32, 32), nn.LayerNorm(32, eps=1e-12), p, early

    def forward(self, x, residual):
        drop = nn.functional.dropout
        if self.early:
            return self.LayerNorm(self.dense(drop(x, self.p, self.training)) + residual)
        return self.LayerNorm(drop(self.dense(x), self.p, self.training) + residual)


def test_dropout_is_compared_in_training_by_the_same_random_numbers():
    theirs = BertSelfOutput(transformers.BertConfig(hidden_size=32, num_attention_heads=4, hidden_dropout_prob=0.3))
    inputs = X, X.flip(1)
    assert_same_as_hf(Output(0.3), theirs, inputs, training=True, draw_weights=True)
    for other, first in ((Output(0.2), "LayerNorm"), (Output(0.3, early=True), "dense")):
        assert_same_as_hf(other, theirs, inputs, draw_weights=True)  # not in evaluation
        assert f"\n{first}: its input differs" in difference(other, theirs, inputs, training=True, draw_weights=True)


class OurLayer(nn.Module):
    """This project's layer, which wants packed rows, behind theirs' interface."""

    def __init__(self):
        super().__init__()
        config = bert.BertConfig(
            vocabulary=9, width=32, layers=1, heads=4, ffn_width=64, dropout=0.1, attention_dropout=0.1
        )
        self.layer = bert.Layer(config)

    def forward(self, x, keep):
        packing = Packing.of(keep)
        return packing.unpack(self.layer(packing.pack(x), packing))


NAMES = {
    "layer.attention.query": "attention.self.query", "layer.attention.key": "attention.self.key",
    "layer.attention.value": "attention.self.value", "layer.attention.output": "attention.output.dense",
    "layer.attention_norm": "attention.output.LayerNorm", "layer.ffn_up": "intermediate.dense",
    "layer.ffn_down": "output.dense", "layer.ffn_norm": "output.LayerNorm",
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
def test_padding_is_nobody_s_business_and_packed_layers_draw_the_same_dropout(training):
    keep = torch.arange(7) < torch.tensor([[7], [4]])
    added = torch.where(keep, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    settings = {"their_inputs": (X, added), "keep": keep, "draw_weights": True, "training": training}
    assert_same_as_hf(OurLayer(), BertLayer(CONFIG), (X, keep), NAMES, **settings)
    wrong = OurLayer()
    wrong.layer.ffn_norm.eps = 1e-3
    assert "layer.ffn_norm" in difference(wrong, BertLayer(CONFIG), (X, keep), NAMES, **settings)


def test_a_whole_encoder_beside_a_folder_with_numbers_in_its_names(tmp_path):
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    folder = tiny.write_theirs(tmp_path / "theirs", transformers.BertModel(config, add_pooling_layer=False))
    ours = tiny.load_pretrained(folder, "encoder")
    theirs = {"token": "word_embeddings", "position": "position_embeddings", "segment": "token_type_embeddings",
              "norm": "LayerNorm"}  # fmt: skip
    names = {f"embeddings.{our}": f"embeddings.{their}" for our, their in theirs.items()}
    names |= {our.replace("layer.", "layers.{n}.", 1): "encoder.layer.{n}." + their for our, their in NAMES.items()}
    inputs = random_inputs(ours.config)
    with pytest.warns(UserWarning, match="tensors returned: yours 1, theirs 2; compared: the first 1"):  # pooled too
        assert_same_as_hf(ours, folder, inputs, names)
    ours.layers[1].attention_norm.weight.data[3] += 0.1
    assert "the weights: layers.1.attention_norm.weight (32,) is off by 1.0e-01 at [3]" in difference(
        ours, folder, inputs, names
    )
    ours = tiny.load_pretrained(folder, "encoder")
    ours.layers[1].activation = nn.functional.relu
    said = difference(ours, folder, inputs, names)
    assert "the fault stands between layers.1.ffn_up, the last that is equal, and it" in said
