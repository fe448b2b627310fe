"""Connections through a proxy of the host's; and what there is to say where nothing reads HTTP."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable

import pytest

from tests.network.conftest import Servers
from tests.network.hostile_servers import proxy_server, wait_for_the_end
from wasm_sandbox import AsyncSandbox, CodeResult, HostError, Network, Sandbox, Tool, run_code, run_tool
from wasm_sandbox.options import Isolation

GET = "import urllib.request\nurllib.request.urlopen(url).read().decode()"


def _error(result: CodeResult) -> str:
    assert result.error is not None
    assert "\n" not in result.error.message
    return result.error.message


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_each_connection_goes_through_the_proxy(servers: Servers, isolation: Isolation) -> None:
    code = "import urllib.request\n[urllib.request.urlopen(base + '/chunked').read() for base in (http, https)]"
    with proxy_server() as (port, heads):
        network = servers.network(proxy=f"http://user:p%40ss@127.0.0.1:{port}")
        result = run_code(code, servers.inputs, network=network, isolation=isolation)
    assert result.value == [b"one,two,three"] * 2, result.error
    asked = [head.split(b"\r\n") for head in heads]
    places = [f"localhost:{servers.http}".encode(), f"localhost:{servers.https}".encode()]
    assert [lines[0] for lines in asked] == [b"CONNECT " + place + b" HTTP/1.1" for place in places]
    assert [lines[1] for lines in asked] == [b"Host: " + place for place in places]
    assert {lines[2] for lines in asked} == {b"Proxy-Authorization: Basic dXNlcjpwQHNz"}
    assert "p@ss" not in str(result)
    assert "p%40ss" not in repr(network)
    assert [(c.host, c.address, c.outcome) for c in result.connections] == [("localhost", "127.0.0.1", "closed")] * 2


def test_any_protocol_goes_through_the_proxy(servers: Servers, echo: int) -> None:
    code = "import socket\ns = socket.create_connection(('localhost', port))\ns.send(b'one\\n')\ns.recv(10)"
    with proxy_server() as (port, heads):
        network = servers.network(allow=[f"tcp://localhost:{echo}"], proxy=f"http://127.0.0.1:{port}")
        assert run_code(code, {"port": echo}, network=network).value == b"ONE\n"
    assert len(heads) == 1


def test_the_proxy_looks_names_up(servers: Servers) -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        assert head.startswith(b"CONNECT only.the-proxy-knows.example:80 HTTP/1.1\r\n")
        connection.sendall(b"HTTP/1.0 200 yes\r\nVia: x\r\n\r\n")
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")

    with proxy_server(answer) as (port, _):
        network = Network(["*.the-proxy-knows.example"], proxy=f"http://localhost:{port}")
        result = run_code(GET, {"url": "http://only.the-proxy-knows.example/x"}, network=network)
    assert result.value == "proxy", result.error


INSIDE = [
    "http://127.0.0.1/", "http://localhost/", "http://x.localhost/", "http://10.0.0.1/", "http://169.254.169.254/",
    "http://[::1]/", "http://[64:ff9b::7f00:1]/", "http://0x7f.1/", "http://[::ffff:10.0.0.1]/",
]  # fmt: skip


def test_the_proxy_is_asked_for_nothing_that_the_policy_refuses(servers: Servers) -> None:
    code = """
import urllib.request
found = []
for url in urls:
    try:
        found.append(urllib.request.urlopen(url).status)
    except OSError as error:
        found.append(type(error.reason).__name__)
found
"""
    with proxy_server() as (port, heads):
        proxy = f"http://127.0.0.1:{port}"
        result = run_code(code, {"urls": INSIDE}, network=Network(["*"], proxy=proxy))
        assert result.value == ["PermissionError"] * len(INSIDE), result.error
        result = run_code(GET, {"url": "http://example.org"}, network=Network(["example.com"], proxy=proxy))
        assert "does not allow example.org:80" in _error(result)
    assert heads == []


def _says(text: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, _head: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(text)
            wait_for_the_end(connection)

    return answer


REFUSALS = {
    "a refusal": (
        _says(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
        "the proxy refused the connection: 407",
    ),
    "no proxy": (_says(b"SSH-2.0-OpenSSH\r\n\r\n"), "the proxy refused the connection"),
    "nothing": (lambda connection, _: connection.close(), "the proxy did not answer"),
    "a head without an end": (_says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000), "the proxy did not answer"),
    "silence": (_says(b""), "(Network.connect_seconds)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_proxy_that_does_not_connect_is_said_in_one_line(servers: Servers, name: str) -> None:
    behave, words = REFUSALS[name]
    with proxy_server(behave) as (port, _):
        network = servers.network(proxy=f"http://127.0.0.1:{port}", connect_seconds=0.5)
        result = run_code(GET, {"url": f"{servers.inputs['http']}/json"}, network=network)
    assert _error(result)
    assert words in (result.connections[0].reason or "")


def test_a_proxy_that_is_not_there_is_named_to_the_host(servers: Servers) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        network = servers.network(proxy=f"http://127.0.0.1:{port}")
        result = run_code(GET, {"url": f"{servers.inputs['http']}/json"}, network=network)
    assert "the proxy cannot be reached" in _error(result)
    assert str(port) not in _error(result)
    assert f"the proxy 127.0.0.1:{port} cannot be reached" in (result.connections[0].reason or "")


async def test_without_what_reads_http_a_network_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    words = r"a network needs h11, which is not installed: pip install 'wasm-sandbox\[network\]'"
    tool = Tool.from_source("def f():\n    return 1")
    box = Sandbox(network="example.com")
    before = threading.active_count()
    for run in (
        lambda: run_code("1", network="example.com"),
        lambda: run_tool(tool, network=["example.com"]),
        box.session,
        lambda: box.run_code("1", isolation="process"),
        lambda: list(box.stream_code("1")),
    ):
        with pytest.raises(HostError, match=words):
            run()
    with pytest.raises(HostError, match=words):
        await AsyncSandbox(network="example.com").run_code("1")
    assert run_code("1 + 1").value == 2
    assert threading.active_count() < before + 10
