"""Quantise a checkpoint: a copy of its folder with weights in 8 or 4 bits. The format: quantised.py.

python -m weights.quantise DIR --bits 4 --out SMALL                                    most weights in 4 bits
python -m weights.quantise DIR --bits 4 --eight '*embeddings*' --out SMALL --data FILE
python -m weights.quantise SMALL --bits 32 --out PLAIN                                 for transformers
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from minitransformer.system.errors import WeightsError, command_line
from minitransformer.system.flags import FlagParser, whole_number
from weights.find import find_folder
from weights.folder import check_unused, write_like
from weights.load import read_config, read_tensors
from weights.quantised import Codes, dequantise, pack

GROUP = 64  # neighbours that share a scale in 4 bits; in 8 bits a row has one
SMALLEST = 2**14  # numbers of a matrix that is worth it


def scheme_for(tensors: dict[str, Tensor], bits: int, eight: list[str], group: int) -> dict[str, tuple[int, int]]:
    """Bits and group of each matrix that is large enough. eight: patterns of names that get 8 bits, a scale a row."""
    scheme = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2 or tensor.numel() < SMALLEST or bits == 32:
            continue
        columns = tensor.shape[1]
        if bits == 8 or any(fnmatchcase(name, pattern) for pattern in eight) or columns % group:
            scheme[name] = 8, columns
        else:
            scheme[name] = 4, group
    return scheme


@command_line
def main() -> None:
    flags = parse_flags()
    folder, out = find_folder(flags.model), Path(flags.out)
    check_unused(out)
    architecture, _ = read_config(folder)
    tensors = read_tensors(folder, architecture.prefix)
    for pattern in flags.eight:
        if not any(fnmatchcase(name, pattern) for name in tensors):
            raise WeightsError(f"--eight {pattern!r}: no tensor has such a name; the first is {next(iter(tensors))}")
    scheme = scheme_for(tensors, flags.bits, flags.eight, flags.group)
    packed, note = pack(tensors, scheme)

    write_like(folder, out, packed, note)

    print(*report(tensors, packed, scheme), sep="\n")
    sizes = [sum(path.stat().st_size for path in where.iterdir() if path.is_file()) for where in (folder, out)]
    print(f"{out}: {sizes[1] / 1e6:.2f} MB, of {sizes[0] / 1e6:.2f}")
    if flags.data:
        before, after = (score(where, flags.data) for where in (folder, out))
        for name in ("exact", "f1"):
            print(f"{name:<6} {before[name]:.2f} -> {after[name]:.2f}  ({after[name] - before[name]:+.2f})")


def report(tensors: dict[str, Tensor], packed: dict[str, Tensor], scheme: dict[str, tuple[int, int]]) -> Iterator[str]:
    """A line for each matrix: its bits, bytes, and how far it is from what it was, in parts of its deviation."""
    yield f"{'':<64} bits  group      bytes  largest error  root mean square"
    for name, (bits, group) in scheme.items():
        codes = Codes(packed[f"{name}.codes"], packed[f"{name}.scales"])
        error = (dequantise(codes, bits) - tensors[name]) / tensors[name].std()
        size = sum(part.nbytes for part in codes)
        yield (f"{name:<64} {bits:>4} {group:>6} {size:>10,} {error.abs().max():>14.4f} "
               f"{error.square().mean().sqrt():>17.4f}")  # fmt: skip


def score(folder: Path, data: str) -> dict[str, Any]:
    """Exact and F1 of a folder on a file of questions, by the commands that anybody would use."""
    with tempfile.TemporaryDirectory() as place:
        answers = f"{place}/answers.json"
        _run("qa.predict", "--model", str(folder), "--data", data, "--out", answers)
        return json.loads(_run("qa.evaluate", "--data", data, "--predictions", answers))


def _run(module: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *flags], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)  # its own message stands above
    return done.stdout


def parse_flags() -> argparse.Namespace:
    parser = FlagParser(prog="python -m weights.quantise", description=__doc__)
    parser.add_argument("model", metavar="DIR", help="a checkpoint's folder or name, quantised or not")
    parser.add_argument(
        "--bits", type=int, choices=(4, 8, 32), required=True, help="of most weights; 32: plain float32"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the new folder")
    parser.add_argument("--eight", action="append", default=[], metavar="PATTERN",
                        help="with --bits 4: names that get 8 bits, as '*embeddings*'; may be repeated")  # fmt: skip
    parser.add_argument("--group", type=whole_number(at_least=1), default=GROUP, metavar="N",
                        help=f"with --bits 4: neighbours that share a scale ({GROUP})")  # fmt: skip
    parser.add_argument("--data", metavar="FILE", help="questions, to say what it costs in exact and F1")
    return parser.parse_args()


if __name__ == "__main__":
    main()
