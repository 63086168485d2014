"""All benchmarks, one after the other, as one page of tables, for RESULTS.md.

python -m bench                                              small: the weights and questions that ship, a quarter hour
python -m bench --weights DIR --data FILE --pictures SOURCE --out FILE              real ones
python -m bench --weights DIR --data FILE --pictures SOURCE --device cuda           the report's models, on a GPU

The page holds every command that it ran. A machine that does nothing else is needed, and hours on a CPU for BERT-base.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minitransformer.system import files
from minitransformer.system.errors import RunError, command_line
from minitransformer.system.flags import FlagParser, whole_number
from qa import demo, squad
from weights.find import find_folder
from weights.load import read_config

QUESTIONS = 200  # of the demo's, where no file is given
LONGEST = 512  # tokens of the report's features, where a model has as many positions


class Section(NamedTuple):
    title: str
    commands: tuple[list[str], ...]  # words after "python -m"; what the last of them prints is the section


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m bench", description=__doc__)
    count = whole_number(at_least=1)
    parser.add_argument("--weights", default="demo-bert-fa", metavar="DIR", help="an encoder's folder or name")
    parser.add_argument("--data", metavar="FILE", help="questions, SQuAD .json or .json.gz; none: the demo's")
    parser.add_argument("--pictures", default="demo", metavar="SOURCE", help="train_vit.py's --data (demo)")
    parser.add_argument("--images", type=whole_number(at_least=0), default=512, help="so many of them; 0: all (512)")
    parser.add_argument("--hf-steps", type=count, default=1, help="steps of HF's vision model that are measured (1)")
    parser.add_argument("--steps", type=count, default=3, help="of question answering, in a round (3)")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), metavar="DIR", help="for what it has to make")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here too")
    args = parser.parse_args()
    if args.out:
        files.check_writable(args.out)
    if args.data is None:
        args.data = args.work / "questions.json"
        args.work.mkdir(parents=True, exist_ok=True)
        squad.write(args.data, demo.examples("train", QUESTIONS))

    page, failed = ["# Results"], []
    print(page[0], flush=True)
    for section in on_a_gpu(args) if args.device == "cuda" else on_a_cpu(args):
        page.append(measure(section, failed))
        print(f"\n{page[-1]}", flush=True)
    if args.out:
        files.write_text(args.out, "\n\n".join(page) + "\n")
    if failed:
        raise RunError(f"not measured: {', '.join(failed)}; what stands above tells why")


def on_a_cpu(args: argparse.Namespace) -> Iterator[Section]:
    questions = ["--weights", args.weights, "--data", args.data]
    repeats = ["--rounds", args.rounds, "--threads", args.threads]
    _, config = read_config(find_folder(args.weights))
    step = ["bench.train_step", *questions, "--max-length", min(LONGEST, config.positions), "--steps", args.steps]
    yield Section("A training step", ([*step, *repeats],))
    yield Section("Features", (["bench.features", *questions, "--rounds", args.rounds],))
    yield Section("Spans and answers", (["bench.spans", *questions, *repeats],))
    pictures = ["--data", args.pictures, "--limit-train", args.images, "--hf-steps", args.hf_steps]
    yield Section("The vision recipe", (["bench.vision", *pictures, *repeats],))


def on_a_gpu(args: argparse.Namespace) -> Iterator[Section]:
    """The report's models with random weights, in mixed precision."""
    gpu = ["--device", "cuda", "--precision", "mixed"]
    for title, shape, batch_sizes in (("ParsBERT's shape", "bert-base", (16, 64)), ("ALBERT's", "albert-base", (16,))):
        folder = args.work / shape
        make = ["bench.shape", shape, "--tokenizer", args.weights, "--out", folder]
        questions = ["--weights", folder, "--batch-size", batch_sizes[0], "--threads", args.threads, *gpu]
        step = ["bench.train_step", *questions, "--data", args.data, "--compile"]
        yield Section(f"A training step of {title}", (make, [*step, "--steps", args.steps, "--rounds", args.rounds]))
        for batch_size in batch_sizes:
            epoch = ["bench.epoch", "--weights", folder, "--train", args.data, "--batch-size", batch_size, "--compile"]
            yield Section(f"An epoch of {title}, batch {batch_size}", ([*epoch, *gpu],))
    pictures = ["--data", args.pictures, "--limit-train", args.images, "--hf-steps", args.hf_steps, "--cache-gb", "20"]
    yield Section("The vision recipe", (["bench.vision", *pictures, "--rounds", args.rounds, "--tf32", *gpu],))


def measure(section: Section, failed: list[str]) -> str:
    """The section's Markdown. A command that fails is written down as such, and its title is added to `failed`."""
    lines = [f"## {section.title}", ""]
    printed = ""
    for command in section.commands:
        words = [str(word) for word in command]
        lines.append(f"    python -m {shlex.join(words)}")
        done = subprocess.run([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True)
        printed = done.stdout
        if done.returncode:
            printed = f"not measured: the command ended with status {done.returncode}"
            failed.append(section.title)
            break
    return "\n".join([*lines, "", printed.strip()])


if __name__ == "__main__":
    main()
