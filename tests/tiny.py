"""A tiny checkpoint and a tiny data set, made in a moment, and commands called without a new Python for each."""

import contextlib
import csv
import io
import json
import os
import random
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from minitransformer import bert
from minitransformer.attention import SelfAttention, explicit_attention
from minitransformer.training import checkpoint
from qa import inference, predict, squad
from qa.features import collate, featurise
from qa.squad import Answer, Example
from weights import load_pretrained, save_pretrained
from weights.compare import __main__ as compare
from weights.compare import compare_models, first_difference, random_inputs
from weights.tokenizer import BERT_SPECIAL, load_tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789۰۱۲۳۴۵۶۷۸۹٠١٢٣٤٥٦٧٨٩آابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهیءأؤئيكة"
WORDS = ["پایتخت", "ایران", "تهران", "فرانسه", "پاریس", "شهر", "رود", "کوه", "است", "کجاست", "کدام", "در", "از"]
PUNCTUATION = ".,?!:;-()«»،؛؟"
VOCABULARY = [*SPECIALS, *PUNCTUATION, *LETTERS, *("##" + letter for letter in LETTERS), *WORDS]

TEXTS = [  # to tokenise, each with a trap
    "",
    " ",
    "پایتخت ایران کجاست؟",
    "می\u200cشود و نمی\u200cشود",  # the half-space
    "سا\u0655\u0654ری آب",  # decomposed Unicode, as most of PQuAD is
    "آ آ أ ا\u0654 ي ك ۀ هٔ",
    "12 ۱۲ ١٢ ½ ²",  # digits of three scripts, and some that decompose
    "تهران 😀👩\u200d👧 است",
    "Éa e\u0301 İstanbul STRASSE ß ﬁ",
    "中文 and 日本",
    "a\tb\r\nc\x00d\u00a0e\u2028f\ufeffg\x85h\x1b[31m",
    "«پاریس»، (به) a.b,c!",
    "x" * 101,  # BERT gives up on words of more than 100 letters
    "[CLS] [MASK] [sep] ##a #",
    "\u202eتهران\u202c \u064bً",
    "``پاریس'' و `یک` 'دو' '''سه'''",
    "  دو  فاصله\t\tو\n\nسطر  ",
    "شهر[MASK]است، شهر [MASK] است <pad> <unk>",
    '۱۲,۰۰۰ 12,000, 1.5% (الف-ب) – 5€ "x".',
    "\u2581شهر\u2581 \u2581",
    "\u200cشهر \u200dنیم\u200c \u0301a\u0301 ﷺ ㍿ \u1100\u1161\u11a8",
]

CITIES = ["اراک", "اهواز", "بابل", "بم", "تبریز", "ساری", "شیراز", "قم", "کرج", "یزد"]
COUNTRIES = ["ایران", "فرانسه", "چین", "ژاپن", "هند", "مصر", "یمن", "عمان", "قطر", "لبنان"]


class Outcome(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one line of a command that refuses its input."""
        assert self.status == 2, self
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n"), self.err
        return self.err.strip()


def call(main: Callable[[], None], *flags: object, typed: str = "") -> Outcome:
    """Run a command's `main` in this process, as `python -m ... FLAGS` does in its own."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["command", *map(str, flags)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        one_thread(),
    ):
        try:
            main()
        except SystemExit as error:
            status = error.code
    return Outcome(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Threads that share a tiny tensor wait for one another longer than they work, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def config(**settings: Any) -> bert.BertConfig:
    sizes = {"vocabulary": len(VOCABULARY), "width": 32, "layers": 2, "heads": 4, "ffn_width": 48, "positions": 128}
    return bert.BertConfig(**sizes | settings)


def write_vocabulary(folder: Path, vocabulary: list[str] = VOCABULARY, **settings: Any) -> Path:
    """vocab.txt and tokenizer_config.json, as BERT's checkpoints have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(piece + "\n" for piece in vocabulary), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **BERT_SPECIAL, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if not (folder / "config.json").is_file():
        (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(vocabulary)}))
    return folder


def train_spiece(texts: Iterable[str], **settings: Any) -> bytes:
    """A spiece.model with the special and the user-defined pieces that ALBERT's authors gave theirs."""
    flags = {
        "pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "bos_piece": "[CLS]", "eos_piece": "[SEP]",
        "control_symbols": ["[MASK]"], "user_defined_symbols": list('()"-.–£€'), "hard_vocab_limit": False,
        "max_sentence_length": 100_000, "num_threads": 1, "minloglevel": 2,
    }  # fmt: skip
    model = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **flags | settings)
    return model.getvalue()


