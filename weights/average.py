"""The mean of several checkpoints of one model: "model soups", Wortsman et al. 2022.

python -m weights.average runs/one/model runs/two/model --out runs/mean

Runs that began at the same weights often end in one valley, and the middle of it can be better than its sides. It
costs nothing when the model is used, as an ensemble of the runs would.
"""

from pathlib import Path

from minitransformer.system import files
from minitransformer.system.errors import RunError, WeightsError, command_line
from minitransformer.system.flags import FlagParser
from weights.find import find_folder
from weights.folder import COPIED, safetensors_bytes
from weights.load import read_config, read_tensors


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m weights.average", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="DIR", help="checkpoints of one architecture, two or more")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the new folder; its config and tokenizer: the first's"
    )
    args = parser.parse_args()
    folders, out = [find_folder(model) for model in args.models], Path(args.out)
    if len(folders) < 2:
        raise RunError("one checkpoint is its own mean: give two or more")
    if (out / "config.json").exists():
        raise RunError(f"{out}: there is a checkpoint in it; choose another --out")

    total: dict = {}
    first_config = None
    for folder in folders:
        architecture, config = read_config(folder)
        tensors = read_tensors(folder, architecture.prefix)
        if not total:
            total, first_config = tensors, config
            continue
        if config != first_config or tensors.keys() != total.keys():
            raise WeightsError(f"{folder}: not the model that {folders[0]} is; average runs of one model")
        for name, tensor in tensors.items():
            total[name] += tensor
    mean = {name: tensor / len(folders) for name, tensor in total.items()}

    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (folders[0] / name).is_file():
            files.write_bytes(out / name, (folders[0] / name).read_bytes())
    files.write_bytes(out / "model.safetensors", safetensors_bytes(mean))
    files.write_bytes(out / "config.json", (folders[0] / "config.json").read_bytes())  # last: it makes the folder one
    print(f"the mean of {len(folders)} checkpoints: {out}")


if __name__ == "__main__":
    main()
