"""Progress on stderr, and the lines that tell how a run goes: a bar on a terminal, a line now and then in a file."""

import os
import stat
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS = 30  # between two lines where stderr is no terminal
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed}<{remaining}, {rate_fmt}{postfix}"

_quiet = False


def be_quiet(quiet: bool = True) -> None:
    """Show no progress and `say` nothing from here on, in this process."""
    global _quiet
    _quiet = quiet


def say(*lines: object) -> None:
    """Print lines that tell how a run goes, unless --quiet; a bar on the terminal makes room for them."""
    if _quiet:
        return
    try:
        for line in lines:
            if sys.stderr.isatty():
                tqdm.write(str(line))
            else:
                print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has what it wants; the run goes on
        leave_terminal()


def leave_terminal() -> None:
    """Send what is meant for a terminal that has closed, or a reader that has gone, nowhere: writing would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if not stat.S_ISREG(os.fstat(number).st_mode):  # a log file stays
            os.dup2(nowhere, number)
    os.close(nowhere)


def note(line: object) -> None:
    """Print a line that stands beside the results, to stderr, unless --quiet."""
    if not _quiet:
        tqdm.write(str(line), file=sys.stderr)


def progress(items: Iterable | None = None, *, shown: bool = True, **settings: Any) -> tqdm:
    """tqdm with its own `settings`. shown: False in all processes but the first."""
    kind = tqdm if sys.stderr.isatty() else _Lines
    if _in_notebook():
        from tqdm.auto import tqdm as kind  # a bar of the notebook's, where ipywidgets are installed
    return kind(items, disable=_quiet or not shown, **settings)


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this."""
    ipython = sys.modules.get("IPython")
    return type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell" if ipython else False


class _Lines(tqdm):
    """The same numbers in a line with the time, every SECONDS and, where the bar would stay, at the end.

    A log file keeps every state of a bar that was meant to be overwritten; a run of an hour writes thousands.
    """

    def __init__(self, items: Iterable | None, **settings: Any) -> None:
        self._printed = settings.get("initial", 0)  # nothing to tell before anything is done
        super().__init__(items, mininterval=SECONDS, miniters=1, bar_format=LINE, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n != self._printed:
            self._printed = self.n
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {self}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if not self.disable and self.leave:
            self.display()
        self.disable = True
