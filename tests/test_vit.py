"""ViT and DeiT against transformers': forward and gradients, every part, several configurations; timm's names."""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from minitransformer.system.errors import UserError, WeightsError
from minitransformer.vit import DeitWithTeacher, Vit, VitConfig, VitForImageClassification, images_at_once
from tiny import change_tensors, rewrite_json
from weights import load_pretrained, save_pretrained
from weights.compare import compare, compare_models, first_difference, random_inputs
from weights.compare.__main__ import main
from weights.load import read_labels
from weights.new_model import new_classifier

SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 5,
}
CONFIGURATIONS = {
    "base": {},
    "patches of 4": {"patch_size": 4},
    "patches of 16, one head": {"patch_size": 16, "num_attention_heads": 1},
    "queries, keys and values without bias": {"qkv_bias": False},
    "gelu_new, large epsilon": {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
    "grey images": {"num_channels": 1},
    "wide weights": {"initializer_range": 0.2},
}
VIT, DEIT = transformers.ViTConfig, transformers.DeiTConfig
CLASSIFIERS = {
    "ViT": (transformers.ViTForImageClassification, VIT),
    "DeiT": (transformers.DeiTForImageClassification, DEIT),
    "DeiT with teacher": (transformers.DeiTForImageClassificationWithTeacher, DEIT),
}


def hf_folder(folder, name="DeiT", **settings):
    """A random HF model, saved, no parameter of which is all zeros or all ones."""
    torch.manual_seed(0)
    kind, config = CLASSIFIERS[name]
    model = kind(config(**(SMALL | settings)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or parameter.dim() == 3:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_vit_matches_hf(tmp_path, name, settings):
    parts = compare(hf_folder(tmp_path, name, **settings), "image-classification")
    assert first_difference(parts) is None
    # Patches, embeddings, norm; eight parts in each of three blocks; one classifier or two.
    assert len(parts) == 3 + 8 * 3 + (2 if "teacher" in name else 1)


@pytest.mark.parametrize("name", ["ViT", "DeiT"])
def test_the_encoder_alone_matches_hf(tmp_path, name):
    folder = hf_folder(tmp_path, name)
    assert first_difference(compare(folder, "encoder")) is None
    assert isinstance(load_pretrained(folder, "encoder"), Vit)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("size", [(48, 48), (16, 16), (40, 24)])
def test_other_image_sizes_match_hf(tmp_path, name, size):
    folder = hf_folder(tmp_path, name)
    ours = load_pretrained(folder, "image-classification")
    theirs = CLASSIFIERS[name][0].from_pretrained(folder)
    pixels = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours(pixels), theirs(pixels, interpolate_pos_encoding=True).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 30, 32), (3, 32, 33), (1, 32, 32), (3, 0, 32)])
def test_images_that_do_not_fit_are_refused(tmp_path, shape):
    model = load_pretrained(hf_folder(tmp_path), "image-classification")
    with pytest.raises(ValueError, match="the model takes 3 channels and sides that are multiples of 8"):
        model(torch.zeros(1, *shape))


def test_twenty_training_steps_match_hf(tmp_path):
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "image-classification").train()
    theirs = CLASSIFIERS["DeiT"][0].from_pretrained(folder).train()
    optimizers = [torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1) for model in (ours, theirs)]
    for step in range(20):
        pixels = random_inputs(ours.config, batch=4, seed=step)["pixel_values"]
        labels = torch.randint(5, (4,))
        losses = [F.cross_entropy(ours(pixels), labels), F.cross_entropy(theirs(pixels).logits, labels)]
        assert abs(losses[0].item() - losses[1].item()) < 1e-4, f"step {step}"
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_compare_names_the_first_part_that_differs(tmp_path):
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "image-classification")
    ours.encoder.blocks[1].ffn_norm.eps = 1e-1
    parts = compare_models(ours, CLASSIFIERS["DeiT"][0].from_pretrained(folder), random_inputs(ours.config))
    assert first_difference(parts).startswith("first to differ: encoder.blocks.1.ffn_norm, output")


def test_the_command_compares_the_classifier_that_the_folder_holds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["compare", str(hf_folder(tmp_path, "DeiT with teacher"))])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "image-classification with teacher" in printed
    assert [line.split()[0] for line in printed.splitlines()[2:7]] == [
        "embeddings",
        *(f"blocks.{n}" for n in range(3)),
        "norm",
    ]


def test_deit_small_has_22_million_parameters():
    with torch.device("meta"):
        model = DeitWithTeacher(VitConfig(width=384, heads=6, ffn_width=1536, distilled=True, classes=1000))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 22.4
    assert model.encoder.embeddings.position.shape[1] == 198


def test_a_new_model_has_weights_of_the_deviation_asked_for_and_nothing_in_its_biases():
    model = new_classifier(width=64, layers=2, heads=2, ffn_width=128, image_size=32, initializer_range=0.05)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif parameter.numel() > 1000:  # enough to tell
            assert parameter.std().item() == pytest.approx(0.05, rel=0.1), name


