"""MCP at ``/mcp``: the SDK's own client against the server in a process of its own, in both eras of the protocol."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.streamable_http import streamable_http_client

from tests.mcp.conversations import Conversation, text_of
from tests.serve.test_bad_input import problem
from tests.support.servers import ALICE, BOB, command, token_file
from wasm_sandbox.directories import DATA_VARIABLE

pytestmark = pytest.mark.long

ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="SIGTERM ends a process on Windows at once")
FUEL = 400_000_000
CAROL, DAN = "carol-may-use-one-image-only", "dan-has-little-fuel-a-minute"
CALL = {
    "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run_python", "arguments": {"code": "6 * 7"}},
}  # fmt: skip
HEADERS = {"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-06-18"}
LOOP = "while True: pass"


def entries(*names: str) -> list[str]:
    """Entries of a token file."""
    known = {
        "alice": f'name = "alice"\ntoken = "{ALICE}"\nmetrics = true\nmax_sessions = 2\n'
        f"limits = {{ timeout_seconds = 9.0, fuel = {FUEL} }}",
        "bob": f'name = "bob"\ntoken = "{BOB}"',
        "carol": f'name = "carol"\ntoken = "{CAROL}"\nimages = ["nowhere"]',
        "dan": f'name = "dan"\ntoken = "{DAN}"\nfuel_per_minute = 60000000\nlimits = {{ fuel = 100000000 }}',
    }
    return [known[name] for name in names]


@pytest.fixture(scope="module", autouse=True)
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A stored tool of the operator's, and a variable for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_VARIABLE, str(tmp_path_factory.mktemp("data")))
        source = "import os\ndef secret() -> str:\n    '''Tell it.'''\n    return os.environ['KEY']\n"
        main = [sys.executable, "-m", "wasm_sandbox"]
        subprocess.run([*main, "tool", "add", "-"], input=source, text=True, check=True, capture_output=True)
        subprocess.run([*main, "env", "set", "KEY=hush"], check=True, capture_output=True)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with tokens."""
    file = token_file(tmp_path_factory.mktemp("tokens") / "t.toml", *entries("alice", "bob", "carol", "dan"))
    with command("--token-file", str(file), stderr=subprocess.DEVNULL) as (_, url):
        yield url


@asynccontextmanager
async def with_token(url: str, token: str) -> AsyncIterator[Any]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as sender,
        streamable_http_client(f"{url}/mcp", http_client=sender) as streams,
    ):
        yield streams


@pytest.fixture(params=["auto", "legacy"])
def talk(request: pytest.FixtureRequest, server: str) -> Any:
    """Conversation of a token's holder, in an era of the protocol."""
    return lambda token: Conversation(with_token(server, token), mode=request.param)


def post(url: str, token: str | None = None, body: Any = CALL, **headers: str) -> httpx.Response:
    """Request of a client of one's own."""
    given = {**HEADERS, **({} if token is None else {"Authorization": f"Bearer {token}"}), **headers}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{url}/mcp", content=content, headers={"Content-Type": "application/json", **given}, timeout=60)


def test_code_runs_with_progress_pictures_and_errors(talk: Any) -> None:
    told: list[float] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)

    with talk(BOB) as bob:
        assert set(bob.tools()) == {"run_python", "reset"}
        code = "import time\nprogress(1, 2)\ntime.sleep(0.3)\nprint('hello')\nn * 2"
        result = bob.call("run_python", {"code": code, "inputs": {"n": 21}}, progress_callback=listen)
        assert (text_of(result), result.structured_content["value"], told) == ("hello\n\n42", 42, [1.0])
        shown = "display({'image/png': b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100)}, raw=True)\n1 / 0"
        result = bob.call("run_python", {"code": shown})
        assert (result.is_error, [part.type for part in result.content]) == (True, ["text", "image"])


