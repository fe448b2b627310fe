"""`World` of one instance: its capabilities, its memory as they see it, and the reason of its end.

WASI preview 1 as the guest imports it (witx: ``wasi_snapshot_preview1``). A world is made of capabilities, and the
union of their tables is all that a guest can call: every other import answers ``ENOTCAPABLE``. wasmtime's own WASI
is not linked.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import cache
from typing import TypeVar

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.threads.turns import Turn
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.preview1 import Capability, Fault, Imported
from wasm_sandbox.engine.world.surroundings import (
    ABANDONED_SECONDS,
    CLOCK_REALTIME,
    LiveSurroundings,
    Surroundings,
)

T = TypeVar("T")

REST_SECONDS = 0.001
"""Shortest sleep for which a guest gives up its turn."""

HELD_SECONDS = 0.05
"""Interval of the looks at a guest whose deadline stands still: so much later it may be found passed."""


class Halt(Enum):
    """Reason of a guest's end."""

    EXIT = "exit"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    HOST_FAILURE = "host failure"


class Stop(Exception):
    """The guest is to end: raised inside a host function, it traps the guest."""


# Guarantees:
# - a capability's functions run on the guest's thread only, one at a time;
# - the watchdog's thread, and whoever cancels, may ask for `halt_reason` and `next_look` at any time;
# - once `halt` is set the guest ends. Of two reasons that are noted at the same time any may win; the guest's own exit
#   and a defect of the host replace what was noted before.
# Locks: none: what both sides touch is one reference each, which the interpreter lock keeps whole.
class World:
    """Imports of one instance, and the reason of its end.

    Args:
        surroundings: clocks, entropy, sleep, and the caller's way to cancel.
        deadline: deadline on the clock of `time.monotonic`, in seconds.
        watchdog: watchdog with which every host call makes the looks that are due, of all guests
            (`Watchdog.catch_up`).
        turn: turn of the run, among those that want to compute.
    """

    def __init__(
        self, surroundings: Surroundings, deadline: float, watchdog: Watchdog | None = None, turn: Turn | None = None
    ) -> None:
        self.surroundings, self.deadline, self.watchdog, self.turn = surroundings, deadline, watchdog, turn
        self.instance: capi.Instance | None = None
        self.halt: Halt | None = None
        self.exit_code = 0
        self.host_failure: BaseException | None = None
        self.host_calls = 0
        self._held_since: float | None = None
        self.capabilities: tuple[Capability, ...] = ()
        self.table: Mapping[str, tuple[int, Imported]] = {}
        """Name of the import -> which capability serves it, and its function. All that the guest can call is here:
        every other import answers ``ENOTCAPABLE``."""

    def offer(self, *capabilities: Capability) -> None:
        """Let the guest call the imports of capabilities; of two with the same name, the later one."""
        self.capabilities += capabilities
        self.table = _union(*map(type, self.capabilities))

    def close(self) -> None:
        """Close the capabilities; the guest is gone."""
        self.instance, self.table = None, {}
        capabilities, self.capabilities = self.capabilities, ()
        for capability in capabilities:
            capability.close()

    # -- its end ---------------------------------------------------------------------------------

    def check(self) -> None:
        """End the guest if its time is over or its caller has gone."""
        if self.halt_reason() is not None:
            raise Stop

    def halt_reason(self) -> Halt | None:
        """Note whether the guest must end now; the reason, if there is one."""
        if self.halt is None:
            if self.surroundings.cancelled:
                self.halt = Halt.CANCELLED
            elif self._held_since is None and time.monotonic() >= self.deadline:
                self.halt = Halt.DEADLINE
        return self.halt

    @contextmanager
    def deadline_held(self) -> Iterator[None]:
        """Let the deadline stand still inside the block, on the guest's thread."""
        began = self._held_since = time.monotonic()
        try:
            yield
        finally:
            self.deadline += time.monotonic() - began
            self._held_since = None

    def seconds_left(self) -> float:
        """Seconds to the deadline; infinite while it stands still."""
        return math.inf if self._held_since is not None else self.deadline - time.monotonic()

    def next_look(self) -> float:
        """Time of the next look at `halt_reason`, on the clock of `time.monotonic`."""
        if self._held_since is not None:
            return time.monotonic() + HELD_SECONDS
        if self.surroundings.abandoned is not None:
            return min(self.deadline, time.monotonic() + ABANDONED_SECONDS)
        return self.deadline

    def exit(self, code: int) -> int:
        """End the guest by its own ``proc_exit``."""
        self.halt, self.exit_code = Halt.EXIT, code
        raise Stop

    def fail(self, error: BaseException) -> None:
        """Note a defect of the host; whoever runs the guest raises it."""
        self.halt, self.host_failure = Halt.HOST_FAILURE, error

    # -- its time --------------------------------------------------------------------------------

    def now(self) -> int:
        """Wall clock in nanoseconds since 1970."""
        return self.surroundings.clock(CLOCK_REALTIME)

    def sleep(self, seconds: float) -> None:
        """Let the guest sleep without its turn, and end it if its time is over."""
        if isinstance(self.surroundings, LiveSurroundings):
            seconds = min(seconds, max(0.0, self.deadline - time.monotonic()))
        if self.turn is not None and seconds >= REST_SECONDS:
            self.turn.give_up()
            self.surroundings.sleep(seconds)
            self.turn.ask_again()
        else:
            self.surroundings.sleep(seconds)
        self.check()

    def wait(self, ready: Callable[[], T | None], seconds: float, changed: threading.Condition) -> T | None:
        """Wait for something of the host's, without the guest's turn; see `wasm_sandbox.request.Wait`."""
        with changed:
            found = ready()
        if found is not None or seconds <= 0:
            return found
        end = time.monotonic() + seconds
        surroundings = self.surroundings

        def wake() -> None:
            with changed:
                changed.notify_all()

        surroundings.wake_with(wake)
        if self.turn is not None:
            self.turn.give_up()
        try:
            with changed:
                while (found := ready()) is None and not surroundings.cancelled:
                    left = min(end - time.monotonic(), self.seconds_left())
                    if left <= 0:
                        break
                    changed.wait(min(left, threading.TIMEOUT_MAX))
        finally:
            surroundings.wake_with(None)
            if self.turn is not None:
                self.turn.ask_again()
        self.check()
        return found

    # -- its memory ------------------------------------------------------------------------------

    def span(self, pointer: int, size: int) -> int:
        """Address of a range of the guest's memory.

        Raises:
            Fault: if the range is outside of the memory.
        """
        if self.instance is None:
            raise Fault
        base, limit = self.instance.memory()
        if pointer + size > limit:
            raise Fault
        return base + pointer

    def load(self, pointer: int, size: int) -> bytes:
        """Copy of a range of the guest's memory."""
        return ctypes.string_at(self.span(pointer, size), size)

    def store(self, pointer: int, data: bytes) -> None:
        """Write into the guest's memory."""
        ctypes.memmove(self.span(pointer, len(data)), data, len(data))


@cache
def _union(*kinds: type[Capability]) -> Mapping[str, tuple[int, Imported]]:
    """The union of the tables of some kinds of capabilities: the same for all worlds that have these."""
    return {name: (place, function) for place, kind in enumerate(kinds) for name, function in kind.functions.items()}
