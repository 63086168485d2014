"""DINOv2 against transformers': forward and gradients, every part, at several image sizes; whole runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import load_file

import train_vit
from minitransformer.attention_weights import attention_weights
from minitransformer.dinov2 import Dinov2, Dinov2Config, Dinov2ForImageClassification
from minitransformer.system.errors import WeightsError
from tiny import call, log_of, printed_rows, rewrite_json, same_after_saving, write_theirs
from vision import predict
from vision.images import normalise, prepare_all, read_settings
from weights import load_pretrained
from weights.compare import compare, compare_models, first_difference, random_inputs

SMALL = {
    "image_size": 28,
    "patch_size": 7,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "mlp_ratio": 2,
    "num_labels": 5,
}
CONFIGURATIONS = {
    "base": {},
    "patches of 14, one head": {"patch_size": 14, "num_attention_heads": 1},
    "feed-forward of four widths": {"mlp_ratio": 4},
    "queries, keys and values without bias": {"qkv_bias": False},
    "gelu_new, large epsilon": {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
    "grey images": {"num_channels": 1},
    "wide weights, no token for masks": {"initializer_range": 0.2, "use_mask_token": False},
}
TASKS = {"encoder": transformers.Dinov2Model, "image-classification": transformers.Dinov2ForImageClassification}
SIZES = [(14, 14), (42, 42), (35, 21), (14, 56)]  # the last has the table's number of patches in another shape
# What facebook/dinov2-small has; its crop is smaller than the size of its position table too.
PREPROCESSOR = {
    "crop_size": {"height": 14, "width": 14},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 16},
}


def hf_folder(folder, task="image-classification", **settings):
    """A random HF model, saved, no parameter of which is all zeros or all ones."""
    torch.manual_seed(0)
    return write_theirs(folder, TASKS[task](transformers.Dinov2Config(**SMALL | settings)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_dinov2_matches_hf(tmp_path, task, settings):
    parts = compare(hf_folder(tmp_path, task, **settings), task)
    assert first_difference(parts) is None
    assert len(parts) == 3 + 10 * 3 + (task == "image-classification")


@pytest.mark.parametrize("part", ["attention_scale", "ffn_scale"])
def test_compare_names_a_scale_that_differs(tmp_path, part):
    """Scales are compared one by one above: were all of them 1, their place would not matter."""
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "image-classification")
    theirs = TASKS["image-classification"].from_pretrained(folder)
    with torch.no_grad():
        ours.get_parameter(f"encoder.blocks.1.{part}.weight")[3] *= 1.01
    found = first_difference(compare_models(ours, theirs, random_inputs(ours.config)))
    assert found.startswith(f"first to differ: encoder.blocks.1.{part}, output")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", SIZES)
def test_other_image_sizes_match_hf_down_to_the_gradient_of_the_table(tmp_path, task, size):
    inputs = {"pixel_values": torch.randn(2, 3, *size)}
    assert first_difference(compare(hf_folder(tmp_path, task), task, inputs)) is None


@pytest.mark.parametrize("size", [(28, 28), (14, 14)])
def test_twenty_training_steps_match_hf(tmp_path, size):
    folder = hf_folder(tmp_path)
    ours = load_pretrained(folder, "image-classification").train()
    theirs = transformers.Dinov2ForImageClassification.from_pretrained(folder).train()
    optimizers = [torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1) for model in (ours, theirs)]
    losses = set()
    for step in range(20):
        pixels = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(step))
        labels = torch.randint(5, (4,))
        pair = [F.cross_entropy(ours(pixels), labels), F.cross_entropy(theirs(pixels).logits, labels)]
        assert abs(pair[0].item() - pair[1].item()) < 1e-5, f"step {step}"
        losses.add(pair[0].item())
        for loss, optimizer in zip(pair, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert len(losses) == 20


@pytest.mark.parametrize("size", SIZES)
def test_attention_weights_match_hf(tmp_path, size):
    folder = hf_folder(tmp_path, initializer_range=0.2)
    pixels = torch.randn(2, 3, *size)
    theirs = TASKS["image-classification"].from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = torch.stack(theirs(pixels, output_attentions=True).attentions)
    ours = attention_weights(load_pretrained(folder, "image-classification"), pixels)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_compare_prints_the_layers_of_a_random_folder(tmp_path):
    assert printed_rows(hf_folder(tmp_path)) == ["embeddings", *(f"blocks.{n}" for n in range(3)), "norm", "head"]


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({"width": 384, "heads": 6}, 22.1),
        ({}, 86.6),
        ({"width": 1024, "heads": 16, "layers": 24}, 304.4),
    ],
    ids=["small", "base", "large"],
)
def test_parameter_counts_are_the_public_checkpoints(sizes, millions):
    with torch.device("meta"):
        model = Dinov2(Dinov2Config(image_size=518, **sizes))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions
    assert model.embeddings.position.shape[1] == 1 + 37**2


def test_dropouts_are_those_of_the_configuration_and_none_is_in_a_block(tmp_path):
    folder = hf_folder(tmp_path, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0)
    encoder = load_pretrained(folder, "encoder").train()
    assert encoder.embeddings.dropout.p == 0.3
    x = torch.randn(2, 5, 32)
    assert torch.equal(encoder.blocks[0](x), encoder.blocks[0](x))
    folder = hf_folder(tmp_path, attention_probs_dropout_prob=0.2)
    assert load_pretrained(folder, "encoder").blocks[2].attention.dropout == 0.2


# ------------------------------------------------------------------------------------------- in and out


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mask_token", [True, False])
def test_hf_loads_what_we_save(tmp_path, task, mask_token):
    folder = hf_folder(tmp_path / "theirs", task, use_mask_token=mask_token, mlp_ratio=3)
    same_after_saving(folder, TASKS[task], task, tmp_path / "ours")
    before, after = (set(load_file(tmp_path / part / "model.safetensors")) for part in ("theirs", "ours"))
    assert {name.rpartition(".")[2] for name in before} - {name.rpartition(".")[2] for name in after} == (
        {"mask_token"} if mask_token else set()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn is True, which this model does not compute"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0, which no model has"),
        ({"mlp_ratio": "4"}, "mlp_ratio is '4', not a whole number"),
        ({"mlp_ratio": 3}, r"mlp\.fc1\.weight has shape \(64, 32\), config.json asks for \(96, 32\)"),
        ({"image_size": 518, "patch_size": 14}, "has shape"),
        ({"image_size": 30}, "image_size 30 is not a multiple of patch_size 7"),
        ({"model_type": "vit"}, "unexpected tensor|tensors are missing"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, changes, message):
    folder = hf_folder(tmp_path)
    rewrite_json(folder / "config.json", **changes)
    with pytest.raises(WeightsError, match=message):
        load_pretrained(folder, "image-classification")


def test_the_giant_model_is_refused_before_its_weights_are_read(tmp_path):
    with pytest.raises(WeightsError, match=r"config\.json: use_swiglu_ffn is True"):
        load_pretrained(hf_folder(tmp_path, use_swiglu_ffn=True), "encoder")


def test_an_encoder_gets_a_fresh_classifier_of_two_widths(tmp_path):
    folder = hf_folder(tmp_path, "encoder")
    model = load_pretrained(folder, "image-classification", classes=10)
    assert type(model) is Dinov2ForImageClassification
    assert model.classifier.weight.shape == (10, 64)
    assert 0 < model.classifier.weight.std() < 0.03
    with pytest.raises(WeightsError, match="train it first"):
        load_pretrained(folder, "image-classification", fresh_head=False)


# ------------------------------------------------------------------------------------------------ a run


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of two classes of noise with a tint, 10 images of each to train on and 3 to validate."""
    random = np.random.default_rng(0)
    for part, count in (("train", 10), ("valid", 3)):
        for channel, name in enumerate(("red", "green")):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 160, (20, 24, 3))
                pixels[..., channel] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("rule", ["blocks.2 norm classifier", "classifier", "blocks.1 blocks.2 classifier"])
