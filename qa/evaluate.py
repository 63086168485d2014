"""Exact match and F1 in percent, as the official SQuAD 2.0 script has them.

python -m qa.evaluate --data Validation.json.gz --predictions predictions.json
"""

import json
from typing import Any

from minitransformer.system.errors import DataError, command_line
from minitransformer.system.flags import FlagParser, finite_number
from qa import metrics, squad


@command_line
def main() -> None:
    flags = parse_flags()
    examples = squad.read(flags.data)
    predictions: Any = squad.read_json(flags.predictions)
    probability: Any = squad.read_json(flags.na_prob) if flags.na_prob else None
    threshold = 1.0 if flags.na_threshold is None else flags.na_threshold
    try:
        scores = metrics.squad_v2(examples, predictions, probability, threshold)
    except DataError as error:  # names the argument and the question, but knows no files
        given = f"{flags.predictions}, {flags.na_prob}" if flags.na_prob else flags.predictions
        raise DataError(f"{given} (scored on {flags.data}): {error}") from error
    print(json.dumps(scores, indent=2))


def parse_flags() -> Any:
    parser = FlagParser(prog="python -m qa.evaluate", description=__doc__)
    parser.add_argument("--data", metavar="FILE", required=True, help=f"the questions: {squad.SHAPES}")
    parser.add_argument("--predictions", metavar="FILE", required=True, help='{id: text}, "" for "no answer"')
    parser.add_argument("--na-prob", metavar="FILE", help="{id: number}: how likely each question has no answer")
    parser.add_argument(
        "--na-threshold",
        metavar="X",
        type=finite_number,
        help='a number in --na-prob above this turns the prediction into "no answer" (default: 1.0)',
    )
    flags = parser.parse_args()
    if flags.na_threshold is not None and not flags.na_prob:
        parser.error("--na-threshold is a limit to the numbers of --na-prob, which is not given")
    return flags


if __name__ == "__main__":
    main()
