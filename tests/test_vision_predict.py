"""`python -m vision.predict`: the likeliest classes of picture files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from minitransformer.system.errors import RunError
from minitransformer.vit import VitConfig, VitForImageClassification
from tiny import Outcome, call
from vision import demo, predict
from vision.attention import cls_attention, plot_attention
from vision.images import Preprocessing, normalise, prepare_all, write_settings
from weights import load_pretrained, save_pretrained

CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox"]
SETTINGS = Preprocessing(resize=(14, 0), crop=(12, 12))


def random_model(classes: int = 6) -> VitForImageClassification:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"image_size": 12, "patch": 4, "width": 16, "layers": 2, "heads": 2, "ffn_width": 24}
        model = VitForImageClassification(VitConfig(**sizes, distilled=True, classes=classes))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def folder(tmp_path) -> Path:
    save_pretrained(random_model(), tmp_path / "model", labels=CLASSES)
    write_settings(SETTINGS, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    paths = []
    for number, picture in enumerate(demo.read("demo", "train", 3).pictures):
        paths.append(tmp_path / f"picture {number}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def asked(folder: Path, *flags: object) -> Outcome:
    return call(predict.main, "--model", folder, *flags)


def test_predict_gives_the_five_likeliest_classes_of_each_picture(folder, pictures):
    outcome = asked(folder, *pictures)
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[::6] == [str(path) for path in pictures]
    with torch.no_grad():
        probabilities = random_model()(normalise(prepare_all(pictures, SETTINGS), SETTINGS)).softmax(-1)
    for number, row in enumerate(probabilities):
        said = [re.fullmatch(r" +(\d+\.\d)%  (\w+)", line).groups() for line in lines[6 * number + 1 : 6 * number + 6]]
        best = row.topk(5)
        assert [name for _, name in said] == [CLASSES[index] for index in best.indices]
        assert [float(value) for value, _ in said] == pytest.approx((100 * best.values).tolist(), abs=0.051)


def test_predict_takes_pictures_of_any_size_and_kind_together(folder, tmp_path, pictures):
    Image.new("L", (1, 1), 90).save(tmp_path / "dot.png")
    Image.new("RGBA", (70, 13), (9, 8, 7, 6)).save(tmp_path / "wide.png")
    Image.new("CMYK", (13, 70)).save(tmp_path / "tall.jpg")
    outcome = asked(folder, tmp_path / "dot.png", tmp_path / "wide.png", tmp_path / "tall.jpg", pictures[0])
    assert outcome.status == 0, outcome.err
    assert len(outcome.out.splitlines()) == 4 * 6


def test_predict_of_two_classes_gives_two(tmp_path, pictures):
    save_pretrained(random_model(classes=2), tmp_path / "two", labels=["yes", "no"])
    write_settings(SETTINGS, tmp_path / "two")
    assert len(asked(tmp_path / "two", pictures[0]).out.splitlines()) == 3


def test_predict_prints_no_commands_to_the_terminal(tmp_path, pictures):
    save_pretrained(random_model(classes=2), tmp_path / "odd", labels=["red\x1b[31m", "two\nlines"])
    write_settings(SETTINGS, tmp_path / "odd")
    assert "\x1b" not in asked(tmp_path / "odd", pictures[0]).out
    assert len(asked(tmp_path / "odd", pictures[0]).out.splitlines()) == 3


def test_classify_gives_every_image_its_row_whatever_the_batch(folder):
    images = demo.read("demo", "train", 7)
    whole = predict.classify(random_model(), images, SETTINGS, batch_size=7)
    torch.testing.assert_close(predict.classify(random_model(), images, SETTINGS, batch_size=3), whole)
    assert whole.shape == (7, 6)


def test_classify_refuses_a_model_that_answers_with_nan():
    model = random_model()
    nn.init.constant_(model.classifier.bias, float("nan"))
    with pytest.raises(RunError, match="its weights are damaged, or its training has diverged"):
        predict.classify(model, demo.read("demo", "train", 1), SETTINGS, batch_size=1)


@pytest.mark.parametrize("kind", ["absent", "text", "cut off"])
def test_predict_names_a_file_that_is_no_picture(folder, tmp_path, pictures, kind):
    path = tmp_path / "bad.png"
    if kind == "text":
        path.write_text("not a picture")
    if kind == "cut off":
        path.write_bytes(pictures[0].read_bytes()[:500])
    outcome = asked(folder, pictures[0], path)
    assert str(path) in outcome.refusal()
    assert len(outcome.out.splitlines()) == 6  # what came before it was answered


def test_predict_refuses_a_model_without_names(folder, pictures):
    settings = json.loads((folder / "config.json").read_text())
    del settings["id2label"]
    (folder / "config.json").write_text(json.dumps(settings))
    assert "no id2label that names the classes" in asked(folder, pictures[0]).refusal()


def test_predict_refuses_a_model_whose_classifier_is_not_trained(folder, tmp_path, pictures):
    save_pretrained(load_pretrained(folder, "encoder"), tmp_path / "encoder", labels=CLASSES)
    assert "train it first" in asked(tmp_path / "encoder", pictures[0]).refusal()


def test_predict_needs_a_picture(folder):
    assert "IMAGE" in asked(folder).refusal()


def test_the_attention_of_cls_is_that_of_hf_and_lies_by_rows(tmp_path):
    model = random_model()
    save_pretrained(model, tmp_path, labels=CLASSES)
    pixels = torch.randn(1, 3, 8, 12)  # two rows of three patches
    maps = cls_attention(model, pixels)
    theirs = transformers.DeiTForImageClassification.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        said = theirs(pixels, interpolate_pos_encoding=True, output_attentions=True).attentions[-1]
    assert maps.shape == (2, 2, 3)
    torch.testing.assert_close(maps.flatten(1), said[0, :, 0, 2:], rtol=1e-5, atol=1e-5)


def test_predict_draws_what_it_looks_at(folder, tmp_path, pictures):
    outcome = asked(folder, pictures[0], "--attention", tmp_path / "looks.png")
    assert outcome.status == 0, outcome.err
    assert outcome.out.endswith(f"what it looks at: {tmp_path}/looks.png\n")
    with Image.open(tmp_path / "looks.png") as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 300


def test_the_patch_with_the_highest_weight_is_the_reddest(tmp_path):
    maps = torch.full((1, 2, 2), 0.1)
    maps[0, 0, 1] = 0.6  # above, right
    best = [("yes", 0.75), ("no", 0.25)]
    plot_attention(torch.full((3, 40, 40), 128, dtype=torch.uint8), best, maps, tmp_path / "looks.png")
    drawn = np.asarray(Image.open(tmp_path / "looks.png").convert("RGB")).astype(int)
    panel = drawn[:, drawn.shape[1] // 2 : 3 * drawn.shape[1] // 4]  # the third of four: the mean
    rows, columns = (panel[..., 0] - panel[..., 1] > 150).nonzero()  # where it is red
    faint = ((panel[..., 0] - panel[..., 1]) > 5).nonzero()
    assert 0.2 < len(rows) / len(faint[0]) < 0.3
    assert (rows.max(), columns.min()) < (faint[0].max(), faint[1].max())
    assert rows.max() < np.median(faint[0]) + 5
    assert columns.min() > np.median(faint[1]) - 5


@pytest.mark.parametrize("kind", ["two pictures", "no folder"])
def test_predict_refuses_what_it_cannot_draw_before_it_looks(folder, tmp_path, pictures, kind):
    shown = pictures[:2] if kind == "two pictures" else pictures[:1]
    path = tmp_path / "absent/looks.png" if kind == "no folder" else tmp_path / "looks.png"
    outcome = asked(folder, *shown, "--attention", path)
    problem = "draws one IMAGE, and there are 2" if kind == "two pictures" else f"{path}: cannot be written"
    assert problem in outcome.refusal()
    assert outcome.out == ""
    assert not path.exists()


def test_a_class_may_be_called_what_looks_like_mathematics(tmp_path):
    maps = torch.full((1, 2, 2), 0.25)
    plot_attention(torch.zeros(3, 8, 8, dtype=torch.uint8), [("$5_$x#", 0.7), ("$", 0.3)], maps, tmp_path / "looks.png")
    assert (tmp_path / "looks.png").exists()


def test_two_classes_of_one_name_are_both_told():
    """ImageNet's cranes: a bird, and a machine."""
    said = predict.likeliest(torch.tensor([0.1, 0.3, 0.6]), ["crane", "cat", "crane"])
    assert [name for name, _ in said] == ["crane", "cat", "crane"]
    assert [share for _, share in said] == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.parametrize(("size", "made"), [((14, 14), "14 x 14"), ((12, 0), r"\d+ x 12")])
def test_pictures_that_cannot_be_cut_into_patches_are_refused(folder, tmp_path, size, made):
    write_settings(Preprocessing(resize=size, crop=None), folder)
    Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    refusal = asked(folder, tmp_path / "picture.png").refusal()
    assert re.search(f"pictures of {made} pixels cannot be cut into patches of 4 x 4; give the checkpoint", refusal)
