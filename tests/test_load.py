"""Checkpoint folders in: transformers' folders give its numbers, and whatever is not exactly right is refused."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from minitransformer import bert
from minitransformer.system.errors import WeightsError
from tiny import change_tensors, config, random_model, rewrite_json, write_checkpoint
from weights import load_pretrained, save_pretrained
from weights.find import find_folder
from weights.folder import HASH
from weights.load import default_task, read_config

CHECKOUT = Path(__file__).parents[1]
CLASSES = {
    "encoder": transformers.BertModel,
    "question-answering": transformers.BertForQuestionAnswering,
    "masked-lm": transformers.BertForMaskedLM,
}
TASKS = list(CLASSES)


def hf_model(task: str, **settings) -> transformers.PreTrainedModel:
    """A small random model of transformers', no parameter of which is all zeros or all ones."""
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 24,
    }
    torch.manual_seed(0)
    model = CLASSES[task](transformers.BertConfig(**sizes | settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module", params=TASKS)
def task(request) -> str:
    return request.param


@pytest.fixture
def hf_folder(tmp_path):
    """hf_folder(task) -> transformers' model and the folder it wrote."""

    def of(task: str, **settings):
        model = hf_model(task, **settings)
        model.save_pretrained(tmp_path / "hf")
        return model, tmp_path / "hf"

    return of


def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    lengths = torch.tensor([24, 7, 1])
    mask = torch.arange(24) < lengths[:, None]
    return {
        "input_ids": torch.randint(1, 50, (3, 24)),
        "token_type_ids": torch.randint(0, 2, (3, 24)),
        "attention_mask": mask,
    }


def outputs(model: torch.nn.Module) -> torch.Tensor:
    """What a model of ours or of transformers' says at the real tokens, (N, ...)."""
    batch = inputs()
    mask = batch["attention_mask"]
    with torch.no_grad():
        if not isinstance(model, transformers.PreTrainedModel):
            result = model(**batch)
        else:
            result = model(**batch | {"attention_mask": mask.long()})
            result = (
                (result.start_logits, result.end_logits)
                if "start_logits" in result
                else result.logits
                if "logits" in result
                else result.last_hidden_state
            )
    return torch.stack([part[mask] for part in result], -1) if isinstance(result, tuple) else result[mask]


def refusal(folder, task: str = "question-answering", **flags) -> str:
    with pytest.raises(WeightsError) as caught:
        load_pretrained(folder, task, **flags)
    assert str(folder) in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- equal


def test_load_matches_hf(hf_folder, task):
    theirs, folder = hf_folder(task)
    ours = load_pretrained(folder, task)
    torch.testing.assert_close(outputs(ours), outputs(theirs), rtol=1e-5, atol=1e-5)
    assert not ours.training
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_load_widens_half_precision(hf_folder, task, tmp_path, dtype):
    theirs, folder = hf_folder(task)
    theirs.to(dtype).save_pretrained(folder)
    ours = load_pretrained(folder, task)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    torch.testing.assert_close(outputs(ours), outputs(theirs.float()), rtol=1e-5, atol=1e-5)


def test_load_reads_shards(hf_folder, task):
    theirs, folder = hf_folder(task)
    (folder / "model.safetensors").unlink()
    theirs.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(outputs(load_pretrained(folder, task)), outputs(theirs), rtol=1e-5, atol=1e-5)


def test_load_understands_a_bare_encoder(hf_folder):
    theirs, folder = hf_folder("encoder")
    assert "embeddings.word_embeddings.weight" in load_file(folder / "model.safetensors")  # no `bert.`
    ours = load_pretrained(folder, "question-answering")
    torch.testing.assert_close(ours.encoder(**inputs())[inputs()["attention_mask"]], outputs(theirs))


def test_load_understands_a_prefix_where_a_bare_encoder_is_wanted(hf_folder):
    theirs, folder = hf_folder("masked-lm")
    hidden = theirs.bert(**inputs()).last_hidden_state[inputs()["attention_mask"]]
    torch.testing.assert_close(outputs(load_pretrained(folder, "encoder")), hidden, rtol=1e-5, atol=1e-5)


def test_load_understands_gamma_and_beta(hf_folder, task):
    theirs, folder = hf_folder(task)

    def age(tensors):
        old = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
        return {
            next((name.replace(new, past) for new, past in old.items() if name.endswith(new)), name): tensor
            for name, tensor in tensors.items()
        }

    change_tensors(folder, age)
    assert any(name.endswith("gamma") for name in load_file(folder / "model.safetensors"))
    torch.testing.assert_close(outputs(load_pretrained(folder, task)), outputs(theirs), rtol=1e-5, atol=1e-5)


def test_load_keeps_what_the_config_says(hf_folder):
    said = {
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.25,
        "attention_probs_dropout_prob": 0.05,
        "layer_norm_eps": 1e-3,
        "type_vocab_size": 5,
        "pad_token_id": 7,
        "initializer_range": 0.1,
    }
    theirs, folder = hf_folder("question-answering", **said)
    ours = load_pretrained(folder, "question-answering")
    expected = bert.BertConfig(
        50, 32, 3, 4, 40, "gelu_new", 0.25, 0.05, head_dropout=0.25, positions=24, segments=5, norm_eps=1e-3,
        initializer_range=0.1, pad_id=7,
    )  # fmt: skip
    assert ours.config == expected
    torch.testing.assert_close(outputs(ours), outputs(theirs), rtol=1e-5, atol=1e-5)


def test_load_does_not_stay_tied_to_the_file(hf_folder):
    _, folder = hf_folder("encoder")
    model = load_pretrained(folder, "encoder")
    before = outputs(model)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(b"\xff" * len(data))
    assert torch.equal(outputs(model), before)


# ---------------------------------------------------------------------------------------------------- heads


def test_load_drops_the_pooler_on_purpose(hf_folder):
    _, folder = hf_folder("encoder")
    assert "pooler.dense.weight" in load_file(folder / "model.safetensors")
    assert not any("pool" in name for name, _ in load_pretrained(folder, "encoder").named_parameters())


def test_load_makes_a_fresh_head_for_question_answering_alone(hf_folder):
    _, folder = hf_folder("encoder")
    torch.manual_seed(0)
    model = load_pretrained(folder, "question-answering")
    assert 0.01 < model.span.weight.std() < 0.03  # initializer_range 0.02
    assert torch.equal(model.span.bias, torch.zeros(2))
    assert "tensors are missing, 5 in all, first cls.predictions.bias" in refusal(folder, "masked-lm")


def test_load_draws_a_fresh_head_from_the_seed(hf_folder):
    _, folder = hf_folder("encoder")
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(load_pretrained(folder, "question-answering").span.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_load_refuses_a_fresh_head_where_answers_are_wanted_at_once(hf_folder):
    _, folder = hf_folder("encoder")
    message = refusal(folder, fresh_head=False)
    assert "tensors are missing, 2 in all, first qa_outputs.bias: train it first" in message


@pytest.mark.parametrize("name", ["qa_outputs.weight", "qa_outputs.bias"])
def test_load_refuses_half_a_head(hf_folder, name):
    _, folder = hf_folder("question-answering")
    change_tensors(folder, lambda tensors: {key: value for key, value in tensors.items() if key != name})
    assert f"tensors are missing, 1 in all, first {name}: the file is not whole" in refusal(folder)


def test_load_accepts_a_decoder_that_repeats_the_embeddings(hf_folder):
    theirs, folder = hf_folder("masked-lm")
    embeddings = "bert.embeddings.word_embeddings.weight"
    repeated = {"cls.predictions.decoder.weight": embeddings, "cls.predictions.decoder.bias": "cls.predictions.bias"}
    change_tensors(folder, lambda tensors: tensors | {copy: tensors[name].clone() for copy, name in repeated.items()})
    ours = load_pretrained(folder, "masked-lm")
    torch.testing.assert_close(outputs(ours), outputs(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"])
def test_load_refuses_a_decoder_that_is_not_tied(hf_folder, name):
    _, folder = hf_folder("masked-lm")
    shape = (50, 32) if name.endswith("weight") else (50,)
    change_tensors(folder, lambda tensors: tensors | {name: torch.zeros(shape)})
    assert f"{name} differs from" in refusal(folder, "masked-lm")


def test_load_accepts_what_old_files_carry_besides(hf_folder):
    theirs, folder = hf_folder("masked-lm")
    besides = {
        "bert.embeddings.position_ids": torch.arange(24)[None],
        "bert.pooler.dense.weight": torch.zeros(32, 32),
        "bert.pooler.dense.bias": torch.zeros(32),
        "cls.seq_relationship.weight": torch.zeros(2, 32),
        "cls.seq_relationship.bias": torch.zeros(2),
    }
    change_tensors(folder, lambda tensors: tensors | besides)
    ours = load_pretrained(folder, "masked-lm")
    torch.testing.assert_close(outputs(ours), outputs(theirs), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- refused


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "tiny", bert.BertForQuestionAnswering)


def test_load_refuses_a_folder_that_is_absent(tmp_path):
    assert "no such folder" in refusal(tmp_path / "absent")


def test_load_refuses_a_folder_without_a_config(tmp_path):
    assert "no config.json: not a checkpoint folder in Hugging Face layout" in refusal(tmp_path)


def test_load_refuses_an_unknown_task(folder):
    assert "no task 'translation'; it has encoder, question-answering" in refusal(folder, "translation")


def test_load_refuses_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors: not a whole checkpoint folder" in refusal(folder)


def to_pickle(folder: Path, rename=lambda name: name) -> None:
    """The folder as old repositories have it: pytorch_model.bin alone."""
    tensors = load_file(folder / "model.safetensors")
    torch.save({rename(name): tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pytorch_model_bin_gives_the_same_and_says_that_it_is_a_pickle(hf_folder, capsys):
    theirs, folder = hf_folder("question-answering")
    to_pickle(folder)
    torch.testing.assert_close(
        outputs(load_pretrained(folder, "question-answering")), outputs(theirs), rtol=1e-5, atol=1e-5
    )
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"{folder / 'pytorch_model.bin'}: a pickle; its tensors alone were read, and no code of it was run"


def test_shards_of_pytorch_model_bin_are_read_together(hf_folder):
    theirs, folder = hf_folder("encoder")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(sorted(tensors))}
    for shard in set(where.values()):
        torch.save({name: tensor for name, tensor in tensors.items() if where[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    torch.testing.assert_close(outputs(load_pretrained(folder, "encoder")), outputs(theirs), rtol=1e-5, atol=1e-5)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert "shard pytorch_model-00002-of-00002.bin is not in the folder" in refusal(folder)


def test_safetensors_are_taken_before_a_pickle(hf_folder, capsys):
    _, folder = hf_folder("encoder")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    load_pretrained(folder, "encoder")
    assert "pickle" not in capsys.readouterr().err


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_local_pickle_that_asks_for_more_than_tensors_is_refused_and_not_run(hf_folder, tmp_path, save):
    _, folder = hf_folder("encoder")
    (folder / "model.safetensors").unlink()
    save({"bert.pooler.dense.weight": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert "not a table of tensors alone: damaged, or made to run code, which was not run; " in refusal(folder)
    assert not (tmp_path / "ran").exists()


class Bomb:
    """Unpickled by the rules of pickle, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("wrappers", [["module."], ["_orig_mod."], ["model."], ["module.", "_orig_mod."]])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_prefixes_that_training_tools_leave_are_understood_and_told(hf_folder, capsys, wrappers, file):
    theirs, folder = hf_folder("encoder")
    change_tensors(folder, lambda tensors: {"".join(wrappers) + name: tensor for name, tensor in tensors.items()})
    if file == "pytorch_model.bin":
        to_pickle(folder)
    torch.testing.assert_close(outputs(load_pretrained(folder, "encoder")), outputs(theirs), rtol=1e-5, atol=1e-5)
    said = capsys.readouterr().err
    for wrapper in wrappers:
        assert f"{folder}: every name begins with '{wrapper}', which a training tool has left; read without it" in said


def test_a_prefix_that_only_some_names_have_is_refused(hf_folder):
    _, folder = hf_folder("encoder")
    first = min(load_file(folder / "model.safetensors"))
    change_tensors(
        folder, lambda tensors: {name if name == first else f"module.{name}": t for name, t in tensors.items()}
    )
    assert "tensors are missing" in refusal(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_of_the_folder_means_the_folder(hf_folder, file):
    theirs, folder = hf_folder("encoder")
    torch.testing.assert_close(
        outputs(load_pretrained(folder / file, "encoder")), outputs(theirs), rtol=1e-5, atol=1e-5
    )


def test_a_file_without_config_json_beside_it_is_refused(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match=r"model\.safetensors: no config\.json: not a checkpoint folder"):
        find_folder(tmp_path / "model.safetensors")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_load_refuses_a_file_that_is_cut_off(folder, part):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    assert "not a whole safetensors file" in refusal(folder)


def test_load_refuses_a_file_that_is_no_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html><html>not found</html>")
    assert "not a whole safetensors file" in refusal(folder)


def test_load_names_a_tensor_that_is_missing(folder):
    name = "bert.encoder.layer.1.output.dense.bias"
    change_tensors(folder, lambda tensors: {key: value for key, value in tensors.items() if key != name})
    assert f"tensors are missing, 1 in all, first {name}: the file is not whole, or of another model" in refusal(folder)


def test_load_names_a_tensor_that_is_extra(folder):
    change_tensors(folder, lambda tensors: tensors | {"bert.encoder.layer.2.x": torch.zeros(1), "a": torch.zeros(1)})
    assert "unexpected tensor a: the file is of another model than config.json says" in refusal(folder)


def test_load_refuses_more_layers_than_the_config_has(folder):
    rewrite_json(folder / "config.json", num_hidden_layers=1)
    assert "unexpected tensor bert.encoder.layer.1.attention.output.LayerNorm.bias" in refusal(folder)


def test_load_names_a_tensor_of_another_shape(folder):
    rewrite_json(folder / "config.json", intermediate_size=7)
    message = refusal(folder)
    assert "bert.encoder.layer.0.intermediate.dense.weight has shape (48, 32), config.json asks for (7, 32)" in message


def test_load_refuses_a_name_that_stands_twice(folder):
    name = "bert.embeddings.LayerNorm."
    change_tensors(folder, lambda tensors: tensors | {name + "gamma": tensors[name + "weight"].clone()})
    assert f"{name}weight stands twice" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_load_refuses_numbers_that_are_no_ordinary_floats(folder, dtype):
    name = "qa_outputs.bias"
    change_tensors(folder, lambda tensors: tensors | {name: tensors[name].to(dtype)})
    assert f"{name} is {dtype}" in refusal(folder)


def test_load_refuses_shards_that_are_not_all_there(hf_folder):
    model, folder = hf_folder("encoder")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    first = min(folder.glob("model-*.safetensors"))
    first.unlink()
    assert f"shard {first.name} is not in the folder; fetch it" in refusal(folder, "encoder")


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[]", "{"])
def test_load_refuses_an_index_that_is_none(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    assert "fetch the file again" in refusal(folder)


def test_load_does_not_follow_an_index_out_of_the_folder(folder):
    (folder / "model.safetensors").rename(folder.parent / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    assert "shard ../other.safetensors is not in the folder" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", 5000 * "[", "not JSON"])
def test_load_refuses_a_config_that_is_not_json(folder, text):
    (folder / "config.json").write_text(text)
    message = refusal(folder)
    assert f"{folder / 'config.json'}: not " in message
    assert message.endswith("fetch the file again")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; this project has bert"),
        ({"model_type": ...}, "model_type is None"),
        ({"model_type": ["bert"]}, "model_type is ['bert']"),
        ({"hidden_act": "gelo"}, "unknown hidden_act 'gelo'; known are gelu, "),
        ({"hidden_act": 3}, "hidden_act is 3, not a text"),
        ({"hidden_size": "32"}, "hidden_size is '32', not a whole number"),
        ({"hidden_size": 32.0}, "hidden_size is 32.0, not a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, not a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, which no model has"),
        ({"vocab_size": -5}, "vocab_size is -5, which no model has"),
        ({"vocab_size": 10**30}, "vocab_size is 10000"),
        ({"num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5, not a probability"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob is '0.1', not a number"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps is -1.0, which no model has"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan, which no model has"),
        ({"initializer_range": -0.02}, "initializer_range is -0.02, which no model has"),
        ({"pad_token_id": 10**6}, "pad_token_id 1000000 is outside the vocab_size"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True, which this model does not compute"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ],
)
def test_load_refuses_a_config_it_does_not_compute(folder, changes, problem):
    rewrite_json(folder / "config.json", **changes)
    message = refusal(folder)
    assert message.startswith(f"{folder / 'config.json'}: ")
    assert problem in message


def test_load_takes_a_whole_number_for_a_float_in_the_config(folder):
    rewrite_json(folder / "config.json", hidden_dropout_prob=0, layer_norm_eps=1)
    loaded = load_pretrained(folder, "question-answering").config
    assert (loaded.dropout, loaded.norm_eps) == (0.0, 1.0)


def test_load_ignores_settings_that_change_no_numbers(folder):
    rewrite_json(folder / "config.json", use_cache=True, torch_dtype="float16", _name_or_path="x", gradient=None)
    assert load_pretrained(folder, "question-answering").config == config()


def test_find_folder_prefers_a_path_to_a_name(tmp_path, monkeypatch):
    save_pretrained(random_model(), tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_folder("mine").resolve() == tmp_path / "mine"


def test_find_folder_knows_the_checkpoints_that_ship(tmp_path, monkeypatch):
    monkeypatch.setattr("weights.find.SHIPPED", tmp_path)
    save_pretrained(random_model(), tmp_path / "demo")
    assert find_folder("demo") == tmp_path / "demo"
    with pytest.raises(WeightsError, match=r"did you mean 'demo'.* or a name: .*, demo, "):
        find_folder("dmo")


def test_a_note_of_others_as_long_as_the_name_of_our_hash_is_no_damage(hf_folder):
    theirs, folder = hf_folder("encoder")
    note = {"format": "pt", "modelspec.architecture": "bert"}
    assert len("modelspec.architecture") == len(HASH)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata=note)
    torch.testing.assert_close(outputs(load_pretrained(folder, "encoder")), outputs(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("named", [5, True, "BertModel", {}, None])
def test_architectures_that_are_no_list_name_no_task(hf_folder, named):
    _, folder = hf_folder("encoder")
    rewrite_json(folder / "config.json", architectures=named)
    assert default_task(folder, read_config(folder)[0], "none") == "none"


def test_a_byte_order_mark_before_config_json_is_no_damage(hf_folder):
    theirs, folder = hf_folder("encoder")
    path = folder / "config.json"
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    torch.testing.assert_close(outputs(load_pretrained(folder, "encoder")), outputs(theirs), rtol=1e-5, atol=1e-5)


def test_loading_draws_nothing_and_does_not_load_torchs_compiler(hf_folder):
    _, folder = hf_folder("question-answering")
    code = "import sys, torch; from weights import load_pretrained; torch.manual_seed(0); "
    code += f"load_pretrained({str(folder)!r}, 'question-answering'); "
    code += "print('torch._dynamo' in sys.modules, torch.initial_seed(), torch.rand(1).item())"
    told = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", "0", str(torch.rand(1, generator=torch.Generator().manual_seed(0)).item())]


def test_a_token_classifier_lends_its_encoder(tmp_path):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 40,
    }
    theirs = transformers.BertForTokenClassification(transformers.BertConfig(**sizes)).eval()
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(
        outputs(load_pretrained(tmp_path, "encoder")), outputs(theirs.bert), rtol=1e-5, atol=1e-5
    )
