"""How a run ended, before anything of its output is interpreted: plain data, wherever the guest ran."""

from __future__ import annotations

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
    fuel: int
    wall_seconds: float
    memory_bytes: int
    host_calls: int
