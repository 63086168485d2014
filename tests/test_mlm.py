"""Masked language modelling: what is hidden, what the loss is, and the job train_mlm.py."""

import csv
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForQuestionAnswering, AutoTokenizer
from transformers import BertForMaskedLM as HFBertForMaskedLM

import tiny
import train_mlm
import train_qa
from minitransformer.system.errors import DataError
from minitransformer.training.masking import NO_WORD, Masking
from minitransformer.training.order import epoch_order
from qa import demo, squad
from qa.documents import Batch, collate, cut, number_words, read_documents
from weights import load_pretrained, load_tokenizer
from weights.compare import compare, first_difference
from weights.new_model import sine_waves
from weights.new_tokenizer import learn_pieces, train_tokenizer

MASK, SPECIAL, VOCABULARY = 4, 5, 1005
TINY = "--width 16 --layers 1 --heads 2 --ffn-width 32 --vocabulary 300 --max-length 192 --positions 192 --batch-size 4"


def masking(rate: float = 0.15, whole_words: bool = True) -> Masking:
    return Masking(rate, whole_words, mask_id=MASK, ordinary_ids=torch.arange(SPECIAL, VOCABULARY))


@pytest.fixture(scope="module")
def tokenizer():
    lines = demo.pretraining_text("train", 300)
    return train_tokenizer((text for line in lines for text in line.split("\t")), vocabulary=600)


def run(out: Path, *flags: object) -> str:
    done = tiny.call(train_mlm.main, "--out", out, *TINY.split(), "--limit-valid", 8, *flags)
    assert done.status == 0, done.err
    return done.out


def losses(folder: Path) -> list[str]:
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


# ---------------------------------------------------------------------------------------------------- masking


@pytest.mark.parametrize("whole_words", [True, False])
def test_masking_hides_15_percent_and_damages_80_10_10(whole_words: bool) -> None:
    torch.manual_seed(0)
    ids = torch.randint(SPECIAL, VOCABULARY, (400, 500))
    words = torch.arange(500).expand(400, 500) // 2
    damaged, hidden = masking(0.15, whole_words)(ids, words, seed=0)
    share = hidden.float().mean().item()
    assert share == pytest.approx(0.15, abs=0.004)
    masked = hidden & (damaged == MASK)
    changed = hidden & (damaged != MASK) & (damaged != ids)
    kept = hidden & (damaged == ids)
    for part, expected in ((masked, 0.8), (changed, 0.1), (kept, 0.1)):
        assert (part.sum() / hidden.sum()).item() == pytest.approx(expected, abs=0.008)
    assert torch.equal(damaged[~hidden], ids[~hidden])
    replacements = damaged[changed]
    assert replacements.min() >= SPECIAL  # never a special token
    assert replacements.unique().numel() > 900  # any of the 1,000 others


def test_masking_never_touches_special_tokens_and_padding() -> None:
    torch.manual_seed(0)
    ids = torch.randint(SPECIAL, VOCABULARY, (50, 20))
    words = torch.arange(20).repeat(50, 1)
    words[:, 0] = words[:, 12:] = NO_WORD
    damaged, hidden = masking(1.0)(ids, words, seed=0)
    assert torch.equal(hidden, words != NO_WORD)
    assert torch.equal(damaged[~hidden], ids[~hidden])


def test_whole_words_are_hidden_together() -> None:
    torch.manual_seed(0)
    words = torch.tensor([[NO_WORD, 0, 0, 0, 1, 2, 2, 3, NO_WORD]]).repeat(2000, 1)
    _, hidden = masking(0.3)(torch.full_like(words, 7), words, seed=0)
    assert torch.equal(hidden[:, 1], hidden[:, 2])
    assert torch.equal(hidden[:, 1], hidden[:, 3])
    assert torch.equal(hidden[:, 5], hidden[:, 6])
    for first, second in ((1, 4), (4, 5), (5, 7)):  # but each word for itself
        both = (hidden[:, first] & hidden[:, second]).float().mean().item()
        assert both == pytest.approx(0.09, abs=0.03)
    _, hidden = masking(0.3, whole_words=False)(torch.full_like(words, 7), words, seed=0)
    assert not torch.equal(hidden[:, 1], hidden[:, 2])


def test_the_seed_decides_what_is_hidden() -> None:
    ids, words = torch.randint(SPECIAL, VOCABULARY, (8, 30)), torch.arange(30).expand(8, 30)
    results = []
    for seed in (1, 1, 2):
        results.append(masking()(ids, words, seed))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][1], results[2][1])


