"""Quantisation: bounds of the error, the file, the command, and files that do not fit together."""

import json

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from minitransformer import bert
from minitransformer.system.errors import WeightsError
from qa import Answerer
from tiny import call, examples, files_under, rewrite_json, write_checkpoint, write_questions
from weights import load_pretrained, load_tokenizer, quantised
from weights.folder import SCHEME, safetensors_bytes
from weights.quantise import main
from weights.quantised import Codes, dequantise, pack, unpack

MOST = {4: 7, 8: 127}


@st.composite
def matrices(draw):
    rows, groups, group = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.sampled_from([2, 4, 16]))
    seed, scale = draw(st.integers(0, 2**31)), draw(st.sampled_from([1e-6, 1e-3, 1.0, 1e3]))
    matrix = torch.randn(rows, groups * group, generator=torch.Generator().manual_seed(seed)) * scale
    matrix[matrix.abs() < draw(st.sampled_from([0.0, scale])) / 2] = 0.0
    return matrix, group


@settings(deadline=None, max_examples=60)
@given(matrices(), st.sampled_from([4, 8]))
def test_no_group_is_farther_off_than_half_a_step_of_its_widest_weight_would_make_it(made, bits):
    matrix, group = made
    codes = quantised.quantise(matrix, bits, group)
    read = dequantise(codes, bits)
    parts, errors = (x.view(len(matrix), -1, group) for x in (matrix, read - matrix))
    step = (parts.abs().amax(-1) / MOST[bits]).half().float().clamp(min=2.0**-24)  # nothing cut off
    plain = (parts / step[..., None]).round().clamp(-MOST[bits], MOST[bits]) * step[..., None] - parts
    assert (errors.square().sum(-1) <= plain.square().sum(-1) * (1 + 1e-5)).all()
    # float16 rounds a scale by 2^-11 of itself, which the largest weight, MOST steps, feels as often.
    bound = step * (0.5 + MOST[bits] * 2.0**-11) + 2.0**-24 * MOST[bits]
    assert (plain.abs() <= bound[..., None] * (1 + 1e-5)).all()


@settings(deadline=None, max_examples=30)
@given(matrices(), st.sampled_from([4, 8]))
def test_what_was_rounded_once_is_not_rounded_again(made, bits):
    matrix, group = made
    once = dequantise(quantised.quantise(matrix, bits, group), bits)
    again = dequantise(quantised.quantise(once, bits, group), bits)
    # A scale that float16 rounded up leaves the widest weight a step below MOST; the next scale may then be float16's
    # neighbour, which for the smallest scales is 2^-24 away, up to MOST times in a weight.
    torch.testing.assert_close(again, once, rtol=2e-3, atol=MOST[bits] * 2.0**-24)
    assert ((once == 0) | (once.sign() == matrix.sign())).all()
    assert (once[matrix == 0] == 0).all()


def test_a_group_by_hand():
    """Steps of 0.1: 0.7 is 7 of them, -0.31 rounds to -3, 0.04 to 0, 0.29 to 3."""
    codes = quantised.quantise(torch.tensor([[0.7, -0.31, 0.04, 0.29]]), 4, 4)
    assert codes.codes.tolist() == [[(7 + 8) | (-3 + 8) << 4, 8 | (3 + 8) << 4]]
    torch.testing.assert_close(dequantise(codes, 4), torch.tensor([[0.7, -0.3, 0.0, 0.3]]), rtol=1e-3, atol=1e-3)


def test_an_outlier_spoils_its_own_group_alone():
    matrix = torch.full((1, 8), 0.1)
    matrix[0, 0] = 10.0
    read = dequantise(quantised.quantise(matrix, 4, 4), 4)
    assert read[0, 1:4].tolist() == [0.0] * 3
    torch.testing.assert_close(read[0, 4:], matrix[0, 4:], rtol=1e-3, atol=0.0)


