"""Event loop and threads of the process for host functions whose caller has no event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from wasm_sandbox.forks import DaemonThreads, PerProcess, daemon_loop

MAX_THREADS = 64

_loop: PerProcess[asyncio.AbstractEventLoop] = PerProcess(lambda: daemon_loop("wasm-sandbox-functions"))
_pool = PerProcess(lambda: DaemonThreads(MAX_THREADS, "wasm-sandbox-function"))


def private_loop() -> asyncio.AbstractEventLoop:
    """Event loop on a daemon thread of its own."""
    return _loop.get()


def thread_pool() -> Executor:
    """Threads for plain functions that are called beside a guest."""
    return _pool.get()
