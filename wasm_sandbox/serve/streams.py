"""Streams: events of a run as they come, a line of JSON each (NDJSON) or as server-sent events."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wasm_sandbox import Event
from wasm_sandbox.serve.bodies import ended, until_hung_up
from wasm_sandbox.serve.problems import Problem, problem_of, server_ends
from wasm_sandbox.serve.shapes import event_json
from wasm_sandbox.serve.visits import visit_of

NDJSON, SSE = "application/x-ndjson", "text/event-stream"
HEADERS_SECONDS = 0.5
"""Longest wait for a first event, or a problem, before the answer begins."""
HEARTBEAT_SECONDS = 15.0
MAX_WAITING_BYTES = 1 << 20
EVENT_BYTES = 500

Encode = Callable[[Event], list[bytes]]


def stream_type(request: Request) -> str | None:
    """Type of the stream that a request asks for (``Accept``); None if it asks for a whole result."""
    for part in request.headers.get("accept", "").lower().split(","):
        match part.partition(";")[0].strip():
            case "application/x-ndjson":
                return NDJSON
            case "text/event-stream":
                return SSE
            case "application/json" | "*/*":
                return None
    return None


def as_line(event: Event) -> list[bytes]:
    """Event as a line of JSON."""
    return [event_json(event) + b"\n"]


def as_message(event: Event) -> list[bytes]:
    """Event as a server-sent one; JSON has no line ends, so it is one line of data."""
    return [b"event: " + event.kind.encode() + b"\ndata: " + event_json(event) + b"\n\n"]


def _problem_line(problem: Problem) -> bytes:
    return to_json({"kind": "problem", **problem.document().model_dump(mode="json", exclude={"kind"})})


class EventResponse(Response):
    """Answer that is a stream. A problem before the first event is an answer of its own, a later one the last event.

    Args:
        request: request.
        events: events; closed when the client hangs up.
        media_type: type of the stream.
        encode: event -> pieces of the body; by default those of the type.
    """

    def __init__(
        self, request: Request, events: AsyncIterator[Event], media_type: str, encode: Encode | None = None
    ) -> None:
        super().__init__(None, media_type=media_type, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._request, self._events, self._is_sse = request, events, media_type == SSE
        self._has_begun = False
        self._encode = encode or (as_message if self._is_sse else as_line)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_hung_up(self._request, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        try:
            await self._send_events(send)
        except asyncio.CancelledError:
            if not self._has_begun or not visit_of(self._request).over.is_set():
                raise
            await self._send_problem(server_ends(), send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        async with aclosing(self._events) as events:  # type: ignore[type-var]  # all of them are generators
            step = asyncio.ensure_future(anext(events, None))
            try:
                await asyncio.wait((step,), timeout=HEADERS_SECONDS)
                if step.done():
                    step.result()  # a problem is an answer of its own
                self._has_begun = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                while (event := await self._next(step, send)) is not None:
                    for piece in self._encode(event):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    step = asyncio.ensure_future(anext(events, None))
            finally:
                await ended(step)

    async def _next(self, step: asyncio.Future[Event | None], send: Send) -> Event | None:
        """Next event, with heartbeats until it comes; None after the last one."""
        while not step.done():
            await asyncio.wait((step,), timeout=HEARTBEAT_SECONDS)
            if not step.done() and self._is_sse:
                await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        try:
            return step.result()
        except Exception as error:
            problem = problem_of(error) or Problem("internal", "the server has a defect: see its log")
            await self._send_problem(problem, send)
            return None

    async def _send_problem(self, problem: Problem, send: Send) -> None:
        visit_of(self._request).problem = problem.name
        line = _problem_line(problem)
        body = b"event: problem\ndata: " + line + b"\n\n" if self._is_sse else line + b"\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})


class Gone(Exception):
    """Nobody takes the events any more: ends the run."""


# Guarantees: events are taken in their order. The guest's thread waits while more than `MAX_WAITING_BYTES` wait; the
# event loop's own thread never does. Locks: `_changed` guards all fields; nothing is called with it but the loop's
# thread-safe function.
class Listener:
    """Listener to a session's call (``on_event``), whose events are taken on an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._is_closed = False
        self._ready = asyncio.Event()

    def __call__(self, event: Event) -> None:
        size = EVENT_BYTES + len(event.text or "") + sum(len(str(part)) for part in (event.data or {}).values())
        with self._changed:
            while self._bytes > MAX_WAITING_BYTES and not self._is_closed and threading.get_ident() != self._thread:
                self._changed.wait(1.0)
            if self._is_closed:
                raise Gone
            self._waiting.append((event, size))
            self._bytes += size
        self._loop.call_soon_threadsafe(self._ready.set)

    def close(self) -> None:
        """Let nobody wait any more, and end the run."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _take(self) -> Event | None:
        with self._changed:
            if not self._waiting:
                self._ready.clear()
                return None
            event, size = self._waiting.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return event

    async def events(self, call: asyncio.Future[Any]) -> AsyncIterator[Event]:
        """Events of a call, until it has ended.

        Raises:
            Exception: what the call raises.
        """
        call.add_done_callback(lambda _: self._ready.set())
        try:
            while True:
                if (event := self._take()) is not None:
                    yield event
                elif call.done():
                    if (late := self._take()) is None:
                        break
                    yield late
                else:
                    await self._ready.wait()
            call.result()
        finally:
            self.close()
            await ended(call)