def write_byte_pairs(folder: Path, texts: Iterable[str], vocabulary: int = 400, **settings: Any) -> Path:
    """vocab.json and merges.txt, and with settings tokenizer_config.json, as RoBERTa's checkpoints have them."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocabulary, special_tokens=ROBERTA_SPECIALS, show_progress=False)
    trained.save_model(str(folder))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if not (folder / "config.json").is_file():
        (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    return folder


def write_spiece(folder: Path, model: bytes, **settings: Any) -> Path:
    """spiece.model, and with settings tokenizer_config.json, as ALBERT's checkpoints have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "albert"}))
    return folder


def train_fairseq(texts: Iterable[str], **settings: Any) -> bytes:
    """A sentencepiece.bpe.model with the first pieces that fairseq's scripts gave theirs."""
    pieces = {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2, "bos_piece": "<s>", "eos_piece": "</s>"}
    return train_spiece(texts, **pieces | {"control_symbols": [], "user_defined_symbols": []} | settings)


def write_fairseq(folder: Path, model: bytes, model_type: str, **settings: Any) -> Path:
    """sentencepiece.bpe.model, and with settings tokenizer_config.json, as XLM-RoBERTa's checkpoints have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def tokenizer(folder: Path) -> Tokenizer:
    """The tiny tokenizer; `folder` is for its files."""
    return load_tokenizer(write_vocabulary(folder))


def write_checkpoint(folder: Path, kind: type = bert.Bert, seed: int = 0, **settings: Any) -> Path:
    """A random checkpoint of ours, with its tokenizer."""
    write_vocabulary(folder)
    model = random_model(kind, seed, **settings)
    save_pretrained(model, folder)
    return folder


def random_model(kind: type = bert.Bert, seed: int = 0, **settings: Any) -> torch.nn.Module:
    """A model in evaluation mode, of which no parameter is all zeros or all ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config(**settings))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.normal_(module.weight, mean=1.0, std=0.1)
    return model.eval()


def write_theirs(folder: Path, model: Any) -> Path:
    """A random model of transformers', saved; norms and biases are random too, since at 1 and 0 they hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def same_after_saving(folder: Path, theirs: Any, task: str, out: Path) -> None:
    """A folder of transformers' class `theirs`, loaded and saved to `out` by us, is the same model to both."""
    model = load_pretrained(folder, task)
    save_pretrained(model, out)
    settings = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (settings["architectures"], settings["model_type"]) == ([theirs.__name__], theirs.config_class.model_type)
    loaded, notes = theirs.from_pretrained(out, output_loading_info=True)
    assert {name for name in notes["missing_keys"] if "pooler" not in name} == set()
    assert set(notes["unexpected_keys"]) == set()
    assert first_difference(compare_models(model, loaded, random_inputs(model.config))) is None

    before, after = (load_file(at / "model.safetensors") for at in (folder, out))
    for name, tensor in after.items():
        bare = name.removeprefix(theirs.base_model_prefix + ".")  # HF writes an encoder alone without the prefix
        assert torch.equal(tensor, before[name] if name in before else before[bare]), name
    assert load_pretrained(out, task, fresh_head=False).config == model.config


def same_with_explicit_attention(encoder: torch.nn.Module) -> None:
    """The formula to read gives what the fast path gives."""
    inputs = random_inputs(encoder.config)
    fast = encoder(**inputs)
    for part in encoder.modules():
        if isinstance(part, SelfAttention):
            part.attend = explicit_attention
    torch.testing.assert_close(encoder(**inputs), fast, rtol=1e-5, atol=1e-5)


