"""Surroundings of a run: clocks, entropy, sleep, and the caller's way to cancel."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from wasm_sandbox.limits import Limits

CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS, CLOCK_THREAD = range(4)


NANOSECONDS = 1_000_000_000


ABANDONED_SECONDS = 0.5
"""Interval of the looks at a run whose caller may go without saying so."""


# Guarantees:
# - any thread may `cancel` or `wake` at any time and as often as it likes, also before the run begins and after its
#   end;
# - what has been cancelled stays so.
# Locks: none. `cancel` may still call the function that `stop_with` has just replaced: that must bear a late call, as
# a detached poll page does. Clocks, entropy and sleep of the subclasses are for the guest's thread.
class Cancellable:
    """The caller's way to cancel a run.

    Args:
        abandoned: whether nobody waits any more, for callers that can go without saying so.
    """

    def __init__(self, abandoned: Callable[[], bool] | None = None) -> None:
        self.abandoned = abandoned
        self._is_cancelled = False
        self._ended_sleep: threading.Event | None = None
        self._stop: Callable[[], object] | None = None
        self._wake: Callable[[], object] | None = None

    def stop_with(self, stop: Callable[[], object] | None) -> None:
        """Set the function that `cancel` calls; ``None`` when the guest is gone, to which the function refers."""
        self._stop = stop

    def wake_with(self, wake: Callable[[], object] | None) -> None:
        """Set a function that ends a wait which is no sleep; ``None`` when that is over."""
        self._wake = wake

    def wake(self) -> None:
        """End a sleep, and every later one: the guest is to end."""
        self._is_cancelled = True
        if (ended_sleep := self._ended_sleep) is not None:
            ended_sleep.set()
        if (wake := self._wake) is not None:
            wake()

    def cancel(self) -> None:
        """End the run, from any thread."""
        self.wake()
        if (stop := self._stop) is not None:
            stop()

    @property
    def cancelled(self) -> bool:
        return self._is_cancelled or (self.abandoned is not None and self.abandoned())


class Elapsed(NamedTuple):
    """Clocks of a guest at rest, since its start."""

    monotonic_ns: int
    cpu_ns: int


NONE_ELAPSED = Elapsed(0, 0)


class LiveSurroundings(Cancellable):
    """Surroundings with real clocks and entropy, and a sleep that ends early on cancellation.

    Only the wall clock has the host's origin. The others start with the run: the host's uptime, and what
    earlier runs computed on the same thread, are no business of a guest.

    Args:
        abandoned: as of `Cancellable`.
        elapsed: clocks of a guest that is called again; they go on from there.
    """

    def __init__(self, abandoned: Callable[[], bool] | None = None, elapsed: Elapsed = NONE_ELAPSED) -> None:
        super().__init__(abandoned)
        self._started = time.monotonic_ns() - elapsed.monotonic_ns
        self._cpu_elapsed = elapsed.cpu_ns
        self._cpu_before: int | None = None
        self._clocks: tuple[Callable[[], int], ...] = (
            time.time_ns,
            lambda: time.monotonic_ns() - self._started,
            self._cpu_time,
            self._cpu_time,
        )

    def _cpu_time(self) -> int:
        """CPU time in nanoseconds of the thread that runs the guest, since the first look."""
        now = time.thread_time_ns()
        if self._cpu_before is None:
            self._cpu_before = now
        return now - self._cpu_before + self._cpu_elapsed

    def elapsed(self) -> Elapsed:
        """Clocks as they stand, for the surroundings of the next call of the same guest."""
        cpu_ns = self._cpu_elapsed if self._cpu_before is None else self._cpu_time()
        return Elapsed(time.monotonic_ns() - self._started, cpu_ns)

    def clock(self, clock_id: int) -> int:
        """Time of one of the four preview 1 clocks in nanoseconds."""
        return self._clocks[clock_id]()

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)

    def sleep(self, seconds: float) -> None:
        end, cancelled = time.monotonic() + seconds, threading.Event()
        self._ended_sleep = cancelled  # before it is looked whether it is cancelled: who cancels does the reverse
        while not self.cancelled and (left := end - time.monotonic()) > 0:
            cancelled.wait(min(left, threading.TIMEOUT_MAX))


class FixedSurroundings(Cancellable):
    """Surroundings with clocks that step at every look, seeded entropy and no real sleep.

    The same guest sees the same world every time: for making snapshots, and for runs with
    ``Limits.deterministic``. A sleep moves the clocks and takes no time; all four clocks are one.
    """

    ORIGIN = 1_700_000_000 * NANOSECONDS
    STEP = 1_000
    END = 2**63 - 1
    """Time at which the clocks stop: a guest may sleep for centuries, and its own time is 64 bits wide."""

    def __init__(
        self, abandoned: Callable[[], bool] | None = None, seed: int = 0, elapsed: Elapsed = NONE_ELAPSED
    ) -> None:
        super().__init__(abandoned)
        self._now = min(self.ORIGIN + elapsed.monotonic_ns, self.END)
        self._random = Random(seed)

    def clock(self, clock_id: int) -> int:
        self._now = min(self._now + self.STEP, self.END)
        return self._now if clock_id == CLOCK_REALTIME else self._now - self.ORIGIN

    def elapsed(self) -> Elapsed:
        """Clocks as they stand."""
        return Elapsed(self._now - self.ORIGIN, 0)

    def entropy(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def sleep(self, seconds: float) -> None:
        self._now += int(seconds * NANOSECONDS)


Surroundings = LiveSurroundings | FixedSurroundings


def surroundings_for(
    limits: Limits, abandoned: Callable[[], bool] | None = None, elapsed: Elapsed = NONE_ELAPSED, calls: int = 0
) -> Surroundings:
    """Surroundings of a run, or of one call of a guest that is kept.

    Args:
        limits: limits of the run; ``deterministic`` decides.
        abandoned: whether nobody waits any more, for callers that can go without saying so.
        elapsed: clocks of a guest that is called again.
        calls: number of earlier calls of it: each draws other numbers, and the same ones every time if the run is
            deterministic.
    """
    if limits.deterministic:
        return FixedSurroundings(abandoned, calls, elapsed)
    return LiveSurroundings(abandoned, elapsed)
