"""Longest gap of an event loop: how long nothing that was due could run on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BEAT_SECONDS = 0.002


class LoopMeter:
    """A heartbeat on event loops, and how late its latest beat came."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.name = ""
        """What went on, by the name that was set at the time."""
        self.now = ""

    def start(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Begin to beat on a loop that runs or is about to; what it returns ends that."""
        due = time.perf_counter() + BEAT_SECONDS
        stopped = False
        handle: asyncio.TimerHandle | None = None

        def beat() -> None:
            nonlocal due, handle
            late = time.perf_counter() - due
            if late > self.longest:
                self.longest, self.name = late, self.now
            if not stopped:
                due = time.perf_counter() + BEAT_SECONDS
                handle = loop.call_later(BEAT_SECONDS, beat)

        def stop() -> None:
            nonlocal stopped
            stopped = True
            if handle is not None:
                handle.cancel()

        handle = loop.call_later(BEAT_SECONDS, beat)
        return stop


@contextmanager
def longest_gap() -> Iterator[LoopMeter]:
    """Measure the running loop while the block lasts."""
    meter = LoopMeter()
    stop = meter.start(asyncio.get_running_loop())
    try:
        yield meter
    finally:
        stop()


def meter_every_loop(meter: LoopMeter, patch: Any) -> None:
    """Have every event loop of the process measured while it runs; ``patch`` is a `pytest.MonkeyPatch`."""
    original = asyncio.BaseEventLoop.run_forever

    def run_forever(self: asyncio.BaseEventLoop) -> None:
        stop = meter.start(self)
        try:
            original(self)
        finally:
            stop()

    patch.setattr(asyncio.BaseEventLoop, "run_forever", run_forever)
