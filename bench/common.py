"""What the benchmarks share: processes that measure, a table and HF's copy of our model."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.bert import PADDING_LOGIT
from qa.features import Batch
from weights import save_pretrained
from weights.compare import our_dropout

RACE_HEAD = ("contender", "median", "least to most", "speed-up")
MATRIX = {"cpu": 2048, "cuda": 8192}  # side of the square matrices whose product shows what the machine can do
CPU = torch.device("cpu")


def matrix_rate(device: torch.device = CPU, dtype: torch.dtype = torch.float32, repeats: int = 5) -> float:
    """Floating point operations a second of a large matrix product, the best of `repeats`."""
    side = MATRIX[device.type]
    a, b = torch.rand(2, side, side, device=device).to(dtype)
    return 2 * side**3 / min(seconds_of(lambda: a @ b, device) for _ in range(repeats + 1))  # the first warms up


def seconds_of(call: Callable[[], Any], device: torch.device = CPU) -> float:
    """What the call takes, with the work that it leaves to a GPU."""
    finish_work(device)
    began = time.perf_counter()
    call()
    finish_work(device)
    return time.perf_counter() - began


def finish_work(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device = CPU) -> int:
    """Bytes: the most that this process has held in memory, or on a GPU in torch's tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
    return peak if sys.platform == "darwin" else peak * 1024


def in_turns(module: str, contenders: Sequence[str], rounds: int, *flags: str) -> dict[str, list[dict[str, Any]]]:
    """What `python -m module`, with this command's flags, `flags` and `--contender NAME`, prints as JSON at its end.

    Each contender runs once a round in a process of its own, so that its peak memory is its own. That peak outlives
    exec, so the process that calls this must stay smaller than those: it starts them and does no more.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders:
            results[name].append(in_fresh_process(module, *flags, "--contender", name))
            seconds = ", ".join(f"{step:.3g}" for step in results[name][-1]["seconds"])
            print(f"round {number + 1}, {name}: {seconds} s", file=sys.stderr, flush=True)
    return results


def in_fresh_process(module: str, *flags: str) -> dict[str, Any]:
    """The JSON in the last line that `python -m module` prints, with this command's flags and `flags`."""
    child = subprocess.run([sys.executable, "-m", module, *sys.argv[1:], *flags], stdout=subprocess.PIPE, text=True)
    if child.returncode:
        raise SystemExit(child.returncode)  # its own message stands above
    return json.loads(child.stdout.splitlines()[-1])


def race(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> list[list[str]]:
    """Rows of a table, under RACE_HEAD: a contender's name, its seconds, and how many times as fast as the first it is.

    Rounds go through all contenders, A B C A B C, so that a slow moment hits all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(seconds_of(contender))
    medians = [statistics.median(values) for values in seconds.values()]
    return [
        [name, *spread(values), f"{medians[0] / median:.1f}"]
        for (name, values), median in zip(seconds.items(), medians, strict=True)
    ]


def spread(seconds: Sequence[float]) -> list[str]:
    """Two cells of a table: the median, and the least and the most."""
    return [f"{statistics.median(seconds):.3g} s", f"{min(seconds):.3g} to {max(seconds):.3g}"]


def table(*rows: Sequence[str]) -> str:
    """Markdown; the first row is the head."""
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def machine(threads: int | None = None) -> str:
    """A line for the results: what ran them, and when."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    threads = threads or torch.get_num_threads()
    return f"{cpu}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}, {date.today()}"


def hf_copy(model: nn.Module, auto_class: str = "AutoModelForQuestionAnswering") -> nn.Module:
    """transformers' model with the weights of ours, as anybody would load it, in evaluation mode.

    It goes by way of a folder, so a head that was fresh in ours is the same in the copy.
    """
    import transformers  # takes seconds and memory, which a measurement of ours alone should not pay

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        return getattr(transformers, auto_class).from_pretrained(folder, dtype=torch.float32).eval()


class HFReader(nn.Module):
    """HF's model behind the interface of ours: a dropout before the classifier, padding's logits masked."""

    def __init__(self, model: nn.Module, same_dropout: bool = False) -> None:
        """model: ours, which is copied. same_dropout: draw what ours would, on a CPU; see `weights.compare`."""
        super().__init__()
        self.config = model.config  # ours, which `qa.predict.read` asks for the padding token
        self.hf = hf_copy(model)
        self.dropout = nn.Dropout(model.dropout.p)
        self.same_dropout = same_dropout

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask.long(), "token_type_ids": token_type_ids}
        with our_dropout(self.hf, attention_mask) if self.same_dropout else nullcontext():
            hidden = self.hf.base_model(**inputs).last_hidden_state  # (B, T, C)
            logits = self.hf.qa_outputs(self.dropout(hidden))  # (B, T, 2)
        start, end = logits.masked_fill(~attention_mask[..., None], PADDING_LOGIT).unbind(-1)
        return start, end


def widen(batch: Batch, length: int, pad_id: int) -> Batch:
    """The batch padded to `length` tokens."""
    more = (0, length - batch.input_ids.size(1))
    return batch._replace(
        input_ids=F.pad(batch.input_ids, more, value=pad_id),
        token_type_ids=F.pad(batch.token_type_ids, more),
        attention_mask=F.pad(batch.attention_mask, more),
        context_mask=F.pad(batch.context_mask, more),
    )
