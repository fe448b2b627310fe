"""Threads that guests run on: with a native stack that is large enough, and none in the way at exit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import SimpleQueue
from typing import TypeVar

from wasm_sandbox.errors import HostError

NATIVE_STACK_BYTES = 8 << 20
"""The guest's own 2 MiB (`settings.WASM_STACK_BYTES`), host functions, and room to spare; the default of
some platforms (512 KiB on macOS, 128 KiB with musl) would overflow before wasmtime's check."""

MAX_WORKERS = 256
"""More runs than this wait for a thread, each as long as it may (`Workers.submit`)."""

GIVE_UP_POLL_SECONDS = 0.02

INTERRUPT_POLL_SECONDS = 0.1  # on some platforms a wait without an end cannot be interrupted by Ctrl-C

T = TypeVar("T")

_log = logging.getLogger(__name__)


def wait_for(future: Future[T]) -> T:
    """The future's result, or what it raises; ``KeyboardInterrupt`` ends the wait."""
    while True:
        try:
            return future.result(timeout=INTERRUPT_POLL_SECONDS)
        except FutureTimeout:
            if future.done():
                raise


class Workers:
    """A pool of daemon threads that grows with demand.

    `concurrent.futures.ThreadPoolExecutor` is not used because the interpreter joins its threads at
    exit before anything can stop the guests on them: a sleeping guest would hold up the exit.

    Args:
        most: how many threads there may be; `MAX_WORKERS` if not given.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._waiting: list[Callable[[], bool]] = []

    @property
    def threads(self) -> int:
        """How many threads there are, busy and idle."""
        return len(self._threads)

    def submit(
        self, work: Callable[[Callable[[T], None]], None], give_up: Callable[[], T | None] | None = None
    ) -> Future[T]:
        """Run ``work`` on a thread of the pool.

        Args:
            work: is called with a function to deliver its result with, once; what it does after that
                keeps nobody waiting.
            give_up: is called now and then while all threads are busy; what it returns is the result, unless
                it is None, and the work is not done then.

        Returns:
            A future of the result, or of what ``work`` raised before it delivered one.

        Raises:
            HostError: the pool is closed, because the interpreter is exiting, or it has no thread and gets none.
        """
        future: Future[T] = Future()
        taken = threading.Lock()  # by a thread, or given up: whoever acquires it

        def job() -> None:
            if not taken.acquire(blocking=False) or not future.set_running_or_notify_cancel():
                return
            try:
                work(future.set_result)
            except BaseException as error:
                if future.done():
                    _log.exception("a guest thread failed after its run had ended")
                else:
                    future.set_exception(error)

        def is_over() -> bool:
            """Whether the wait has an end, if need be by giving up."""
            if taken.locked() or future.cancelled():
                return True
            result = give_up() if give_up else None
            if result is None:
                return False
            if taken.acquire(blocking=False) and future.set_running_or_notify_cancel():
                future.set_result(result)
            return True

        with self._lock:
            if self._closed:
                raise HostError("the interpreter is exiting: no guest can be started")
            if self._idle:
                self._idle -= 1
            elif not self._add_thread() and give_up:
                self._watch(is_over)
        self._queue.put(job)
        return future

    def _add_thread(self) -> bool:
        """Whether there is one more thread; if not, the work waits for one of the others."""
        if len(self._threads) >= (self._most or MAX_WORKERS):
            return False
        try:
            self._start_thread()
        except (RuntimeError, MemoryError) as error:
            if not self._threads:
                raise HostError(f"no thread can be started to run a guest on: {error}") from error
            return False
        return True

    def _watch(self, is_over: Callable[[], bool]) -> None:
        """Let one more wait be looked at, by a thread that lives as long as there are any."""
        if not self._waiting:
            thread = threading.Thread(target=self._end_waits, name="wasm-sandbox-queue", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                raise HostError(f"no thread can be started to watch over waiting runs: {error}") from error
        self._waiting.append(is_over)

    def _end_waits(self) -> None:
        while True:
            with self._lock:
                waiting = list(self._waiting)
            over = {is_over for is_over in waiting if is_over()}
            with self._lock:
                self._waiting = [is_over for is_over in self._waiting if is_over not in over]
                if not self._waiting or self._closed:
                    return
            time.sleep(GIVE_UP_POLL_SECONDS)

    def _start_thread(self) -> None:
        name = f"wasm-sandbox-worker-{len(self._threads)}"
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