def test_sessions_of_one_token_are_invisible_to_another(talk: Any, server: str) -> None:
    with talk(ALICE) as alice, talk(BOB) as bob:
        alice.run("x = 'of Alice'", session="mine")
        assert bob.run("x", session="mine")["error"]["exception_name"] == "NameError"
        assert not bob.call("reset", {"session": "mine"}).is_error
        assert "unknown" in bob.call("reset", {"session": "mine"}).structured_content["error"]["kind"]
        assert alice.run("x", session="mine")["value"] == "of Alice"
    with talk(ALICE) as again:
        assert again.run("x", session="mine")["value"] == "of Alice"
        again.call("reset", {"session": "mine"})
        assert again.run("x", session="mine")["session_is_new"]
        again.call("reset", {"session": "mine"})


def test_calls_are_held_to_the_ceilings_of_their_token(talk: Any) -> None:
    with talk(ALICE) as alice:
        assert "at most 9 seconds" in alice.tools()["run_python"].description
        for arguments in ({}, {"session": "held"}):
            assert alice.run(LOOP, **arguments)["error"]["kind"] == "out_of_fuel"
        alice.call("reset", {"session": "held"})


def test_a_token_has_no_more_sessions_than_its_own_wherever_they_are_made(talk: Any, server: str) -> None:
    with talk(ALICE) as alice, httpx.Client(base_url=server, headers={"Authorization": f"Bearer {ALICE}"}) as plain:
        path = plain.post("/v1/sessions", json={}).headers["location"]
        alice.run("1", session="one")
        error = alice.run("1", session="two")["error"]
        assert (error["kind"], "close some" in error["message"]) == ("too_many_sessions", True)
        problem(plain.post("/v1/sessions", json={}), "too-many-sessions")
        plain.delete(path)
        assert alice.run("1", session="two")["value"] == 1
        for name in ("one", "two"):
            alice.call("reset", {"session": name})


def test_only_images_of_the_list_are_used(talk: Any) -> None:
    with talk(CAROL) as carol:
        for arguments in ({}, {"session": "a"}, {"image": "default"}):
            error = carol.run("1", **arguments)["error"]
            assert (error["kind"], "may use nowhere" in error["message"]) == ("image_forbidden", True)
        assert carol.run("1", image="nowhere")["error"]["kind"] == "unknown_image"
    with talk(BOB) as bob:
        assert {"default", "science"} <= {*bob.tools()["run_python"].input_schema["properties"]["image"]["enum"]}
        assert bob.run("1", image="default", session="in")["value"] == 1
        assert "one of default" in bob.run("1", image="other", session="in")["error"]["message"]
        bob.call("reset", {"session": "in"})


def test_whoever_has_used_up_the_fuel_of_a_minute_is_told_to_wait(server: str) -> None:
    with Conversation(with_token(server, DAN)) as dan, Conversation(with_token(server, BOB)) as bob:
        assert dan.run(LOOP)["error"]["kind"] == "out_of_fuel"
        error = dan.run("1")["error"]
        assert error["kind"] == "over_budget"
        assert re.search(r"\(in \d+ seconds\)", error["message"])
        answer = httpx.post(f"{server}/v1/code", json={"code": "1"}, headers={"Authorization": f"Bearer {DAN}"})
        problem(answer, "over-budget")
        assert bob.run("1")["value"] == 1


def test_calls_are_counted(server: str) -> None:
    def count(text: str, line: str) -> float:
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    lines = (
        'wasm_sandbox_calls_total{call="mcp",image="default",outcome="success"}',
        'wasm_sandbox_problems_total{problem="image-forbidden"}',
    )

    def counts() -> list[float]:
        text = httpx.get(f"{server}/metrics", headers={"Authorization": f"Bearer {ALICE}"}).text
        return [count(text, line) for line in lines]

    before = counts()
    assert '"value":42' in post(server, BOB).text
    assert "image_forbidden" in post(server, CAROL).text
    assert counts() == [value + 1 for value in before]


