"""The server: uvicorn with bounds on what slow clients may hold, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from types import FrameType
from typing import Literal

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from wasm_sandbox import HostError
from wasm_sandbox.serve.app import App
from wasm_sandbox.serve.settings import Settings
from wasm_sandbox.serve.visits import Log

KEEP_ALIVE_SECONDS = 15
BACKLOG = 2048
MAX_HEAD_BYTES = 64 << 10
MIN_READ_BYTES = 64 << 10
"""Least that a client takes of what waits for it in `Settings.write_seconds`."""


def _protocol(settings: Settings) -> type[H11Protocol]:
    """Protocol of connections that ends those whose client is too slow.

    uvicorn itself waits without end for the head of a request, and for a client that takes nothing.
    """

    class Bounded(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _write: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            # Whatever is not taken at once is waited for, so that none is forgotten in a buffer.
            transport.set_write_buffer_limits(high=0)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            if self._head is None and self._is_between():
                self._expect_head()
            super().data_received(data)
            if not self._is_between():
                self._stop_timer("_head")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer("_head")
            self._stop_timer("_write")
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._write is None:
                self._expect_reading()

        def resume_writing(self) -> None:
            self._stop_timer("_write")
            super().resume_writing()

        def _expect_reading(self) -> None:
            waiting = self.transport.get_write_buffer_size()
            self._write = self.loop.call_later(settings.write_seconds, self._look_at_reader, waiting)

        def _look_at_reader(self, waited: int) -> None:
            if waited - self.transport.get_write_buffer_size() < MIN_READ_BYTES:
                self.transport.abort()
            else:
                self._expect_reading()

        def _is_between(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _stop_timer(self, name: Literal["_head", "_write"]) -> None:
            timer: asyncio.TimerHandle | None = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

        def _expect_head(self) -> None:
            self._head = self.loop.call_later(settings.head_seconds, self.transport.abort)

    return Bounded


class Server(uvicorn.Server):
    """Server that drains at a first signal, and ends at once at a second one.

    Args:
        app: application.
        ready: called with the server's address when it listens.
    """

    def __init__(self, app: App, ready: Callable[[str], object] | None = None) -> None:
        settings = app.settings
        config = uvicorn.Config(
            app,
            http=_protocol(settings),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        super().__init__(config)
        self._app, self._ready = app, ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and self._ready is not None and sockets:
            self._ready(_address(sockets[0]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.end()

    def end(self) -> None:
        """Let calls under way end, and then the server; at a second time at once. From any thread."""
        if self._loop is None:  # not begun yet
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        await self._app.drain()
        self.should_exit = True


def _address(listening: socket.socket) -> str:
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings, *, log: Log | None = None, ready: Callable[[str], object] | None = None) -> None:
    """Serve until a signal ends it: calls under way end, new ones get 503, sessions are put away.

    Args:
        settings: settings.
        log: log; by default to standard error.
        ready: called with the server's address when it listens.

    Raises:
        HostError: if the address cannot be listened at.
        StoreError: if the data directory cannot be used.
    """
    app = App(settings, log)
    try:
        with listening(settings) as listens:
            Server(app, ready).run([listens])
    finally:
        app.sessions.close_shelf()


def listening(settings: Settings) -> socket.socket:
    """Socket that listens, for `Server.run`.

    Raises:
        HostError: if it cannot.
    """
    host = settings.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )[0]
        # With its protocol, or asyncio leaves Nagle's algorithm on, which holds answers up for 40 ms.
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(settings, error) from error
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _cannot_listen(settings, error) from error
    return made


def _cannot_listen(settings: Settings, error: OSError) -> HostError:
    return HostError(
        f"{settings.host} port {settings.port} cannot be listened at: {error.strerror or error}; "
        "name another --host or --port"
    )
