"""Operations of the network with bytes of an attacker's: the host refuses, goes on, and stays within its bounds."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.network.conftest import Servers
from wasm_sandbox import Network, run_code
from wasm_sandbox.egress import RunConnections, RunSecrets
from wasm_sandbox.request import DONE, FIRST_SOCKET, REFUSED, NetworkOperation

T = TypeVar("T")


def _at_once(ready: Callable[[], T | None], seconds: float, changed: threading.Condition) -> T | None:
    with changed:
        return ready()


def _connections(**options: object) -> RunConnections:
    network = Network(["localhost:1", "tcp://127.0.0.1:2"], private=True, **options)  # type: ignore[arg-type]
    return RunConnections(network, RunSecrets({}))


@pytest.mark.parametrize("seed", range(5))
def test_any_bytes_are_answered(seed: int) -> None:
    draw = random.Random(seed)
    connections = _connections()
    connections.begin_run(bool)
    for _ in range(2000):
        op = draw.choice([*NetworkOperation, draw.randrange(256)])
        fd = draw.choice([FIRST_SOCKET, FIRST_SOCKET + 1, draw.randrange(1 << 32)])
        payload = draw.randbytes(draw.choice([0, 1, 8, 9, 12, 17, draw.randrange(3000)]))
        answer = connections.handle(op, fd, payload, _at_once)
        assert answer.kind in (DONE, REFUSED)
    connections.end_run()
    connections.settle(5)
    assert not connections.is_ending


MALFORMED = [
    (NetworkOperation.CONNECT, b""),
    (NetworkOperation.CONNECT, b"\1\0" + b"\xff" * 5000),
    (NetworkOperation.CONNECT, b"\1\0localhost\0.example.com"),
    (NetworkOperation.START_TLS, b"[" * 10_000),
    (NetworkOperation.START_TLS, b'{"name": 1, "alpn": [], "in_band": ""}'),
    (NetworkOperation.START_TLS, b'{"name": null, "alpn": ["\xc3\xa9"], "in_band": ""}'),
    (NetworkOperation.START_TLS, b'{"name": null, "alpn": [""], "in_band": ""}'),
    (NetworkOperation.POLL, struct.pack("<?q", False, 0) + b"x"),
    (NetworkOperation.POLL, struct.pack("<?q", False, 0) + bytes(5) * 100_000),
    (NetworkOperation.RECEIVE, struct.pack("<Iq", 0xFFFFFFFF, 0)),
    (NetworkOperation.SEND, struct.pack("<q", 0) + b"x"),
    (NetworkOperation.STATUS, struct.pack("<q", 0)),
    (200, b""),
]


@pytest.mark.parametrize(("op", "payload"), MALFORMED)
def test_a_malformed_operation_is_refused(op: int, payload: bytes) -> None:
    connections = _connections()
    connections.begin_run(bool)
    opened = connections.handle(NetworkOperation.OPEN, 0, b"", _at_once)
    assert opened.kind == DONE
    (fd,) = struct.unpack("<I", opened.data)
    assert connections.handle(op, fd, payload, _at_once).kind == REFUSED


def test_sockets_are_as_many_as_there_may_be() -> None:
    connections = _connections()
    connections.begin_run(bool)
    kinds = [connections.handle(NetworkOperation.OPEN, 0, b"", _at_once).kind for _ in range(600)]
    assert kinds.count(DONE) == 448
    connections.end_run()
    assert connections.handle(NetworkOperation.OPEN, 0, b"", _at_once).kind == REFUSED


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_guest_that_asks_anything_harms_nobody(servers: Servers, isolation: str) -> None:
    code = """
import os, random
import _sandbox_live
draw = random.Random(1)
for _ in range(500):
    op, fd = draw.choice([*range(32, 42), draw.randrange(256)]), draw.choice([512, 513, draw.randrange(1 << 32)])
    payload = b"\\0" * draw.randrange(20) if op in (34, 37, 38, 39) else draw.randbytes(draw.randrange(2000))
    _sandbox_live._exchange(op, fd, payload)
    for number in (512, 700, 959):
        for act in (lambda: os.read(number, 10), lambda: os.write(number, b"x"), lambda: os.pread(number, 10, 1)):
            try:
                act()
            except OSError:
                pass
"done"
"""
    result = run_code(code, network=servers.network(), isolation=isolation)  # type: ignore[arg-type]
    assert result.error is None, result.error
    assert result.value == "done"
    after = run_code("import urllib.request\nurllib.request.urlopen(https + '/json').status", servers.inputs,
                     network=servers.network(), isolation=isolation)  # type: ignore[arg-type]  # fmt: skip
    assert after.value == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_has_connections_of_its_own(servers: Servers) -> None:
    code = "import urllib.request\nurllib.request.urlopen(https + '/json').status"
    assert run_code(code, servers.inputs, network=servers.network()).value == 200
    child = os.fork()
    if not child:  # pragma: no cover - another process
        status = run_code(code, servers.inputs, network=servers.network()).value
        os._exit(0 if status == 200 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
