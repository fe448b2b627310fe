"""Names of hosts, looked up on a small pool of threads: nothing interrupts the system's resolver."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future
from typing import NamedTuple

from wasm_sandbox.forks import DaemonThreads, PerProcess, daemon_loop

MAX_THREADS = 16
"""Lookups of a process at a time."""


class Address(NamedTuple):
    """Address of a host."""

    family: int
    text: str
    """Address in its canonical notation, as it is checked."""
    place: tuple[str, int] | tuple[str, int, int, int]
    """What is connected to."""


def addresses_of(host: str, port: int) -> list[Address]:
    """Addresses of a host, each once, in the system's order."""
    found = {}
    for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP):
        if family in (socket.AF_INET, socket.AF_INET6):
            address = Address(family, str(place[0]), place)  # type: ignore[arg-type]  # of these families
            found[address.place] = address
    return list(found.values())


_loop: PerProcess[asyncio.AbstractEventLoop] = PerProcess(lambda: daemon_loop("wasm-sandbox-network"))
_pool = PerProcess(lambda: DaemonThreads(MAX_THREADS, "wasm-sandbox-names"))


def look_up(host: str, port: int) -> Future[list[Address]]:
    """Look a host up; the future raises OSError, of class `socket.gaierror` if there is no such host."""
    return _pool.get().submit(addresses_of, host, port)


def network_loop() -> asyncio.AbstractEventLoop:
    """Event loop of this process for the connections of guests, on a daemon thread of its own."""
    return _loop.get()
