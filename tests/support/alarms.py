"""Alarms that fall into whatever goes on, and raise; for programs of tests, as an alarm may fall into a finalizer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Alarm(BaseException):
    """What the handler raises."""


class Alarms:
    """Alarms, one at a time, from `start` to `stop`."""

    def __init__(self) -> None:
        self.interrupted = 0
        self._is_armed = False

    def start(self) -> None:
        """Set the handler."""
        signal.signal(signal.SIGALRM, self._ring)

    def stop(self) -> None:
        """Let no alarm come any more."""
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def _ring(self, *_: object) -> None:
        if self._is_armed:  # a signal may come late, by way of another thread
            self._is_armed = False
            raise Alarm

    def within(self, seconds: float, act: Callable[[], T]) -> T | None:
        """What an act gives, with an alarm after so many seconds; None if that came first."""
        try:
            self._is_armed = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            found = act()
            self._is_armed = False
        except Alarm:
            self.interrupted += 1
            return None
        return found
