"""The server in a process of its own, and clients of the SDK: over stdio and HTTP, in both eras of the protocol."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.mcp.conversations import Conversation, command, http_server, text_of
from tests.support.documents import ROOT
from wasm_sandbox import HostError
from wasm_sandbox.web import listen

pytestmark = pytest.mark.long

ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"

linux_only = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks /proc")


@pytest.fixture(scope="module", autouse=True)
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        directory = str(tmp_path_factory.mktemp("data"))
        patch.setenv("WASM_SANDBOX_DATA_DIR", directory)
        source = "def double(n: int) -> int:\n    '''Double.'''\n    return 2 * n\n"
        add = [sys.executable, "-m", "wasm_sandbox", "tool", "add", "-"]
        subprocess.run(add, input=source, text=True, check=True, capture_output=True)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server over HTTP, for the whole module."""
    with http_server("--timeout", "20") as found:
        yield found


@pytest.fixture(scope="module", params=["stdio", "http", "http, handshake"])
def client(request: pytest.FixtureRequest) -> Iterator[Conversation]:
    """A client that stays connected, for the whole module."""
    where = command("--timeout", "20") if request.param == "stdio" else request.getfixturevalue("server")[0]
    with Conversation(where, mode="legacy" if "handshake" in request.param else "auto") as conversation:
        yield conversation


def test_its_tools_are_there(client: Conversation) -> None:
    tools = client.tools()
    assert set(tools) == {"run_python", "reset", "double"}
    assert tools["double"].input_schema["properties"]["n"]["type"] == "integer"


def test_code_and_stored_tools_run(client: Conversation) -> None:
    result = client.call("run_python", {"code": "print('hello')\nn * 2", "inputs": {"n": 21}})
    assert (text_of(result), result.structured_content["value"]) == ("hello\n\n42", 42)
    assert client.call("double", {"n": 4}).structured_content["value"] == 8


def test_a_session_is_kept_and_reset(client: Conversation) -> None:
    client.run("import math\nx = math.pi", session="kept")
    assert client.run("round(x, 2)", session="kept")["value"] == 3.14
    assert not client.call("reset", {"session": "kept"}).is_error
    assert client.run("x", session="kept")["error"]["exception_name"] == "NameError"
    client.call("reset", {"session": "kept"})


def test_progress_comes_while_the_guest_runs(client: Conversation) -> None:
    told: list[tuple[float, float]] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, time.monotonic()))

    code = "import time\nfor n in range(3):\n    progress(n, 3)\n    time.sleep(0.3)"
    client.call("run_python", {"code": code}, progress_callback=listen)
    end = time.monotonic()
    assert [done for done, _ in told] == [0.0, 1.0, 2.0]
    assert end - told[0][1] > 0.5


def test_pictures_and_errors_are_content(client: Conversation) -> None:
    shown = "display({'image/png': b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100_000)}, raw=True)\n1 / 0"
    result = client.call("run_python", {"code": shown})
    assert result.is_error
    assert [part.type for part in result.content] == ["text", "image"]
    assert "ZeroDivisionError" in text_of(result)


@pytest.mark.parametrize(
    ("tool", "arguments", "word"),
    [
        ("run_python", {"code": ["1"]}, "code: Input should be a valid string"),
        ("run_python", {"code": "#" * 3_000_000}, "at most 1000000 characters"),
        ("run_python", {"code": "1", "what": 1}, "what: Extra inputs"),
        ("reset", {"session": "never-begun"}, "there is no session"),
        ("nothing", {}, "there is no tool"),
        ("double", {"n": "much"}, "n"),
    ],
)
def test_bad_input_is_a_tool_result(client: Conversation, tool: str, arguments: dict[str, Any], word: str) -> None:
    result = client.call(tool, arguments)
    assert result.is_error
    assert word in text_of(result)


def test_what_a_guest_writes_does_not_get_between_the_messages(client: Conversation) -> None:
    code = 'import os\nos.write(1, b\'{"jsonrpc": "2.0", "id": 1, "result": {}}\\n\' * 100)\n\'after\''
    assert client.run(code)["value"] == "after"


def test_a_large_result_is_whole(client: Conversation) -> None:
    assert len(client.run("'x' * 500_000")["value"]) == 500_000


def test_the_largest_result_reaches_its_client(client: Conversation) -> None:
    found = client.run("text = chr(0x1F600) * 900_000\nprint(text)\ndisplay({'text/html': text}, raw=True)\ntext")
    assert (found["status"], found["value_is_text"]) == ("success", True)


def test_calls_run_side_by_side(client: Conversation) -> None:
    calls = [client.begin_call("run_python", {"code": "import time\ntime.sleep(1)\n1"}) for _ in range(4)]
    began = time.monotonic()
    assert [call.result(60).structured_content["value"] for call in calls] == [1] * 4
    assert time.monotonic() - began < 3


