"""Event loop and threads of the process for host functions whose caller has no event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar

from wasm_sandbox.forks import process_lock

T = TypeVar("T")

MAX_THREADS = 64

# Guarantees: there is one loop and one pool in a process, each made at its first use; a child of a fork makes its own.
# Locks: `_lock`, held while one is made.
_lock = process_lock(fork_waits=True)
_made: dict[str, tuple[int, object]] = {}


def private_loop() -> asyncio.AbstractEventLoop:
    """Event loop on a daemon thread of its own."""
    with _lock:
        pid, loop = _made.get("loop", (0, None))
        if pid != os.getpid() or not isinstance(loop, asyncio.AbstractEventLoop) or loop.is_closed():
            loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name="wasm-sandbox-functions", daemon=True).start()
            _made["loop"] = os.getpid(), loop
        return loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def thread_pool() -> Executor:
    """Threads for plain functions that are called beside a guest."""
    with _lock:
        pid, pool = _made.get("pool", (0, None))
        if pid != os.getpid() or not isinstance(pool, _Threads):
            pool = _Threads()
            _made["pool"] = os.getpid(), pool
        return pool


# Guarantees: work is begun in its order, on at most `MAX_THREADS` threads; none of them holds up the interpreter's
# exit, as those of `concurrent.futures.ThreadPoolExecutor` do: a function may never return. Locks: `_counts` guards the
# counts, and is held while a thread is started.
class _Threads(Executor):
    """Pool of daemon threads that grows with demand."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._counts = threading.Lock()
        self._threads = self._free = 0

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._counts:
            if self._free > 0:
                self._free -= 1
            elif self._threads < MAX_THREADS:
                threading.Thread(target=self._serve, name="wasm-sandbox-function", daemon=True).start()
                self._threads += 1
            else:
                self._free -= 1  # whoever becomes free takes it
        self._queue.put(work)
        return future

    def _serve(self) -> None:
        while True:
            self._queue.get()()
            with self._counts:
                self._free += 1
