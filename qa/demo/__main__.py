"""Write the invented data set to files.

python -m qa.demo --out data/demo        writes train.json, valid.json (SQuAD v2) and pretrain.txt
"""

from pathlib import Path

from minitransformer.system.errors import command_line
from minitransformer.system.files import write_text
from minitransformer.system.flags import FlagParser
from qa.demo import PARTS, examples, pretraining_text
from qa.squad import write


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.demo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another data set (default 0)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        write(arguments.out / f"{part}.json", examples(part, seed=arguments.seed))
    write_text(arguments.out / "pretrain.txt", "".join(f"{line}\n" for line in pretraining_text(seed=arguments.seed)))


if __name__ == "__main__":
    main()
