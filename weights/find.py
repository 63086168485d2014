"""Where a checkpoint's folder is."""

from pathlib import Path

from minitransformer.system.errors import WeightsError
from minitransformer.system.flags import nearest

SHIPPED = Path(__file__).parent  # checkpoints that ship stand beside this file and can be named


def find_folder(folder: str | Path) -> Path:
    """A checkpoint's folder from its path or its name; a public one is fetched. WeightsError when there is none."""
    for candidate in (Path(folder), SHIPPED / folder):
        if (candidate / "config.json").is_file():
            return candidate
    if Path(folder).is_dir():
        raise WeightsError(f"{folder}: no config.json: not a checkpoint folder in Hugging Face layout")
    from weights import hub  # only here: it loads what talks to the network

    if str(folder) in hub.CHECKPOINTS:
        return hub.fetch(str(folder))
    names = sorted([*(path.parent.name for path in SHIPPED.glob("*/config.json")), *hub.CHECKPOINTS])
    hint = nearest(str(folder), names)
    raise WeightsError(
        f"{folder}: no such folder{hint}; give a checkpoint folder's path, or a name: {', '.join(names)}"
    )