@pytest.mark.parametrize("token", [None, ALICE[:-1], "nobody's"])
def test_a_token_is_asked_of_each_request(server: str, token: str | None) -> None:
    answer = post(server, token, b"{" * 1000)
    problem(answer, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_what_is_no_request_is_refused_in_words(server: str) -> None:
    problem(post(server, BOB, b" " * (5 << 20)), "body-too-large")
    problem(post(server, BOB, b"{}", **{"Content-Type": "text/plain"}), "unsupported-media-type")
    problem(post(server, BOB, Origin="http://evil.example"), "forbidden-origin")
    for method in ("GET", "DELETE"):
        answer = httpx.request(method, f"{server}/mcp", headers={"Authorization": f"Bearer {BOB}", **HEADERS})
        problem(answer, "method-not-allowed")
    for body in (b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"):
        for version in ("2025-06-18", "2026-07-28", "never"):
            assert 400 <= post(server, BOB, body, **{"Mcp-Protocol-Version": version}).status_code < 500, body
    assert '"value":42' in post(server, BOB).text


def test_a_client_that_hangs_up_stops_its_guest(server: str) -> None:
    body = json.loads(json.dumps(CALL))
    body["params"]["arguments"] = {"code": f"x = 1\n{LOOP}", "session": "left"}
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server}/mcp", json=body, headers={**HEADERS, "Authorization": f"Bearer {BOB}"}, timeout=0.5
            ).raise_for_status()
    body["params"]["arguments"] = {"code": "'x' in globals()", "session": "left"}
    began = time.monotonic()
    assert '"value":false' in post(server, BOB, body).text
    assert time.monotonic() - began < 15
    body["params"] = {"name": "reset", "arguments": {"session": "left"}}
    assert '"isError":false' in post(server, BOB, body).text


def test_stored_tools_are_the_operators_own(talk: Any) -> None:
    with talk(BOB) as bob:
        assert "secret" not in bob.tools()
        result = bob.call("secret", {})
        assert (result.is_error, "there is no tool" in text_of(result)) == (True, True)


def test_stored_tools_are_offered_if_the_operator_allows_it(tmp_path: Path) -> None:
    file = token_file(tmp_path / "t.toml", *entries("bob", "carol"))
    with command("--token-file", str(file), "--mcp-tools", stderr=subprocess.DEVNULL) as (_, url):
        with Conversation(with_token(url, BOB)) as bob:
            assert "secret" in bob.tools()
            assert text_of(bob.call("secret", {})) == "hush"
            assert bob.run("import os\nos.environ.get('KEY')")["value"] is None
        with Conversation(with_token(url, CAROL)) as carol:
            assert carol.call("secret", {}).structured_content["error"]["kind"] == "image_forbidden"


@ON_POSIX
def test_at_sigterm_calls_of_agents_end_and_new_ones_are_told_to_go_elsewhere() -> None:
    with command("--drain-seconds", "20") as (process, url):
        assert '"value":42' in post(url).text
        body = json.loads(json.dumps(CALL))
        body["params"]["arguments"]["code"] = "import time\ntime.sleep(1.5)\n'done'"
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(post(url, body=body)))
        thread.start()
        time.sleep(0.6)
        process.terminate()
        time.sleep(0.3)
        answer = post(url)
        problem(answer, "draining")
        assert answer.headers["retry-after"]
        thread.join()
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert '"value":"done"' in answers[0].text
    assert process.returncode == 0
    log = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert [line["operation"] for line in log if line["event"] == "request"] == ["mcp"] * 3
    assert {line.get("outcome") for line in log if line["event"] == "request"} == {"success", None}
    assert "sleep" not in errors


@ON_POSIX
def test_without_the_sdk_the_server_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['mcp'] = None; from wasm_sandbox.cli.app import main; main(['serve', '--port=0'])"
    with subprocess.Popen([sys.executable, "-c", hidden], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        for _ in range(2):
            assert "pip install 'wasm-sandbox[mcp]'" in problem(post(url), "not-installed")["detail"]
        assert httpx.post(f"{url}/v1/code", json={"code": "1"}).json()["value"] == 1
        process.terminate()
        assert process.wait(30) == 0
