"""The mean of several checkpoints of one model: "model soups", Wortsman et al. 2022.

python -m weights.average runs/one/model runs/two/model --out runs/mean

Runs that began at the same weights often end in one valley, and the middle of it can be better than its sides. It
costs nothing when the model is used, as an ensemble of the runs would.
"""

from pathlib import Path

from minitransformer.system.errors import RunError, WeightsError, command_line
from minitransformer.system.flags import FlagParser
from weights.find import find_folder
from weights.folder import check_unused, write_like
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
    check_unused(out)

    architecture, config = read_config(folders[0])
    mean = read_tensors(folders[0], architecture.prefix)
    floats = [name for name, tensor in mean.items() if tensor.is_floating_point()]  # not position ids: they are equal
    for folder in folders[1:]:
        tensors = read_tensors(folder, architecture.prefix)
        if read_config(folder)[1] != config or tensors.keys() != mean.keys():
            raise WeightsError(f"{folder}: not the model that {folders[0]} is; average runs of one model")
        for name in floats:
            mean[name] += tensors[name]
    for name in floats:
        mean[name] /= len(folders)
    write_like(folders[0], out, mean)
    print(f"the mean of {len(folders)} checkpoints: {out}")


if __name__ == "__main__":
    main()
