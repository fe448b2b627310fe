"""Threads that guests run on: with a native stack that is large enough, and none in the way at exit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import SimpleQueue
from typing import Protocol, TypeVar

from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.errors import HostError

NATIVE_STACK_BYTES = 8 << 20
"""The guest's own 2 MiB (`settings.WASM_STACK_BYTES`), host functions, and room to spare; the default of
some platforms (512 KiB on macOS, 128 KiB with musl) would overflow before wasmtime's check."""

MAX_THREADS = 256
"""More runs than this wait for a thread, each as long as it may (`GuestThreads.submit`)."""

INTERRUPT_SECONDS = 0.1
"""On some platforms a wait without an end cannot be interrupted by Ctrl-C: so it has one, and begins again."""

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_log = logging.getLogger(__name__)


def wait_for(future: Future[T]) -> T:
    """The future's result, or what it raises; ``KeyboardInterrupt`` ends the wait."""
    while True:
        try:
            return future.result(timeout=INTERRUPT_SECONDS)
        except FutureTimeout:
            if future.done():
                raise


class Patience(Protocol[R_co]):
    """How long work may wait for a thread."""

    def end(self) -> float:
        """When it is over, as things stand, on the clock of `time.monotonic`."""

    def result(self) -> R_co:
        """The result of work that was not done."""


# Guarantees:
# - work is done once, or given up, and never both: whoever acquires its lock `taken` decides;
# - `close` returns by its deadline, whatever the threads do.
# Locks: `_lock` guards the threads and their counts; `Watchdog._changed` may be taken while it is held.
class GuestThreads:
    """A pool of daemon threads that grows with demand.

    `concurrent.futures.ThreadPoolExecutor` is not used because the interpreter joins its threads at
    exit before anything can stop the guests on them: a sleeping guest would hold up the exit.

    Args:
        watchdog: looks after the work that waits for a thread.
        most: how many threads there may be.
    """

    def __init__(self, watchdog: Watchdog, most: int = MAX_THREADS) -> None:
        self._watchdog, self._most = watchdog, most
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    @property
    def threads(self) -> int:
        """How many threads there are, busy and idle."""
        return len(self._threads)

    def submit(self, work: Callable[[Callable[[T], None]], None], patience: Patience[T] | None = None) -> Future[T]:
        """Run ``work`` on a thread of the pool.

        Args:
            work: is called with a function to deliver its result with, once; what it does after that
                keeps nobody waiting.
            patience: how long it may wait for a thread. When that is over, its result is the work's, and the work
                is not done.

        Returns:
            A future of the result, or of what ``work`` raised before it delivered one.

        Raises:
            HostError: if the pool is closed, because the interpreter is exiting, or it has no thread and gets none.
        """
        future: Future[T] = Future()
        taken = threading.Lock()  # by a thread, or given up: whoever acquires it
        stop_looking: Callable[[], None] | None = None

        def job() -> None:
            if stop_looking is not None:
                stop_looking()  # or the watchdog would keep the result for as long as the wait may last
            if not taken.acquire(blocking=False) or not future.set_running_or_notify_cancel():
                return
            try:
                work(future.set_result)
            except BaseException as error:
                if future.done():
                    _log.exception("a guest thread failed after its run had ended")
                else:
                    future.set_exception(error)

        def look() -> float | None:
            """Give the wait up if it has lasted too long, else say when to look again."""
            if patience is None or taken.locked() or future.cancelled():
                return None
            if (end := patience.end()) > time.monotonic():
                return end
            if taken.acquire(blocking=False) and future.set_running_or_notify_cancel():
                future.set_result(patience.result())
            return None

        with self._lock:
            if self._closed:
                raise HostError("the interpreter is exiting: no guest can be started")
            if self._idle:
                self._idle -= 1
            elif not self._add_thread() and patience is not None:
                stop_looking = self._watchdog.look_at(patience.end(), look)
        self._queue.put(job)
        return future

    def _add_thread(self) -> bool:
        """Whether there is one more thread; if not, the work waits for one of the others."""
        if len(self._threads) >= self._most:
            return False
        try:
            self._start_thread()
        except (RuntimeError, MemoryError) as error:
            if not self._threads:
                raise HostError(f"no thread can be started to run a guest on: {error}") from error
            return False
        return True

    def _start_thread(self) -> None:
        name = f"wasm-sandbox-guest-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        # The size is a setting of the process that `start` reads: set it for this one thread.
        before = threading.stack_size(NATIVE_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
        self._threads.append(thread)

    def _serve(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                return
            job()
            del job  # holds the result of the run
            with self._lock:
                self._idle += 1

    def close(self, deadline: float) -> None:
        """Let every thread end after its present job, and wait for them until ``deadline`` (`time.monotonic`)."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
