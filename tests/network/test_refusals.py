"""What a guest hears where there is no network, or the policy allows less than it wants."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from tests.network.conftest import Servers
from wasm_sandbox import (
    AsyncSandbox,
    CodeResult,
    Deny,
    InvalidNetwork,
    Limits,
    Network,
    Request,
    Sandbox,
    Secret,
    run_code,
)
from wasm_sandbox.options import Isolation

CONNECTS = {
    "urllib": "import urllib.request; urllib.request.urlopen('http://example.com')",
    "urllib with TLS": "import urllib.request; urllib.request.urlopen('https://example.com')",
    "http.client": "import http.client; http.client.HTTPConnection('example.com').request('GET', '/')",
    "socket": "import socket; socket.create_connection(('example.com', 80))",
    "a bare socket": "import socket; socket.socket().connect(('192.0.2.1', 80))",
    "asyncio": "import asyncio\nawait asyncio.open_connection('example.com', 80)",
    "smtplib": "import smtplib; smtplib.SMTP('example.com')",
    "ftplib": "import ftplib; ftplib.FTP('example.com')",
}

NAMES = [
    "socket.gethostbyname('example.com')", "socket.gethostbyname_ex('example.com')",
    "socket.gethostbyaddr('192.0.2.1')", "socket.create_server(('', 80))",
    "socket.socketpair()", "socket.getservbyname('nothing')", "socket.if_nameindex()",
    "socket.socket(type=socket.SOCK_DGRAM)", "socket.socket().bind(('', 80))", "socket.socket().listen()",
    "socket.socket().accept()", "socket.socket().recv(1)", "socket.socket().send(b'x')",
    "socket.socket().getpeername()",
    "socket.socket().shutdown(2)", "socket.getprotobyname('nothing')", "socket.if_nametoindex('lo')",
    "socket.getaddrinfo('example.com', 80, type=socket.SOCK_DGRAM)", "socket.sethostname('x')",
]  # fmt: skip


@pytest.mark.parametrize("functions", [False, True], ids=["alone", "beside host functions"])
@pytest.mark.parametrize("code", CONNECTS.values(), ids=CONNECTS)
def test_without_a_network_every_connect_is_refused_in_words(code: str, functions: bool) -> None:
    result = run_code(code, functions=[len] if functions else None)
    assert result.error is not None
    assert result.error.exception_name in ("PermissionError", "URLError")
    assert "this run has no network" in result.error.message
    assert result.connections == []


@pytest.mark.parametrize("call", NAMES)
def test_functions_of_sockets_raise_errors_of_sockets(call: str) -> None:
    result = run_code(f"import socket\ntry:\n    {call}\nexcept OSError as error:\n    found = str(error)\nfound")
    assert result.error is None, result.error
    assert result.value


def test_what_the_policy_lacks_is_said_to_the_guest_in_general_and_to_the_host_in_full(servers: Servers) -> None:
    code = "import urllib.request\nurllib.request.urlopen('http://example.org/x')"
    result = run_code(code, network=servers.network())
    assert result.error is not None
    assert "the network policy does not allow example.org:80" in result.error.message
    assert [(c.host, c.outcome) for c in result.connections] == [("example.org", "refused")]
    assert "add 'example.org:80' to allow" in (result.connections[0].reason or "")


def test_a_redirect_is_checked_by_itself(servers: Servers) -> None:
    code = "import urllib.request\nurllib.request.urlopen(http + '/away/example.org')"
    result = run_code(code, servers.inputs, network=servers.network())
    assert result.error is not None
    assert "does not allow example.org:80" in result.error.message
    assert [r.status for r in result.requests] == [302]


def test_this_machine_is_private(servers: Servers) -> None:
    code = "import urllib.request\nurllib.request.urlopen(http + '/json')"
    result = run_code(code, servers.inputs, network=servers.network(private=False))
    assert result.error is not None
    assert "PermissionError" in (result.error.traceback or "")
    assert "127.0.0.1" not in result.error.message  # what addresses names of inside have is not a guest's to know
    assert result.connections[0].outcome == "refused"
    assert "127.0.0.1 is an address of this machine (Network.private)" in (result.connections[0].reason or "")


@pytest.mark.parametrize("name", ["example.org", "127.0.0.1", "localhost.example.org", ""])
def test_tls_is_for_no_other_name_than_that_of_the_connection(servers: Servers, name: str) -> None:
    code = """
import socket, ssl
context = ssl.create_default_context()
context.check_hostname = False
try:
    context.wrap_socket(socket.create_connection(("localhost", port)), server_hostname=name)
    found = "connected"
except (OSError, ValueError) as error:
    found = type(error).__name__
found
"""
    result = run_code(code, {"port": servers.https, "name": name}, network=servers.network())
    assert result.value in ("PermissionError", "ValueError"), result.error


def test_requests_are_checked_by_method_and_path(servers: Servers) -> None:
    allow = [f"GET http://localhost:{servers.http}/json"]
    code = """
