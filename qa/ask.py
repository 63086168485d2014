"""Ask a trained model about a passage of any length.

python -m qa.ask --model runs/demo-qa/model --context-file passage.txt
python -m qa.ask --model runs/demo-qa/model --context "تهران پایتخت ایران است." --question "پایتخت ایران کجاست؟"

Without --question it asks for questions until an empty line, Ctrl-D or Ctrl-C.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer
from torch import nn

from minitransformer.errors import DataError, UserError, command_line, printable
from minitransformer.flags import FlagParser
from qa.features import LONGEST_QUESTION, featurise, pair_template
from qa.predict import N_BEST, read
from qa.spans import Prediction, predictions
from qa.squad import Example
from weights import load_pretrained, load_tokenizer

STRIDE = 128  # tokens that neighbouring windows of a long passage share, as in BERT's own SQuAD code
MAX_ANSWER_TOKENS = 64
BATCH_TOKENS = 8192


def answer(
    model: nn.Module,
    tokenizer: Tokenizer,
    context: str,
    question: str,
    null_threshold: float = 0.0,
    max_answer_tokens: int = MAX_ANSWER_TOKENS,
) -> Prediction:
    """The answer that the passage gives, among its n best. Raises DataError on texts that cannot be read."""
    if len(question) > LONGEST_QUESTION:
        raise DataError(f"the question is {len(question):,} characters long: shorten it")
    check(question, "question")
    check(context, "passage")
    length = model.config.positions
    size = pair_template(tokenizer).size + len(tokenizer.encode(question, add_special_tokens=False))
    if size >= length:
        raise DataError(f"the question takes {size} of the {length} tokens that the model reads at once: shorten it")

    examples = [Example("question", "", question, context, answers=())]
    features = featurise(examples, tokenizer, length, stride=min(STRIDE, (length - size) // 2))
    spans, _ = read(model, features, BATCH_TOKENS, max_answer_tokens, N_BEST)
    return predictions(examples, features, spans, null_threshold)["question"]


def check(text: str, name: str) -> None:
    if not text.strip():
        raise DataError(f"the {name} is empty: write one")
    if any("\ud800" <= character <= "\udfff" for character in text):  # a byte that is no character, as Python reads it
        raise DataError(f"the {name} is not UTF-8: convert it")


def report(prediction: Prediction) -> str:
    """Answer and probabilities as lines for a terminal."""
    probability = {candidate.text: candidate.probability for candidate in reversed(prediction.n_best)}  # the best wins
    if not prediction.text:
        return f"No answer in the passage.\n    probability {probability['']:.1%}"
    chances = f"probability {probability[prediction.text]:.1%}, of no answer {probability['']:.1%}"
    return f"{printable(prediction.text)}\n    {chances}"


@command_line
def main() -> None:
    flags = parse_flags()
    context = flags.context if flags.context_file is None else read_text(flags.context_file)
    check(context, "passage")
    tokenizer = load_tokenizer(flags.model)
    model = load_pretrained(flags.model, "question-answering", fresh_head=False)
    if flags.question is not None:
        print(report(answer(model, tokenizer, context, flags.question)))
        return

    try:
        for question in prompt():
            try:
                print(report(answer(model, tokenizer, context, question)), flush=True)
            except UserError as error:  # with this question; the next may do better
                print(f"error: {printable(str(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        print()


def prompt() -> Iterator[str]:
    """Questions as they are typed, or piped in, up to an empty line or the end."""
    try:
        while question := input("question: " if sys.stdin.isatty() else "").strip():
            yield question
    except EOFError:
        print()
    except UnicodeDecodeError as error:
        raise DataError("the question is not UTF-8: convert it") from error


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error


def parse_flags() -> argparse.Namespace:
    parser = FlagParser(prog="python -m qa.ask", description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder, as runs/NAME/model")
    passage = parser.add_mutually_exclusive_group(required=True)
    passage.add_argument("--context", metavar="TEXT", help="the passage")
    passage.add_argument("--context-file", metavar="FILE", help="a text file with the passage")
    parser.add_argument("--question", metavar="TEXT", help="the question; without it, a prompt")
    return parser.parse_args()


if __name__ == "__main__":
    main()
