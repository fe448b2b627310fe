"""E2B's ``/execute`` and ``/contexts``, as the clients of its code interpreter call them.

Its published schema is that of github.com/e2b-dev/code-interpreter, template/server and the Python SDK's models.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from wasm_sandbox import CodeResult, ErrorKind, Event, ToolExecutionResult
from wasm_sandbox.serve.bodies import JSON
from wasm_sandbox.serve.calls import Call
from wasm_sandbox.serve.held import Held, Sessions
from wasm_sandbox.serve.operations import Operation
from wasm_sandbox.serve.problems import Problem
from wasm_sandbox.serve.routes import Routes
from wasm_sandbox.serve.shapes import MAX_SECONDS, Environ, SessionShape, Text, writable
from wasm_sandbox.serve.shelf import Alias
from wasm_sandbox.serve.streams import NDJSON, EventResponse
from wasm_sandbox.serve.tokens import Client
from wasm_sandbox.serve.visits import visit_of

HOME = "/home/user"
DEFAULT = "default"
IDLE_SECONDS = 3600.0
TRACEBACKS = "Traceback (most recent call last):", '  File "'
"""What an error's text may begin with, in standard error."""

_FIELDS = {
    "text/plain": "text", "text/html": "html", "text/markdown": "markdown", "image/svg+xml": "svg",
    "image/png": "png", "image/jpeg": "jpeg", "application/pdf": "pdf", "text/latex": "latex",
    "application/json": "json", "application/javascript": "javascript",
}  # fmt: skip
"""MIME type -> field of a result."""


class _E2bShape(BaseModel):
    """Body of a request; as E2B does, fields that are not known are let pass."""

    model_config = ConfigDict(extra="ignore", strict=True)


class ExecuteShape(_E2bShape):
    """Body of ``/execute``."""

    code: Text
    context_id: Annotated[str, Field(max_length=100)] | None = None
    language: str | None = None
    env_vars: Environ | None = None


class ContextShape(_E2bShape):
    """Body of ``/contexts``."""

    cwd: Annotated[str, Field(max_length=4096)] | None = None
    language: str | None = None


class ContextInfo(BaseModel):
    """Context."""

    id: str
    language: str = "python"
    cwd: str = HOME


class Contexts:
    """Handlers of E2B's interface: a context is a session, and each client has one that is called ``default``.

    Args:
        routes: handlers of sessions.
        sessions: sessions.
    """

    def __init__(self, routes: Routes, sessions: Sessions) -> None:
        self._routes, self._sessions = routes, sessions
        self._desk = routes.desk

    def operations(self) -> list[Operation]:
        """What is answered here."""
        makes = ("image-forbidden", "too-many-sessions")
        of_context = ("unknown-session", "session-busy", "stopped")
        return [
            Operation(
                method="POST", path="/execute", name="e2b_execute", tag="E2B", handler=self.execute,
                takes=ExecuteShape, gives=NDJSON, problems=("over-budget", *makes, *of_context),
                summary="Run a program in a context, as E2B's code interpreter does",
            ),
            Operation(
                method="GET", path="/contexts", name="e2b_contexts", tag="E2B", handler=self.list, gives=JSON,
                summary="List contexts",
            ),
            Operation(
                method="POST", path="/contexts", name="e2b_create_context", tag="E2B", handler=self.create,
                takes=ContextShape, gives=ContextInfo, problems=makes, summary="Make a context",
            ),
            Operation(
                method="POST", path="/contexts/{context_id}/restart", name="e2b_restart_context", tag="E2B",
                handler=self.restart, gives=JSON, problems=(*makes, *of_context), summary="Restart a context",
            ),
            Operation(
                method="DELETE", path="/contexts/{context_id}", name="e2b_remove_context", tag="E2B",
                handler=self.remove, gives=JSON, problems=of_context, summary="Remove a context",
            ),
        ]  # fmt: skip

    async def execute(self, request: Request) -> Response:
        """Run a program in a context; its output, results and error as lines of JSON."""
        shape = await self._desk.bodies.read_json(request, ExecuteShape)
        if shape.context_id is not None and shape.language is not None:
            raise Problem("invalid-body", "give context_id or language, not both", kind=ErrorKind.BAD_ARGUMENTS)
        _check_language(shape.language)
        client = visit_of(request).client
        held = await self._held(client, shape.context_id or DEFAULT)
        options: dict[str, Any] = {"env": shape.env_vars}
        events = self._routes.session_events(
            request,
            held,
            Call("e2b", held.image, held.limits),
            lambda more: held.session.run_code(shape.code, **options, **more),
        )
        count = b'{"type":"number_of_executions","execution_count":%d}\n' % (held.calls + 1)
        return EventResponse(request, _without_traceback(events), NDJSON, _Lines(count))

    async def list(self, request: Request) -> Response:
        """List contexts."""
        named = self._sessions.named(visit_of(request).client, "e2b")
        found = [_info(name, directory) for name, directory in named.items()]
        return Response(to_json(found), media_type=JSON)

    async def create(self, request: Request) -> Response:
        """Make a context."""
        shape = await self._desk.bodies.read_json(request, ContextShape)
        _check_language(shape.language)
        client = visit_of(request).client
        held = await self._make(client, shape.cwd or HOME)
        held.alias = _alias(held.id)
        return Response(to_json(_info(held.id, held.directory)), media_type=JSON)

    async def restart(self, request: Request) -> Response:
        """Make a context anew, and stop what runs in it."""
        client, name = visit_of(request).client, request.path_params["context_id"]
        held = await self._held(client, name)
        await self._sessions.close(held)
        made = await self._make(client, held.directory or HOME)
        made.alias = _alias(name)
        return Response(b"null", media_type=JSON)

    async def remove(self, request: Request) -> Response:
        """Remove a context."""
        client, name = visit_of(request).client, request.path_params["context_id"]
        await self._sessions.close(await self._held(client, name))
        return Response(b"null", media_type=JSON)

    async def _held(self, client: Client, name: str) -> Held:
        """Session of a context; the default one is made when it is first asked for.

        Raises:
            Problem: if there is none.
        """
        held = await self._sessions.called(client, _alias(name))
        if held is None and name == DEFAULT:
            made = await self._make(client, HOME)
            held = await self._sessions.called(client, _alias(name))
            if held is None:
                held, made.alias = made, _alias(name)
            else:  # another request was quicker
                await self._sessions.close(made)
        if held is None:
            raise Problem("unknown-session", "there is no context of this id, or its time is over: make another one")
        return held

    async def _make(self, client: Client, directory: str) -> Held:
        shape = SessionShape(files={}, idle_seconds=IDLE_SECONDS, lifetime_seconds=MAX_SECONDS)
        held = await self._sessions.create(client, shape)
        try:
            begin = "import os as _os\n_os.makedirs(_cwd, exist_ok=True)\n_os.chdir(_cwd)\ndel _os, _cwd"
            async with self._sessions.using(held) as session:
                result = await session.run_code(begin, {"_cwd": directory})
            if result.error is not None:
                raise Problem("invalid-body", f"cwd: {result.error.message}", kind=ErrorKind.BAD_ARGUMENTS)
        except BaseException:
            await self._sessions.close(held)
            raise
        held.directory = directory
        return held


