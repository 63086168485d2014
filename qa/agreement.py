"""Do 16 bits answer as float32 does? Asks a model all questions of a file in both, and keeps the share in its folder.

python -m qa.agreement --model runs/mine/model --data valid.json

`--precision auto`, of qa.ask, qa.predict and qa.serve, means 16 bits where the machine has units for them and this
share, "agreement" under "answering" in the folder's config.json, is 0.99 or more.
"""

from minitransformer.system import files
from minitransformer.system.errors import RunError, command_line
from minitransformer.system.flags import FlagParser, whole_number
from qa import squad
from qa.answerer import AGREES, Answerer
from weights.find import find_folder
from weights.folder import read_json


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.agreement", description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder or name")
    parser.add_argument("--data", required=True, metavar="FILE", help=f"questions: {squad.SHAPES}")
    parser.add_argument("--limit", type=whole_number(at_least=1), metavar="N", help="only the first N questions")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    args = parser.parse_args()

    folder = find_folder(args.model)
    path = folder / "config.json"
    if (folder / "origin.json").exists():
        raise RunError(f"{folder}: a public checkpoint, which stays as it came; give a copy of it")
    files.check_writable(path)
    examples = squad.read(args.data, labelled=False)[: args.limit]
    answers = []
    for precision in ("mixed", "float32"):
        answerer = Answerer(folder, precision, args.device)
        if precision == "mixed" and answerer.precision.remark:
            raise RunError("this machine has no units for 16 bits, so there is nothing to compare; use one that has")
        answers.append({id: prediction.text for id, prediction in answerer.predict(examples).items()})
    mixed, exact = answers
    same = sum(mixed[id] == text for id, text in exact.items())
    share = same / len(examples)
    settings = read_json(path)
    settings["answering"] = settings.get("answering", {}) | {"agreement": round(share, 4)}
    files.write_json(path, settings)
    print(f"{same:,} of {len(examples):,} answers are the same, {share:.2%}: --precision auto is "
          f"{'16 bits' if share >= AGREES else 'float32'} for {folder}")  # fmt: skip


if __name__ == "__main__":
    main()