@pytest.mark.parametrize(("bits", "group", "problem"), [
    (3, 4, "bits are 3; choose 4 or 8"), (32, 4, "bits are 32"), (4, 3, "8 columns cannot be cut into groups of 3"),
])  # fmt: skip
def test_what_cannot_be_quantised_is_a_value_error(bits, group, problem):
    with pytest.raises(ValueError, match=problem):
        quantised.quantise(torch.zeros(2, 8), bits, group)


def test_pack_and_unpack_leave_the_rest_as_it_is():
    tensors = {"a": torch.randn(3, 8), "b": torch.randn(5)}
    packed, notes = pack(tensors, {"a": (4, 4)})
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in packed.items()} == {
        "a.codes": (torch.uint8, (3, 4)), "a.scales": (torch.float16, (3, 2)), "b": (torch.float32, (5,)),
    }  # fmt: skip
    read = unpack(packed, notes[SCHEME])
    assert read.keys() == tensors.keys()
    assert torch.equal(read["b"], tensors["b"])
    assert torch.equal(read["a"], dequantise(Codes(packed["a.codes"], packed["a.scales"]), 4))


# ------------------------------------------------------------------------------------------------ folders


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "model", bert.BertForQuestionAnswering, width=64, ffn_width=256, positions=256)


def run(folder, out, *flags):
    outcome = call(main, folder, "--out", out, *flags)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    return outcome.out


@pytest.mark.parametrize(("bits", "worst"), [(4, 0.25), (8, 0.02)])
def test_a_quantised_folder_loads_as_any_other(folder, tmp_path, bits, worst):
    said = run(folder, tmp_path / "small", "--bits", bits)
    before, after = (load_pretrained(where, "question-answering") for where in (folder, tmp_path / "small"))
    for (name, one), (_, other) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        if one.dim() == 2 and one.numel() >= 2**14:
            error = ((one - other) / one.std()).square().mean().sqrt()
            assert 0 < error < worst, name
            assert f"{error:.4f}" in said
        else:
            assert torch.equal(one, other), name
    assert load_tokenizer(tmp_path / "small").to_str() == load_tokenizer(folder).to_str()
    assert files_under(tmp_path / "small") == files_under(folder)


