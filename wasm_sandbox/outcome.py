"""Outcome of a run, before anything of its output is interpreted: plain data, wherever the guest ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Ending(Enum):
    """Way in which a guest ended."""

    EXITED = "exited"
    OUT_OF_FUEL = "out of fuel"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    STACK_OVERFLOW = "stack overflow"
    OUT_OF_MEMORY = "out of memory"
    TRAPPED = "trapped"


@dataclass(frozen=True)
class GuestException:
    """Report of the guest on an exception that nothing caught."""

    name: str
    message: str
    traceback: str


class Outcome(NamedTuple):  # a dataclass that is frozen takes four times as long to make: 3 µs of a short call
    """Outcome of a run, before anything of its output is interpreted."""

    ending: Ending
    exit_code: int = 0
    exception: GuestException | None = None
    detail: str = ""
    """The engine's or the host's own words for an abnormal ending."""
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_dropped_bytes: int = 0
    stderr_dropped_bytes: int = 0
    fuel: int | None = 0
    """Fuel used; None if it was not counted."""
    wall_seconds: float = 0.0
    memory_bytes: int = 0
    host_calls: int = 0
    files: dict[str, bytes] | None = None
    """Path -> content of files that a guest created or changed; None if the caller gave none, or it was stopped."""
    answer: bytes | None = None
    """Answer of the guest to a call (`ExecutionRequest.call`); None if there is none, or it is longer than allowed."""
    answer_bytes: int | None = None
    """Size of the answer, 0 if there is none; None if it was a script, whose result is in its output."""
    is_over: bool = True
    """Whether the guest cannot be called again, and a session goes back to what it was before."""


def not_begun(waited_seconds: float) -> Outcome:
    """Outcome of a run for which no thread became free in time."""
    detail = (
        f"it was not begun: for {waited_seconds:.1f} seconds so many other runs were going on that no thread was free"
    )
    return Outcome(Ending.DEADLINE, detail=detail, wall_seconds=waited_seconds)


class Patience:
    """Time that a run may wait for a thread; see `not_begun`.

    Args:
        seconds: length of the wait, from now, or from the load of the first image.
        ready_since: time of that load on the clock of `time.monotonic`; None while it is still prepared.
    """

    def __init__(self, seconds: float, ready_since: Callable[[], float | None]) -> None:
        self._seconds, self._ready_since = seconds, ready_since
        self._submitted = time.monotonic()

    def _began(self) -> float:
        ready = self._ready_since()
        return time.monotonic() if ready is None else max(self._submitted, ready)

    def end(self) -> float:
        """End of the wait as things stand, on the clock of `time.monotonic`."""
        return self._began() + self._seconds

    def result(self) -> Outcome:
        """Outcome of the run that was not begun."""
        return not_begun(time.monotonic() - self._began())