def printed_rows(folder: Path) -> list[str]:
    """The layers that weights.compare's command prints for a folder, after a look at the differences beside them."""
    outcome = call(compare.main, folder)
    assert outcome.status == 0, outcome
    lines = outcome.out.splitlines()
    rows = [line.split() for line in lines[2:-1]]
    assert all(float(number) <= 1e-5 for row in rows for number in row[1:3]), outcome.out
    assert lines[-1].startswith("equal in all ")
    return [row[0] for row in rows]


def train_both(ours: torch.nn.Module, theirs: Any, steps: int = 20) -> list[float]:
    """Train two readers of the same weights, without dropout, on the same random batches. The losses, all equal."""
    ours.train()
    theirs.train()
    our_optimizer = torch.optim.AdamW(ours.parameters(), 1e-3, weight_decay=0.1, fused=True)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), 1e-3, weight_decay=0.1)
    losses = []
    for step in range(steps):
        inputs = random_inputs(ours.config, batch=6, seed=step)
        keep = inputs["attention_mask"].bool()
        length = keep.sum(1)
        targets = [torch.randint(1000, (6,)) % length for _ in range(2)]
        logits = theirs(**inputs)
        their_loss = sum(
            # HF gives padding a share of the probability, unless it is masked.
            F.cross_entropy(part.masked_fill(~keep, bert.PADDING_LOGIT), target)
            for part, target in zip((logits.start_logits, logits.end_logits), targets, strict=True)
        )
        our_loss = sum(F.cross_entropy(part, target) for part, target in zip(ours(**inputs), targets, strict=True))
        assert abs(our_loss.item() - their_loss.item()) < 1e-4, f"step {step}"
        losses.append(our_loss.item())
        for loss, optimizer in ((our_loss, our_optimizer), (their_loss, their_optimizer)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


def contexts(path: Path) -> list[str]:
    """Each of a data file once."""
    return list(dict.fromkeys(example.context for example in squad.read(path)))


def same(ours: Tokenizer, theirs: Any, *texts: str) -> None:
    ours = ours.encode(*texts)
    # In lists, as HF takes "" alone for no text; ALBERT's does not give segments unasked, though it numbers them.
    theirs = theirs(*([text] for text in texts), return_offsets_mapping=True, return_token_type_ids=True)
    assert [ours.ids] == theirs["input_ids"], texts
    assert [ours.type_ids] == theirs["token_type_ids"], texts
    assert [ours.offsets] == theirs["offset_mapping"], texts


def same_in_all_places(ours: Tokenizer, theirs: Any) -> None:
    """Each of TEXTS alone, and as the first and the second of a pair."""
    for text in TEXTS:
        same(ours, theirs, text)
        same(ours, theirs, text, "تهران است")
        same(ours, theirs, "تهران است", text)


def same_in_bulk(ours: Tokenizer, theirs: Any, texts: list[str]) -> None:
    expected = theirs(texts, return_offsets_mapping=True)
    ours.no_padding()
    for text, encoding, ids, offsets in zip(
        texts, ours.encode_batch(texts), expected["input_ids"], expected["offset_mapping"], strict=True
    ):
        assert encoding.ids == ids, text
        assert encoding.offsets == offsets, text


def odd_texts(count: int = 2000) -> list[str]:
    """English, Arabic, emoji and control characters, in all mixtures."""
    luck = random.Random(0)
    alphabets = [
        [chr(code) for code in range(0x20, 0x7F)],
        [" the", " cat's", " I'll", "  ", "12,5", "Isn't", " naïve", "ﬁ", " e\u0301"],
        [chr(code) for code in range(0x600, 0x700)],
        [" کتاب", "می\u200cشود", " ال", "ـ", " ۱۲", " \u064bا", "ﷺ", "ﻼ"],
        ["😀", "👩\u200d👧", "👍🏽", "🇮🇷", "❤\ufe0f", "\U0001f9d1\u200d🚀", " ☺", "\ufe0f", "\u200d"],
        [chr(code) for code in (*range(0x20), *range(0x7F, 0xA1), 0xAD, *range(0x200B, 0x2010))],
        [chr(code) for code in (*range(0x2028, 0x2030), *range(0x2060, 0x2070), 0x3000, 0xFEFF, 0xFFFD)],
        [*ROBERTA_SPECIALS, " <mask>", "<mask> ", "▁", " ▁", "Ġ", "##", "<s>NOTUSED"],
    ]
    return [
        "".join(luck.choice(luck.choice(chosen)) for _ in range(luck.randrange(1, 30)))
        for chosen in (luck.sample(alphabets, luck.randrange(1, 4)) for _ in range(count))
    ]


def examples(count: int = 12) -> list[Example]:
    """Questions on capitals, every fourth without an answer."""
    made = []
    for index in range(count):
        city, country = CITIES[index % len(CITIES)], COUNTRIES[(index * 7) % len(COUNTRIES)]
        context = f"شهر {city} پایتخت {country} است."
        asked = "رود" if index % 4 == 3 else f"پایتخت {country}"
        answers = () if index % 4 == 3 else (Answer(city, context.index(city)),)
        made.append(Example(f"q{index}", f"article {index // 4}", f"{asked} کجاست؟", context, answers))
    return made


def learn_to_answer(folder: Path, out: Path, steps: int = 80) -> dict[str, str]:
    """Train the folder's model on `examples`, from text to text, save it to `out`, and have qa.predict answer them."""
    torch.manual_seed(0)
    model, tokenizer = load_pretrained(folder, "question-answering").train(), load_tokenizer(folder)
    asked = examples()
    batch = collate(featurise(asked, tokenizer, model.config.positions), model.config.pad_id)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    with one_thread():
        for _ in range(steps):
            start, end = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
            optimizer.zero_grad()
            inference.span_loss(start, end, batch.start, batch.end).backward()
            optimizer.step()
    save_pretrained(model, out, tokenizer)
    data = write_questions(out / "questions.json", asked)
    outcome = call(predict.main, "--model", out, "--data", data, "--out", out / "answers.json")
    assert outcome.status == 0, outcome
    return json.loads((out / "answers.json").read_text(encoding="utf-8"))


def write_questions(path: Path, questions: list[Example] | None = None) -> Path:
    squad.write(path, examples() if questions is None else questions)
    return path


def files_under(folder: Path) -> list[str]:
    """Every file and folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def log_of(folder: Path) -> list[dict[str, str]]:
    """A run's log.csv without the column that a clock decides."""
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [{name: value for name, value in row.items() if not name.endswith("_per_second")} for row in rows]


def last_line(outcome: Outcome) -> str:
    """The error of a run that has begun: a progress bar stands before it."""
    assert outcome.status == 2, outcome
    assert "Traceback" not in outcome.err
    return outcome.err.splitlines()[-1]


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C right after the checkpoint of `step`."""
    save = checkpoint.save_checkpoint

    def save_and_stop(folder: Path, saved_step: int, *given: Any, **score: Any) -> Path:
        path = save(folder, saved_step, *given, **score)
        if saved_step == step:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(checkpoint, "save_checkpoint", save_and_stop)


def record_syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From here on, "file" or "folder" for each that is made durable."""
    synced, sync = [], os.fsync

    def sync_and_record(descriptor: int) -> None:
        sync(descriptor)
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    monkeypatch.setattr(os, "fsync", sync_and_record)
    return synced


def rewrite_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object in a file; a value of `...` removes its key."""
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}), encoding="utf-8")


@contextlib.contextmanager
def failing(owner: object, name: str, error: BaseException) -> Iterator[None]:
    """`owner.name` raises `error` inside."""
    with mock.patch.object(owner, name, side_effect=error):
        yield


def change_tensors(folder: Path, change: Callable[[dict], dict]) -> None:
    """Rewrite model.safetensors by `change`, which gets the tensors by name."""
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


TWELVE_RATES = [0, 1 / 3, 2 / 3, *(step / 9 for step in range(9, -1, -1))]  # of steps of which the first three rise


def groups_by_name(parameters: Iterable[tuple[str, torch.nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups, in which biases and norms, known by their names, do not decay."""
    decayed, spared = [], []
    for name, parameter in parameters:
        (spared if name.endswith("bias") or "norm" in name else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
