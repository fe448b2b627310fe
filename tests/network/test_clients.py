"""Unmodified clients in a guest, against real servers on loopback: in threads, in processes and in sessions."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.network.conftest import Servers
from wasm_sandbox import AsyncSandbox, CodeResult, Image, Limits, Sandbox, Tool, run_code, run_tool
from wasm_sandbox.options import Isolation

ISOLATIONS: list[Isolation] = ["thread", "process"]

URLLIB = """
import json, urllib.request
def get(path, base=https):
    with urllib.request.urlopen(base + path) as answer:
        return answer.read().decode()
[json.loads(get("/json"))["path"], get("/chunked"), get("/redirect/chunked", http), len(get("/big/3000000"))]
"""

HTTP_CLIENT = """
import http.client, json
connection = http.client.HTTPSConnection(https.removeprefix("https://"))
found = []
for n in range(3):
    connection.request("POST", "/x", b"a" * 400_000 * n, {"X-Number": str(n)})
    answer = json.loads(connection.getresponse().read())
    found.append([answer["got"], answer["headers"]["x-number"]])
connection.close()
found
"""

STREAMS = """
import asyncio
async def get(base, **options):
    place = base.partition("//")[2]
    reader, writer = await asyncio.open_connection("localhost", int(place.rpartition(":")[2]), **options)
    writer.write(f"GET /json HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\\r\\n")[0].decode()
await asyncio.gather(get(http), get(https, ssl=True))
"""


def value_of(result: CodeResult) -> Any:
    assert result.error is None, result.error
    return result.value


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize(
    ("code", "value"),
    [
        pytest.param(URLLIB, ["/json", "one,two,three", "one,two,three", 3_000_000], id="urllib"),
        pytest.param(HTTP_CLIENT, [[0, "0"], [400_000, "1"], [800_000, "2"]], id="http.client"),
        pytest.param(STREAMS, ["HTTP/1.1 200 OK"] * 2, id="asyncio streams"),
    ],
)
def test_a_client_of_the_standard_library_works(
    servers: Servers, code: str, value: object, isolation: Isolation
) -> None:
    result = run_code(code, servers.inputs, network=servers.network(), isolation=isolation)
    assert value_of(result) == value
    assert {connection.outcome for connection in result.connections} == {"closed"}
    assert all(request.outcome == "ok" and request.status in (200, 302) for request in result.requests)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_requests_works(servers: Servers, clients: Image, isolation: Isolation) -> None:
    code = """
import requests
found = [requests.get(https + "/json").json()["path"], requests.get(http + "/redirect/json", verify=False).status_code]
with requests.Session() as session:
    found += [session.get(https + path).text for path in ("/chunked", "/big/3")]
    found.append(session.post(https + "/x", json={"a": 1}).json()["body"])
    found.append(sum(map(len, session.get(https + "/big/1000000", stream=True).iter_content(50_000))))
found
"""
    result = run_code(code, servers.inputs, network=servers.network(), image=clients, isolation=isolation)
    assert value_of(result) == ["/json", 200, "one,two,three", "xxx", '{"a": 1}', 1_000_000]


def test_large_answers_that_a_client_keeps_in_a_cycle_do_not_fill_a_session(servers: Servers, clients: Image) -> None:
    box = Sandbox(image=clients, network=servers.network(), limits=Limits(memory_bytes=160 << 20))
    with box.session() as session:
        assert session.run_code("import httpx, gc\nclient = httpx.Client()").error is None
        for _ in range(12):
            assert (
                value_of(session.run_code("len(client.get(https + '/big/12000000').content)", servers.inputs)) == 12e6
            )
        assert value_of(session.run_code("gc.disable()")) is None
        results = [
            session.run_code("client.get(https + '/big/12000000').status_code", servers.inputs) for _ in range(12)
        ]
        assert results[-1].error is not None  # who turns the collector off has it off
        assert results[-1].error.kind == "out_of_memory"


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_httpx_works_and_its_tasks_wait_together(servers: Servers, clients: Image, isolation: Isolation) -> None:
    code = """
import asyncio, httpx, time
found = [httpx.get(https + "/json").json()["path"]]
with httpx.Client() as client:
    found += [client.get(https + path).text for path in ("/chunked", "/big/3")]
async with httpx.AsyncClient() as client:
    began = time.monotonic()
    answers = await asyncio.gather(*[client.get(https + "/wait/1") for _ in range(20)])
    found += [len(answers), {answer.status_code for answer in answers} == {200}, time.monotonic() - began < 15]
    post, get = client.post(http + "/x", content=b"y" * 2_000_000), client.get(https + "/big/2000000")
    answers = await asyncio.gather(post, get)
    found += [answers[0].json()["got"], len(answers[1].content)]
