"""A model over features, and `python -m qa.predict`."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from minitransformer import bert
from minitransformer.system.errors import RunError
from qa import predict, squad
from qa.features import collate, featurise
from qa.inference import predict_spans, span_loss
from qa.spans import predictions
from qa.squad import Example
from tiny import (
    CITIES,
    COUNTRIES,
    WORDS,
    call,
    examples,
    files_under,
    random_model,
    tokenizer,
    write_checkpoint,
    write_questions,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model, as far as anyone can tell."""
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model", bert.BertForQuestionAnswering, positions=256)


@pytest.fixture
def data(tmp_path):
    return write_questions(tmp_path / "data.json")


@pytest.fixture
def run(folder, data, tmp_path):
    return lambda *flags: call(predict.main, "--model", folder, "--data", data, "--out", tmp_path / "out.json", *flags)


def test_the_questions_are_not_overwritten_by_their_answers(run, data):
    before = data.read_bytes()
    assert "it is what is read" in run("--out", data).refusal()
    assert data.read_bytes() == before


def test_span_loss_is_the_mean_of_both_cross_entropies():
    generator = torch.Generator().manual_seed(0)
    start_logits, end_logits = torch.randn(2, 3, 5, generator=generator)
    start, end = torch.tensor([0, 2, 4]), torch.tensor([1, 2, 0])
    by_hand = 0.0
    for row in range(3):
        for logits, target in ((start_logits[row], start[row]), (end_logits[row], end[row])):
            by_hand -= (logits[target].exp() / logits.exp().sum()).log() / 6
    torch.testing.assert_close(span_loss(start_logits, end_logits, start, end), by_hand)
    torch.testing.assert_close(span_loss(start_logits, end_logits, start, end, reduction="sum"), 3 * by_hand)


@pytest.fixture
def features(tmp_path):
    long = Example("long", "", "کدام شهر؟", "شهر تهران پایتخت ایران است. " * 20, ())
    return featurise([*examples(), long], tokenizer(tmp_path / "tokenizer"), max_length=32, stride=8)


def test_read_gives_the_same_for_any_batch_size(features):
    model = random_model(bert.BertForQuestionAnswering)
    alone = predict_spans(model, features, batch_tokens=1, max_answer_tokens=8, n_best=3)
    for batch_tokens in (100, 10_000):
        together = predict_spans(model, features, batch_tokens, max_answer_tokens=8, n_best=3)
        assert torch.equal(alone.spans.start, together.spans.start)
        torch.testing.assert_close(alone.spans.score, together.spans.score, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.spans.null_score, together.spans.null_score, rtol=1e-5, atol=1e-5)
        assert alone.loss == pytest.approx(together.loss, rel=1e-5)


def test_read_gives_a_row_per_feature_in_their_order(features):
    model = random_model(bert.BertForQuestionAnswering)
    whole = predict_spans(model, features, batch_tokens=100, max_answer_tokens=8)
    for index in (0, 5, len(features) - 1):
        alone = predict_spans(model, [features[index]], batch_tokens=100, max_answer_tokens=8)
        assert whole.spans.start[index] == alone.spans.start[0]
        torch.testing.assert_close(whole.spans.score[index], alone.spans.score[0], rtol=1e-5, atol=1e-5)


def test_read_has_the_mean_loss_over_features(features):
    model = random_model(bert.BertForQuestionAnswering)
    batch = collate(features, pad_id=0)
    with torch.no_grad():
        logits = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
    expected = span_loss(*logits, batch.start, batch.end).item()
    assert predict_spans(model, features, 100, 8).loss == pytest.approx(expected, rel=1e-5)


def test_read_switches_dropout_off(features):
    model = random_model(bert.BertForQuestionAnswering).train()
    losses = {predict_spans(model, features, 100, 8).loss for _ in range(2)}
    assert len(losses) == 1
    assert not model.training


def test_read_refuses_a_model_whose_logits_are_not_finite(features):
    model = random_model(bert.BertForQuestionAnswering)
    torch.nn.init.constant_(model.encoder.embeddings.norm.weight, float("nan"))
    with pytest.raises(RunError, match="the model answers with NaN: its weights are damaged"):
        predict_spans(model, features, 100, 8)


# ---------------------------------------------------------------------------------------------------- the command


def test_predict_writes_an_answer_for_every_question(run, data, tmp_path):
    outcome = run()
    assert outcome.status == 0, outcome.err
    answers = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    questions = squad.read(data)
    assert list(answers) == [example.id for example in questions]
    assert all(answers[example.id] in example.context for example in questions)
    empty = sum(not text for text in answers.values())
    assert outcome.out == f"12 answers, {empty} of them empty, in float32: {tmp_path / 'out.json'}\n"