import urllib.request
found = []
for method, path in (("GET", "/json"), ("POST", "/json"), ("GET", "/chunked"), ("GET", "/x/../json")):
    try:
        with urllib.request.urlopen(urllib.request.Request(http + path, method=method)) as answer:
            answer.read()
            found.append(answer.status)
    except OSError as error:
        found.append(type(getattr(error, "reason", error)).__name__)
found
"""
    result = run_code(code, servers.inputs, network=servers.network(allow=allow))
    assert result.error is None, result.error
    assert result.value == [200, "PermissionError", "PermissionError", "PermissionError"]
    assert [r.outcome for r in result.requests] == ["ok", "refused", "refused", "refused"]


SMUGGLED = {
    "two lengths": "GET /json HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": "POST /json HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": "GET /json HTTP/1.1\r\nHost: {host}\r\nX: a\r\n b\r\n\r\n",
    "bare line feeds": "GET /json HTTP/1.1\nHost: {host}\n\n",
    "a bare line feed": "GET /json HTTP/1.1\r\nHost: {host}\nX: a\r\n\r\n",
    "another host": "GET /json HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "two hosts": "GET /json HTTP/1.1\r\nHost: {host}\r\nHost: example.org\r\n\r\n",
    "no host": "GET /json HTTP/1.1\r\n\r\n",
    "another target": "GET http://example.org/json HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "CONNECT": "CONNECT example.org:443 HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "no HTTP": "EHLO example.org\r\n\r\n",
    "an endless head": "GET /json HTTP/1.1\r\nHost: {host}\r\nX: " + "a" * 100_000,
}


@pytest.mark.parametrize("text", SMUGGLED.values(), ids=SMUGGLED)
def test_what_servers_read_in_more_than_one_way_is_not_forwarded(servers: Servers, text: str) -> None:
    code = """
import socket
s = socket.create_connection(("localhost", int(place.rpartition(":")[2])))
try:
    s.sendall(text.encode())
    answer = s.recv(1000)
except PermissionError as error:
    answer = str(error)
answer
"""
    place = f"localhost:{servers.http}"
    result = run_code(code, {"place": place, "text": text.replace("{host}", place)}, network=servers.network())
    assert result.error is None, result.error
    assert isinstance(result.value, str)
    assert result.connections[0].bytes_in == 0
    assert result.connections[0].bytes_out == 0
    assert result.connections[0].outcome == "refused"


def _allow_json(request: Request) -> Deny | None:
    return None if request.url.endswith("/json") else Deny("only /json today")


async def _allow_json_soon(request: Request) -> Deny | None:
    await asyncio.sleep(0.01)
    return _allow_json(request)


@pytest.mark.parametrize("gate", [_allow_json, _allow_json_soon])
def test_a_gate_is_asked_before_each_request(servers: Servers, gate: Any) -> None:
    code = """
import urllib.request
found = [urllib.request.urlopen(https + "/json").status]
try:
    urllib.request.urlopen(https + "/chunked")
except OSError as error:
    found.append(str(error))
found
"""
    result = run_code(code, servers.inputs, network=servers.network(on_request=gate))
    _check_gated(result)


async def test_an_async_gate_runs_on_the_loop_of_the_caller(servers: Servers) -> None:
    threads: set[int] = set()

    async def gate(request: Request) -> Deny | None:
        threads.add(threading.get_ident())
        return _allow_json(request)

    code = "import urllib.request\nurllib.request.urlopen(https + '/json').status"
    result = await AsyncSandbox(network=servers.network(on_request=gate)).run_code(code, servers.inputs)
    assert result.value == 200, result.error
    assert threads == {threading.get_ident()}


def _check_gated(result: CodeResult) -> None:
    assert result.error is None, result.error
    assert result.value[0] == 200
    assert "only /json today" in result.value[1]
    assert [(r.outcome, r.reason) for r in result.requests] == [("ok", None), ("refused", "only /json today")]


def test_a_gate_that_raises_refuses(servers: Servers) -> None:
    def gate(request: Request) -> None:
        raise RuntimeError("a secret of the host's")

    code = "import urllib.request\nurllib.request.urlopen(https + '/json')"
    result = run_code(code, servers.inputs, network=servers.network(on_request=gate))
    assert result.error is not None
    assert "the request was not allowed" in result.error.message
    assert "secret of the host" not in str(result)


BUDGETS = {
    "max_requests": (2, "for _ in range(5): urllib.request.urlopen(https + '/json').read()"),
    "max_bytes_in": (100_000, "urllib.request.urlopen(https + '/big/1000000').read()"),
    "max_bytes_out": (100_000, "urllib.request.urlopen(https + '/x', b'a' * 1_000_000).read()"),
    "max_connections": (3, "kept = [socket.create_connection(('localhost', int(https[-5:]))) for _ in range(5)]"),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_budget_is_said_by_its_name(servers: Servers, name: str) -> None:
    most, code = BUDGETS[name]
    source = f"import socket, urllib.request\n{code}"
    result = run_code(source, servers.inputs, network=servers.network(**{name: most}))
    assert result.error is not None
    assert f"(Network.{name})" in result.error.message, result.error


def test_a_server_that_says_nothing_is_left(servers: Servers, silent: int) -> None:
    network = servers.network(allow=[f"localhost:{silent}"], io_seconds=0.3)
    code = "import urllib.request\nurllib.request.urlopen(f'http://localhost:{port}')"
    began = time.monotonic()
    result = run_code(code, {"port": silent}, network=network)
    assert result.error is not None
    assert "Network.io_seconds" in result.error.message
    assert time.monotonic() - began < 5


KEY = "sk-0123456789abcdef"


def _secretive(servers: Servers, **options: Any) -> Network:
    secret = Secret(KEY, hosts=[f"localhost:{servers.https}"], headers=["authorization"], query=["key"])
    return servers.network(secrets={"API_KEY": secret}, **options)


ASKED = """
import base64, json, os, urllib.request
key = os.environ["API_KEY"]
def ask(base, path="/json", **headers):
    return json.loads(urllib.request.urlopen(urllib.request.Request(base + path, headers=headers)).read())
