"""Ask about a passage of any length: the answerer that ships, or a model of your own.

python -m qa.ask --context "تهران پایتخت ایران است." --question "پایتخت ایران کجاست؟"
python -m qa.ask --context-file passage.txt
python -m qa.ask --model runs/demo-qa/model --data runs/demo-qa --id ID

Without --question it asks for questions until an empty line, Ctrl-D or Ctrl-C; with --id, it is the one of the data.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from minitransformer.system.errors import DataError, UserError, command_line, printable
from minitransformer.system.flags import FlagParser, nearest
from qa import squad
from qa.answerer import PRECISIONS, SHIPPED, Answer, Answerer, check
from qa.squad import Example

NEXT_BEST = 3  # of the other answers, how many are told
AROUND = 300  # characters of the passage that are shown on either side of the answer
PLAIN, COLOURED = ("[", "]"), ("\x1b[30;42m", "\x1b[0m")  # what stands before and after the answer: black on green


def report(answer: Answer, coloured: bool = False) -> str:
    """Answer, scores, the next best, and the passage with the answer marked, as lines for a terminal."""
    chance = f"    probability {answer.probability:.1%}, score {answer.score:.2f}"
    if answer.text:
        chance += f"; of no answer {answer.none.probability:.1%}, {answer.none.score:.2f}"
    lines = [printable(answer.text) or "No answer in the passage.", chance]
    for other in answer.others[:NEXT_BEST]:
        lines.append(f"    or {other.probability:>6.1%} {other.score:>7.2f}  {printable(other.text)}")
    if answer.text:
        lines += ["", marked(answer.passage, answer.start, answer.start + len(answer.text), coloured)]
    return "\n".join(lines)


def marked(context: str, begin: int, end: int, coloured: bool) -> str:
    """The passage around the characters from `begin` to `end`, on one line, with a mark about them."""
    first, last = max(0, begin - AROUND), min(len(context), end + AROUND)
    # Between dots, because the spaces beside the answer are no edges to be trimmed.
    before, answer, after = (
        printable(f".{part}.")[1:-1] for part in (context[first:begin], context[begin:end], context[end:last])
    )
    opening, closing = COLOURED if coloured else PLAIN
    return "…" * (first > 0) + before + opening + answer + closing + after + "…" * (last < len(context))


def wants_colour(stream: TextIO) -> bool:
    """Whether it is a terminal that shows colours, and nobody has said NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@command_line
def main() -> None:
    flags = parse_flags()
    asked = find_example(flags.data, flags.id) if flags.data is not None else None
    context = asked.context if asked else read_passage(flags)
    check(context, "passage")
    answerer = Answerer(flags.model, flags.precision)
    if answerer.settings.trained_on == "demo":
        print("remark: this model learnt an invented world; leave --model out for one that knows real Persian",
              file=sys.stderr)  # fmt: skip

    def reply(question: str) -> None:
        print(report(answerer(question, context), wants_colour(sys.stdout)), flush=True)

    if flags.question is not None:
        reply(flags.question)
        return
    if asked:
        print(f"question: {printable(asked.question)}")
        reply(asked.question)
        print(f"\nthe data says: {printable(' / '.join(text for text, _ in asked.answers)) or 'no answer'}")
        return
    try:
        for question in prompt():
            try:
                reply(question)
            except UserError as error:  # with this question; the next may do better
                print(f"error: {printable(str(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        print()


def find_example(path: str, id: str) -> Example:
    """The question of an id, from a file of questions or from a run's folder. Raises DataError where there is none."""
    file = Path(path) / "valid.json" if Path(path).is_dir() else Path(path)
    examples = {example.id: example for example in squad.read(file, labelled=False)}
    if id not in examples:
        raise DataError(f"{file}: no question {id!r}{nearest(id, examples)}; its first is {next(iter(examples))!r}")
    return examples[id]


def prompt() -> Iterator[str]:
    """Questions as they are typed, or piped in, up to an empty line or the end."""
    typed = sys.stdin.isatty()
    if typed:
        with contextlib.suppress(ImportError):  # some systems have none
            import readline  # noqa: F401 - gives `input` arrow keys and a history
    try:
        while question := input("question: " if typed else "").strip():
            yield question
    except EOFError:
        print()
    except UnicodeDecodeError as error:
        raise DataError("the question is not UTF-8: convert it") from error


def read_passage(flags: argparse.Namespace) -> str:
    """The passage, as it was given or from its file; "-" is standard input."""
    if flags.context is not None:
        return flags.context
    path = flags.context_file
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error


def parse_flags() -> argparse.Namespace:
    parser = FlagParser(prog="python -m qa.ask", description=__doc__)
    parser.add_argument("--model", metavar="DIR", default=SHIPPED, help=f"a trained model's folder or name ({SHIPPED})")
    passage = parser.add_mutually_exclusive_group(required=True)
    passage.add_argument("--context", metavar="TEXT", help="the passage")
    passage.add_argument("--context-file", metavar="FILE", help="a text file with the passage; -: standard input")
    passage.add_argument("--data", metavar="FILE", help="a file of questions, or a run's folder, and --id says which")
    parser.add_argument("--id", metavar="ID", help="with --data: the question's id")
    parser.add_argument("--question", metavar="TEXT", help="the question; without it, a prompt")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS,
                        help="auto: 16 bits where the model's answers were found to stay the same")  # fmt: skip
    flags = parser.parse_args()
    if (flags.data is None) != (flags.id is None):
        parser.error("--data and --id go together")
    if flags.context_file == "-" and flags.question is None:
        parser.error("--context-file -: standard input holds the passage, so give the --question")
    return flags


if __name__ == "__main__":
    main()
