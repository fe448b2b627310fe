"""Handlers of ``/v1``: tool calls, programs, sessions, images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from wasm_sandbox import CodeResult, ErrorKind, Event, SandboxError, ToolExecutionResult, images
from wasm_sandbox.serve.bodies import BYTES, JSON, until_hung_up
from wasm_sandbox.serve.calls import Call, Desk, Result
from wasm_sandbox.serve.held import Held, Sessions
from wasm_sandbox.serve.operations import Operation
from wasm_sandbox.serve.problems import Problem, invalid_body
from wasm_sandbox.serve.shapes import (
    ImageInfo,
    ImageList,
    PointInfo,
    RollbackShape,
    RunCodeShape,
    RunShape,
    SessionCodeShape,
    SessionInfo,
    SessionList,
    SessionShape,
    SessionToolShape,
    result_json,
)
from wasm_sandbox.serve.streams import EventResponse, Listener, stream_type
from wasm_sandbox.serve.tokens import DEFAULT_IMAGE, Client
from wasm_sandbox.serve.visits import visit_of

_SESSION = ("unknown-session", "session-busy", "stopped")
_SECONDS: dict[str, object] = {"type": "number", "exclusiveMinimum": 0, "maximum": 7 * 86_400}
_LOAD_QUERY: dict[str, dict[str, object]] = {
    "image": {"type": "string", "minLength": 1, "maxLength": 200},
    "idle_seconds": {**_SECONDS, "default": 900},
    "lifetime_seconds": {**_SECONDS, "default": 3600},
}


class Routes:
    """Handlers.

    Args:
        desk: what all handlers share.
        sessions: sessions.
    """

    def __init__(self, desk: Desk, sessions: Sessions) -> None:
        self.desk, self._sessions = desk, sessions

    def operations(self) -> list[Operation]:
        """What is answered here."""
        runs = ("image-forbidden", "over-ceiling", "unknown-image", "over-budget")
        of_session = ("over-ceiling", "over-budget", *_SESSION)
        path = "/v1/sessions/{session_id}"
        return [
            Operation(
                method="POST", path="/v1/run", name="run", tag="calls", handler=self.run, takes=RunShape,
                gives=ToolExecutionResult, problems=runs, streams=True,
                summary="Run a tool in a fresh guest",
            ),
            Operation(
                method="POST", path="/v1/code", name="code", tag="calls", handler=self.code, takes=RunCodeShape,
                gives=CodeResult, problems=runs, streams=True,
                summary="Run a program in a fresh guest",
            ),
            Operation(
                method="GET", path="/v1/images", name="images", tag="images", handler=self.images, gives=ImageList,
                summary="List the images that this token may use",
            ),
            Operation(
                method="POST", path="/v1/sessions", name="create_session", tag="sessions", handler=self.create,
                takes=SessionShape, gives=SessionInfo, status=201, problems=(*runs, "too-many-sessions"),
                summary="Make a session",
            ),
            Operation(
                method="GET", path="/v1/sessions", name="list_sessions", tag="sessions", handler=self.list,
                gives=SessionList, summary="List the sessions of this token that are in memory",
            ),
            Operation(
                method="POST", path="/v1/sessions/load", name="load_session", tag="sessions", handler=self.load,
                takes=BYTES, gives=SessionInfo, status=201, query=_LOAD_QUERY,
                problems=(*runs, "too-many-sessions"), summary="Make a session out of the bytes of another one",
            ),
            Operation(
                method="GET", path=path, name="session", tag="sessions", handler=self.session, gives=SessionInfo,
                problems=_SESSION, summary="Show a session",
            ),
            Operation(
                method="DELETE", path=path, name="close_session", tag="sessions", handler=self.close, status=204,
                problems=_SESSION, summary="Close a session, and stop its call",
            ),
            Operation(
                method="POST", path=f"{path}/code", name="session_code", tag="sessions", handler=self.session_code,
                takes=SessionCodeShape, gives=CodeResult, problems=of_session, streams=True,
                summary="Run a program in a session",
            ),
            Operation(
                method="POST", path=f"{path}/run", name="session_run", tag="sessions", handler=self.session_run,
                takes=SessionToolShape, gives=ToolExecutionResult, problems=of_session, streams=True,
                summary="Run a tool in a session",
            ),
            Operation(
                method="POST", path=f"{path}/fork", name="fork_session", tag="sessions", handler=self.fork,
                gives=SessionInfo, status=201, problems=(*_SESSION, "too-many-sessions"),
                summary="Make another session that is what this one is now",
            ),
            Operation(
                method="POST", path=f"{path}/checkpoint", name="checkpoint_session", tag="sessions",
                handler=self.checkpoint, gives=PointInfo, status=201, problems=_SESSION,
                summary="Make a point to which the session can be taken back",
            ),
            Operation(
                method="POST", path=f"{path}/rollback", name="rollback_session", tag="sessions",
                handler=self.rollback, takes=RollbackShape, gives=SessionInfo, problems=_SESSION,
                summary="Take the session back to a point",
            ),
            Operation(
                method="POST", path=f"{path}/dump", name="dump_session", tag="sessions", handler=self.dump,
                gives=BYTES, problems=_SESSION, summary="Give the bytes of the session as it is",
            ),
        ]  # fmt: skip

    # -- calls in guests of their own ------------------------------------------------------------

    async def run(self, request: Request) -> Response:
        """Run a tool."""
        shape, client = await self.desk.bodies.read_json(request, RunShape), visit_of(request).client
        box, limits = self.desk.box(client, shape)
        tool = await self.desk.tools.read(shape.source, shape.name)
        call = Call("tool", shape.image, limits)
        if (media_type := stream_type(request)) is not None:
            events = self._counted(request, call, lambda: box.stream_tool(tool, shape.args, shape.agent_state))
            return EventResponse(request, events, media_type)
        result = await self.desk.run(request, call, lambda: box.run_tool(tool, shape.args, shape.agent_state))
        return answer(result)

    async def code(self, request: Request) -> Response:
        """Run a program."""
        shape, client = await self.desk.bodies.read_json(request, RunCodeShape), visit_of(request).client
        box, limits = self.desk.box(client, shape)
        call = Call("code", shape.image, limits)
        if (media_type := stream_type(request)) is not None:
            events = self._counted(request, call, lambda: box.stream_code(shape.code, shape.inputs))
            return EventResponse(request, events, media_type)
        result = await self.desk.run(request, call, lambda: box.run_code(shape.code, shape.inputs))
        return answer(result)

    async def _counted(
        self, request: Request, call: Call, start: Callable[[], AsyncIterator[Event]]
    ) -> AsyncIterator[Event]:
        stream = aclosing(start())  # type: ignore[type-var]  # of streams that are closed so
        async with self.desk.counted(visit_of(request), call) as counted, stream as events:
            async for event in events:
                counted.result = event.result
                yield event

    # -- calls in sessions -----------------------------------------------------------------------

    async def session_code(self, request: Request) -> Response:
        """Run a program in a session."""
        shape = await self.desk.bodies.read_json(request, SessionCodeShape)
        held = await self._held(request)
        options: dict[str, Any] = {"limits": held.within(shape.limits), "env": shape.env}
        call = Call("session_code", held.image, options["limits"])
        return await self.in_session(
            request, held, call, lambda more: held.session.run_code(shape.code, shape.inputs, **options, **more)
        )

    async def session_run(self, request: Request) -> Response:
        """Run a tool in a session."""
        shape = await self.desk.bodies.read_json(request, SessionToolShape)
        held = await self._held(request)
        options: dict[str, Any] = {"limits": held.within(shape.limits), "env": shape.env}
        call = Call("session_tool", held.image, options["limits"])
        tool = await self.desk.tools.read(shape.source, shape.name)
        return await self.in_session(
            request,
            held,
            call,
            lambda more: held.session.run_tool(tool, shape.args, shape.agent_state, **options, **more),
        )

    async def in_session(
        self, request: Request, held: Held, call: Call, start: Callable[[dict[str, Any]], Awaitable[Result]]
    ) -> Response:
        """Make a call in a session: its result, or its events if the client asks for a stream."""
        if (media_type := stream_type(request)) is not None:
            return EventResponse(request, self.session_events(request, held, call, start), media_type)

        async def work() -> Any:
            async with self._sessions.using(held), self.desk.counted(visit_of(request), call) as counted:
                counted.result = await start({})
                held.calls += 1
                return counted.result

        return answer(await until_hung_up(request, work()))

    async def session_events(
        self, request: Request, held: Held, call: Call, start: Callable[[dict[str, Any]], Awaitable[Result]]
    ) -> AsyncIterator[Event]:
        """Events of a call in a session."""
        async with self._sessions.using(held), self.desk.counted(visit_of(request), call) as counted:
            listener = Listener()
            task = asyncio.ensure_future(start({"on_event": listener}))
            async with aclosing(listener.events(task)) as events:  # type: ignore[type-var]  # it is a generator
                async for event in events:
                    counted.result = event.result
                    yield event
            held.calls += 1

    # -- sessions --------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """Make a session."""
        shape = await self.desk.bodies.read_json(request, SessionShape)
        return _made(await self._sessions.create(visit_of(request).client, shape))

    async def load(self, request: Request) -> Response:
        """Make a session out of bytes."""
        client = visit_of(request).client
        shape = self._load_shape(request)
        blob = await self.desk.bodies.read(request, BYTES)
        return _made(await self._sessions.load(client, shape, blob))

    def _load_shape(self, request: Request) -> SessionShape:
        given: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            if name not in _LOAD_QUERY or name in given:
                known = ", ".join(_LOAD_QUERY)
                raise Problem(
                    "invalid-body", f"{name[:100]}: the query may have {known}, each once", kind=ErrorKind.BAD_ARGUMENTS
                )
            given[name] = value
        try:
            # Texts of a query: numbers are read, and checked as in a body.
            shape = SessionShape.model_validate(given, strict=False)
        except ValidationError as error:
            raise invalid_body(error) from None
        return shape.model_copy(update={"files": {}})

    async def list(self, request: Request) -> Response:
        """List sessions."""
        held = self._sessions.of(visit_of(request).client)
        return _json(SessionList(sessions=[one.info() for one in held]))

    async def session(self, request: Request) -> Response:
        """Show a session."""
        return _json((await self._held(request)).info())

    async def close(self, request: Request) -> Response:
        """Close a session."""
        await self._sessions.close(await self._held(request))
        return Response(status_code=204)

    async def fork(self, request: Request) -> Response:
        """Fork a session."""
        held = await self._held(request)
        async with self._sessions.using(held):
            return _made(await self._sessions.fork(held))

    async def checkpoint(self, request: Request) -> Response:
        """Make a point."""
        held = await self._held(request)
        async with self._sessions.using(held):
            return _json(PointInfo(point=await self._sessions.checkpoint(held)), 201)

    async def rollback(self, request: Request) -> Response:
        """Take a session back."""
        shape = await self.desk.bodies.read_json(request, RollbackShape)
        held = await self._held(request)
        async with self._sessions.using(held):
            await self._sessions.rollback(held, shape.point)
        return _json(held.info())

    async def dump(self, request: Request) -> Response:
        """Dump a session."""
        held = await self._held(request)
        async with self._sessions.using(held):
            blob = await self._sessions.dump(held)
        return Response(blob, media_type=BYTES, headers={"Cache-Control": "no-store"})

    async def _held(self, request: Request) -> Held:
        return await self._sessions.find(visit_of(request).client, request.path_params["session_id"])

    # -- images ----------------------------------------------------------------------------------

    async def images(self, request: Request) -> Response:
        """List images."""
        client = visit_of(request).client
        return _json(ImageList(images=await images_of(client), limits=client.limits))


async def images_of(client: Client) -> list[ImageInfo]:
    """Images that a client may use."""
    found = await asyncio.to_thread(_image_list)
    return [one for one in found if client.images is None or one.name in client.images]


def _image_list() -> list[ImageInfo]:
    built_in = images.built_in_images()
    found = [ImageInfo(name=DEFAULT_IMAGE), *(ImageInfo(name=name, distributions=built_in[name]) for name in built_in)]
    for kept in images.kept_images():
        told = images.describe(kept)
        found += [
            ImageInfo(name=name, id=told["id"], distributions=dict(told["distributions"])) for name in told["names"]
        ]
    return found


def image_names() -> list[str]:
    """Names of all images of this machine; none where there is no directory of them."""
    try:
        return [one.name for one in _image_list()]
    except SandboxError:
        return [DEFAULT_IMAGE]


def answer(result: CodeResult | ToolExecutionResult) -> Response:
    """Answer with a whole result."""
    return Response(result_json(result), media_type=JSON, headers={"Cache-Control": "no-store"})


def _json(document: BaseModel, status: int = 200) -> Response:
    return Response(to_json(document), status, media_type=JSON, headers={"Cache-Control": "no-store"})


def _made(held: Held) -> Response:
    response = _json(held.info(), 201)
    response.headers["Location"] = f"/v1/sessions/{held.id}"
    return response
