"""The server: uvicorn with bounds on what slow clients may hold, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from wasm_sandbox.web.addresses import address_of

KEEP_ALIVE_SECONDS = 15
MAX_HEAD_BYTES = 64 << 10
MIN_END_SECONDS = 1
"""Least time for requests that are still under way when the application has drained."""
MIN_READ_BYTES = 64 << 10
"""Least that a client takes of what waits for it in `Bounds.write_seconds`."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What clients may hold of a server."""

    connections: int = 1000
    """Most connections."""
    head_seconds: float = 10.0
    """Longest time in which the head of a request comes."""
    body_seconds: float = 40.0
    """Longest time in which its body comes, whatever the application does."""
    write_seconds: float = 30.0
    """Time in which a client takes 64 KiB of what waits for it, or all of it."""
    end_seconds: float = 30.0
    """Longest time that requests under way have once the server ends, its draining included."""


def _protocol(bounds: Bounds) -> type[H11Protocol]:
    """Protocol of connections that ends those whose client is too slow.

    uvicorn itself waits without end for a request, and for a client that takes nothing.
    """

    class Bounded(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _body: asyncio.TimerHandle | None = None
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
            self._expect_body()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer("_head")
            self._stop_timer("_body")
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
            self._write = self.loop.call_later(bounds.write_seconds, self._look_at_reader, waiting)

        def _look_at_reader(self, waited: int) -> None:
            if waited - self.transport.get_write_buffer_size() < MIN_READ_BYTES:
                self.transport.abort()
            else:
                self._expect_reading()

        def _is_between(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _stop_timer(self, name: Literal["_head", "_body", "_write"]) -> None:
            timer: asyncio.TimerHandle | None = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

        def _expect_head(self) -> None:
            self._head = self.loop.call_later(bounds.head_seconds, self.transport.abort)

        def _expect_body(self) -> None:
            if self._is_between() or not self.cycle.more_body:
                self._stop_timer("_body")
            elif self._body is None:
                self._body = self.loop.call_later(bounds.body_seconds, self.transport.abort)

    return Bounded


class Server(uvicorn.Server):
    """Server that drains at a first signal, and ends at once at a second one.

    Args:
        app: application (ASGI).
        bounds: what clients may hold.
        drain: waited for before connections are closed.
        ready: called with the server's address when it listens.
    """

    def __init__(
        self,
        app: Any,
        bounds: Bounds,
        drain: Callable[[], Awaitable[object]] | None = None,
        ready: Callable[[str], object] | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_protocol(bounds),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=bounds.connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(MIN_END_SECONDS, round(bounds.end_seconds)),
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        super().__init__(config)
        self._drain_app, self._ready, self._end_seconds = drain, ready, bounds.end_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and self._ready is not None and sockets:
            self._ready(address_of(sockets[0]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.end()

    def end(self) -> None:
        """Let requests under way end, and then the server; at a second time at once. From any thread."""
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
        if self._drain_app is not None:
            began = time.monotonic()
            await self._drain_app()
            left = math.ceil(self._end_seconds - (time.monotonic() - began))
            self.config.timeout_graceful_shutdown = max(MIN_END_SECONDS, left)
        self.should_exit = True
