"""PQuAD (Darvishi et al. 2023), Persian questions in SQuAD 2.0's shape, from its public repository, CC BY-SA 4.0.

python -m qa.pquad [--to data/pquad]      fetch its three files; `--train pquad --valid pquad` fetches what it needs
"""

from pathlib import Path
from typing import Any, NamedTuple

from minitransformer.system.errors import DataError, command_line
from minitransformer.system.flags import FlagParser
from qa import squad
from weights.download import download

COMMIT = "b1724102bdb2f00a61c8ca9f81250ceff9db1872"
URL = f"https://raw.githubusercontent.com/AUT-NLP/PQuAD/{COMMIT}/Dataset"
FOLDER = Path("data/pquad")


class Part(NamedTuple):
    file: str
    questions: int
    checksum: str  # "": not known to us


PARTS = {
    "train": Part("Train.json", 63_994, ""),
    "valid": Part("Validation.json", 7_976, "sha256:56bda77e921c233236ce960c12ac6d99aa6a4a6d7706573e885842d37ab67396"),
    "test": Part("Test.json", 8_002, "sha256:50da77a97ddaf1fc6fb298c6591dbc2ec3e070cb5216419740a511cbd1ccc054"),
}


def fetch(part: str, folder: Path = FOLDER, url: str = "") -> Path:
    """The file of "train", "valid" or "test", downloaded where the folder lacks it. DataError if it cannot be had."""
    file = PARTS[part].file
    return download(f"{url or URL}/{file}", folder / file, PARTS[part].checksum)


@command_line
def main() -> None:
    flags = parse_flags()
    for name, part in PARTS.items():
        path = fetch(name, Path(flags.to), flags.url.rstrip("/"))
        found = len(squad.read(path))
        if found != part.questions:
            raise DataError(
                f"{path}: {found:,} questions, PQuAD has {part.questions:,}; delete {path}* to fetch it again"
            )
        print(f"{path}: {found:,} questions", flush=True)
    print("licence: CC BY-SA 4.0")
    print("train on it:  python train_qa.py --recipe parsbert")


def parse_flags() -> Any:
    parser = FlagParser(prog="python -m qa.pquad", description=__doc__)
    parser.add_argument("--to", metavar="DIR", default=str(FOLDER), help=f"where to put them (default: {FOLDER})")
    parser.add_argument("--url", metavar="URL", default=URL, help="a mirror: the address of the folder with the files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
