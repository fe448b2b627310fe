"""Bad input: each a clear answer, of the documented kind, which names what is wrong and never a value."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.servers import ADD, Running, command, running
from wasm_sandbox.serve.problems import MEDIA_TYPE, TITLES, TYPE

JSON = {"Content-Type": "application/json"}
HEAD = b"POST /v1/code HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def problem(answer: httpx.Response, name: str) -> dict[str, Any]:
    """The problem that an answer is, of this name."""
    assert answer.headers["content-type"] == MEDIA_TYPE, answer.text
    document: dict[str, Any] = answer.json()
    assert (document["type"], document["status"], document["title"]) == (TYPE + name, *TITLES[name])
    assert answer.status_code == document["status"]
    assert document["detail"]
    return document


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{]", b"\xff\xfe", b"'a'", b'{"code": "1"} x', b"[" * 100_000, b'{"code": "\x00"}', b"nul"]
)
def test_what_is_no_json_is_told_so(client: httpx.Client, body: bytes) -> None:
    found = problem(client.post("/v1/code", content=body, headers=JSON), "bad-request")
    assert found["kind"] == "bad_arguments"


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"', "true"])
def test_what_is_no_object_is_told_so(client: httpx.Client, body: str) -> None:
    assert "object" in problem(client.post("/v1/code", content=body, headers=JSON), "invalid-body")["detail"]


@pytest.mark.parametrize(
    ("path", "body", "at"),
    [
        ("/v1/code", {}, ["code"]),
        ("/v1/code", {"code": 1}, ["code"]),
        ("/v1/code", {"code": ["x"]}, ["code"]),
        ("/v1/code", {"code": "1", "cod": 2}, ["cod"]),
        ("/v1/code", {"code": "1", "inputs": []}, ["inputs"]),
        ("/v1/code", {"code": "1", "limits": {"timeout_seconds": "3"}}, ["limits", "timeout_seconds"]),
        ("/v1/code", {"code": "1", "limits": {"fuel": True}}, ["limits", "fuel"]),
        ("/v1/code", {"code": "1", "limits": {"fuel": 0}}, ["limits", "fuel"]),
        ("/v1/code", {"code": "1", "limits": {"feul": 1}}, ["limits", "feul"]),
        ("/v1/code", {"code": "1", "env": {"A": 1}}, ["env", "A"]),
        ("/v1/code", {"code": "1", "files": {"/a": "not base64!"}}, ["files", "/a"]),
        ("/v1/code", {"code": "1", "image": 3}, ["image"]),
        ("/v1/code", {"code": "1", "network": ["example.com"]}, ["network"]),
        ("/v1/code", {"code": "1", "mounts": {"/": "/"}}, ["mounts"]),
        ("/v1/run", {"source": ADD, "args": [1, 2]}, ["args"]),
        ("/v1/run", {"args": {}}, ["source"]),
        ("/v1/sessions", {"idle_seconds": 0}, ["idle_seconds"]),
        ("/v1/sessions", {"idle_seconds": "5"}, ["idle_seconds"]),
        ("/v1/sessions", {"lifetime_seconds": 1e9}, ["lifetime_seconds"]),
    ],
)
def test_a_field_that_is_wrong_is_named(client: httpx.Client, path: str, body: dict[str, Any], at: list[str]) -> None:
    found = problem(client.post(path, json=body), "invalid-body")
    assert at in [fault["at"] for fault in found["faults"]]
    assert at[-1] in found["detail"]


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/run", {"source": "def"}, "parse"),
        ("/v1/run", {"source": "x = 1"}, "function"),
        ("/v1/run", {"source": ADD, "name": "sub"}, "sub"),
        ("/v1/code", {"code": "1", "env": {"": "x"}}, "environment"),
        ("/v1/code", {"code": "1", "env": {"A=B": "x"}}, "environment"),
        ("/v1/code", {"code": "1", "files": {"relative": ""}}, "relative"),
        ("/v1/code", {"code": "1", "files": {"/a/../b": ""}}, "/a/../b"),
    ],
)
def test_what_the_library_refuses_is_told_in_its_words(
    client: httpx.Client, path: str, body: dict[str, Any], word: str
) -> None:
    assert word in problem(client.post(path, json=body), "invalid-body")["detail"]


def test_no_value_is_in_a_problem(client: httpx.Client) -> None:
    answer = client.post("/v1/code", json={"code": {"k": "hush"}, "env": {"A": ["hush"]}, "files": {"/a": "hush!"}})
    problem(answer, "invalid-body")
    assert "hush" not in answer.text


def test_arguments_that_do_not_fit_a_tool_are_a_result(client: httpx.Client) -> None:
    answer = client.post("/v1/run", json={"source": ADD, "args": {"a": "x", "b": 1}})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (200, "bad_arguments")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_of_another_type_is_refused(client: httpx.Client, kind: str) -> None:
    """Which a page of another site could send without asking first."""
    problem(client.post("/v1/code", content='{"code": "1"}', headers={"Content-Type": kind}), "unsupported-media-type")


def test_a_compressed_body_is_refused(client: httpx.Client) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    problem(client.post("/v1/code", content=b"\x1f\x8b", headers=headers), "unsupported-media-type")


def test_what_is_not_there_is_told_so(client: httpx.Client) -> None:
    problem(client.get("/v2"), "not-found")
    answer = client.put("/v1/code", json={"code": "1"})
    problem(answer, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "image", ["nowhere", "../../etc/passwd", "a" * 200, "\ud800".encode("utf-8", "replace").decode()]
)
def test_an_image_that_is_not_there_is_told_so(client: httpx.Client, image: str) -> None:
    problem(client.post("/v1/code", json={"code": "1", "image": image}), "unknown-image")


@pytest.mark.parametrize("verb", ["code", "run", "fork", "checkpoint", "rollback", "dump"])
def test_a_session_that_is_not_there_is_told_so(client: httpx.Client, verb: str) -> None:
    body = {"code": {"code": "1"}, "run": {"source": ADD}, "rollback": {"point": "x"}}.get(verb)
    for name in ("nobody", "%2e%2e%2fserve.lock", "a" * 5000):
        answer = client.post(f"/v1/sessions/{name}/{verb}", json=body)
        problem(answer, "not-found" if "2f" in name else "unknown-session")


@pytest.mark.parametrize(
    "blob", [b"", b"x", b"\x00" * 100_000, base64.b64decode(b"gASVBQAAAAAAAACMAVSULg=="), b"wasm-sandbox"]
)
def test_bytes_that_are_no_session_are_refused(client: httpx.Client, blob: bytes) -> None:
    answer = client.post("/v1/sessions/load", content=blob, headers={"Content-Type": "application/octet-stream"})
    problem(answer, "invalid-body")
    assert client.get("/v1/sessions").json() == {"sessions": []}


@pytest.mark.parametrize(
    "query",
    [
        "idle_seconds=x",
        "idle_seconds=0",
        "lifetime_seconds=inf",
        "image=",
        "idle_second=5",
        "limits=1",
        "x",
        "idle_seconds=5&idle_seconds=6",
    ],
)
def test_a_query_that_is_wrong_is_named(client: httpx.Client, query: str) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    answer = client.post(f"/v1/sessions/load?{query}", content=b"x", headers=headers)
    assert query.partition("=")[0] in problem(answer, "invalid-body")["detail"]


# --- Sizes and times ------------------------------------------------------------------------------------


def spoken(server: Running, data: bytes, *, until: float = 10.0) -> bytes:
    """What the server answers to these bytes, until it closes the connection."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=until) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.long
