"""CIFAR-10 (Krizhevsky 2009), as its author serves it: one archive of 60,000 pictures.

python -m vision.download [--to data]      fetch it, and check it; train_vit.py then takes `--data FILE`
"""

from pathlib import Path
from typing import Any

from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser
from weights.download import download

FILE = "cifar-10-python.tar.gz"  # 170,498,071 bytes
URL = "https://www.cs.toronto.edu/~kriz"
CHECKSUM = "md5:c58f30108f718f92721af3b95e74349a"  # the one its page gives


def fetch(folder: Path, url: str) -> Path:
    """The archive, downloaded where the folder lacks it. DataError where it cannot be had."""
    return download(f"{url}/{FILE}", folder / FILE, CHECKSUM)


@command_line
def main() -> None:
    flags = parse_flags()
    archive = fetch(Path(flags.to), flags.url.rstrip("/"))
    print(f"train on it:  python train_vit.py --recipe deit-small --data {archive}")


def parse_flags() -> Any:
    parser = FlagParser(prog="python -m vision.download", description=__doc__)
    parser.add_argument("--to", metavar="DIR", default="data", help="where to put it (default: data)")
    parser.add_argument("--url", metavar="URL", default=URL, help="a mirror: the address of the folder it is in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