"""


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_guest_uses_a_secret_and_never_reads_it(servers: Servers, isolation: Isolation) -> None:
    code = f"""{ASKED}
basic = base64.b64encode(f"user:{{key}}".encode()).decode()
answers = [
    ask(https, Authorization=f"Bearer {{key}}"), ask(https, "/json?a=1&key=" + key),
    ask(https, Authorization=f"Basic {{basic}}"),
    ask(https, X_Other=key), ask(http, Authorization=key),
]
print(key)
[secrets["API_KEY"] == key, list(secrets), [[a["path"], a["headers"].get("authorization")] for a in answers]]
"""
    result = run_code(code, servers.inputs, network=_secretive(servers), isolation=isolation)
    assert result.error is None, result.error
    same, names, answers = result.value
    assert same
    assert names == ["API_KEY"]
    hidden = "*" * len(KEY)
    assert answers[0] == ["/json", f"Bearer {hidden}"]
    assert answers[1][0] == f"/json?a=1&key={hidden}"
    assert answers[2][1].startswith("Basic ")
    assert answers[4][1].startswith("secret-")
    assert KEY not in str(result)
    assert KEY not in json.dumps([r.model_dump() for r in result.requests])


def test_the_value_arrives_at_the_server(servers: Servers) -> None:
    code = f"{ASKED}\nlen(ask(https, Authorization=key)['headers']['authorization'])"
    result = run_code(code, servers.inputs, network=_secretive(servers))
    assert result.value == len(KEY)  # of asterisks: the placeholder is longer


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_value_that_came_unread_is_no_part_of_a_result(servers: Servers, echo: int, isolation: Isolation) -> None:
    value = "SK-0123456789ABCDEF"
    secrets = {"API_KEY": Secret(value, hosts=["api.example.com"])}
    network = servers.network(allow=[f"tcp://localhost:{echo}"], secrets=secrets)
    code = """
import socket
s = socket.create_connection(("localhost", port))
s.sendall(b"sk-0123456789abcdef\\n")
data = s.recv(100).strip()
print(data.decode())
{"bytes": data, "texts": [data.decode(), (data,)]}
"""
    result = run_code(code, {"port": echo}, network=network, isolation=isolation)
    hidden = "*" * len(value)
    assert result.value == {"bytes": hidden.encode(), "texts": [hidden, (hidden.encode(),)]}, result.error
    assert value not in str(result)


def test_a_client_that_a_session_has_made_keeps_its_secret_in_forks_and_bytes(servers: Servers) -> None:
    box = Sandbox(network=_secretive(servers))
    ask = f"{ASKED}\nask(https, Authorization=kept)['headers']['authorization']"
    with box.session() as session:
        session.run_code("import os\nkept = os.environ['API_KEY']")
        with session.fork() as fork, box.load_session(session.dump()) as loaded:
            for one in (session, fork, loaded):
                result = one.run_code(ask, servers.inputs)
                assert result.value == "*" * len(KEY), result.error


def test_a_deterministic_run_has_no_network() -> None:
    with pytest.raises(InvalidNetwork, match="deterministic"):
        Sandbox(network="example.com", limits=Limits(deterministic=True))


@pytest.mark.long
def test_nothing_is_left_of_thousands_of_connections(servers: Servers, echo: int) -> None:
    network = servers.network(allow=[f"tcp://localhost:{echo}"])
    code = "import socket\nfor _ in range(count): socket.create_connection(('localhost', port)).close()"
    run_code(code, {"port": echo, "count": 10}, network=network)
    before = _descriptors(), threading.active_count()
    result = run_code(code, {"port": echo, "count": 1000}, network=network)
    assert result.error is None, result.error
    time.sleep(0.2)  # the server's own threads
    assert _descriptors() <= before[0] + 3
    assert threading.active_count() <= before[1] + 3


def _descriptors() -> int:
    import os

    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