def test_a_cpu_takes_as_many_images_at_once_as_its_cache_holds():
    small = VitConfig(width=384, heads=6, ffn_width=1536, distilled=True)  # DeiT-small: 1.2 MB an image
    cpu, cuda, size = torch.device("cpu"), torch.device("cuda"), (224, 224)
    assert images_at_once(small, size, cpu, 64) == 4
    assert images_at_once(small, size, cpu, 3) == 3
    assert images_at_once(small, size, cuda, 64) == 64
    assert images_at_once(small, (112, 112), cpu, 64) == 15  # the picture's size, not that of the position table
    assert images_at_once(small, (224, 112), cpu, 64) == 8
    assert images_at_once(VitConfig(ffn_width=10**7), size, cpu, 64) == 1


def test_dropouts_are_those_of_the_configuration(tmp_path):
    folder = hf_folder(tmp_path, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    encoder = load_pretrained(folder, "encoder")
    block = encoder.blocks[0]
    assert (encoder.embeddings.dropout.p, block.dropout.p, block.attention.dropout) == (0.3, 0.3, 0.2)
    pixels = random_inputs(encoder.config)["pixel_values"]
    assert torch.equal(encoder(pixels), encoder(pixels))
    encoder.train()
    assert not torch.equal(encoder(pixels), encoder(pixels))


# ---------------------------------------------------------------------------------------------------- heads


def test_a_fresh_classifier_of_other_classes_is_asked_for_and_not_guessed(tmp_path):
    for name in CLASSIFIERS:
        folder = hf_folder(tmp_path / name, name)
        torch.manual_seed(1)
        model = load_pretrained(folder, "image-classification", classes=10)
        assert type(model) is VitForImageClassification
        assert model.classifier.weight.shape == (10, 32)
        assert 0 < model.classifier.weight.std() < 0.03
        assert not model.classifier.bias.any()
        assert torch.equal(model.encoder.norm.weight, load_pretrained(folder, "encoder").norm.weight)
    rewrite_json(folder / "config.json", id2label={str(number): "x" for number in range(10)})
    with pytest.raises(
        WeightsError, match=r"cls_classifier\.weight has shape \(5, 32\), config.json asks for \(10, 32\)"
    ):
        load_pretrained(folder, "image-classification")


def test_a_missing_classifier_is_fresh_only_where_that_is_allowed(tmp_path):
    folder = hf_folder(tmp_path)
    change_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("classifier")})
    assert load_pretrained(folder, "image-classification").classifier.weight.std() > 0
    with pytest.raises(WeightsError, match="train it first"):
        load_pretrained(folder, "image-classification", fresh_head=False)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_hf_loads_what_we_save(tmp_path, name):
    model = load_pretrained(hf_folder(tmp_path / "theirs", name), "image-classification")
    labels = ["سگ", "گربه", "cat", "deer", "dog"]
    save_pretrained(model, tmp_path / "ours", labels=labels)
    assert first_difference(compare(tmp_path / "ours", "image-classification")) is None
    before, after = (load_file(tmp_path / part / "model.safetensors") for part in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert read_labels(tmp_path / "ours") == labels
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert config.id2label == dict(enumerate(labels))
    assert config.label2id["گربه"] == 1


@pytest.mark.parametrize("labels", [..., {}, {"a": "b"}, ["a"], {"1": "a"}])
def test_labels_that_are_not_numbered_are_refused(tmp_path, labels):
    folder = hf_folder(tmp_path)
    rewrite_json(folder / "config.json", id2label=labels)
    if labels == {}:
        assert read_labels(folder) == []
        return
    with pytest.raises(WeightsError, match="no id2label that names the classes"):
        read_labels(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 7}, "image_size 32 is not a multiple of patch_size 7"),
        ({"patch_size": 64}, "not a multiple"),
        ({"image_size": [32, 40]}, r"image_size is \[32, 40\], not a whole number"),
        ({"qkv_bias": 1}, "qkv_bias is 1, not true or false"),
        ({"hidden_act": "swoosh"}, "unknown hidden_act"),
        ({"image_size": 64}, r"position_embeddings has shape \(1, 18, 32\), config.json asks for \(1, 66, 32\)"),
        ({"model_type": "vit"}, "unexpected tensor|tensors are missing"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, changes, message):
    folder = hf_folder(tmp_path)
    rewrite_json(folder / "config.json", **changes)
    with pytest.raises(WeightsError, match=message):
        load_pretrained(folder, "image-classification")


def test_a_square_size_may_be_written_twice(tmp_path):
    folder = hf_folder(tmp_path)
    rewrite_json(folder / "config.json", image_size=[32, 32], patch_size=[8, 8])
    assert load_pretrained(folder, "encoder").config.image_size == 32


