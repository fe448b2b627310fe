"""Thread pool for guests: native stacks that are large enough, and no thread that holds up the exit."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from _queue import SimpleQueue  # not that of `queue`, which libraries of green threads put their own in
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Protocol, TypeVar

from wasm_sandbox.engine.threads.green import check_threads, wait_beside_green_threads
from wasm_sandbox.engine.threads.native_stack import (
    ATTEMPTS,
    NATIVE_STACK_BYTES,
    has_stack,
    stack_trimmer,
)
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.errors import HostError, pass_on
from wasm_sandbox.forks import PerProcess, start_thread

MAX_THREADS = 256
"""Size of the pool. Further runs wait for a thread, each as long as its patience lasts (`GuestThreads.submit`)."""

INTERRUPT_SECONDS = 0.1
"""So often a long wait is woken, by a look of a watchdog: on some platforms Ctrl-C cannot interrupt one without an end.
A wait that is shorter than this needs no look, which would cost a short call one percent."""

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_log = logging.getLogger(__name__)

_here = threading.local()
"""Whether the calling thread is one for guests, in ``is_for_guests``."""

_waits = PerProcess(Watchdog, Watchdog.close)
"""Wakes the callers that wait for long."""


def wait_for(future: Future[T]) -> T:
    """Result of a future, or what it raises; whatever a signal handler raises, of any class, ends the wait."""
    if (wait_elsewhere := wait_beside_green_threads()) is not None:
        wait_elsewhere(lambda: wait([future]))
        return future.result()
    # Not `Future.result(timeout)`: its TimeoutError cannot be told from a signal handler's. Most are done soon, and a
    # lock takes a tenth of a semaphore's time.
    done = threading.Lock()
    done.acquire()
    future.add_done_callback(lambda _: done.release())
    if done.acquire(timeout=INTERRUPT_SECONDS):
        return future.result()
    woken = threading.Semaphore(0)
    future.add_done_callback(lambda _: woken.release())

    def look() -> float:
        woken.release()
        return time.monotonic() + INTERRUPT_SECONDS

    call_off = _waits.get().look_at(time.monotonic() + INTERRUPT_SECONDS, look)
    try:
        while not future.done():
            woken.acquire()
    finally:
        call_off()
    return future.result()


def on_guest_thread(work: Callable[[], T]) -> T:
    """Do work in which a guest runs, which needs the native stack of a thread for guests; the result.

    The calling thread may have any stack, and any part of it in use. It waits, and Ctrl-C ends its wait.

    Raises:
        HostError: if the system gives no thread.
        BaseException: what the work raises.
    """
    if getattr(_here, "is_for_guests", False):
        return work()
    context = contextvars.copy_context()
    threads = GuestThreads(Watchdog(), 1)

    def deliver_to(deliver: Callable[[T], None]) -> None:
        deliver(context.run(work))

    future = threads.submit(deliver_to)
    threads.close(time.monotonic())  # it ends after this
    return wait_for(future)


class Patience(Protocol[R_co]):
    """Time that work may wait for a thread."""

    def end(self) -> float:
        """End of the wait as things stand, on the clock of `time.monotonic`."""

    def result(self) -> R_co:
        """Result of work that was given up."""


# Guarantees:
# - work is done once, given up or cancelled, and never two of these: whoever acquires its lock `taken` decides;
# - work that is queued when `close` is called is still begun if a thread becomes free for it; none is accepted later;
# - `close` returns by its deadline, whatever the threads do;
# - every thread has the stack of one for guests: it looks itself, before it takes work.
# Locks: `_lock` guards the counts, and is held while a thread starts, which adds itself to `_threads`;
# `Watchdog._changed` is taken while it is held. It is never held while work is done. `taken` is only ever tried, never
# waited for.
class GuestThreads:
    """Pool of daemon threads that grows with demand.

    `concurrent.futures.ThreadPoolExecutor` is not used because the interpreter joins its threads at
    exit before anything can stop the guests on them: a sleeping guest would hold up the exit.

    Args:
        watchdog: timer of the work that waits for a thread.
        most: maximum number of threads.
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
        """Number of threads, busy and idle."""
        return len(self._threads)

    def submit(self, work: Callable[[Callable[[T], None]], None], patience: Patience[T] | None = None) -> Future[T]:
        """Run ``work`` on a thread of the pool.

        Args:
            work: called with a function that delivers its result, to be called once; what the work does after
                that keeps nobody waiting.
            patience: time that the work may wait for a thread. After that it is given up, and the future's result is
                that of the patience.

        Returns:
            A future of the result, or of what ``work`` raised before it delivered one.

        Raises:
            HostError: if the pool is closed, because the interpreter is exiting; if it has no thread and the system
                gives none; or if threads are green ones.
        """
        check_threads()
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
            """Give the work up if its patience is over, else return the time of the next look."""
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

    def do(self, work: Callable[[], T]) -> Future[T]:
        """Do something on a thread of the pool, and deliver what it gives; raises as `submit`."""

        def job(deliver: Callable[[T], None]) -> None:
            deliver(work())

        return self.submit(job)

    def _add_thread(self) -> bool:
        """Start a thread; false if the work has to wait for one of the others."""
        if len(self._threads) >= self._most:
            return False
        try:
            self._start_thread()
        except (RuntimeError, MemoryError) as error:
            pass_on(error)
            if not self._threads:
                raise HostError(f"no thread can be started to run a guest on: {error}") from error
            return False
        return True

    def _start_thread(self) -> None:
        """Start a thread that has the stack of one for guests.

        Raises:
            RuntimeError, MemoryError: if the system gives none.
        """
        for _ in range(ATTEMPTS):
            looked, fits = threading.Event(), threading.Event()
            name = f"wasm-sandbox-guest-{len(self._threads)}"
            thread = threading.Thread(target=self._serve, args=(looked, fits), name=name, daemon=True)
            start_thread(thread, NATIVE_STACK_BYTES)
            looked.wait()
            if fits.is_set():
                return
        raise RuntimeError(
            f"threads get a smaller native stack than the {NATIVE_STACK_BYTES} bytes that were asked for: something in "
            "this process sets threading.stack_size again and again"
        )

    def _serve(self, looked: threading.Event, fits: threading.Event) -> None:
        try:
            if self._closed or not has_stack(NATIVE_STACK_BYTES):  # closed: who started it was interrupted
                return
            self._threads.append(threading.current_thread())  # so `close` knows of it, whatever befell who started it
            fits.set()
        finally:
            looked.set()
        del looked, fits
        _here.is_for_guests = True
        trim_stack = stack_trimmer()
        while True:
            job = self._queue.get()
            if job is None:
                return
            job()
            del job  # holds the result of the run
            trim_stack()
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