@pytest.mark.parametrize(
    ("flags", "stride", "answer_tokens"),
    [((), 128, 64), (("--stride", 7, "--max-answer-tokens", 3), 7, 3)],
    ids=["defaults", "flags"],
)
def test_predict_equals_its_parts(run, tmp_path, flags, stride, answer_tokens):
    contexts = (" ".join(CITIES[first:] + WORDS * 9 + COUNTRIES * 9) for first in range(9))
    long = (Example(f"long {index}", "", "شهر کدام است؟", context, ()) for index, context in enumerate(contexts))
    data = write_questions(tmp_path / "data.json", [*examples(), *long])
    assert run("--data", data, *flags).status == 0
    questions = squad.read(data)
    model = random_model(bert.BertForQuestionAnswering, positions=256)
    features = featurise(questions, tokenizer(tmp_path / "tokenizer"), 256, stride)
    assert len(features) > len(questions), "some are read through windows"
    spans, _ = predict_spans(model, features, 8192, answer_tokens)
    expected = {id: answer.text for id, answer in predictions(questions, features, spans).items()}
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == expected


def test_predict_threshold_decides_what_has_no_answer(run, tmp_path):
    for threshold, empty in (("-1e9", 12), ("1e9", 0)):
        assert run("--null-threshold", threshold).status == 0
        assert list(json.loads((tmp_path / "out.json").read_text()).values()).count("") == empty


def test_predict_reads_a_context_of_100_000_words(run, tmp_path):
    sizes = {"positions": 512, "layers": 1, "width": 8, "heads": 1, "ffn_width": 8}
    weights = write_checkpoint(tmp_path / "small", bert.BertForQuestionAnswering, **sizes)
    context = "شهر رود کوه تهران " * 25_000
    data = write_questions(tmp_path / "long.json", [Example("long", "", "شهر کدام است؟", context, ())])
    assert run("--model", weights, "--data", data, "--null-threshold", "1e9").status == 0
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["long"] in context


@pytest.mark.parametrize("out", ["absent/out.json", "data.json/out.json", "."])
def test_predict_refuses_an_out_file_before_it_reads_anything(run, tmp_path, monkeypatch, out):
    monkeypatch.setattr(predict, "Answerer", None)
    before = files_under(tmp_path)
    message = run("--out", tmp_path / out).refusal()
    assert message.startswith(f"error: {tmp_path / out}: ")
    assert files_under(tmp_path) == before


def test_predict_refuses_a_model_without_a_trained_head(run, tmp_path):
    message = run("--model", write_checkpoint(tmp_path / "encoder")).refusal()
    assert "first qa_outputs.bias: train it first" in message
    assert not (tmp_path / "out.json").exists()


def test_predict_refuses_weights_that_are_not_finite(run, tmp_path):
    weights = write_checkpoint(tmp_path / "bad", bert.BertForQuestionAnswering)
    tensors = load_file(weights / "model.safetensors")
    tensors["qa_outputs.bias"].fill_(float("nan"))
    save_file(tensors, weights / "model.safetensors")
    assert "its weights are damaged" in run("--model", weights).refusal()
    assert not (tmp_path / "out.json").exists()


def test_predict_refuses_data_that_is_absent(run, tmp_path):
    assert "absent.json: there is no such file" in run("--data", tmp_path / "absent.json").refusal()
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--stride", "-1"), "--stride: -1 is below 0"),
        (("--stride", "x"), "--stride: 'x' is not a whole number"),
        (("--stride", "253"), "lower the stride"),
        (("--max-answer-tokens", "0"), "--max-answer-tokens: 0 is below 1"),
        (("--null-threshold", "nan"), "--null-threshold: 'nan' is not a finite number"),
        (("--batch-tokens", "0"), "--batch-tokens: 0 is below 1"),
        (("--modle", "x"), "unknown flag '--modle' (did you mean '--model'?)"),
        (("--device", "gpu"), "--device: invalid choice: 'gpu'"),
    ],
)
def test_predict_refuses_flags(run, tmp_path, flags, problem):
    long = write_questions(tmp_path / "long.json", [Example("long", "", "شهر؟", "شهر " * 500, ())])
    assert problem in run("--data", long, *flags).refusal()
    assert not (tmp_path / "out.json").exists()


def test_predict_says_which_flags_it_needs():
    assert "--data, --out" in call(predict.main).refusal()
