"""A tiny checkpoint and a tiny data set, made in a moment, and commands called without a new Python for each."""

import contextlib
import csv
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer

from minitransformer import bert
from minitransformer.training import checkpoint
from qa import squad
from qa.squad import Answer, Example
from weights import save_pretrained
from weights.tokenizer import BERT_SPECIAL, load_tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789۰۱۲۳۴۵۶۷۸۹٠١٢٣٤٥٦٧٨٩آابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهیءأؤئيكة"
WORDS = ["پایتخت", "ایران", "تهران", "فرانسه", "پاریس", "شهر", "رود", "کوه", "است", "کجاست", "کدام", "در", "از"]
PUNCTUATION = ".,?!:;-()«»،؛؟"
VOCABULARY = [*SPECIALS, *PUNCTUATION, *LETTERS, *("##" + letter for letter in LETTERS), *WORDS]

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


def write_spiece(folder: Path, model: bytes, **settings: Any) -> Path:
    """spiece.model, and with settings tokenizer_config.json, as ALBERT's checkpoints have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "albert"}))
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
