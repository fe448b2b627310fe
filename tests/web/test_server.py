"""The server that all of ours are: what slow clients may hold of it, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wasm_sandbox.web import Bounds, Server, listen

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
SOON = 20.0
"""Seconds after which a test gives up; a server lets go long before."""


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Application that reads a body, and answers with a megabyte for each of its bytes."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (size << 20))]})
    for n in range(size):
        await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": n < size - 1})


@contextmanager
def running(drain: Any = None, **bounds: Any) -> Iterator[tuple[Server, int]]:
    """A server in a thread, and its port."""
    begun = threading.Event()
    server = Server(echo, Bounds(**{"end_seconds": 1.0, **bounds}), drain, lambda _: begun.set())
    with listen("localhost", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert begun.wait(SOON)
            yield server, listening.getsockname()[1]
        finally:
            server.end()
            thread.join(SOON)
    assert not thread.is_alive()


def received(connection: socket.socket) -> bytes:
    """All that comes, until the server lets go."""
    connection.settimeout(SOON)
    data = b""
    try:
        while part := connection.recv(1 << 20):
            data += part
    except ConnectionError:
        pass
    return data


def test_a_request_in_time_is_answered() -> None:
    with running() as (_, port), socket.create_connection(("localhost", port)) as connection:
        connection.sendall(HEAD.replace(b"10", b"2").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\nab"))
        assert len(received(connection)) > 2 << 20


@pytest.mark.parametrize("sent", [b"", b"POST", HEAD[:-2]])
def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    with running(head_seconds=0.2) as (_, port), socket.create_connection(("localhost", port)) as connection:
        connection.sendall(sent)
        assert received(connection) == b""


def test_a_body_that_does_not_come_ends_the_connection() -> None:
    with running(body_seconds=0.2) as (_, port), socket.create_connection(("localhost", port)) as connection:
        connection.sendall(HEAD + b"abc")
        assert received(connection) == b""


def test_a_body_that_comes_in_pieces_has_one_time_for_all() -> None:
    with running(body_seconds=0.5) as (_, port), socket.create_connection(("localhost", port)) as connection:
        connection.sendall(HEAD.replace(b"10", b"1000"))
        end = time.monotonic() + SOON
        with pytest.raises(ConnectionError):  # noqa: PT012 - which of them raises depends on the system
            while time.monotonic() < end:
                connection.sendall(b"a")
                time.sleep(0.05)


def test_a_client_that_takes_nothing_is_let_go() -> None:
    with running(write_seconds=0.2) as (_, port), socket.create_connection(("localhost", port)) as connection:
        connection.sendall(HEAD + b"0123456789")
        time.sleep(1.5)
        assert len(received(connection)) < 10 << 20


def test_it_drains_before_it_ends_and_ends_at_once_if_told_twice() -> None:
    drained = []

    async def drain() -> None:
        drained.append("begun")
        await asyncio.sleep(SOON)

    with running(drain) as (server, _):
        server.end()
        while not drained:
            time.sleep(0.01)
        assert not server.should_exit
        server.end()
    assert drained == ["begun"]
