"""The watchdog: one thread that looks after running guests when their time comes."""

from __future__ import annotations

import heapq
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wasm_sandbox.engine.threads.native_stack import NATIVE_STACK_BYTES
from wasm_sandbox.errors import HostError, pass_on
from wasm_sandbox.forks import start_thread

_log = logging.getLogger(__name__)

STALE_ENTRIES = 64  # entries of guests that are gone, kept until there are more of them than of others


@dataclass(order=True)
class _Entry:
    """A look that is to be made, by its time."""

    at: float
    look: Callable[[], float | None] | None = field(compare=False)
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False)
    """Held during the look: whoever has acquired it knows that no look is under way."""


# Guarantees:
# - a look is made by one thread at a time, and never before its time;
# - no look is under way, and none is made, once its `watch` has been left or it was called off: that waits for one;
# - a look that raises is logged and not made again; the others are made all the same;
# - a look that blocks delays those after it on its own thread only: any thread may `catch_up` with the others.
# Locks: `_Entry.lock` is held during a look, which may take any lock but another entry's. `_changed` guards the heap,
# `due`, the counts and the thread; it is never held during a look, and no lock is taken while it is held.
class Watchdog:
    """Timer of guests: calls functions at given times, on one thread that starts when it is first needed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._watched = 0
        self._live = 0
        """Entries whose look is still to be made; the others are waiting to be cleared away."""
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self.due = math.inf
        """Time of the next look, or an earlier one, on the clock of `time.monotonic`."""

    @property
    def watched(self) -> int:
        """Number of `watch` blocks that are entered now."""
        return self._watched

    @property
    def entries(self) -> int:
        """Number of entries in its heap: those to come, and stale ones that are not cleared away yet."""
        return len(self._entries)

    @contextmanager
    def watch(self, at: float, look: Callable[[], float | None]) -> Iterator[None]:
        """Call ``look`` at a time of `time.monotonic`, and again at each time that it returns, while inside.

        Raises:
            HostError: if the thread cannot be started.
        """
        call_off = self.look_at(at, look)
        with self._changed:
            self._watched += 1
        try:
            yield
        finally:
            call_off()
            with self._changed:
                self._watched -= 1

    def look_at(self, at: float, look: Callable[[], float | None]) -> Callable[[], None]:
        """Call ``look`` at a time of `time.monotonic`, and again at each time that it returns.

        Returns:
            A function that ends this, and lets go of ``look``: no look is under way any more when it returns. A look
            must not call it.

        Raises:
            HostError: if the thread cannot be started.
        """
        entry = _Entry(at, look)
        with self._changed:
            self._start()
            self._push(entry)
            self._live += 1

        def call_off() -> None:
            with entry.lock:
                self._end(entry)

        return call_off

    def close(self) -> None:
        """Let the thread end after the look that is under way; no look is made any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, name="wasm-sandbox-watchdog", daemon=True)
        try:
            start_thread(self._thread, NATIVE_STACK_BYTES)
        except (RuntimeError, MemoryError) as error:
            pass_on(error)
            raise HostError(f"no thread can be started to watch over guests: {error}") from error

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._entries, entry)
        self.due = self._entries[0].at
        if self._entries[0] is entry:
            self._changed.notify()

    def catch_up(self) -> None:
        """Make the looks that are due now, on the calling thread.

        For threads that hold the interpreter lock: among many that want it, the watchdog's own may get it late. A
        thread that loses it in the middle of a look delays that one look only.
        """
        while (entry := self._take_due()) is not None:
            self._look(entry)

    def _run(self) -> None:
        while not self._is_closed:
            self.catch_up()
            with self._changed:
                left = self.due - time.monotonic()
                if left > 0 and not self._is_closed:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def _end(self, entry: _Entry) -> None:
        """Make no more looks of an entry, whose lock the caller has; clear away those that ended, if they are many."""
        if entry.look is None:
            return
        entry.look = None
        with self._changed:
            self._live -= 1
            if len(self._entries) > STALE_ENTRIES + 2 * self._live:
                self._entries = [e for e in self._entries if e.look is not None]
                heapq.heapify(self._entries)

    def _take_due(self) -> _Entry | None:
        with self._changed:
            found = None
            while self._entries and ((first := self._entries[0]).look is None or first.at <= time.monotonic()):
                heapq.heappop(self._entries)
                if first.look is not None:
                    found = first
                    break
            self.due = self._entries[0].at if self._entries else math.inf
            return found

    def _look(self, entry: _Entry) -> None:
        with entry.lock:
            if entry.look is None:
                return
            try:
                again = entry.look()
            except Exception:
                _log.exception("a guest cannot be stopped")
                again = None
            if again is None:
                self._end(entry)
                return
            with self._changed:
                entry.at = again
                self._push(entry)
