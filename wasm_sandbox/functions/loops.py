"""Event loop and threads of the process for host functions whose caller has no event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from wasm_sandbox.forks import process_lock

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


def thread_pool() -> ThreadPoolExecutor:
    """Threads for plain functions that are called beside a guest."""
    with _lock:
        pid, pool = _made.get("pool", (0, None))
        if pid != os.getpid() or not isinstance(pool, ThreadPoolExecutor):
            pool = ThreadPoolExecutor(MAX_THREADS, "wasm-sandbox-function")
            _made["pool"] = os.getpid(), pool
        return pool
