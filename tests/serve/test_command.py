"""``wasm-sandbox serve`` as a process: what it says, and how it ends without losing a call or a session."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.serve.test_bad_input import problem
from tests.support.servers import ADD, ALICE, BOB, command, ended, running, token_file, tokens
from wasm_sandbox.cli.app import main

pytestmark = pytest.mark.long

ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="SIGTERM ends a process on Windows at once")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says that does not begin to serve."""
    with pytest.raises(SystemExit) as end:
        main(["serve", *arguments])
    assert end.value.code in {2, 4}
    return capsys.readouterr().err


def test_what_cannot_be_served_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--token-file" in refused(capsys, "--host", "0.0.0.0")
    assert "cannot be read" in refused(capsys, "--token-file", str(tmp_path / "nowhere"))
    assert "must be at least" in refused(capsys, "--memory", "1M")
    with running() as server:
        port = server.url.rpartition(":")[2]
        assert "--port" in refused(capsys, "--port", port)


def test_without_the_extra_it_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['starlette'] = None; from wasm_sandbox.cli.app import main; main(['serve'])"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "wasm-sandbox[serve]" in done.stderr) == (2, True)


@ON_POSIX
def test_its_limits_are_the_ceiling_and_it_ends_quietly() -> None:
    with command("--timeout", "3", "--memory", "128M") as (process, url), httpx.Client(base_url=url) as client:
        assert client.post("/v1/run", json={"source": ADD, "args": {"a": 1, "b": 2}}).json()["func_return"] == 3
        answer = client.post("/v1/code", json={"code": "1", "limits": {"timeout_seconds": 4.0}})
        problem(answer, "over-ceiling")
        code, log = ended(process)
    assert code == 0
    assert [line["event"] for line in log] == ["request", "request", "draining", "drained"]


