"""Lookups of names: bounded for a run, also where nobody waits for them any more."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from wasm_sandbox import Network
from wasm_sandbox.egress import RunConnections, RunSecrets, names
from wasm_sandbox.egress.connections import RUN_LOOKUPS
from wasm_sandbox.request import DONE, NetworkOperation

T = TypeVar("T")


def _at_once(ready: Callable[[], T | None], seconds: float, changed: threading.Condition) -> T | None:
    with changed:
        return ready()


def test_a_run_looks_up_so_many_names_at_a_time_also_those_that_it_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answered = threading.Event()

    def slow(host: str, port: int) -> list[names.Address]:
        asked.append(host)
        answered.wait(10)
        return []

    monkeypatch.setattr(names, "addresses_of", slow)
    connections = RunConnections(Network(["*"]), RunSecrets({}))
    connections.begin_run(bool)
    try:
        for number in range(20):
            opened = connections.handle(NetworkOperation.OPEN, 0, b"", _at_once)
            assert opened.kind == DONE
            (fd,) = struct.unpack("<I", opened.data)
            place = struct.pack("<H", 80) + f"n{number}.example.com".encode()
            assert connections.handle(NetworkOperation.CONNECT, fd, place, _at_once).kind == DONE
            _let_the_loop_run()
            assert connections.handle(NetworkOperation.CLOSE, fd, b"", _at_once).kind == DONE
        _let_the_loop_run()
        assert len(asked) == RUN_LOOKUPS
    finally:
        answered.set()
        connections.end_run()


def _let_the_loop_run() -> None:
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), names.network_loop()).result()
    time.sleep(0.01)
