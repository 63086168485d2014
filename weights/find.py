"""Find a checkpoint's folder."""

import re
from pathlib import Path

from minitransformer.system.errors import WeightsError
from minitransformer.system.flags import nearest

SHIPPED = Path(__file__).parent  # checkpoints that ship stand beside this file and can be named
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", re.ASCII)  # owner/name or owner/name@revision


def find_folder(folder: str | Path) -> Path:
    """A checkpoint's folder from its path, a file in it, its name, or owner/name[@revision] on the hub.

    What is public is fetched where it is not here yet (hub.py). Raises WeightsError when there is none.
    """
    path = Path(folder)
    inside = path.parent if path.is_file() else path
    for candidate in (inside, SHIPPED / folder):
        if (candidate / "config.json").is_file():
            return candidate
    if path.exists():
        raise WeightsError(f"{folder}: no config.json: not a checkpoint folder in Hugging Face layout")
    from weights import hub  # only here: it loads what talks to the network

    if str(folder) in hub.CHECKPOINTS or HUB_ID.fullmatch(str(folder)):
        return hub.fetch(str(folder))
    names = sorted([*(path.parent.name for path in SHIPPED.glob("*/config.json")), *hub.CHECKPOINTS])
    hint = nearest(str(folder), names)
    raise WeightsError(
        f"{folder}: no such folder{hint}; give a checkpoint folder's path, owner/name on the hub, or a name: "
        f"{', '.join(names)}"
    )
