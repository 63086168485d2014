"""Checkpoint folders out: transformers loads them as they are, and so do we."""

import json
import os

import pytest
import torch
import transformers
from safetensors import safe_open

from minitransformer import bert
from minitransformer.system.errors import WeightsError
from tiny import failing, files_under, random_model, tokenizer
from weights import load_pretrained, load_tokenizer, save_pretrained

MODELS = {
    "encoder": (bert.Bert, transformers.AutoModel),
    "question-answering": (bert.BertForQuestionAnswering, transformers.AutoModelForQuestionAnswering),
    "masked-lm": (bert.BertForMaskedLM, transformers.AutoModelForMaskedLM),
}
TEXTS = [("پایتخت ایران کجاست؟", "شهر تهران پایتخت ایران است."), ("a", ""), ("", "می\u200cشود ۱۲"), ("Éb", "😀 x")]


@pytest.mark.parametrize("task", MODELS)
def test_save_is_loaded_by_hf_with_the_same_numbers(tmp_path, task):
    ours, auto = MODELS[task]
    ours = random_model(ours, activation="gelu_new", norm_eps=1e-3)
    save_pretrained(ours, tmp_path / "saved")
    theirs, notes = auto.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert {name for name in notes["missing_keys"] if "pooler" not in name} == set()
    assert set(notes["unexpected_keys"]) == set()

    torch.manual_seed(0)
    ids, types = torch.randint(0, ours.config.vocabulary, (2, 16)), torch.randint(0, 2, (2, 16))
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids, token_type_ids=types)
        result = ours(ids, types)
    result = result if isinstance(result, tuple) else (result,)
    for mine, hf in zip(result, expected.to_tuple()[: len(result)], strict=True):
        torch.testing.assert_close(mine, hf, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", MODELS)
def test_save_then_load_gives_the_same_model(tmp_path, task):
    model = random_model(MODELS[task][0], dropout=0.25, head_dropout=0.5, pad_id=3)
    save_pretrained(model, tmp_path / "saved")
    loaded = load_pretrained(tmp_path / "saved", task, fresh_head=False)
    assert loaded.config == model.config
    state = loaded.state_dict()
    assert all(torch.equal(tensor, state.pop(name)) for name, tensor in model.state_dict().items())
    assert state == {}


def test_save_writes_the_tokenizer_as_hf_reads_it(tmp_path):
    ours = tokenizer(tmp_path / "vocabulary")
    save_pretrained(random_model(), tmp_path / "saved", ours)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    for pair in TEXTS:
        encoding = ours.encode(*pair)
        expected = theirs(*([text] for text in pair), return_offsets_mapping=True)
        assert ([encoding.ids], [encoding.type_ids]) == (expected["input_ids"], expected["token_type_ids"])
        assert [encoding.offsets] == expected["offset_mapping"] == [again.encode(*pair).offsets]
        assert encoding.ids == again.encode(*pair).ids
    special = (theirs.cls_token, theirs.sep_token, theirs.pad_token, theirs.unk_token, theirs.mask_token)
    assert special == ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
    assert theirs.model_max_length == 128


def test_save_writes_what_hf_asks_of_a_safetensors_file(tmp_path):
    save_pretrained(random_model(), tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"


def test_save_writes_labels(tmp_path):
    save_pretrained(random_model(), tmp_path, labels=["گربه", "سگ"])
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert settings["id2label"] == {"0": "گربه", "1": "سگ"}
    assert settings["label2id"] == {"گربه": 0, "سگ": 1}


def test_save_replaces_an_older_model(tmp_path):
    for seed in (0, 1):
        save_pretrained(random_model(seed=seed), tmp_path, tokenizer(tmp_path / "vocabulary"))
    assert torch.equal(
        load_pretrained(tmp_path, "encoder").embeddings.token.weight, random_model(seed=1).embeddings.token.weight
    )
    assert {name for name in files_under(tmp_path) if "vocabulary" not in name} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_save_that_fails_leaves_no_checkpoint_and_no_temporary(tmp_path):
    with failing(os, "fsync", OSError(28, "No space left on device")), pytest.raises(OSError, match="No space"):
        save_pretrained(random_model(), tmp_path / "saved", tokenizer(tmp_path / "vocabulary"))
    assert files_under(tmp_path / "saved") == []


def test_save_that_fails_keeps_the_older_model(tmp_path):
    save_pretrained(random_model(), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files_under(tmp_path)}
    with failing(os, "replace", OSError(28, "No space left on device")), pytest.raises(OSError, match="No space"):
        save_pretrained(random_model(seed=1), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files_under(tmp_path)} == before


def test_save_below_a_file_is_refused_by_the_system(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        save_pretrained(random_model(), tmp_path / "file" / "saved")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_save_refuses_a_model_that_has_diverged(tmp_path, number):
    model = random_model()
    with torch.no_grad():
        model.layers[1].ffn_up.bias[3] = number
    with pytest.raises(WeightsError, match=r"layer\.1\.intermediate\.dense\.bias is not finite"):
        save_pretrained(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_save_refuses_a_module_that_is_none_of_ours(tmp_path):
    with pytest.raises(WeightsError, match="Linear is not one of our models"):
        save_pretrained(torch.nn.Linear(2, 2), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
