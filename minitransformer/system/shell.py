"""Commands that are printed for the user to paste."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*words: object) -> str:
    """A line for the shell that gives these words to Python, as this process was started: pasted here, it runs.

    The interpreter is called by its name where the shell finds it by that, else by its path.
    """
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    if processes and words[0] != "-m":
        start = ["torchrun", "--nproc-per-node", processes]
    else:
        path = Path(sys.executable)
        near = os.path.relpath(path)
        start = [path.name if shutil.which(path.name) == str(path) else str(path) if near.startswith("..") else near]
    return shlex.join([*start, *map(str, words)])