def test_a_run_from_the_kept_trunk_has_the_losses_of_one_without_and_hf_reads_its_model(tmp_path, pictures, rule):
    """A folder as facebook/dinov2-small is: no classifier, bare names, a crop smaller than the size of the table."""
    folder = hf_folder(tmp_path / "public", "encoder")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    losses = {}
    for flag in ("--trunk-cache", "--no-trunk-cache"):
        out = tmp_path / flag
        done = call(
            train_vit.main, "--recipe", "deit-small", "--weights", folder, "--data", pictures, "--trainable", rule,
            "--epochs", 4, "--batch-size", 8, "--learning-rate", 0.01, "--out", out, "--cache-gb", 0,
            "--cache-dir", tmp_path / "cache", flag,
        )  # fmt: skip
        assert done.status == 0, done.err
        losses[flag] = [float(row["loss"]) for row in log_of(out)]
    assert len(losses["--trunk-cache"]) == 12
    assert losses["--trunk-cache"][-1] < losses["--trunk-cache"][0]
    assert losses["--trunk-cache"] == pytest.approx(losses["--no-trunk-cache"], rel=1e-4, abs=1e-5)
    assert len(list((tmp_path / "cache").iterdir())) == 1

    trained, files = out / "model", sorted((pictures / "valid").rglob("*.png"))
    theirs = transformers.Dinov2ForImageClassification.from_pretrained(trained).eval()
    settings = read_settings(trained)
    pixels = normalise(prepare_all(files, settings), settings)
    assert pixels.shape[2:] == (14, 14)
    with torch.no_grad():
        expected = theirs(pixels).logits
        torch.testing.assert_close(
            load_pretrained(trained, "image-classification", fresh_head=False)(pixels), expected, rtol=1e-5, atol=1e-5
        )
    said = call(predict.main, "--model", trained, files[0], "--attention", tmp_path / "looks.png")
    assert said.status == 0, said.err
    assert said.out.splitlines()[1].split()[-1] == theirs.config.id2label[expected[0].argmax().item()]
    assert (tmp_path / "looks.png").is_file()


def test_random_inputs_are_pixels_of_the_table_s_size():
    assert random_inputs(Dinov2Config())["pixel_values"].shape == (3, 3, 224, 224)