@ON_POSIX
def test_what_is_no_request_is_a_line_of_the_log_too() -> None:
    with command() as (process, url):
        place = urlsplit(url)
        for garbage in (
            b"\x00" * 100 + b"\r\n\r\n",
            b"GET hush\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ):
            with socket.create_connection((place.hostname, place.port), 30) as connection:
                connection.sendall(garbage)
                assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        process.terminate()
        _, errors = process.communicate(timeout=30)
    told = [json.loads(line) for line in errors.splitlines()]
    assert [line["said"] for line in told if line["event"] == "server"] == ["Invalid HTTP request received."] * 3
    assert "hush" not in errors


@ON_POSIX
def test_at_sigterm_calls_end_and_new_ones_are_told_to_go_elsewhere() -> None:
    answers: list[httpx.Response] = []
    slow = {"code": "import time; time.sleep(1.5)\n'done'"}
    with command() as (process, url), httpx.Client(base_url=url) as client:
        client.get("/readyz")  # the image is loaded

        def call() -> None:
            answers.append(httpx.post(f"{url}/v1/code", json=slow, timeout=30))

        thread = threading.Thread(target=call)
        thread.start()
        time.sleep(0.6)
        process.terminate()
        time.sleep(0.3)
        for answer in (client.post("/v1/code", json={"code": "1"}), httpx.get(f"{url}/readyz")):
            problem(answer, "draining")
            assert answer.headers["retry-after"]
        assert httpx.get(f"{url}/healthz").status_code == 200
        thread.join()
        process.communicate(timeout=30)
    assert (answers[0].json()["value"], process.returncode) == ("done", 0)


@ON_POSIX
def test_calls_that_do_not_end_in_time_are_stopped_and_a_second_signal_ends_at_once() -> None:
    for arguments, signals in ((("--drain-seconds", "0.5"), 1), ((), 2)):
        with command(*arguments) as (process, url):

            def call(url: str = url) -> None:
                with pytest.raises(httpx.HTTPError):
                    httpx.post(f"{url}/v1/code", json={"code": "while 1: pass"}, timeout=30).raise_for_status()

            thread = threading.Thread(target=call)
            thread.start()
            time.sleep(1.0)
            began = time.monotonic()
            for _ in range(signals):
                process.terminate()
                time.sleep(0.2)
            process.communicate(timeout=30)
            thread.join()
            assert time.monotonic() - began < 20
            assert process.returncode == 0


@ON_POSIX
def test_what_is_stopped_at_the_end_is_told_so_and_the_end_is_in_time(tmp_path: Path) -> None:
    """Whole answers, streams of both kinds, contexts, sessions, agents, and a body that does not come."""
    endless = {"code": "import time\nwhile True: print(1, flush=True); time.sleep(0.1)"}

    def agents(code: str) -> dict[str, Any]:
        params = {"name": "run_python", "arguments": {"code": code}}
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}

    asked: list[tuple[str, dict[str, Any], str]] = [
        ("/v1/code", endless, "*/*"),
        ("/v1/code", endless, "application/x-ndjson"),
        ("/v1/code", endless, "text/event-stream"),
        ("/execute", endless, "*/*"),
        ("/run_jupyter", {"cells": [endless["code"]]}, "*/*"),
        ("/mcp", agents("while True: pass"), "application/json, text/event-stream"),
    ]
    with command("--drain-seconds", "1", "--data-dir", str(tmp_path)) as (process, url):
        path = httpx.post(f"{url}/v1/sessions", json={}, timeout=30).headers["location"]
        httpx.post(f"{url}{path}/code", json={"code": "x = 41"}, timeout=30)
        asked += [(f"{path}/code", {"code": "x = 42\nwhile True: pass"}, kind) for kind in ("*/*", "text/event-stream")]
        place = urlsplit(url)
        with ThreadPoolExecutor(10) as pool, socket.create_connection((place.hostname, place.port), 30) as slow:
            slow.sendall(b"POST /v1/code HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            slow.sendall(b"Content-Length: 9\r\n\r\n{")

            def answered(where: str, body: dict[str, Any], kind: str) -> httpx.Response:
                headers = {"Accept": kind, "Mcp-Protocol-Version": "2025-06-18"}
                return httpx.post(f"{url}{where}", json=body, headers=headers, timeout=30)

            answered("/mcp", agents("1"), "application/json, text/event-stream")  # loads what serves agents
            answers = [pool.submit(answered, *one) for one in asked]
            time.sleep(1.5)
            began = time.monotonic()
            process.terminate()
            whole, lines, messages, context, cells, agent, in_session, stream = (one.result() for one in answers)
            assert slow.recv(100).startswith(b"HTTP/1.1 503 ")
            _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 8
    assert process.returncode == 0
    for answer in (whole, cells, in_session):
        assert "ended before" in problem(answer, "draining")["detail"]
        assert answer.headers["retry-after"] == "5"
    for text in (lines.text, context.text, stream.text.replace("data: ", ""), messages.text.replace("data: ", "")):
        told = json.loads(text.strip().splitlines()[-1])
        assert (told["kind"], told["status"], "ended before" in told["detail"]) == ("problem", 503, True)
    assert '"kind":"draining"' in agent.text
    log = [json.loads(line) for line in errors.splitlines()]  # nothing else is there
    said = [line["said"] for line in log if line["event"] == "server"]
    assert said == ["Cancel 1 running task(s), timeout graceful shutdown exceeded"]  # of the body that did not come
    with command("--data-dir", str(tmp_path)) as (_, url):
        assert httpx.post(f"{url}{path}/code", json={"code": "x"}, timeout=30).json()["value"] == 41


@ON_POSIX
def test_sessions_outlive_the_server_and_stay_their_owners(tmp_path: Path) -> None:
    file = token_file(tmp_path / "t.toml", f'name = "alice"\ntoken = "{ALICE}"', f'name = "bob"\ntoken = "{BOB}"')
    arguments = ("--data-dir", str(tmp_path / "data"), "--token-file", str(file))
    of_alice, of_bob = ({"Authorization": f"Bearer {token}"} for token in (ALICE, BOB))
    with command(*arguments) as (process, url), httpx.Client(base_url=url, headers=of_alice) as alice:
        path = alice.post("/v1/sessions", json={"files": {}, "limits": {"fuel": 10**9}}).headers["location"]
        alice.post(f"{path}/code", json={"code": "x = 41\nopen('/f', 'w').write('kept')"})
        busy = alice.post("/v1/sessions", json={}).headers["location"]
        alice.post(f"{busy}/code", json={"code": "y = 1"})
        over = alice.post("/v1/sessions", json={"lifetime_seconds": 2}).headers["location"]
        code, _ = ended(process)
        assert code == 0
    kept = sorted((tmp_path / "data").glob("*.session"))
    assert len(kept) == 3
    if os.name == "posix":
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    time.sleep(max(0.0, 2.1 - (time.time() - kept[0].stat().st_mtime)))
    with command(*arguments) as (process, url), httpx.Client(base_url=url, headers=of_alice) as alice:
        problem(httpx.post(f"{url}{path}/code", json={"code": "x"}, headers=of_bob), "unknown-session")
        answer = alice.post(f"{path}/code", json={"code": "(x + 1, open('/f').read())"}).json()
        assert answer["value"] == [42, "kept"]
        told = alice.get(path).json()
        assert (told["calls"], told["limits"]["fuel"]) == (2, 10**9)
        problem(alice.post(f"{over}/code", json={"code": "1"}), "unknown-session")
        ended(process)
    with command(*arguments) as (_, url):
        for one, value in ((path, 41), (busy, 1)):
            answer = httpx.post(f"{url}{one}/code", json={"code": "x" if value == 41 else "y"}, headers=of_alice)
            assert answer.json()["value"] == value


def test_sessions_of_agents_and_contexts_outlive_the_server_by_name(tmp_path: Path) -> None:
    def agent(client: httpx.Client, code: str) -> Any:
        arguments = {"code": code, "session": "mine"}
        params = {"name": "run_python", "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-06-18"}
        answer = client.post("/mcp", json=body, headers=headers)
        line = next(line for line in answer.text.splitlines() if line.startswith("data: {"))
        return json.loads(line.removeprefix("data: "))["result"]["structuredContent"]

    def context(client: httpx.Client, code: str, name: str | None) -> Any:
        told = client.post("/execute", json={"code": code, "context_id": name}).text.splitlines()
        return json.loads(told[-1]).get("text")

    options: dict[str, Any] = {"data_directory": tmp_path, "tokens": tokens(tmp_path)}
    with running(**options) as server, server.client(ALICE) as alice:
        assert agent(alice, "x = 'of the agent'")["session_is_new"]
        context(alice, "x = 'of the default one'", None)
        made = alice.post("/contexts", json={"cwd": "/work"}).json()
        context(alice, "x = 'of the other one'", made["id"])
        assert alice.post(f"/contexts/{made['id']}/restart").status_code == 200
        context(alice, "y = 'begun again'", made["id"])
    with running(**options) as server, server.client(ALICE) as alice, server.client(BOB) as bob:
        assert agent(bob, "x")["error"]["exception_name"] == "NameError"
        assert bob.get("/contexts").json() == []
        problem(bob.post("/execute", json={"code": "y", "context_id": made["id"]}), "unknown-session")
        found = agent(alice, "x")
        assert (found["value"], found["session_is_new"]) == ("of the agent", False)
        contexts = {one["id"]: one["cwd"] for one in alice.get("/contexts").json()}
        assert contexts == {"default": "/home/user", made["id"]: "/work"}
        assert context(alice, "x", None) == "of the default one"
        assert context(alice, "y", made["id"]) == "begun again"
        assert len(alice.get("/v1/sessions").json()["sessions"]) == 3
        assert alice.delete(f"/contexts/{made['id']}").status_code == 200
    with running(**options) as server, server.client(ALICE) as alice:
        problem(alice.post("/execute", json={"code": "y", "context_id": made["id"]}), "unknown-session")


def test_a_kept_session_is_there_for_all_who_ask_and_after_a_refusal(tmp_path: Path) -> None:
    with running(data_directory=tmp_path) as server, server.client() as client:
        path = client.post("/v1/sessions", json={}).headers["location"]
        client.post(f"{path}/code", json={"code": "x = 41"})
    with running(data_directory=tmp_path, concurrency=1, queue_seconds=0.3) as server, server.client() as client:
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(httpx.post, f"{server.url}/v1/code", json={"code": "import time; time.sleep(1.5)"})
            while not server.app.admission.running:
                time.sleep(0.01)
            problem(client.get(path), "queue-full")
            other.result()
        with ThreadPoolExecutor(6) as pool:
            answers = [*pool.map(lambda _: httpx.get(f"{server.url}{path}", timeout=30), range(6))]
        assert [answer.status_code for answer in answers] == [200] * 6
        assert client.post(f"{path}/code", json={"code": "x + 1"}).json()["value"] == 42


def test_two_servers_do_not_share_a_data_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(data_directory=tmp_path):
        assert "another server uses it" in refused(capsys, "--port", "0", "--data-dir", str(tmp_path))


def test_files_of_others_in_the_data_directory_harm_nothing(tmp_path: Path) -> None:
    for name, data in {
        "a.session": b"", "b" * 24 + ".session": b"\xff" * 100_000, "c" * 24 + ".session": b"{}\nx", "notes.txt": b"x",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    with running(data_directory=tmp_path, tokens=tokens(tmp_path)) as server, server.client(ALICE) as client:
        problem(client.get("/v1/sessions/" + "b" * 24), "unknown-session")
        assert client.post("/v1/code", json={"code": "1"}).json()["value"] == 1
    assert (tmp_path / "notes.txt").read_bytes() == b"x"


def test_a_kept_session_that_was_damaged_is_refused(tmp_path: Path) -> None:
    with running(data_directory=tmp_path, tokens=tokens(tmp_path)) as server, server.client(ALICE) as client:
        path = client.post("/v1/sessions", json={}).headers["location"]
        client.post(f"{path}/code", json={"code": "x = 1"})
    (kept,) = tmp_path.glob("*.session")
    data = bytearray(kept.read_bytes())
    data[-100] ^= 1
    kept.write_bytes(data)
    with running(data_directory=tmp_path, tokens=tokens(tmp_path)) as server, server.client(ALICE) as client:
        problem(client.post(f"{path}/code", json={"code": "x"}), "invalid-body")
        problem(client.post(f"{path}/code", json={"code": "x"}), "unknown-session")