def test_some_of_the_texts_keep_their_labels() -> None:
    words = torch.arange(9).expand(5, 9).clone()
    words[2] = NO_WORD  # a text with nothing to hide
    ids = torch.randint(SPECIAL, VOCABULARY, words.shape)
    batch = Batch(ids, torch.zeros_like(ids), words, words != NO_WORD)
    whole = masking(0.5).hide(batch, seed=0)
    parts = [whole.texts(rows) for rows in ([0, 2, 4], [1, 3])]
    for part, rows in zip(parts, ([0, 2, 4], [1, 3]), strict=True):
        assert torch.equal(part.hidden, whole.hidden[rows])
        assert torch.equal(part.labels, ids[rows][part.hidden])
    assert sum(len(part.labels) for part in parts) == len(whole.labels) > 0


# ---------------------------------------------------------------------------------------------------- documents


def test_a_half_space_joins_a_word_and_punctuation_parts_it(tokenizer) -> None:
    encoding = tokenizer.encode("کتاب‌خانهٔ «باغ خاموش» می‌شود؟", "او گفت.")
    joining = {number for token, number in tokenizer.get_vocab().items() if token.startswith("\u200c")}
    numbers = number_words(encoding, joining)
    words: dict[int, str] = {}
    for number, text, (first, last) in zip(numbers, encoding.sequence_ids, encoding.offsets, strict=True):
        if text == 0:
            words[number] = words.get(number, "") + "کتاب‌خانهٔ «باغ خاموش» می‌شود؟"[first:last]
    assert list(words.values()) == ["کتاب‌خانهٔ", "«", "باغ", "خاموش", "»", "می‌شود", "؟"]
    assert [n for n, text in zip(numbers, encoding.sequence_ids, strict=True) if text is None] == [NO_WORD] * 3
    assert max(words) + 3 == max(numbers)  # the second text's words go on counting


def test_a_long_document_is_cut_without_loss_and_each_piece_counts_its_words(tokenizer) -> None:
    first, second = "پایتخت کجاست؟", "شهر باغ‌انار پایتخت این کشور است. " * 20
    whole = tokenizer.encode(first, second)
    head = whole.sequence_ids.index(1)
    pieces = cut([(first, second)], tokenizer, max_length=30)
    body = []
    for piece in pieces:
        ids = piece.input_ids.tolist()
        assert len(ids) <= 30
        assert ids[:head] == whole.ids[:head]
        assert ids[-1] == whole.ids[-1]
        assert piece.token_type_ids.tolist() == [0] * head + [1] * (len(ids) - head)
        body += ids[head:-1]
        words = piece.words[piece.words != NO_WORD].tolist()
        assert words[0] == 0  # each piece counts its own words, so that masking finds a draw for every one
        assert all(after - before in (0, 1) for before, after in pairwise(words))
        hidden = masking(1.0).hide(collate([piece], pad_id=0), seed=0).hidden
        assert hidden.sum() == len(words)
    assert body == whole.ids[head:-1]
    single = cut([(second,)], tokenizer, max_length=30)
    assert [number for piece in single for number in piece.input_ids.tolist()[1:-1]] == body


def test_a_first_text_that_leaves_no_room_is_refused(tokenizer) -> None:
    with pytest.raises(DataError, match="leaves no room"):
        cut([("شهر باغ‌انار " * 20, "متن")], tokenizer, max_length=20)


