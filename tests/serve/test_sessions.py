"""Sessions over HTTP: state that stays, forks, points, bytes; each its owner's alone, and none left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.test_bad_input import problem
from tests.support.servers import ADD, ALICE, BOB, Running, events, idle, running, tokens

BYTES = {"Content-Type": "application/octet-stream"}
LINES = {"Accept": "application/x-ndjson"}


@pytest.fixture
def session(client: httpx.Client) -> Iterator[str]:
    """Path of a session, which is closed after the test."""
    path = client.post("/v1/sessions", json={}).headers["location"]
    yield path
    client.delete(path)


def value(client: httpx.Client, path: str, code: str, **more: Any) -> Any:
    """Value of a program in a session."""
    answer = client.post(f"{path}/code", json={"code": code, **more})
    assert answer.json()["status"] == "success", answer.text
    return answer.json()["value"]


def test_what_a_call_leaves_the_next_one_finds(client: httpx.Client, session: str) -> None:
    assert value(client, session, "x = y + 1", inputs={"y": 41}) is None
    assert value(client, session, "x") == 42
    ran = client.post(f"{session}/run", json={"source": ADD, "args": {"a": 1, "b": 2}}).json()
    assert ran["func_return"] == 3
    told = client.get(session).json()
    assert (told["calls"], told["is_busy"], told["image"]) == (3, False, "default")


def test_a_call_of_a_session_streams_its_events(client: httpx.Client, session: str) -> None:
    value(client, session, "x = 5")
    answer = client.post(f"{session}/code", json={"code": "print(x)\ndisplay(x)\nx + 1"}, headers=LINES)
    told = events(answer.text)
    assert [event["kind"] for event in told] == ["stdout", "display", "result"]
    assert told[-1]["result"]["value"] == 6
    failed = client.post(f"{session}/code", json={"code": "print('a')\n1/0"}, headers=LINES)
    assert events(failed.text)[-1]["result"]["error"]["exception_name"] == "ZeroDivisionError"
    assert value(client, session, "x") == 5


def test_a_limit_takes_the_session_back(client: httpx.Client, session: str) -> None:
    value(client, session, "x = 1")
    answer = client.post(f"{session}/code", json={"code": "x = 2\nwhile 1: pass", "limits": {"fuel": 20_000_000}})
    assert (answer.json()["error"]["kind"], answer.json()["rolled_back"]) == ("out_of_fuel", True)
    assert value(client, session, "x") == 1


def test_a_fork_goes_on_apart(client: httpx.Client, session: str) -> None:
    value(client, session, "path = []")
    fork = client.post(f"{session}/fork")
    assert (fork.status_code, fork.json()["id"]) == (201, fork.headers["location"].rpartition("/")[2])
    twin = fork.headers["location"]
    value(client, session, "path.append('left')")
    value(client, twin, "path.append('right')")
    assert (value(client, session, "path"), value(client, twin, "path")) == (["left"], ["right"])
    assert client.delete(twin).status_code == 204
    assert value(client, session, "path") == ["left"]


def test_a_session_is_taken_back_to_a_point(client: httpx.Client, session: str) -> None:
    value(client, session, "x = 1")
    point = client.post(f"{session}/checkpoint").json()["point"]
    value(client, session, "x = 2")
    assert client.post(f"{session}/rollback", json={"point": point}).json()["points"] == [point]
    assert value(client, session, "x") == 1
    for _ in range(16):
        last = client.post(f"{session}/checkpoint").json()["point"]
    points = client.get(session).json()["points"]
    assert (len(points), points[-1], point in points) == (16, last, False)
    assert "point" in problem(client.post(f"{session}/rollback", json={"point": point}), "invalid-body")["detail"]


def test_the_bytes_of_a_session_make_another_one(client: httpx.Client, session: str) -> None:
    value(client, session, "x = [1, 2]\nopen('/tmp/kept', 'w').write('text')")
    dump = client.post(f"{session}/dump")
    assert dump.headers["content-type"] == "application/octet-stream"
    value(client, session, "x.append(3)")
    loaded = client.post("/v1/sessions/load?idle_seconds=60", content=dump.content, headers=BYTES)
    assert loaded.status_code == 201, loaded.text
    path = loaded.headers["location"]
    assert value(client, path, "x + [open('/tmp/kept').read()]") == [1, 2, "text"]
    client.delete(path)
    damaged = bytearray(dump.content)
    damaged[len(damaged) // 2] ^= 1
    problem(client.post("/v1/sessions/load", content=bytes(damaged), headers=BYTES), "invalid-body")
    other = client.post("/v1/sessions/load?image=science", content=dump.content, headers=BYTES)
    assert "image" in problem(other, "invalid-body")["detail"]


def test_a_session_that_was_closed_is_unknown(client: httpx.Client, session: str) -> None:
    assert client.delete(session).status_code == 204
    problem(client.post(f"{session}/code", json={"code": "1"}), "unknown-session")
    problem(client.delete(session), "unknown-session")


@pytest.mark.long
def test_a_session_whose_time_is_over_is_unknown(client: httpx.Client) -> None:
    path = client.post("/v1/sessions", json={"idle_seconds": 0.1}).headers["location"]
    time.sleep(1.2)  # whose time is over is closed within half a second
    problem(client.get(path), "unknown-session")


def test_a_call_is_held_to_the_limits_of_its_session(client: httpx.Client) -> None:
    path = client.post("/v1/sessions", json={"limits": {"fuel": 50_000_000}}).headers["location"]
    answer = client.post(f"{path}/code", json={"code": "1", "limits": {"fuel": 50_000_001}})
    assert "fuel" in problem(answer, "over-ceiling")["detail"]
    endless = {"code": "while 1: pass", "limits": {"timeout_seconds": 60.0}}
    assert client.post(f"{path}/code", json=endless).json()["error"]["kind"] == "out_of_fuel"
    client.delete(path)


def test_closing_a_session_stops_its_call(client: httpx.Client, server: Running, session: str) -> None:
    answers: list[httpx.Response] = []

    def call() -> None:
        with server.client() as other:
            answers.append(other.post(f"{session}/code", json={"code": "while True: pass"}))

    thread = threading.Thread(target=call)
    thread.start()
    while not client.get(session).json()["is_busy"]:
        time.sleep(0.01)
    time.sleep(0.2)
    began = time.monotonic()
    assert client.delete(session).status_code == 204
    thread.join(20)
    assert problem(answers[0], "stopped")["kind"] == "cancelled"
    assert time.monotonic() - began < 10


def test_a_client_that_hangs_up_stops_its_call_and_nothing_else(client: httpx.Client, session: str) -> None:
    value(client, session, "x = 1")
    for headers in ({}, LINES):
        with pytest.raises(httpx.ReadTimeout):
            client.post(f"{session}/code", json={"code": "x = 2\nwhile 1: pass"}, headers=headers, timeout=0.4)
        began = time.monotonic()
        assert value(client, session, "x") == 1
        assert time.monotonic() - began < 5


@pytest.mark.long
def test_a_reader_that_takes_nothing_is_let_go_and_the_guest_with_it() -> None:
    with running(write_seconds=0.5) as server, server.client() as client:
        path = client.post("/v1/sessions", json={}).headers["location"]
        code = {"code": "while True: print('x' * 10_000, flush=True)", "limits": {"fuel": 10**12}}
        for place in ("/v1/code", f"{path}/code"):
            code["limits"] = {"timeout_seconds": 60.0}
            with client.stream("POST", place, json=code, headers=LINES) as answer:
                pieces = answer.iter_raw()  # kept: without it the client hangs up
                next(pieces)
                idle(server)
        assert value(client, path, "1") == 1


def test_sessions_are_bounded_for_a_client_and_for_all(tmp_path: Path) -> None:
    with (
        running(tokens=tokens(tmp_path, alice="max_sessions = 2"), sessions=3) as server,
        server.client(ALICE) as alice,
        server.client(BOB) as bob,
    ):
        paths = [alice.post("/v1/sessions", json={}).headers["location"] for _ in range(2)]
        answer = alice.post("/v1/sessions", json={})
        problem(answer, "too-many-sessions")
        assert int(answer.headers["retry-after"]) > 0
        problem(alice.post(f"{paths[0]}/fork"), "too-many-sessions")
        assert bob.post("/v1/sessions", json={}).status_code == 201
        problem(bob.post("/v1/sessions", json={}), "too-many-sessions")
        alice.delete(paths[0])
        assert bob.post("/v1/sessions", json={}).status_code == 201


def test_a_session_of_another_token_is_unknown(tmp_path: Path) -> None:
    with running(tokens=tokens(tmp_path)) as server, server.client(ALICE) as alice, server.client(BOB) as bob:
        path = alice.post("/v1/sessions", json={}).headers["location"]
        value(alice, path, "x = 1")
        unknown = problem(bob.get("/v1/sessions/nobody"), "unknown-session")
        assert problem(bob.get(path), "unknown-session") == unknown
        for verb, body in (("code", {"code": "x"}), ("run", {"source": ADD}), ("rollback", {"point": "x"})):
            problem(bob.post(f"{path}/{verb}", json=body), "unknown-session")
        for verb in ("fork", "checkpoint", "dump"):
            problem(bob.post(f"{path}/{verb}"), "unknown-session")
        problem(bob.delete(path), "unknown-session")
        assert bob.get("/v1/sessions").json() == {"sessions": []}
        assert value(alice, path, "x") == 1

        dump = alice.post(f"{path}/dump").content
        answer = bob.post("/v1/sessions/load", content=dump, headers=BYTES)
        assert "key" in problem(answer, "invalid-body")["detail"]
        assert alice.post("/v1/sessions/load", content=dump, headers=BYTES).status_code == 201
