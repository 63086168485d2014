"""Turns at the model. A long request takes a turn for each batch, so that short ones pass in between."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GLANCE = 0.1  # seconds after which one who waits looks whether the answer is still wanted


class Turns:
    """Whoever came first goes first, one at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._taken = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextmanager
    def turn(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn and hold it inside. check: called while waiting; what it raises ends the wait."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._taken or self._waiting[0] is not ticket:
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