def test_a_line_is_a_document_and_a_tab_parts_it(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\ufeffیک متن.\n\n  \nپرسش؟\tمتن.\r\n", encoding="utf-8")  # a byte order mark, as Windows writes
    assert read_documents(str(path)) == [("یک متن.",), ("پرسش؟", "متن.")]
    assert train_mlm.read(str(path), "train", 1) == [("یک متن.",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds no text"), ("یک\tدو\tسه", "line 1: 3 texts"), (b"\xff\xfe", "not UTF-8")],
)
def test_text_that_cannot_be_used_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_documents(str(path))


def test_pieces_are_the_letters_then_the_most_frequent_pairs() -> None:
    words = Counter({"abab": 3, "abc": 2, "b": 4, "d": 1})
    # letters by frequency: ##b 8, a 5, b 4, ##a 3, ##c 2, d 1; then (a, ##b) 5, (ab, ##a) and (##a, ##b) 3 ...
    expected = ["##b", "a", "b", "##a", "##c", "d", "ab", "##ab", "abab", "abc"]
    assert learn_pieces(words, 100) == expected
    assert learn_pieces(words, 7) == expected[:7]


def test_the_trained_tokenizer_keeps_the_half_space_and_raw_offsets(tokenizer) -> None:
    text = "كتاب‌خانهٔ آرش می‌شود"  # the Arabic kaf
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert "[UNK]" not in encoding.tokens
    assert "".join(text[first:last] for first, last in encoding.offsets) == text.replace(" ", "")
    assert tokenizer.encode("می‌شود").ids != tokenizer.encode("می شود").ids != tokenizer.encode("میشود").ids
    assert tokenizer.encode("ي ك").ids == tokenizer.encode("ی ک").ids


# ---------------------------------------------------------------------------------------------------- the job


def test_loss_on_hidden_words_matches_hf(tmp_path: Path) -> None:
    run(tmp_path / "run", "--limit-train", 40, "--max-steps", 2, "--no-half")
    folder = tmp_path / "run" / "model"
    model, tokenizer = load_pretrained(folder, "masked-lm"), load_tokenizer(folder)
    theirs = HFBertForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    documents = train_mlm.read("demo", "valid", 6)
    batch = collate(cut(documents, tokenizer, max_length=192), model.config.pad_id)
    part = train_mlm.masking_for(tokenizer, train_mlm.Recipe(mask_rate=0.3)).hide(batch, seed=0)
    expected = theirs(
        input_ids=part.input_ids,
        token_type_ids=part.token_type_ids,
        attention_mask=part.attention_mask.long(),
        labels=batch.input_ids.masked_fill(~part.hidden, -100),
    ).loss
    logits = model(part.input_ids, part.token_type_ids, part.attention_mask, part.hidden)
    loss = F.cross_entropy(logits, part.labels)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(
        model.encoder.embeddings.token.weight.grad,
        theirs.bert.embeddings.word_embeddings.weight.grad,
        rtol=1e-5,
        atol=1e-5,
    )
    text = "کتاب‌خانهٔ گنج دانش"
    assert AutoTokenizer.from_pretrained(folder)(text, text).input_ids == tokenizer.encode(text, text).ids


def test_it_takes_the_steps_of_a_plain_loop(tmp_path: Path) -> None:
    """AdamW, its groups, clipping and the schedule by torch's own means, dropout off: the same losses."""
    flags = ["--limit-train", 24, "--valid", "", "--dropout", 0, "--mask-rate", 0.25, "--no-half", "--shuffle"]
    flags += ["--learning-rate", 0.03, "--beta2", 0.9, "--weight-decay", 0.3, "--warmup", 0.25, "--clip-norm", 0.1]
    run(tmp_path / "start", *flags, "--epochs", 0)
    run(tmp_path / "run", *flags, "--epochs", 2)

    folder = tmp_path / "start" / "model"
    model, tokenizer = load_pretrained(folder, "masked-lm").train(), load_tokenizer(folder)
    pieces = cut(train_mlm.read("demo", "train", 24), tokenizer, max_length=192)
    assert len(pieces) == 24
    hiding = train_mlm.masking_for(tokenizer, train_mlm.Recipe(mask_rate=0.25))
    groups = tiny.groups_by_name(model.named_parameters(), weight_decay=0.3)
    optimizer = torch.optim.AdamW(groups, lr=0.03, betas=(0.9, 0.9))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, tiny.TWELVE_RATES.__getitem__)
    expected = []
    for epoch in range(2):
        for chosen in epoch_order(24, seed=0, epoch=epoch).split(4):
            batch = collate([pieces[index] for index in chosen], model.config.pad_id)
            part = hiding.hide(batch, seed=len(expected))
            logits = model(part.input_ids, part.token_type_ids, part.attention_mask, part.hidden)
            loss = F.cross_entropy(logits, part.labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            expected.append(loss.item())
    assert [float(loss) for loss in losses(tmp_path / "run")] == pytest.approx(expected, rel=1e-4)


def test_a_new_model_has_the_recipe_s_dropout_and_position_table(tmp_path: Path) -> None:
    models = []
    for flag in ("--sines", "--no-sines"):
        out = tmp_path / flag
        run(out, flag, "--limit-train", 8, "--epochs", 0, "--valid", "", "--dropout", 0.3, "--no-half")
        models.append(load_pretrained(out / "model", "masked-lm"))
    config = models[0].config
    assert (config.dropout, config.attention_dropout) == (0.3, 0.3)
    waves, noise = (model.encoder.embeddings.position.weight.data for model in models)
    torch.testing.assert_close(waves, sine_waves(*waves.shape) * config.initializer_range)
    assert abs(noise - waves).max() > config.initializer_range


def test_it_learns_from_plain_text_and_resumes_exactly(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{line}\n" for line in demo.pretraining_text("train", 48)), encoding="utf-8")
    flags = ["--train", text, "--valid", text, "--epochs", 2, "--checkpoint-every", 5, "--dropout", 0.1]
    run(tmp_path / "whole", *flags)
    run(tmp_path / "parts", *flags)
    newest = sorted((tmp_path / "parts" / "checkpoints").glob("step-*"))[-1]
    assert newest.name == "step-0000020"
    run(tmp_path / "parts", *flags, "--resume")
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert len(whole) == 24
    assert parts == whole
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    scores = json.loads((tmp_path / "whole" / "metrics.json").read_text(encoding="utf-8"))
    assert scores["loss"] < 6.0
    assert 0 <= scores["accuracy"] <= 100


def test_the_recipe_for_one_s_own_text_has_nothing_of_the_demo_s(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a cat sat on a mat\n" * 40, encoding="utf-8")
    small = ("--recipe", "mlm", "--width", 16, "--layers", 1, "--heads", 2, "--ffn-width", 32, "--max-steps", 3)
    done = tiny.call(train_mlm.main, *small, "--train", text, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    recipe = (tmp_path / "out/recipe.toml").read_text()
    assert all(f"\n{line}\n" in recipe for line in ('valid = ""', "half = false", "shuffle = true"))
    assert not (tmp_path / "out/metrics.json").exists()
    model = load_pretrained(tmp_path / "out/model", "masked-lm")
    assert model.config.positions == 512


def test_the_checkpoint_with_the_least_validation_loss_is_written(tmp_path: Path) -> None:
    said = run(tmp_path / "out", "--limit-train", 24, "--epochs", 2, "--validate-every", 4)
    scores = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert f"({-scores['loss']:.4f}): its weights are kept" in said
    assert len(list((tmp_path / "out" / "checkpoints").glob("step-*"))) in (2, 3)


def test_it_goes_on_from_weights_on_a_squad_file_and_writes_half_precision(tmp_path: Path) -> None:
    squad.write(tmp_path / "squad.json", demo.examples("train", 12))
    run(tmp_path / "first", "--limit-train", 40, "--max-steps", 1, "--no-half")
    weights = tmp_path / "first" / "model"
    run(tmp_path / "second", "--weights", weights, "--train", tmp_path / "squad.json", "--valid", "", "--half")
    assert len(losses(tmp_path / "second")) == 3
    before, after = (tmp_path / name / "model" for name in ("first", "second"))
    assert (after / "tokenizer.json").read_bytes() == (before / "tokenizer.json").read_bytes()
    assert (after / "model.safetensors").stat().st_size < 0.6 * (before / "model.safetensors").stat().st_size
    model = load_pretrained(after, "masked-lm")
    assert model.bias.dtype == torch.float32
    assert not torch.equal(model.bias, load_pretrained(before, "masked-lm").bias)


def test_an_albert_is_pretrained_and_learns_to_answer(tmp_path: Path) -> None:
    run(tmp_path / "mlm", "--architecture", "albert", "--embedding-width", 12, "--limit-train", 40, "--max-steps", 2)
    folder = tmp_path / "mlm/model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["embedding_size"]) == ("albert", 12)
    assert first_difference(compare(folder, "masked-lm")) is None
    flags = ["--weights", folder, "--limit-train", 8, "--limit-valid", 4, "--max-length", 192, "--out", tmp_path / "qa"]
    done = tiny.call(train_qa.main, *flags)
    assert done.status == 0, done.err
    AutoModelForQuestionAnswering.from_pretrained(tmp_path / "qa/model")
    assert first_difference(compare(tmp_path / "qa/model", "question-answering")) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--mask-rat", "0.3"], "unknown flag"),
        (["--max-length", "200"], "the model has 192 positions"),
        (["--width", "15"], "heads"),
        (["--validate-every", "2", "--valid", ""], "--validate-every needs documents to validate on"),
    ],
)
def test_bad_input_ends_in_one_line_and_status_2(tmp_path: Path, flags: list[str], message: str) -> None:
    done = tiny.call(train_mlm.main, "--out", tmp_path / "out", *TINY.split(), "--limit-train", 8, *flags)
    assert message in done.refusal()
    assert not (tmp_path / "out").exists()
