"""Turns at the model. A long request takes a turn for each batch, so that short ones pass in between."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GLANCE = 0.1  # seconds after which one who waits looks whether the answer is still wanted


class EndedError(Exception):
    """The server ends: there are no more turns."""


class Turns:
    """Whoever came first goes first, one at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._taken = self._ended = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextmanager
    def turn(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn and hold it inside. check: called while waiting; what it raises ends the wait.

        Raises EndedError after `end`.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._ended or self._taken or self._waiting[0] is not ticket:
                    if self._ended:
                        raise EndedError
                    check()
                    self._changed.wait(GLANCE)
                check()
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def end(self) -> None:
        """Wait until the turn that is on is over; no other follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            while self._taken:
                self._changed.wait()