found
"""
    result = run_code(code, servers.inputs, network=servers.network(), image=clients, isolation=isolation)
    assert value_of(result) == ["/json", "one,two,three", "xxx", 20, True, True, 2_000_000, 2_000_000]


def test_host_functions_and_connections_are_waited_for_together(servers: Servers) -> None:
    async def double(n: int) -> int:
        return 2 * n

    code = f"{STREAMS.rpartition('await asyncio')[0]}\nawait asyncio.gather(double(4), get(https, ssl=True), double(5))"
    result = run_code(code, servers.inputs, network=servers.network(), functions=[double])
    assert value_of(result) == [8, "HTTP/1.1 200 OK", 10]


TOOL = Tool.from_source(
    "def fetch(url: str) -> str:\n    import urllib.request\n    return urllib.request.urlopen(url).read().decode()"
)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_tool_has_a_network(servers: Servers, isolation: Isolation) -> None:
    arguments = {"url": servers.inputs["https"] + "/chunked"}
    result = run_tool(TOOL, arguments, network=servers.network(), isolation=isolation)
    assert result.func_return == "one,two,three", result.error
    assert result.connections is not None
    assert [(c.host, c.port, c.tls, c.address) for c in result.connections] == [
        ("localhost", servers.https, True, "127.0.0.1")
    ]
    assert result.requests is not None
    assert [(r.method, r.url, r.status, r.bytes_in) for r in result.requests] == [("GET", arguments["url"], 200, 13)]


async def test_an_async_caller_has_a_network(servers: Servers) -> None:
    box = AsyncSandbox(network=servers.network())
    assert value_of(await box.run_code(STREAMS, servers.inputs)) == ["HTTP/1.1 200 OK"] * 2
    result = await box.run_tool(TOOL, {"url": servers.inputs["http"] + "/chunked"})
    assert result.func_return == "one,two,three"


def test_a_session_keeps_its_connections_and_no_copy_of_it_has_them(servers: Servers, echo: int) -> None:
    box = Sandbox(network=servers.network(allow=[f"tcp://localhost:{echo}"]))
    say = "s.send(b'again\\n')\ns.recv(10)"
    with box.session() as session:
        opened = "import socket\ns = socket.create_connection(('localhost', port))\n"
        assert value_of(session.run_code(opened + say, {"port": echo})) == b"AGAIN\n"
        assert value_of(session.run_code(say)) == b"AGAIN\n"
        point = session.checkpoint()
        assert value_of(session.run_code(say)) == b"AGAIN\n"
        with session.fork() as fork:
            _assert_reset(fork.run_code(say))
            assert value_of(fork.run_code("old = s\n" + opened + say)) == b"AGAIN\n"
            _assert_reset(fork.run_code(say.replace("s.", "old.")))
            assert value_of(session.run_code(say)) == b"AGAIN\n"
        assert value_of(session.run_code("later = s\n" + opened + say)) == b"AGAIN\n"
        session.rollback(point)
        _assert_reset(session.run_code(say))
        assert value_of(session.run_code("old = s\n" + opened + say)) == b"AGAIN\n"
        _assert_reset(session.run_code(say.replace("s.", "old.")))
        with box.load_session(session.dump()) as loaded:
            assert value_of(session.run_code(say)) == b"AGAIN\n"
            _assert_reset(loaded.run_code(say))
        ended = session.run_code(f"{say}\nwhile True: pass", limits={"timeout_seconds": 0.3})
        assert ended.rolled_back
        _assert_reset(session.run_code(say))


def _assert_reset(result: CodeResult) -> None:
    assert result.error is not None
    assert result.error.exception_name == "ConnectionResetError"


def test_sockets_can_be_polled_and_time_out(servers: Servers, echo: int) -> None:
    code = """
import select, socket
s = socket.create_connection(("localhost", port))
s.sendall(b"one\\n")
poll = select.poll()
poll.register(s, select.POLLIN)
found = [select.select([s], [], [], 5)[0] == [s], len(poll.poll(5000)), s.recv(10), poll.poll(10)]
s.settimeout(0.05)
try:
    s.recv(1)
except TimeoutError as error:
    found.append(str(error))
s.setblocking(False)
try:
    s.recv(1)
except BlockingIOError:
    found.append("blocks")
found + [s.getpeername() == ("localhost", port)]
"""
    network = servers.network(allow=[f"tcp://localhost:{echo}"])
    result = run_code(code, {"port": echo}, network=network)
    assert value_of(result) == [True, 1, b"one\n".upper(), [], "timed out", "blocks", True]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_deadline_ends_a_wait_for_a_server(servers: Servers, silent: int, isolation: Isolation) -> None:
    code = "import socket\nsocket.create_connection(('localhost', port)).recv(1)"
    network = servers.network(allow=[f"tcp://localhost:{silent}"])
    limits = Limits(timeout_seconds=0.5)
    result = run_code(code, {"port": silent}, network=network, limits=limits, isolation=isolation)
    assert result.error is not None
    assert result.error.kind == "timeout"
    assert result.usage is not None
    assert result.usage.wall_seconds < 2


def test_tls_is_always_verified(servers: Servers) -> None:
    code = """
import ssl, urllib.request, urllib.error
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    urllib.request.urlopen(https, context=context)
except urllib.error.URLError as error:
    found = [type(error.reason).__name__, error.reason.verify_message]
found
"""
    result = run_code(code, servers.inputs, network=servers.network(ca_file=None))
    kind, message = cast("list[str]", value_of(result))
    assert kind == "SSLCertVerificationError"
    assert "certificate" in message
    assert result.connections[0].outcome == "failed"


async def test_tls_that_fails_reaches_a_task(servers: Servers) -> None:
    code = f"{STREAMS.rpartition('await asyncio')[0]}\nawait get(https, ssl=True)"
    result = await AsyncSandbox(network=servers.network(ca_file=None)).run_code(code, servers.inputs)
    assert result.error is not None
    assert result.error.exception_name == "SSLCertVerificationError"
