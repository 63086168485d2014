"""Random damage to every kind of file that is read: it loads to the same values, or is refused in one line.

python -m tests.damage --rounds 1000 [--seed 0]

A round takes one whole file, cuts it off or flips up to eight of its bits, and loads it in a process of its own, forked
from this one. It must end

    same       with the values of the whole file: the damage was in bytes that nobody reads, or was seen and mended
    refused    with a UserError, one line on stderr and status 2
    another    with other values, and only where the format has no checksum: a letter of a JSON text, a pixel

and never crash, print more, take over 5 seconds, or take memory beyond twice the file's size and ALLOWANCE.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import pickle
import random
import resource
import select
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, features
from torch import nn

from minitransformer.system.errors import UserError, command_line
from minitransformer.system.flags import FlagParser, whole_number
from minitransformer.system.progress import be_quiet
from minitransformer.training import checkpoint
from minitransformer.vit import VitConfig, VitForImageClassification
from qa import squad
from tests import tiny
from vision import cifar10, images, trunk
from weights import load_pretrained, load_tokenizer, quantise, quantised, save_pretrained
from weights.folder import safetensors_bytes

SECONDS = 5.0
ALLOWANCE = (
    64 * 2**20
)  # bytes: a process that loads a file of a few kB touches libraries and buffers for the first time
CEILING = 4 * 2**30  # bytes of address space that a load may take beyond this, so that the machine survives a failure
FLIPS = 8  # bits at most
SAID = ("warning: ",)  # how lines begin that a load may print: of a checkpoint's damage
HEAD = 512  # bytes: half of the damage goes there, where the sizes and the names stand


class Kind(NamedTuple):
    """A kind of file: how to make a whole one, and how to load it."""

    make: Callable[[Path], Path]  # empty folder -> the file to damage
    load: Callable[[Path], str]  # the file -> a digest of the values that come out of it
    checked: bool  # whether the format has a checksum of some sort, so that other values must never come out


class Outcome(NamedTuple):
    """How a load has ended."""

    verdict: str  # same, refused, another; or, as a failure, crashed, slow, large, untyped, talkative
    remark: str
    seconds: float
    memory: int  # bytes at the peak beyond what the process began with


# ---------------------------------------------------------------------------------------------------- the files


def weights_file(folder: Path) -> Path:
    return tiny.write_checkpoint(folder) / "model.safetensors"


def quantised_file(folder: Path) -> Path:
    tiny.write_checkpoint(folder / "float", width=64, ffn_width=256, positions=256)
    tensors = tiny.load_file(folder / "float/model.safetensors")
    packed, note = quantised.pack(tensors, quantise.scheme_for(tensors, bits=4, eight=["*query*"], group=32))
    path = folder / "float/model.safetensors"
    path.write_bytes(safetensors_bytes(packed, note))
    return path


def index_file(folder: Path) -> Path:
    """A checkpoint in two shards."""
    tiny.write_checkpoint(folder / "whole")
    shutil.copytree(folder / "whole", folder / "shards")
    tensors = tiny.load_file(folder / "whole/model.safetensors")
    (folder / "shards/model.safetensors").unlink()
    names = {}
    for number in (1, 2):
        shard = f"model-{number:05}-of-00002.safetensors"
        chosen = dict(list(tensors.items())[number - 1 :: 2])
        tiny.save_file(chosen, folder / "shards" / shard, metadata={"format": "pt"})
        names |= dict.fromkeys(chosen, shard)
    path = folder / "shards/model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}, indent=2))
    return path


def pickled_file(folder: Path) -> Path:
    """pytorch_model.bin, as most older repositories have it."""
    tiny.write_checkpoint(folder)
    weights = folder / "model.safetensors"
    torch.save(dict(tiny.load_file(weights)), folder / "pytorch_model.bin")
    weights.unlink()
    return folder / "pytorch_model.bin"


def load_weights(path: Path) -> str:
    torch.manual_seed(0)  # of the fresh head
    model = load_pretrained(path.parent, "question-answering")
    return digest(repr(model.config), *model.state_dict().values())


def tokenizer_file(folder: Path) -> Path:
    tokenizer = tiny.tokenizer(folder / "vocabulary")
    save_pretrained(tiny.random_model(), folder / "model", tokenizer)
    return folder / "model/tokenizer.json"


def vocabulary_file(folder: Path) -> Path:
    """vocab.txt, from which a tokenizer is made where there is no tokenizer.json."""
    tiny.write_checkpoint(folder)
    tiny.write_vocabulary(folder)
    return folder / "vocab.txt"


def pairs_file(folder: Path) -> Path:
    """vocab.json; merges.txt lies beside it."""
    return tiny.write_byte_pairs(folder, texts()) / "vocab.json"


def pieces_file(folder: Path) -> Path:
    return tiny.write_fairseq(folder, tiny.train_fairseq(texts()), "xlm-roberta") / "sentencepiece.bpe.model"


def texts() -> list[str]:
    return [text for example in tiny.examples() for text in (example.question, example.context)]


def load_tokens(path: Path) -> str:
    tokenizer = load_tokenizer(path.parent)
    encoded = [tokenizer.encode(example.question, example.context) for example in tiny.examples()]
    return digest(tokenizer.to_str(), *(repr((one.ids, one.offsets, one.type_ids)) for one in encoded))


def checkpoint_file(name: str) -> Callable[[Path], Path]:
    """A file of the newest of two checkpoints."""

    def make(folder: Path) -> Path:
        model, optimizer = job()
        for step in (1, 2):
            model(torch.randn(8, 16)).square().mean().backward()
            optimizer.step()
            checkpoint.save_checkpoint(folder, step, model, optimizer)
        return folder / "step-0000002" / name

    return make


def job() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1))
    return model, torch.optim.AdamW(model.parameters(), fused=True)


def load_checkpoint(path: Path) -> str:
    """Resume from the newest that is whole; the digest has its step in it."""
    model, optimizer = job()
    step = checkpoint.resume(path.parents[1], model, optimizer)
    state = optimizer.state_dict()["state"]
    moments = [state[number][key] for number in sorted(state) for key in sorted(state[number])]
    return digest(str(step), *model.state_dict().values(), *moments, torch.get_rng_state())


def questions_file(name: str) -> Callable[[Path], Path]:
    return lambda folder: tiny.write_questions(folder / name)


def rows_file(name: str, parting: str = "") -> Callable[[Path], Path]:
    """A row for each question: a table whose columns `parting` parts, or JSON Lines."""

    def make(folder: Path) -> Path:
        names = ["id", "context", "question", "answer", "answer_start"]
        rows = [
            [example.id, example.context, example.question, *(example.answers[0] if example.answers else ("", -1))]
            for example in tiny.examples()
        ]
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            if parting:
                csv.writer(file, delimiter=parting).writerows([names, *rows])
            else:
                file.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        return folder / name

    return make


def load_questions(path: Path) -> str:
    return digest(repr(squad.read(path)))


def picture_file(name: str, **settings: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        wave = np.sin(np.arange(40 * 50 * 3).reshape(40, 50, 3) / 40) * 100 + 128
        Image.fromarray(wave.astype(np.uint8)).save(folder / name, **settings)
        return folder / name

    return make


def load_picture(path: Path) -> str:
    return digest(images.prepare(path, images.Preprocessing(resize=(48, 48), crop=None)).tobytes())


def cifar_file(name: str) -> Callable[[Path], Path]:
    """A file of CIFAR-10's folder, with pictures of noise, or the archive of it."""

    def make(folder: Path) -> Path:
        noise = np.random.default_rng(0)
        batches = folder / cifar10.FOLDER
        batches.mkdir()
        for batch in [*cifar10.FILES["train"], *cifar10.FILES["valid"]]:
            rows = {b"data": noise.integers(0, 256, (4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
            (batches / batch).write_bytes(pickle.dumps(rows, protocol=2))
        names = [b"airplane", b"automobile", b"bird", b"cat"]
        (batches / cifar10.META).write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
        if name != "archive":
            return batches / name
        with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
            archive.add(batches, arcname=cifar10.FOLDER)
        return folder / "cifar.tar.gz"

    return make


def load_cifar(path: Path) -> str:
    read = cifar10.read(path if path.suffix == ".gz" else path.parent, "train")
    return digest(read.pictures.tobytes(), read.labels.tobytes(), repr(read.classes))


def trunk_file(folder: Path) -> Path:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # how far it is
        open_trunk(folder)
    (path,) = folder.iterdir()
    return path


def load_trunk(path: Path) -> str:
    return digest(open_trunk(path.parent))


def open_trunk(folder: Path) -> torch.Tensor:
    torch.manual_seed(0)
    model = VitForImageClassification(VitConfig(image_size=12, patch=4, width=24, layers=2, heads=3, ffn_width=24))
    return trunk.open_cache(
        model, 1, lambda chosen: torch.ones(len(chosen), 3, 12, 12) * chosen[:, None, None, None], count=16,
        batch_size=8, budget=0, folder=folder, inputs=("data",),
    )  # fmt: skip


def other_file(make: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    """Another file beside the one that `make` names."""
    return lambda folder: make(folder).with_name(name)


KINDS = {
    "model.safetensors": Kind(weights_file, load_weights, checked=True),
    "model.safetensors, quantised": Kind(quantised_file, load_weights, checked=True),
    "pytorch_model.bin": Kind(pickled_file, load_weights, checked=False),
    "model.safetensors.index.json": Kind(index_file, load_weights, checked=True),
    "config.json": Kind(other_file(weights_file, "config.json"), load_weights, checked=False),
    "tokenizer.json": Kind(tokenizer_file, load_tokens, checked=False),
    "tokenizer_config.json": Kind(other_file(tokenizer_file, "tokenizer_config.json"), load_tokens, checked=False),
    "vocab.txt": Kind(vocabulary_file, load_tokens, checked=False),
    "vocab.json": Kind(pairs_file, load_tokens, checked=False),
    "merges.txt": Kind(other_file(pairs_file, "merges.txt"), load_tokens, checked=False),
    "sentencepiece.bpe.model": Kind(pieces_file, load_tokens, checked=False),
    **{
        f"checkpoint, {name}": Kind(checkpoint_file(name), load_checkpoint, checked=True)
        for name in (
            "model.safetensors",
            "optimizer.safetensors",
            "random-0.safetensors",
            "state.json",
            "manifest.json",
        )
    },
    "questions.json": Kind(questions_file("questions.json"), load_questions, checked=False),
    "questions.json.gz": Kind(questions_file("questions.json.gz"), load_questions, checked=True),
    "questions.csv": Kind(rows_file("questions.csv", ","), load_questions, checked=False),
    "questions.tsv": Kind(rows_file("questions.tsv", "\t"), load_questions, checked=False),
    "questions.jsonl": Kind(rows_file("questions.jsonl"), load_questions, checked=False),
    "picture.png": Kind(picture_file("picture.png"), load_picture, checked=False),
    "picture.jpg": Kind(picture_file("picture.jpg"), load_picture, checked=False),
    **{
        f"picture.{ending}": Kind(picture_file(f"picture.{ending}"), load_picture, checked=False)
        for ending in ("webp", "gif", "bmp", "ppm", "tif", *(["avif"] if features.check("avif") else []))
    },
    "CIFAR-10's archive": Kind(cifar_file("archive"), load_cifar, checked=True),
    "CIFAR-10's data_batch_1": Kind(cifar_file("data_batch_1"), load_cifar, checked=False),
    "CIFAR-10's batches.meta": Kind(cifar_file("batches.meta"), load_cifar, checked=False),
    "trunk cache": Kind(trunk_file, load_trunk, checked=True),
}


def digest(*values: str | bytes | torch.Tensor) -> str:
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().contiguous().numpy().tobytes()
        total.update(value.encode() if isinstance(value, str) else value)
    return total.hexdigest()


# ---------------------------------------------------------------------------------------------------- a round


def damaged(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """The bytes cut off, or with some bits flipped, and what was done to them."""
    place = chance.randrange(min(HEAD, len(data)) if chance.random() < 0.5 else len(data))
    if chance.random() < 0.3:
        return data[:place], f"cut off after {place} of {len(data)} bytes"
    changed, bits = bytearray(data), []
    for _ in range(chance.choice((1, 1, 2, FLIPS))):
        bit = chance.randrange(8)
        changed[place] ^= 1 << bit
        bits.append(f"{place}.{bit}")
        place = chance.randrange(min(HEAD, len(data)) if chance.random() < 0.5 else len(data))
    return bytes(changed), f"bits {' '.join(bits)} of {len(data)} bytes flipped"


def load_apart(load: Callable[[Path], str], path: Path, seconds: float = SECONDS) -> Outcome:
    """Load in a process of its own, which has `seconds`. The verdict is `loaded`, with the digest, `refused`, or a
    failure."""
    reading, writing = os.pipe()
    began = time.monotonic()
    with tempfile.TemporaryFile("w+b") as printed:
        process = os.fork()
        if process == 0:
            os.close(reading)
            _load_here(load, path, printed.fileno(), writing)
        os.close(writing)
        ended, _, _ = select.select([reading], [], [], seconds)  # all copies of `writing` are closed when it ends
        if not ended:
            os.kill(process, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(process, 0)
        printed.seek(0)
        said = printed.read().decode(errors="replace")
    took = time.monotonic() - began
    if not ended:
        return Outcome("slow", said, took, 0)
    if not answer:
        return Outcome("crashed", f"status {os.waitstatus_to_exitcode(status)}: {said}", took, 0)
    verdict, remark, memory = json.loads(answer)
    lines = [line for line in said.splitlines() if line and not line.startswith(SAID)]
    if verdict == "refused" and not (len(lines) == 1 and lines[0].startswith("error: ")):
        return Outcome("talkative", said, took, memory)
    if verdict == "loaded" and lines:
        return Outcome("talkative", said, took, memory)
    if memory > 2 * path.stat().st_size + ALLOWANCE:
        return Outcome("large", f"{memory / 2**20:.0f} MiB", took, memory)
    return Outcome(verdict, remark or said.strip(), took, memory)


def _load_here(load: Callable[[Path], str], path: Path, printed: int, answer: int) -> None:
    """In the forked process: load, as a command does it, and tell by `answer` what has come of it."""
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + CEILING, space + CEILING))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(printed, 2)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    be_quiet()
    before = peak_memory()
    verdict, remark = "crashed", ""

    @command_line
    def command() -> None:
        nonlocal verdict, remark
        try:
            remark = load(path)
            verdict = "loaded"
        except UserError:
            verdict = "refused"
            raise
        except OSError as error:
            verdict, remark = "untyped", repr(error)
            raise

    try:
        command()
    except SystemExit as error:
        if error.code != 2:
            verdict = "crashed"
    except BaseException as error:
        verdict, remark = "crashed", repr(error)
    sys.stderr.flush()
    os.write(answer, json.dumps([verdict, remark[:1000], peak_memory() - before]).encode())
    os._exit(0)


def peak_memory() -> int:
    """Bytes of this process's largest resident size so far; a fork begins with its size then."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


class Damage:
    """The whole files, and rounds of damage to them."""

    def __init__(self, folder: Path, seed: int = 0, seconds: float = SECONDS) -> None:
        self.chance, self.seconds = random.Random(seed), seconds
        self.whole: dict[str, tuple[Path, bytes, set[str]]] = {}
        for number, (name, kind) in enumerate(KINDS.items()):
            place = folder / str(number)
            place.mkdir()
            path = kind.make(place)
            data = path.read_bytes()
            if name == "CIFAR-10's archive":
                cifar10.CHECKSUM = "md5:" + hashlib.md5(data).hexdigest()  # the published one is of the real archive
            self.whole[name] = (path, data, {self._load(name, path)})
            if name.startswith("checkpoint"):  # where the newest is no good, the one before it is right
                path.write_bytes(b"")
                self.whole[name][2].add(self._load(name, path))
                path.write_bytes(data)

    def _load(self, name: str, path: Path) -> str:
        outcome = load_apart(KINDS[name].load, path, self.seconds)
        if outcome.verdict != "loaded":
            raise RuntimeError(f"the whole {name} does not load: {outcome}")
        return outcome.remark

    def round(self, name: str) -> tuple[str, Outcome]:
        """One file damaged: what was done, and what came of it."""
        path, data, right = self.whole[name]
        changed, deed = damaged(data, self.chance)
        path.write_bytes(changed)
        outcome = load_apart(KINDS[name].load, path, self.seconds)
        path.write_bytes(data)
        if outcome.verdict != "loaded":
            return deed, outcome
        if outcome.remark in right:
            return deed, outcome._replace(verdict="same")
        return deed, outcome._replace(verdict="another" if not KINDS[name].checked else "WRONG")


GOOD = ("same", "refused", "another")


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--rounds", type=whole_number(at_least=1), default=1000)
    parser.add_argument("--seed", type=whole_number(at_least=0), default=0)
    parser.add_argument("--only", choices=KINDS, help="one kind of file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [args.only] if args.only else list(KINDS)
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest, largest = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        damage = Damage(Path(folder), args.seed)
        for number in range(args.rounds):
            name = names[number % len(names)]
            deed, outcome = damage.round(name)
            verdicts[name][outcome.verdict] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.memory)
            if outcome.verdict not in GOOD:
                print(f"FAILED {name}, {deed}: {outcome.verdict}: {outcome.remark}", flush=True)
    shown = [*GOOD, *sorted({verdict for counts in verdicts.values() for verdict in counts} - set(GOOD))]
    print(f"{'file':<34}" + "".join(f"{verdict:>10}" for verdict in shown))
    for name in names:
        print(f"{name:<34}" + "".join(f"{verdicts[name][verdict]:>10}" for verdict in shown))
    bad = sum(count for counts in verdicts.values() for verdict, count in counts.items() if verdict not in GOOD)
    print(f"{args.rounds} rounds, seed {args.seed}: {bad} failures; slowest {slowest:.2f} s; most memory "
          f"{largest / 2**20:.0f} MiB, {ALLOWANCE // 2**20} MiB and twice the file are allowed")  # fmt: skip
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