# ---------------------------------------------------------------------------------------------------- timm


def timm_folder(folder, distilled=True):
    """What timm publishes of deit_tiny, cut down to one block of its names; the sizes are those of the name."""
    torch.manual_seed(0)
    width, layers, prefix = 192, 12, 2 if distilled else 1
    shapes = {
        "cls_token": (1, 1, width), "pos_embed": (1, 196 + prefix, width),
        "patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,), "head.weight": (7, width), "head.bias": (7,),
    }  # fmt: skip
    if distilled:
        shapes |= {"dist_token": (1, 1, width), "head_dist.weight": (7, width), "head_dist.bias": (7,)}
    block = {
        "norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width),
    }  # fmt: skip
    for layer in range(layers):
        for part, shape in block.items():
            shapes |= {f"blocks.{layer}.{part}.weight": shape, f"blocks.{layer}.{part}.bias": shape[:1]}
    tensors = {
        name: torch.randn(shape) * 0.05 + ("norm" in name and name.endswith("weight")) for name, shape in shapes.items()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    name = f"deit_tiny_{'distilled_' * distilled}patch16_224"
    (folder / "config.json").write_text(json.dumps({"architecture": name, "num_classes": 7, "num_features": width}))
    return tensors


def timm_forward(tensors, pixels):
    """timm's computation, written out once more: one matrix for query, key and value, eps 1e-6."""
    width, heads = 192, 3

    def norm(x, name):
        return F.layer_norm(x, (width,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    x = F.conv2d(pixels, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    prefix = [tensors[name].expand(len(x), -1, -1) for name in ("cls_token", "dist_token") if name in tensors]
    x = torch.cat([*prefix, x], 1) + tensors["pos_embed"]
    for layer in range(12):
        block = f"blocks.{layer}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)) * (width // heads) ** -0.5).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    x = norm(x, "norm")
    if "dist_token" not in tensors:
        return linear(x[:, 0], "head")
    return (linear(x[:, 0], "head") + linear(x[:, 1], "head_dist")) / 2


@pytest.mark.parametrize("distilled", [True, False])
def test_timm_checkpoints_load_under_their_own_names(tmp_path, distilled):
    tensors = timm_folder(tmp_path / "timm", distilled)
    model = load_pretrained(tmp_path / "timm", "image-classification")
    assert isinstance(model, DeitWithTeacher if distilled else VitForImageClassification)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), timm_forward(tensors, pixels), rtol=1e-5, atol=1e-5)
    save_pretrained(model, tmp_path / "hf")
    assert first_difference(compare(tmp_path / "hf", "image-classification")) is None


def test_an_unknown_name_in_a_timm_checkpoint_is_refused(tmp_path):
    tensors = timm_folder(tmp_path / "timm")
    save_file(tensors | {"blocks.0.ls1.gamma": torch.ones(192)}, tmp_path / "timm/model.safetensors")
    with pytest.raises(WeightsError, match=r"unexpected tensor blocks\.0\.ls1\.gamma"):
        load_pretrained(tmp_path / "timm", "encoder")


def test_a_timm_checkpoint_without_a_head_is_an_encoder_and_takes_a_fresh_one(tmp_path):
    tensors = timm_folder(tmp_path / "timm", distilled=False)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    save_file(kept, tmp_path / "timm/model.safetensors", metadata={"format": "pt"})
    rewrite_json(tmp_path / "timm/config.json", num_classes=0)
    whole = tensors | {"head.weight": torch.eye(192), "head.bias": torch.zeros(192)}
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        cls = load_pretrained(tmp_path / "timm", "encoder")(pixels)[:, 0]
    torch.testing.assert_close(cls, timm_forward(whole, pixels), rtol=1e-5, atol=1e-5)
    assert load_pretrained(tmp_path / "timm", "image-classification", classes=10).config.classes == 10


def test_what_a_timm_folder_does_not_have_is_said(tmp_path):
    timm_folder(tmp_path / "timm")
    with pytest.raises(WeightsError, match=r"config\.json: timm's folders do not name their classes"):
        read_labels(tmp_path / "timm")
    with pytest.raises(UserError, match="a folder of timm's, which transformers does not read"):
        compare(tmp_path / "timm", "image-classification")


def test_a_number_in_place_of_timm_s_matrix_is_refused(tmp_path):
    tensors = timm_folder(tmp_path / "timm")
    save_file(tensors | {"blocks.0.attn.qkv.weight": torch.tensor(1.0)}, tmp_path / "timm/model.safetensors")
    with pytest.raises(WeightsError, match="tensors are missing"):
        load_pretrained(tmp_path / "timm", "encoder")


def test_an_empty_table_of_names_is_no_number_of_classes(tmp_path):
    folder = hf_folder(tmp_path)
    rewrite_json(folder / "config.json", id2label={}, num_labels=...)
    assert load_pretrained(folder, "image-classification", classes=4).config.classes == 4
