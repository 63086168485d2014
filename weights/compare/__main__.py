"""Our model against transformers' on the same folder, part by part: the largest differences of each layer.

python -m weights.compare FOLDER
"""

from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser
from weights.compare.models import compare, first_difference, table
from weights.compare.trace import TOLERANCE
from weights.find import find_folder
from weights.load import default_task, read_config

TASKS = ("encoder", "question-answering", "masked-lm", "image-classification")


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m weights.compare", description=__doc__)
    parser.add_argument("folder", help="a checkpoint folder in Hugging Face layout, or the name of one that ships")
    parser.add_argument("--task", choices=TASKS, help="default: config.json's")
    args = parser.parse_args()
    folder = find_folder(args.folder)
    task = args.task or default_task(folder, read_config(folder)[0])
    parts = compare(folder, task)
    print(f"{folder} as {task}: largest differences from transformers, {TOLERANCE:.0e} allowed (relative and absolute)")
    print(table(parts))
    verdict = first_difference(parts)
    print(verdict or f"equal in all {len(parts)} parts")
    raise SystemExit(1 if verdict else 0)


if __name__ == "__main__":
    main()
