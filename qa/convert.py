"""Questions of any shape that shapes.py knows, written as SQuAD 2.0.

python -m qa.convert questions.csv questions.json.gz
"""

from minitransformer.system import files
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser
from qa import mend, squad
from qa.mend import Mended

MEND_HELP = "put answers right that are not where their answer_start says, and drop those that cannot be"


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.convert", description=__doc__)
    parser.add_argument(
        "source", metavar="IN", help="SQuAD JSON, rows as JSON, JSON Lines, CSV, TSV or Parquet; gzipped or not"
    )
    parser.add_argument("target", metavar="OUT", help="a .json or .json.gz file to write")
    parser.add_argument("--mend-answers", action="store_true", help=MEND_HELP)
    args = parser.parse_args()

    files.check_writable(args.target, args.source)
    mended: list[Mended] | None = [] if args.mend_answers else None
    examples = squad.read(args.source, mended=mended)
    squad.write(args.target, examples)
    if mended:
        print(mend.summary(mended))
    answered = sum(example.is_answerable for example in examples)
    print(f"{len(examples):,} questions, {len(examples) - answered:,} without an answer: {args.target}")


if __name__ == "__main__":
    main()
