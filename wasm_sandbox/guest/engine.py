"""The one wasmtime engine of the process: its configuration, its ticker and threads, its end."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import wasmtime

from wasm_sandbox.guest.ticker import EpochTicker
from wasm_sandbox.guest.wasi import LiveSurroundings
from wasm_sandbox.guest.workers import Workers

WASM_STACK_BYTES = 2 << 20
"""What CPython's recursion limits were measured with. More than 2 MiB aborts the process unless the
size of asynchronous stacks is raised too, which wasmtime-py has no call for."""

EXIT_GRACE_SECONDS = 1.0

SETTINGS = {
    "consume_fuel": True,
    "epoch_interruption": True,
    "max_wasm_stack": WASM_STACK_BYTES,
    "cranelift_opt_level": "speed",
    "wasm_threads": False,
}
"""Every setting that changes the compiled code: part of the key of the cache."""

T = TypeVar("T")


def _configuration() -> wasmtime.Config:
    config = wasmtime.Config()
    for name, value in SETTINGS.items():
        setattr(config, name, value)
    return config


class GuestEngine:
    """The engine, the ticker that its deadlines need, and the threads that its guests run on."""

    def __init__(self) -> None:
        self.engine = wasmtime.Engine(_configuration())
        self.ticker = EpochTicker(self.engine)
        self._workers = Workers()
        self._running: set[LiveSurroundings] = set()
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], T], surroundings: LiveSurroundings) -> Future[T]:
        """Run ``work`` on a guest thread; `shutdown` cancels it through its surroundings."""

        def tracked() -> T:
            with self._lock:
                self._running.add(surroundings)
            try:
                return work()
            finally:
                with self._lock:
                    self._running.discard(surroundings)

        return self._workers.submit(tracked)

    def shutdown(self) -> None:
        """Stop every guest, then the threads. A guest thread must not outlive the interpreter."""
        deadline = time.monotonic() + EXIT_GRACE_SECONDS
        with self._lock:
            for surroundings in self._running:
                surroundings.cancel()
        self._workers.close(max(0.0, deadline - time.monotonic()))
        self.ticker.stop()


class _Process:
    """Holds the engine of this process."""

    engine: GuestEngine | None = None
    pid = 0
    lock = threading.Lock()


def process_engine() -> GuestEngine:
    """The engine of this process, made on first use.

    After a fork the child gets an engine of its own: the parent's has threads that the child lacks.
    """
    if _Process.engine is None or _Process.pid != os.getpid():
        with _Process.lock:
            if _Process.engine is None or _Process.pid != os.getpid():
                _Process.engine, _Process.pid = GuestEngine(), os.getpid()
    return _Process.engine


@atexit.register
def _shut_down() -> None:
    if _Process.engine is not None and _Process.pid == os.getpid():
        _Process.engine.shutdown()


def _after_fork_in_child() -> None:
    _Process.lock = threading.Lock()  # may have been held by a thread that is gone


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