def test_a_pattern_gives_eight_bits(folder, tmp_path):
    run(folder, tmp_path / "small", "--bits", 4, "--eight", "*layer.0.output*", "--group", 32)
    tensors = load_file(tmp_path / "small/model.safetensors")
    for name, scales in tensors.items():
        if name.endswith(".scales"):
            eight = "layer.0.output" in name
            codes = tensors[name.replace("scales", "codes")]
            columns = codes.shape[1] * (1 if eight else 2)
            assert scales.shape[1] == (1 if eight else columns // 32), name


def test_thirty_two_bits_give_a_folder_that_transformers_loads(folder, tmp_path):
    run(folder, tmp_path / "small", "--bits", 4)
    run(tmp_path / "small", tmp_path / "plain", "--bits", 32)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "plain").eval()
    ours = load_pretrained(tmp_path / "small", "question-answering")
    ids = torch.randint(5, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        start, end = ours(ids)
        theirs = model(ids)
    torch.testing.assert_close(start, theirs.start_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end, theirs.end_logits, rtol=1e-5, atol=1e-5)


def test_data_tells_what_it_costs(folder, tmp_path):
    data = write_questions(tmp_path / "data.json")
    said = run(folder, tmp_path / "small", "--bits", 8, "--data", data)
    for name in ("exact", "f1"):
        line = next(line for line in said.splitlines() if line.startswith(name))
        assert " -> " in line
    questions = examples()
    exact = sum(Answerer(tmp_path / "small")(e.question, e.context).text == "" for e in questions if not e.answers)
    assert f"-> {100 * exact / len(questions):.2f}" in said


def test_the_size_is_told_and_true(folder, tmp_path):
    said = run(folder, tmp_path / "small", "--bits", 4)
    size = sum(path.stat().st_size for path in (tmp_path / "small").iterdir())
    assert f"{size / 1e6:.2f} MB, of " in said
    assert size < 0.5 * sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize(("flags", "problem"), [
    (("--bits", 3), "--bits: invalid choice"), ((), "required: --bits"), (("--bits", 4, "--group", 0), "0 is below 1"),
    (("--bits", 4, "--eight", "*nothing*"), "--eight '*nothing*': no tensor has such a name"),
])  # fmt: skip
def test_flags_that_make_no_sense_are_refused(folder, tmp_path, flags, problem):
    assert problem in call(main, folder, "--out", tmp_path / "small", *flags).refusal()
    assert not (tmp_path / "small").exists()


def test_a_folder_with_a_checkpoint_is_not_overwritten(folder):
    before = (folder / "model.safetensors").read_bytes()
    assert (
        "there is a checkpoint in it; choose another --out"
        in call(main, folder, "--bits", 4, "--out", folder).refusal()
    )
    assert (folder / "model.safetensors").read_bytes() == before


def rewritten(folder, out, change):
    """A quantised folder whose tensors and note went through `change`."""
    run(folder, out, "--bits", 4)
    tensors = load_file(out / "model.safetensors")
    header = (out / "model.safetensors").read_bytes()
    note = json.loads(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"][SCHEME])
    note = change(tensors, note) or note
    note = note if isinstance(note, str) else json.dumps(note)
    (out / "model.safetensors").write_bytes(safetensors_bytes(tensors, {SCHEME: note}))


NAME = "bert.encoder.layer.0.intermediate.dense.weight"


def cut_scales(tensors, note):
    tensors[f"{NAME}.scales"] = tensors[f"{NAME}.scales"][:, :0].clone()


def spoil_scale(tensors, note):
    tensors[f"{NAME}.scales"][0, 0] = torch.nan


def drop(part):
    def change(tensors, note):
        del tensors[f"{NAME}.{part}"]

    return change


def told(*numbers):
    return lambda tensors, note: note | {NAME: list(numbers)}


@pytest.mark.parametrize(("change", "problem"), [
    (cut_scales, r"scales is torch.float16 \(256, 0\), not torch.float16 \(256, 1\)"),
    (spoil_scale, "a scale is not finite"),
    (drop("scales"), r"weight.scales is missing"),
    (drop("codes"), r"weight.codes is missing"),
    (told(256, 64, 8, 64), r"codes is torch.uint8 \(256, 32\), not torch.uint8 \(256, 64\)"),
    (told(256, 64, 5, 64), "bits are 5; choose 4 or 8"),
    (told(256, 64, 4, 48), "64 columns cannot be cut into groups of 48"),
    (told(256, 64, 4), "not rows, columns, bits and group"),
    (told(256, 64, 4, -64), "not rows, columns, bits and group"),
    (lambda tensors, note: "{", "its note on quantisation is damaged"),
    (lambda tensors, note: "[3]", "its note on quantisation is damaged"),
    (lambda tensors, note: {k: v for k, v in note.items() if k != NAME}, "tensors are missing, 1 in all, first"),
])  # fmt: skip
def test_files_that_do_not_fit_together_are_refused_in_one_line(folder, tmp_path, change, problem):
    rewritten(folder, tmp_path / "bad", change)
    with pytest.raises(WeightsError, match=problem) as refusal:
        load_pretrained(tmp_path / "bad", "question-answering")
    assert str(tmp_path / "bad") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_checkpoint_that_others_quantised_is_refused_as_before(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("query.weight"))
    tensors[name] = tensors[name].to(torch.int8)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    rewrite_json(folder / "config.json", quantization_config={"bits": 8})
    with pytest.raises(WeightsError, match="no float: fetch a checkpoint that is not quantised"):
        load_pretrained(folder, "encoder")
