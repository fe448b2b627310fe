"""Programs that are paused, and their connections: what is under way comes to its end first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.network.conftest import Servers
from tests.network.hostile_servers import HostileServer, hostile_server
from wasm_sandbox import CodeResult, HostFunction, Paused, Sandbox
from wasm_sandbox.options import Isolation

APPROVE = HostFunction.deferred("approve", question=str, returns=bool)

GET = """
import asyncio, os, time
found = []
async def get(path, base=http):
    host, port = base.partition("//")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=base.startswith("https") or None)
    writer.write(f"GET {path} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n".encode())
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    found.append(head.partition(b"\\r\\n")[0].decode())
    return reader, writer
"""

BESIDE = f"""{GET}
async def slow(base):
    reader, writer = await get("/wait/0.4", base)
    found.append((await reader.readexactly(16)).decode())
tasks = [asyncio.create_task(slow(base)) for base in (http, https)]
await approve("go?")
await asyncio.gather(*tasks)
found
"""

KEPT = f"""{GET}
reader, writer = await get("/json")
before = len(found)
await approve("go?")
host = http.partition("//")[2]
writer.write(f"GET /json HTTP/1.1\\r\\nHost: {{host}}\\r\\n\\r\\n".encode())
try:
    await writer.drain()
    await reader.readuntil(b"HTTP/1.1 200 OK\\r\\n")
    found.append("again")
except OSError as error:
    found.append(str(error))
found
"""


def _paused(found: CodeResult | Paused) -> Paused:
    assert isinstance(found, Paused), found
    return found


def _value(found: CodeResult | Paused) -> Any:
    assert isinstance(found, CodeResult)
    assert found.error is None, found.error
    return found.value


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as made:
        yield made


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_program_is_paused_when_its_requests_have_their_answers(servers: Servers, isolation: Isolation) -> None:
    box = Sandbox(network=servers.network(), functions=[APPROVE], isolation=isolation)
    with box.session() as session:
        waiting = _paused(session.start(BESIDE, servers.inputs))
        blob = waiting.dump()
    answered = ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", '{"waited": true}', '{"waited": true}']
    resumed = box.load_paused(blob)
    assert sorted(_value(resumed.resume({resumed.calls[0].id: True}))) == answered


def test_a_connection_that_is_kept_alive_holds_no_pause_up(servers: Servers) -> None:
    with Sandbox(network=servers.network(), functions=[APPROVE]).session() as session:
        waiting = _paused(session.start(KEPT, servers.inputs))
        assert _value(waiting.resume({waiting.calls[0].id: True})) == ["HTTP/1.1 200 OK", "again"]


def test_a_program_that_is_loaded_has_lost_its_connections(servers: Servers) -> None:
    box = Sandbox(network=servers.network(), functions=[APPROVE])
    with box.session() as session:
        waiting = _paused(session.start(KEPT, servers.inputs))
        loaded = box.load_paused(waiting.dump())
        assert _value(waiting.resume({waiting.calls[0].id: True})) == ["HTTP/1.1 200 OK", "again"]
        first, second = _value(loaded.resume({loaded.calls[0].id: True}))
        assert first == "HTTP/1.1 200 OK"
        assert second in ("Connection lost", "[Errno 15] the connection has ended, as all do with a checkpoint")


def test_a_stream_of_events_holds_no_pause_up(servers: Servers, server: HostileServer) -> None:
    place = f"localhost:{server.server_address[1]}"
    code = f"{GET}\nreader, writer = await get('/events', 'http://{place}')\nawait approve('go?')\nfound"
    box = Sandbox(network=servers.network(allow=[place]), functions=[APPROVE])
    with box.session() as session:
        waiting = _paused(session.start(code, servers.inputs))
        assert _value(waiting.resume({waiting.calls[0].id: True})) == ["HTTP/1.1 200 OK"]
