"""Question answering runs side by side: recipes, scores, losses, and the questions on which they differ.

python -m qa.compare runs/parsbert runs/albert-fa
python -m qa.compare runs/parsbert runs/albert-fa --out compare.html        the same as a page, with the loss curves
"""

from pathlib import Path

from minitransformer.system import files
from minitransformer.system.errors import RunError, command_line
from minitransformer.system.flags import FlagParser
from qa.compare import as_page, as_text, read_all
from qa.report.scored import read_run


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="two run folders or more, as runs/parsbert")
    parser.add_argument("--out", metavar="FILE", help="also write a page, as compare.html")
    args = parser.parse_args()
    if len(args.runs) < 2:
        raise RunError(f"only one run, {args.runs[0]}, to compare; give two or more")
    if args.out:
        files.check_writable(Path(args.out))

    runs = [read_run(folder) for folder in args.runs]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):  # a/run and b/run
        names = args.runs
    answered = read_all(runs)
    print(as_text(runs, names, answered))
    if args.out:
        files.write_text(args.out, as_page(runs, names, answered))
        print(f"\nread it: {args.out}")


if __name__ == "__main__":
    main()
