"""Stopping a run: Ctrl-C, SIGTERM and a terminal that closes (SIGHUP) end it after a step, saved."""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from minitransformer.system.errors import Stopped
from minitransformer.system.progress import leave_terminal
from minitransformer.system.shell import command

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stop:
    """Each of SIGNALS asks the loop inside to stop: it finishes the step in hand, saves, and calls `stop`.

    A second signal ends the process at once, which harms nothing: files appear whole or not at all.
    """

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> "Stop":
        told = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # as nohup has SIGHUP
        self._before = {number: signal.signal(number, self._ask) for number in told}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        if number == getattr(signal, "SIGHUP", None):
            leave_terminal()
        when = "after this step, on a GPU after the next that is printed"
        print(f"\nstopping {when}; once more to stop at once", file=sys.stderr, flush=True)

    def stop(self, step: int, saved: Path) -> NoReturn:
        """End the run. Raises Stopped, of which `command_line` makes a message and an exit status."""
        words = sys.argv.copy()
        words += [] if "--resume" in words else ["--resume"]
        if not any(word.split("=")[0] == "--out" for word in words):
            words += ["--out", str(saved.parents[1])]
        raise Stopped(f"stopped after step {step}, saved in {saved}; go on:  {command(*words)}", 128 + self.signal)
