"""Names of hosts, looked up on a small pool of threads: nothing interrupts the system's resolver."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from wasm_sandbox.forks import process_lock

MAX_THREADS = 16
"""Lookups of a process at a time."""


class Address(NamedTuple):
    """Address of a host."""

    family: int
    text: str
    """Address in its canonical notation, as it is checked."""
    place: tuple[str, int] | tuple[str, int, int, int]
    """What is connected to."""


# Guarantees: lookups begin in their order, at most `MAX_THREADS` at a time; what nobody waits for any more does not
# begin. Threads are daemons: none holds up the interpreter's exit. Locks: `_changed` guards the queue and the counts;
# nothing is looked up while it is held.
class Resolver:
    """Pool of threads that ask the system for addresses."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[tuple[Future[list[Address]], Callable[[], list[Address]]]] = deque()
        self._threads = self._idle = 0

    def submit(self, host: str, port: int) -> Future[list[Address]]:
        """Look a host up; the future raises OSError, of class `socket.gaierror` if there is no such host."""
        future: Future[list[Address]] = Future()
        with self._changed:
            self._queue.append((future, lambda: addresses_of(host, port)))
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif self._threads < MAX_THREADS:
                threading.Thread(target=self._serve, name="wasm-sandbox-names", daemon=True).start()
                self._threads += 1
        return future

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._queue)
                self._idle -= 1
                future, work = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                found = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(found)
            del future, work


def addresses_of(host: str, port: int) -> list[Address]:
    """Addresses of a host, each once, in the system's order."""
    found = {}
    for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP):
        if family in (socket.AF_INET, socket.AF_INET6):
            address = Address(family, str(place[0]), place)  # type: ignore[arg-type]  # of these families
            found[address.place] = address
    return list(found.values())


# Guarantees: there is one event loop and one pool in a process, each made at its first use; a child of a fork makes its
# own. Locks: `_lock`, held while one is made.
_lock = process_lock(fork_waits=True)
_made: dict[str, tuple[int, object]] = {}


def resolver() -> Resolver:
    """Pool of this process."""
    with _lock:
        pid, found = _made.get("resolver", (0, None))
        if pid != os.getpid() or not isinstance(found, Resolver):
            found = Resolver()
            _made["resolver"] = os.getpid(), found
        return found


def network_loop() -> asyncio.AbstractEventLoop:
    """Event loop of this process for the connections of guests, on a daemon thread of its own."""
    with _lock:
        pid, loop = _made.get("loop", (0, None))
        if pid != os.getpid() or not isinstance(loop, asyncio.AbstractEventLoop) or loop.is_closed():
            loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name="wasm-sandbox-network", daemon=True).start()
            _made["loop"] = os.getpid(), loop
        return loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
