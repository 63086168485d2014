"""The rule that says what trains, and the list that is printed of it."""

import pytest
import torch

from minitransformer.system.errors import RecipeError
from minitransformer.vit import VitConfig, VitForImageClassification
from vision.freeze import freeze, listing, parts


def model(layers: int = 12, **sizes: int) -> VitForImageClassification:
    sizes = {"image_size": 8, "patch": 4, "width": 8, "heads": 2, "ffn_width": 12, "classes": 3} | sizes
    return VitForImageClassification(VitConfig(layers=layers, **sizes))


def trained(net: torch.nn.Module, rule: str) -> set[str]:
    freeze(net, rule)
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


def test_the_report_s_rule_trains_the_last_block_and_the_classifier_not_the_final_norm():
    names = trained(model(), "blocks.11 classifier")
    assert {name.rsplit(".", 1)[0] for name in names} == {
        "classifier",
        *(f"encoder.blocks.11.{part}" for part in ("attention_norm", "ffn_norm", "ffn_up", "ffn_down")),
        *(f"encoder.blocks.11.attention.{part}" for part in ("query", "key", "value", "output")),
    }
    assert {name.rsplit(".", 1)[1] for name in names} == {"weight", "bias"}


@pytest.mark.parametrize(
    "rule", ["blocks.1,classifier", "blocks.1, classifier", " blocks.1  classifier ", "blocks.1\n,\tclassifier"]
)
def test_names_are_parted_by_spaces_and_commas(rule):
    net = model(layers=2)
    assert trained(net, rule) == trained(net, "classifier blocks.1") != trained(net, "classifier")


def test_a_name_is_not_the_beginning_of_a_longer_number():
    names = trained(model(), "blocks.1")
    assert names
    assert all(name.startswith("encoder.blocks.1.") for name in names)


def test_a_single_parameter_can_be_named():
    assert trained(model(), "blocks.3.ffn_up.bias embeddings.cls") == {
        "encoder.blocks.3.ffn_up.bias", "encoder.embeddings.cls",
    }  # fmt: skip


def test_all_trains_everything_and_a_later_rule_undoes_an_earlier_one():
    net = model()
    assert trained(net, "all") == {name for name, _ in net.named_parameters()}
    assert trained(net, "classifier") == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("blocks.11 clasifier", "trainable: the model has no part 'clasifier' (did you mean 'classifier'?)"),
        ("blocks.11.ffn_upp", "the model has no part 'blocks.11.ffn_upp' (did you mean 'blocks.11.ffn_up'?)"),
        ("blocks.12", "the model has no part 'blocks.12' (did you mean 'blocks."),
        ("encoder.blocks.11", "the model has no part 'encoder.blocks.11' (did you mean 'blocks.11'?)"),
        ("zzz", "the model has no part 'zzz'"),
        (" , ", "trainable: it names nothing to train; give names such as 'classifier', or 'all'"),
    ],
)
def test_a_rule_that_fits_no_parameter_is_refused_and_changes_nothing(rule, problem):
    net = model()
    before = trained(net, "blocks.2")
    with pytest.raises(RecipeError) as caught:
        freeze(net, rule)
    assert problem in str(caught.value)
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == before


def test_parts_are_the_shortest_names_of_one_state_and_count_every_parameter_once():
    net = model(layers=3)
    freeze(net, "blocks.1.attention blocks.2 classifier")
    found = {part.name: part for part in parts(net)}
    assert {name for name, part in found.items() if part.trains} == {"blocks.1.attention", "blocks.2", "classifier"}
    assert {"blocks.0", "blocks.1.attention_norm", "blocks.1.ffn_up", "norm", "embeddings"} <= set(found)
    assert "blocks" not in found
    assert found["blocks.1.attention"].count == 4 * (8 * 8 + 8)
    assert sum(part.count for part in found.values()) == sum(p.numel() for p in net.parameters())


def test_listing_of_deit_small_has_the_report_s_numbers():
    with torch.device("meta"):
        net = VitForImageClassification(VitConfig(width=384, heads=6, ffn_width=1536, distilled=True, classes=10))
    freeze(net, "blocks.11, classifier")
    assert [line.split() for line in listing(net).splitlines()] == [
        ["trainable", "1,778,314"],
        ["blocks.11", "1,774,464"],
        ["classifier", "3,850"],
        ["frozen", "19,891,968"],
        ["embeddings", "372,096"],
        ["blocks.0", "...", "blocks.10", "19,519,104"],
        ["norm", "768"],
    ]  # fmt: skip


def test_listing_shows_blocks_that_do_not_follow_one_another_apart():
    net = model(layers=5)
    freeze(net, "blocks.2 classifier")
    assert [line.split()[0:-1] for line in listing(net).splitlines() if "blocks" in line] == [
        ["blocks.2"], ["blocks.0", "...", "blocks.1"], ["blocks.3", "...", "blocks.4"],
    ]  # fmt: skip
