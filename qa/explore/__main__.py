"""Look at a data set before training on it: tables, charts, and one page that opens from disk.

python -m qa.explore Train.json Validation.json --weights parsbert --out explored
"""

from collections.abc import Sequence
from pathlib import Path

from minitransformer.system import files
from minitransformer.system.errors import UserError, command_line, printable
from minitransformer.system.flags import FlagParser
from qa import mend, squad
from qa.explore import survey
from qa.explore.charts import draw
from qa.explore.numbers import Explored, csv_text, numbers, summary
from qa.explore.page import build

MAX_LENGTHS = (128, 192, 256, 384, 512)
STRIDES = (None, 64, 128)


@command_line
def main() -> None:
    flags = parse_flags()
    out = Path(flags.out)
    names = _names(flags.files)
    read = []
    for path, name in zip(flags.files, names, strict=True):
        _say(f"{path}: reading")
        mended: list[mend.Mended] = []
        examples = squad.read(path, mended=mended)
        _say(f"{path}: {len(examples):,} questions, counting")
        if mended:
            _say(f"{path}: {mend.summary(mended)}")
        read.append((examples, survey.survey(name, examples), mended))
    tokenizer = None
    if flags.weights:
        _say(f"{flags.weights}: loading the tokenizer")
        from weights import load_tokenizer  # only here: it loads torch, which takes seconds

        tokenizer = load_tokenizer(flags.weights)
    explored = []
    for examples, counted, mended in read:
        tokens, cuts = None, []
        if tokenizer:
            _say(f"{counted.name}: counting tokens")
            tokens = survey.tokens(examples, tokenizer)
            limits = [survey.cut(tokens, length, stride) for length in MAX_LENGTHS for stride in STRIDES]
            cuts = [limit for limit in limits if limit]
        explored.append(Explored(examples, counted, tokens, cuts, mended))
    _say("drawing")
    charts = draw(explored)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in charts.items():
        files.write_bytes(out / f"{name}.png", data)
    files.write_text(out / "numbers.csv", csv_text(numbers(explored)))
    files.write_text(out / "index.html", build(explored, charts, flags.weights))
    for line in summary(explored):
        print(line)
    print(f"the page: {out / 'index.html'}")


def parse_flags():
    parser = FlagParser(prog="python -m qa.explore", description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="+", help=f"questions: {squad.SHAPES}")
    parser.add_argument("--weights", metavar="DIR", help="a checkpoint, for lengths in its tokens")
    parser.add_argument("--out", metavar="DIR", required=True, help="where the pictures, the CSV and the page go")
    return parser.parse_args()


def _names(paths: Sequence[str]) -> list[str]:
    """What each file is called on the page: its name, or its path where names are alike."""
    names = [Path(path).name.removesuffix(".gz").removesuffix(".json") for path in paths]
    if len(set(names)) < len(names):
        names = list(paths)
    if len(set(names)) < len(names):
        raise UserError(f"{next(p for p in paths if paths.count(p) > 1)}: given twice; give each file once")
    return [printable(name) for name in names]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