def test_a_call_that_is_taken_back_stops_its_guest(client: Conversation) -> None:
    client.run("x = 1", session="taken")
    call = client.begin_call("run_python", {"code": "x = 2\nwhile True: pass", "session": "taken"})
    time.sleep(0.5)
    call.cancel()
    began = time.monotonic()
    assert client.run("x", session="taken")["value"] == 1
    assert time.monotonic() - began < 10
    client.call("reset", {"session": "taken"})


@pytest.mark.parametrize("document", ["README.md", "docs/mcp.md"])
def test_the_configuration_that_the_documents_show_works(document: str) -> None:
    (text,) = re.findall(
        r"^```json\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    (entry,) = json.loads(text)["mcpServers"].values()
    program = Path(sys.executable).with_name(entry["command"])
    with Conversation(StdioServerParameters(command=str(program), args=entry["args"], env=dict(os.environ))) as client:
        assert client.run("2 ** 10")["value"] == 1024


# --- Clients that go away -------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_at_rest(pid: int) -> bool:
    """Whether it computes nothing, within some seconds."""
    for _ in range(20):
        before = cpu_seconds(pid)
        time.sleep(0.5)
        if cpu_seconds(pid) - before < 0.1:
            return True
    return False


def modern_request(code: str, **headers: str) -> tuple[bytes, dict[str, str]]:
    """A call of run_python as its bytes and headers."""
    version = "2026-07-28"
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    params = {"name": "run_python", "arguments": {"code": code}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    common = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    common |= {"Mcp-Protocol-Version": version, "Mcp-Method": "tools/call", "Mcp-Name": "run_python"}
    return json.dumps(body).encode(), {**common, **headers}


def posted(url: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("POST", "/mcp", body, headers)
    return connection


def answer_to(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    connection = posted(url, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@linux_only
def test_clients_that_hang_up_in_the_middle_leave_nothing_running(server: tuple[str, Any]) -> None:
    url, process = server
    assert answer_to(url, *modern_request("6 * 7"))[0] == 200
    before = descriptors(process.pid)
    for _ in range(12):
        connection = posted(url, *modern_request("while True: pass"))
        time.sleep(0.1)
        connection.close()
    body, headers = modern_request("1")
    for part in (b"", body[:20], body[:-1]):  # gone before the whole request is sent
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        connection.putrequest("POST", "/mcp")
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(part)
        connection.close()
    assert is_at_rest(process.pid)
    assert descriptors(process.pid) <= before + 2
    assert answer_to(url, *modern_request("6 * 7"))[0] == 200


@linux_only
def test_the_end_of_a_client_over_stdio_ends_the_server_and_its_guests() -> None:
    arguments = [sys.executable, "-m", "wasm_sandbox", "mcp"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        version = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        lines = [
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": version},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
        ]
        for session in ("a", "b", None):
            arguments_ = {"code": "while True: pass", "session": session}
            params = {"name": "run_python", "arguments": arguments_}
            lines.append({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})
        process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        time.sleep(1)
        began = time.monotonic()
        process.stdin.close()
        assert process.wait(30) == 0
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "garbage", [b"no json\n", b"[]\n", b"\xff\xfe\x00\n", b"{" * 5000 + b"\n", b'{"jsonrpc": "2.0"}\n', b"\n"]
)
def test_garbage_over_stdio_does_not_end_the_server(garbage: bytes, garbled: subprocess.Popen[bytes]) -> None:
    assert garbled.stdin is not None
    assert garbled.stdout is not None
    garbled.stdin.write(garbage + b'{"jsonrpc": "2.0", "id": 7, "method": "ping"}\n')
    garbled.stdin.flush()
    answers = iter(lambda: json.loads(garbled.stdout.readline()), None)  # type: ignore[union-attr]
    assert next(answer for answer in answers if answer.get("id") == 7)["result"] == {}


@pytest.fixture(scope="module")
def garbled() -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, "-m", "wasm_sandbox", "mcp"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as made:
        assert made.stdin is not None
        yield made
        made.stdin.close()


def test_a_message_without_end_is_not_kept() -> None:
    arguments = [sys.executable, "-m", "wasm_sandbox", "mcp"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        for _ in range(400):
            try:
                process.stdin.write(b"x" * (1 << 20))
            except BrokenPipeError:
                break
        else:
            pytest.fail("it took it all")
        assert process.wait(30) == 0
        assert b"longer than" in process.stderr.read()


# --- Who may come ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
@pytest.mark.parametrize("is_modern", [True, False])
def test_a_page_of_another_site_reaches_nothing(
    server: tuple[str, Any], headers: dict[str, str], status: int, is_modern: bool
) -> None:
    body, common = modern_request("1")
    if not is_modern:
        info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}).encode()
        common = {name: value for name, value in common.items() if not name.startswith("Mcp-")}
    assert answer_to(server[0], body, {**common, **headers})[0] == status


def test_a_head_that_does_not_come_ends_the_connection(server: tuple[str, Any]) -> None:
    address = urlsplit(server[0])
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
        connection.sendall(b"POST /mcp HTTP/1.1\r\nHost:")
        assert connection.recv(1) == b""


def test_a_body_that_is_too_large_is_refused(server: tuple[str, Any]) -> None:
    body, headers = modern_request("1")
    assert answer_to(server[0], body + b" " * (17 << 20), headers)[0] == 413


def test_it_listens_at_an_address_in_brackets() -> None:
    try:
        listen("::1", 0).close()
    except HostError:
        pytest.skip("this machine has no IPv6")
    with http_server("--host", "[::1]") as (url, _):
        assert url.startswith("http://[::1]:")
        assert answer_to(url, *modern_request("6 * 7"))[0] == 200


@asynccontextmanager
async def with_token(url: str, token: str) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers) as sender,
        streamable_http_client(url, http_client=sender) as streams,
    ):
        yield streams


def test_a_token_is_asked_of_each_client_and_its_sessions_are_its_own(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# ours\n{ANN}\n\n{BOB}\n", encoding="utf-8")
    with http_server("--host", "0.0.0.0", "--token-file", str(file), "--max-sessions", "1") as (shown, process):
        url = shown.replace("0.0.0.0", "127.0.0.1")
        body, headers = modern_request("1")
        for token in ("", "Bearer ", f"Bearer {ANN[:-1]}", f"Bearer {ANN}x", f"Basic {ANN}", ANN, "Bearer # ours"):
            assert answer_to(url, body, {**headers, "Authorization": token})[0] == 401
        assert answer_to(url, body, headers)[0] == 401
        with Conversation(with_token(url, ANN)) as ann, Conversation(with_token(url, BOB)) as bob:
            ann.run("x = 'of Ann'", session="mine")
            assert bob.run("x", session="mine")["error"]["exception_name"] == "NameError"
            assert bob.run("x", session="other")["error"]["kind"] == "too_many_sessions"
            bob.call("reset", {"session": "mine"})
            assert ann.run("x", session="mine")["value"] == "of Ann"
        with Conversation(with_token(url, ANN)) as again:
            assert again.run("x", session="mine")["value"] == "of Ann"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_one_token_does_not_take_the_places_of_another(tmp_path: Path) -> None:
    """Of two each has half of 512: sessions of the older protocol, which are kept, and requests under way."""
    file = tmp_path / "tokens"
    file.write_text(f"{ANN}\n{BOB}\n", encoding="utf-8")
    info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    opening = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}).encode()
    common = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    of_ann, of_bob = ({**common, "Authorization": f"Bearer {token}"} for token in (ANN, BOB))
    with http_server("--token-file", str(file)) as (url, _), ExitStack() as streams:
        sessions = []
        for _ in range(256):
            connection = posted(url, opening, of_ann)
            answer = connection.getresponse()
            sessions.append(answer.headers["Mcp-Session-Id"])
            answer.read()
            connection.close()
        status, text = answer_to(url, opening, of_ann)
        assert (status, "Too many open sessions" in text) == (503, True)
        assert answer_to(url, opening, of_bob)[0] == 200
        for session in sessions:
            stream = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
            streams.callback(stream.close)
            stream.request("GET", "/mcp", headers={**of_ann, "Mcp-Session-Id": session})
            assert stream.getresponse().status == 200
        body, headers = modern_request("6 * 7")
        status, text = answer_to(url, body, {**headers, **of_ann})
        assert (status, "256 requests of yours" in text) == (429, True)
        assert answer_to(url, body, {**headers, **of_bob})[0] == 200
        streams.close()
        for _ in range(100):  # it hears of it a moment later
            if answer_to(url, body, {**headers, **of_ann})[0] == 200:
                break
            time.sleep(0.1)
        else:
            pytest.fail("what ended kept its place")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--http", "--host", "0.0.0.0"], "give tokens"),
        (["--http", "--host", "::"], "give tokens"),
        (["--http", "--host", "192.0.2.1"], "give tokens"),
        (["--http", "--token-file", "no-such-file"], "cannot be read"),
        (["--token-file", "x"], "only with --http"),
        (["--http", "--host", "no.such.host.invalid", "--token-file", "TOKENS"], "cannot be listened at"),
        (["--http", "--token-file", "LIMITED"], "tokens.1.limits"),
        (["--max-sessions", "-1"], "--max-sessions"),
        (["--idle-seconds", "0"], "--idle-seconds"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(options: list[str], word: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(ANN, encoding="utf-8")
    limited = tmp_path / "limited"
    limited.write_text(f'[[tokens]]\nname = "ann"\ntoken = "{ANN}"\nlimits = {{ fuel = 5 }}\n', encoding="utf-8")
    named = {"TOKENS": str(file), "LIMITED": str(limited)}
    given = [named.get(option, option) for option in options]
    done = subprocess.run(
        [sys.executable, "-m", "wasm_sandbox", "mcp", *given], capture_output=True, text=True, input="", check=False
    )
    assert done.returncode == (4 if "listened" in word else 2)
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_sdk_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['mcp'] = None; from wasm_sandbox.cli.app import main; main(['mcp'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, input="", check=False)
    assert (done.returncode, "pip install 'wasm-sandbox[mcp]'" in done.stderr) == (2, True)