def test_a_body_larger_than_allowed_is_refused_before_it_is_read() -> None:
    with running(body_bytes=1000) as server:
        head = HEAD + b"Content-Length: %d\r\n\r\n"
        for size in (1001, 10**18):
            answer = spoken(server, head % size)  # nothing of it is sent
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close" in answer.lower()
        with server.client() as client:
            problem(client.post("/v1/code", json={"code": "#" * 2000}), "body-too-large")
            pieces = (b" " * 100 for _ in range(1000))
            problem(client.post("/v1/code", content=pieces, headers=JSON), "body-too-large")
            for size in (10**5, 10**6):  # the answer is not lost, though not all of it was read
                problem(
                    client.post("/v1/code", content=b" " * size, headers={"Content-Type": "text/plain"}),
                    "unsupported-media-type",
                )
            fitting = json.dumps({"code": "1"}).ljust(1000)
            assert client.post("/v1/code", content=fitting, headers=JSON).status_code == 200
        assert max(line.get("bytes_in", 0) for line in server.log) <= 1000


@pytest.mark.long
def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    with running(body_seconds=0.3) as server:
        head = HEAD + b"Content-Length: 50\r\n\r\n{"
        assert spoken(server, head).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"POST /v1/code HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_come_ends_the_connection(head: bytes) -> None:
    with running(head_seconds=0.3) as server:
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert spoken(server, head) == b""
        assert time.monotonic() - began < 5


