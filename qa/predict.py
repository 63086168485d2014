"""Answer a file of questions.

python -m qa.predict --data valid.json --out predictions.json                               by the answerer that ships
python -m qa.predict --model runs/demo-qa/model --data valid.json --out predictions.json
"""

from pathlib import Path

from minitransformer.system import files
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser, finite_number, whole_number
from qa import squad
from qa.answerer import BATCH_TOKENS, MAX_ANSWER_TOKENS, PRECISIONS, SHIPPED, STRIDE, Answerer
from qa.spans import official_files


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.predict", description=__doc__)
    parser.add_argument("--model", metavar="DIR", default=SHIPPED, help=f"a trained model's folder or name ({SHIPPED})")
    parser.add_argument("--data", required=True, metavar="FILE", help=f"questions: {squad.SHAPES}")
    parser.add_argument("--out", required=True, metavar="FILE", help="where {id: answer} goes, as JSON")
    count = whole_number(at_least=1)
    parser.add_argument("--stride", type=whole_number(at_least=0), metavar="N",
                        help=f"tokens that windows of long contexts share ({STRIDE})")  # fmt: skip
    parser.add_argument("--max-answer-tokens", type=count, default=MAX_ANSWER_TOKENS, metavar="N",
                        help=f"longest answer ({MAX_ANSWER_TOKENS})")  # fmt: skip
    parser.add_argument("--null-threshold", type=finite_number, metavar="X",
                        help="lower: more questions get no answer (what the model's folder says)")  # fmt: skip
    parser.add_argument("--batch-tokens", type=count, default=BATCH_TOKENS, metavar="N",
                        help=f"padded tokens in a batch ({BATCH_TOKENS})")  # fmt: skip
    parser.add_argument("--precision", default="auto", choices=PRECISIONS,
                        help="auto: 16 bits where the model's answers were found to stay the same")  # fmt: skip
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    args = parser.parse_args()

    files.check_writable(args.out, args.data)
    examples = squad.read(args.data, labelled=False)
    answerer = Answerer(args.model, args.precision, args.device, args.null_threshold,
                        args.stride, args.max_answer_tokens, args.batch_tokens)  # fmt: skip
    answers = official_files(answerer.predict(examples)).predictions
    files.write_json(Path(args.out), answers)
    empty = sum(not text for text in answers.values())
    print(f"{len(answers)} answers, {empty} of them empty, in {answerer.precision.name}: {args.out}")


if __name__ == "__main__":
    main()
