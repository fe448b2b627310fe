"""How a run ended, before anything of its output is interpreted: plain data, wherever the guest ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Ending(Enum):
    """How a guest ended."""

    EXITED = "exited"
    OUT_OF_FUEL = "out of fuel"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    STACK_OVERFLOW = "stack overflow"
    OUT_OF_MEMORY = "out of memory"
    TRAPPED = "trapped"


@dataclass(frozen=True)
class GuestException:
    """What the guest reports of an exception that nothing caught."""

    name: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended, before anything of its output is interpreted."""

    ending: Ending
    exit_code: int
    exception: GuestException | None
    detail: str
    """The engine's or the host's own words for an abnormal ending."""
    stdout: bytes
    stderr: bytes
    stdout_dropped_bytes: int
    stderr_dropped_bytes: int
    fuel: int | None
    """None if it was not counted."""
    wall_seconds: float
    memory_bytes: int
    host_calls: int
    files: dict[str, bytes] | None = None
    """What a guest that ended by itself left in its file system, and that it was not given so; None without one."""


def not_begun(waited_seconds: float) -> Outcome:
    """The outcome of a run that no thread became free for in time."""
    detail = (
        f"it was not begun: for {waited_seconds:.1f} seconds so many other runs were going on that no thread was free"
    )
    return Outcome(Ending.DEADLINE, 0, None, detail, b"", b"", 0, 0, 0, waited_seconds, 0, 0)


def giving_up(patience_seconds: float, ready_since: Callable[[], float | None]) -> Callable[[], Outcome | None]:
    """For `Workers.submit`: the outcome of a run that has waited too long for a thread, or None while it has not.

    Args:
        patience_seconds: how long it may wait, from now.
        ready_since: when, on the clock of `time.monotonic`, there was an image; None while it is still prepared.
    """
    submitted = time.monotonic()

    def give_up() -> Outcome | None:
        ready = ready_since()
        waited = 0.0 if ready is None else time.monotonic() - max(submitted, ready)
        return not_begun(waited) if waited > patience_seconds else None

    return give_up