def test_bodies_together_have_a_bound() -> None:
    with running(body_bytes=1000, bodies_bytes=1500) as server, server.client() as client:
        place = urlsplit(server.url)
        head = HEAD + b"Content-Length: 1000\r\n\r\n"
        with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
            connection.sendall(head + b" " * 999)
            time.sleep(0.3)
            answer = client.post("/v1/code", content=json.dumps({"code": "1"}).ljust(1000), headers=JSON)
            problem(answer, "overloaded")
            assert answer.headers["retry-after"] == "1"
        time.sleep(0.3)
        answer = client.post("/v1/code", content=json.dumps({"code": "1"}).ljust(1000), headers=JSON)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 5000, b"GET\r\n\r\n", b"X" * 200_000, b"PRI * HTTP/2.0\r\n\r\nSM"],
)
def test_garbage_is_refused_or_met_with_silence(server: Running, garbage: bytes) -> None:
    try:
        answer = spoken(server, garbage + b"\r\n\r\n", until=20)
    except (ConnectionResetError, BrokenPipeError):
        answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    with server.client() as client:
        assert client.get("/healthz").text == "alive\n"


# --- Browsers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", ""])
def test_a_name_that_points_here_is_not_ours(client: httpx.Client, host: str) -> None:
    """DNS rebinding: a page's own name, which its owner let point at this machine."""
    problem(client.post("/v1/code", json={"code": "1"}, headers={"Host": host}), "misdirected")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "file://", "http://[", "x", ""]
)
def test_pages_of_other_sites_are_refused(client: httpx.Client, origin: str) -> None:
    problem(client.post("/v1/code", json={"code": "1"}, headers={"Origin": origin}), "forbidden-origin")


def test_the_page_of_the_server_itself_is_not(server: Running, client: httpx.Client) -> None:
    answer = client.post("/v1/code", json={"code": "1"}, headers={"Origin": server.url})
    assert answer.json()["value"] == 1


@pytest.mark.long
def test_others_are_answered_while_a_large_body_is_parsed() -> None:
    """Its last field is wrong, so that nothing is run."""
    large = b'{"code": "1", "inputs": {"a": [' + b"[]," * 1_000_000 + b'1]}, "wrong": 1}'
    headers = {"Content-Type": "application/json"}
    with command(stderr=subprocess.DEVNULL) as (_, url), httpx.Client(base_url=url, timeout=60) as client:
        times: list[float] = []
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            parsed = pool.submit(httpx.post, f"{url}/v1/code", content=large, headers=headers, timeout=60)
            while not parsed.done():
                asked = time.monotonic()
                assert client.get("/healthz").status_code == 200
                times.append(time.monotonic() - asked)
            seconds = time.monotonic() - began
        assert problem(parsed.result(), "invalid-body")["faults"][0]["at"] == ["wrong"]
        assert max(times) < seconds / 2  # one of them took as long as all of it
