"""Turns: many short runs that begin at the same time go one after the other, a few at once.

More threads than processors only queue for the interpreter lock, and each time one gets it another has to be woken:
64 short runs at once then take twice the time they need. A run that takes longer than a moment, or sleeps, holds up
nobody: its turn is over, and it goes on.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOMENT_SECONDS = 0.01
"""How long a turn lasts at most. A short run, with as many others at once as there may be, takes 3 to 4 ms."""

AT_ONCE = (os.cpu_count() or 1) + 1
"""One more than can compute: of so many, one usually waits for the interpreter lock."""


class Turns:
    """Gives turns in the order of asking.

    Args:
        at_once: how many turns may be under way.
        moment: how long one lasts at most, in seconds.
    """

    def __init__(self, at_once: int = AT_ONCE, moment: float = MOMENT_SECONDS) -> None:
        self._at_once, self._moment = at_once, moment
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()  # each is released when its turn comes
        self._begun: dict[threading.Lock, float] = {}  # when, the oldest first

    @contextmanager
    def turn(self, patience: float) -> Iterator[Callable[[], None]]:
        """Wait for a turn, and have it while inside, or until its moment is over.

        Args:
            patience: how many seconds to wait at most; after that one goes on without.

        Yields:
            A function that ends the turn early, for those who are about to wait for something else.
        """
        place = threading.Lock()
        place.acquire()
        self._wait(place, time.monotonic() + patience)

        def end() -> None:
            with self._lock:
                if self._begun.pop(place, None) is not None:
                    self._admit()

        try:
            yield end
        finally:
            end()

    def _wait(self, place: threading.Lock, until: float) -> None:
        with self._lock:
            self._waiting.append(place)
            self._admit()
            moments = 1 + len(self._waiting) // self._at_once  # when it is this one's turn if all take long
        while not place.acquire(timeout=max(0.0, min(moments * self._moment, until - time.monotonic()))):
            moments = 1
            with self._lock:
                self._admit()
                if time.monotonic() >= until and place in self._waiting:
                    self._waiting.remove(place)
                    return

    def _admit(self) -> None:
        now = time.monotonic()
        for place, began in list(self._begun.items()):
            if began + self._moment > now:
                break
            del self._begun[place]
        while self._waiting and len(self._begun) < self._at_once:
            place = self._waiting.popleft()
            self._begun[place] = now
            place.release()
