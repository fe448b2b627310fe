"""MCP at ``/mcp``: calls of agents, held to the same limits, places and budgets as those of ``/v1``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from wasm_sandbox import AsyncSandbox, CodeResult, SandboxError, Tool, ToolExecutionResult
from wasm_sandbox.mcp import Endpoint, Program, Refused, Service
from wasm_sandbox.serve.bodies import JSON, until_over
from wasm_sandbox.serve.calls import Call, Desk
from wasm_sandbox.serve.held import Held, Sessions
from wasm_sandbox.serve.problems import Problem, problem_of
from wasm_sandbox.serve.routes import images_of
from wasm_sandbox.serve.shapes import SessionShape
from wasm_sandbox.serve.shelf import Alias
from wasm_sandbox.serve.tokens import DEFAULT_IMAGE, Client
from wasm_sandbox.serve.visits import KEY, Visit

MAX_BODY_BYTES = 4 << 20
"""Largest request: agents write programs, and the SDK reads a request on the event loop."""
LIFETIME_SECONDS = 86_400.0


class Agents:
    """Answers to ``POST /mcp``.

    Args:
        desk: what all handlers share.
        sessions: sessions.
    """

    def __init__(self, desk: Desk, sessions: Sessions) -> None:
        service = Service(_Calls(desk, sessions), has_stored_tools=desk.settings.mcp_tools)
        self._desk, self._endpoint = desk, Endpoint(service, MAX_BODY_BYTES)
        self._over, self._begun = asyncio.Event(), asyncio.Event()
        self._life = asyncio.ensure_future(self._live())

    async def _live(self) -> None:
        async with self._endpoint.life():
            self._begun.set()
            await self._over.wait()

    async def close(self) -> None:
        """End it, and what is still under way."""
        self._over.set()
        await asyncio.wait((self._life,))

    async def answer(self, request: Request) -> Response:
        """Answer to a request, whose body is read here, within the bounds of all bodies.

        Raises:
            Problem: if it may not be read.
            HungUp: if the client hung up.
        """
        body = await self._desk.bodies.read(request, JSON, MAX_BODY_BYTES)
        await self._begun.wait()
        return _Handed(self._endpoint, body)


class _Handed(Response):
    """Answer that the endpoint gives, to a request whose body was read."""

    def __init__(self, endpoint: Endpoint, body: bytes) -> None:
        super().__init__()
        self._endpoint, self._whole = endpoint, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = [{"type": "http.request", "body": self._whole, "more_body": False}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        await self._endpoint(scope, receive_again, send)


# Guarantees: a name stands for one session of its client, also if several calls begin it at once; nothing of one client
# is found by another. Locks: none; it is used on the event loop only, and nothing is awaited between a look-up and the
# change that follows from it.
class _Calls:
    """Calls of agents, as `wasm_sandbox.mcp.Calls` wants them made."""

    def __init__(self, desk: Desk, sessions: Sessions) -> None:
        self._desk, self._sessions = desk, sessions
        self._named: dict[tuple[Client, str], asyncio.Task[tuple[Held, bool]]] = {}

    def box(self, scope: Mapping[str, Any]) -> AsyncSandbox:
        """Sandbox that a client is told of: with its limits."""
        return AsyncSandbox(limits=_visit(scope).client.within(None))

    async def images(self, scope: Mapping[str, Any]) -> Sequence[str | None]:
        """Names of its images, and None if the default one is among them."""
        names = [image.name for image in await images_of(_visit(scope).client)]
        return [*names, None] if DEFAULT_IMAGE in names else names

    async def run_code(self, scope: Mapping[str, Any], program: Program, **more: Any) -> tuple[CodeResult, bool]:
        """Run a program.

        Raises:
            Refused: if it is not admitted.
        """
        visit = _visit(scope)
        with self._in_words(visit):
            if program.session is None:
                box, limits = self._desk.box_of(visit.client, program.image, visit.client.within(None))
                async with self._desk.counted(visit, Call("mcp", program.image, limits)) as counted:
                    run = box.run_code(program.code, program.inputs, **more)
                    counted.result = result = await until_over(visit, run)
                    return result, False
            held, is_new = await self._session(visit.client, program.session, program.image)
            call = Call("mcp", held.image, held.limits)
            async with self._sessions.using(held), self._desk.counted(visit, call) as counted:
                run = held.session.run_code(program.code, program.inputs, **more)
                counted.result = result = await until_over(visit, run)
                held.calls += 1
                return result, is_new

    async def run_tool(
        self, scope: Mapping[str, Any], tool: Tool, args: dict[str, Any], user: Any, **more: Any
    ) -> ToolExecutionResult:
        """Run a stored tool, with the variables stored for it.

        Raises:
            Refused: if it is not admitted.
        """
        visit = _visit(scope)
        with self._in_words(visit):
            box, limits = self._desk.box_of(visit.client, None, visit.client.within(None))
            async with self._desk.counted(visit, Call("mcp", None, limits)) as counted:
                run = box.run_tool(tool, args, user=user, tool_id=tool.id, **more)
                counted.result = result = await until_over(visit, run)
                return result

    async def reset(self, scope: Mapping[str, Any], session: str) -> None:
        """Forget a session.

        Raises:
            Refused: if there is none of the name.
        """
        self._forget_closed()
        client = _visit(scope).client
        making = self._named.pop((client, session), None)
        with self._in_words(_visit(scope)):
            held = await self._sessions.called(client, _alias(session))
            if making is not None:
                held, _ = await asyncio.shield(making)
            if held is not None:
                await self._sessions.close(held)
                return
        raise Refused("unknown_session", f"there is no session {session!r}: it was never begun, or its time is over")

    async def warm(self) -> None:
        """Nothing: the server is warm, or its probe makes it so."""

    async def close(self) -> None:
        """Nothing: the server puts sessions away."""

    async def _session(self, client: Client, name: str, image: str | None) -> tuple[Held, bool]:
        self._forget_closed()
        making = self._named.get((client, name))
        if making is None:
            making = asyncio.ensure_future(self._begin(client, name, image))
            self._named[client, name] = making
            held, is_new = await asyncio.shield(making)
        else:
            held, is_new = (await asyncio.shield(making))[0], False
        if image is not None and image != (held.image or DEFAULT_IMAGE):
            raise Refused("bad_arguments", f"image: the session {name} is one of {held.image or DEFAULT_IMAGE}")
        return held, is_new

    async def _begin(self, client: Client, name: str, image: str | None) -> tuple[Held, bool]:
        """Session of a name, and whether it is a new one, and none of an earlier server."""
        if (held := await self._sessions.called(client, _alias(name))) is not None:
            return held, False
        held = await self._sessions.create(client, SessionShape(image=image, lifetime_seconds=LIFETIME_SECONDS))
        held.alias = _alias(name)
        return held, True

    def _forget_closed(self) -> None:
        for key in [key for key, making in self._named.items() if _is_over(making)]:
            del self._named[key]

    @contextmanager
    def _in_words(self, visit: Visit) -> Iterator[None]:
        """Tell an agent of a problem in a tool result, where ``/v1`` has an answer of its own; it counts as there."""
        try:
            yield
        except (Problem, SandboxError) as error:
            problem = cast(Problem, problem_of(error))
            visit.problem = problem.name
            self._desk.metrics.refused(problem.name)
            wait = problem.headers.get("Retry-After")
            words = f"{problem.detail} (in {wait} seconds)" if wait else problem.detail
            raise Refused(problem.name.replace("-", "_"), words) from None


def _alias(name: str) -> Alias:
    return Alias(protocol="mcp", name=name)


def _is_over(making: asyncio.Task[tuple[Held, bool]]) -> bool:
    if not making.done():
        return False
    return making.cancelled() or making.exception() is not None or making.result()[0].session.is_closed


def _visit(scope: Mapping[str, Any]) -> Visit:
    return cast(Visit, scope[KEY])