def _alias(name: str) -> Alias:
    return Alias(protocol="e2b", name=name)


def _info(name: str, directory: str | None) -> ContextInfo:
    return ContextInfo(id=name, cwd=directory or HOME)


def _check_language(language: str | None) -> None:
    if language not in {None, "python", "python3"}:
        raise Problem("invalid-body", "language: only python runs here", kind=ErrorKind.BAD_ARGUMENTS)


async def _without_traceback(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """Events without the traceback that ends standard error, which E2B has in the error only."""
    kept: Event | None = None
    async with aclosing(events) as found:  # type: ignore[type-var]  # it is a generator
        async for event in found:
            if kept is not None:
                error = None if event.result is None else event.result.error
                text = (kept.text or "").removesuffix((error and error.traceback) or "\0")
                if text:
                    yield Event(kind="stderr", text=text)
                kept = None
            if event.kind == "stderr" and any(begin in (event.text or "") for begin in TRACEBACKS):
                kept = event
            else:
                yield event


class _Lines:
    """Events as E2B's lines of JSON.

    Args:
        first: line before all others.
    """

    def __init__(self, first: bytes) -> None:
        self._first = first

    def __call__(self, event: Event) -> list[bytes]:
        first, self._first = self._first, b""
        lines = [to_json(writable(line)) + b"\n" for line in _lines(event)]
        return [first, *lines] if first else lines


def _lines(event: Event) -> list[dict[str, Any]]:
    match event.kind:
        case "stdout" | "stderr":
            return [{"type": event.kind, "text": event.text, "timestamp": time.time_ns()}]
        case "display":
            return [_result_line(event.data or {}, is_main=False)]
        case "result" if event.result is not None:
            return _end_lines(event.result)
        case _:
            return []


def _end_lines(result: CodeResult | ToolExecutionResult) -> list[dict[str, Any]]:
    lines = []
    if isinstance(result, CodeResult) and result.text is not None and result.text != "None":
        lines.append(_result_line({"text/plain": result.text}, is_main=True))
    if (error := result.error) is not None:
        lines.append(
            {
                "type": "error",
                "name": error.exception_name or str(error.kind),
                "value": error.message,
                "traceback": error.traceback or error.message,
            }
        )
    return lines


def _result_line(bundle: dict[str, Any], *, is_main: bool) -> dict[str, Any]:
    line: dict[str, Any] = {"type": "result", "is_main_result": is_main}
    extra = {}
    for kind, data in bundle.items():
        text = base64.b64encode(data).decode() if isinstance(data, bytes) else data
        if kind == "text/plain" and len(text) > 1 and text[0] == text[-1] == "'":
            text = text[1:-1]  # as E2B shows a string
        if kind == "application/json":
            text = _json_of(text)
        if kind in _FIELDS:
            line[_FIELDS[kind]] = text
        else:
            extra[kind] = text
    return {**line, "extra": extra} if extra else line


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
