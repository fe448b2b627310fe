"""The application (ASGI): its routes behind one door, which knows clients, answers with problems, counts and logs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from wasm_sandbox import AsyncSandbox, CodeResult, Limits, SandboxError, events
from wasm_sandbox.serve.admission import Admission
from wasm_sandbox.serve.bodies import JSON, HungUp
from wasm_sandbox.serve.calls import Desk
from wasm_sandbox.serve.e2b import Contexts
from wasm_sandbox.serve.fusion import Fusion
from wasm_sandbox.serve.held import Sessions
from wasm_sandbox.serve.metrics import Metrics, Starts
from wasm_sandbox.serve.openapi import openapi_document
from wasm_sandbox.serve.operations import Operation
from wasm_sandbox.serve.playground import HEADERS, PAGE
from wasm_sandbox.serve.problems import Problem, problem_of, server_ends
from wasm_sandbox.serve.routes import Routes, image_names
from wasm_sandbox.serve.settings import Settings
from wasm_sandbox.serve.tokens import Client
from wasm_sandbox.serve.visits import KEY, Log, Visit, visit_of
from wasm_sandbox.web import is_loopback

if TYPE_CHECKING:
    from wasm_sandbox.serve.agents import Agents

LOCAL = "local"
"""Name of whoever calls without a token."""
PROBE_LIMITS = Limits(timeout_seconds=10.0, fuel=1_000_000_000)
PROBE_SECONDS = 5.0
"""Time for which the result of a probe run counts."""
STOP_SECONDS = 5.0
"""Longest time in which calls end that are stopped."""
LINGER_SECONDS, LINGER_BYTES = 1.0, 4 << 20
"""Time and size of a body that is heard after its request was refused."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class App:
    """The application; call it with ASGI's three arguments.

    Args:
        settings: settings.
        log: log; by default to standard error.

    Raises:
        StoreError: if the data directory cannot be used, or another server uses it.
    """

    def __init__(self, settings: Settings, log: Log | None = None) -> None:
        self.settings, self.log = settings, log or Log()
        self.admission = Admission(settings)
        names = {name for client in settings.tokens.clients for name in client.images or ()} if settings.tokens else ()
        self.metrics = Metrics(
            {*image_names(), *names},
            lambda: self.admission.running,
            lambda: self.admission.waiting,
            lambda: len(self.sessions),
        )
        self.desk = Desk(settings, self.admission, self.metrics)
        self.sessions = Sessions(self.desk, self.log)
        self._local = Client(LOCAL, settings.limits, max_sessions=settings.sessions, may_read_metrics=True)
        self._over = asyncio.Event()
        self._probing = asyncio.Lock()
        self._probed = (0.0, "")
        routes = Routes(self.desk, self.sessions)
        self.operations = [
            *routes.operations(),
            *Fusion(self.desk).operations(),
            *Contexts(routes, self.sessions).operations(),
            *self._own_operations(),
        ]
        self._document = json.dumps(openapi_document(self.operations)).encode()
        by_path: dict[str, list[Operation]] = {}
        for one in self.operations:
            by_path.setdefault(one.path, []).append(one)
        answered = [
            Route(path, self._answering(found), methods=[one.method for one in found])
            for path, found in by_path.items()
        ]
        answered.append(Route("/mcp", self._answering([self._mcp_operation()]), methods=["POST"]))
        self._agents: asyncio.Task[Agents | Problem] | None = None
        self._routed = Router(answered, redirect_slashes=False, default=_nowhere, lifespan=self._lifespan)

    def _own_operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET", path="/", name="playground", tag="server", handler=self._playground, gives="text/html",
                is_open=True, summary="The playground",
            ),
            Operation(
                method="GET", path="/healthz", name="health", tag="server", handler=self._health, gives="text/plain",
                is_open=True, summary="Say that the server is there",
            ),
            Operation(
                method="GET", path="/readyz", name="ready", tag="server", handler=self._ready, gives="text/plain",
                is_open=True, problems=("draining", "host-unfit"), summary="Say whether guests run, by running one",
            ),
            Operation(
                method="GET", path="/metrics", name="metrics", tag="server", handler=self._metrics,
                gives="text/plain", problems=("forbidden-metrics",), summary="Metrics in Prometheus' format",
            ),
            Operation(
                method="GET", path="/openapi.json", name="openapi", tag="server", handler=self._openapi,
                gives="application/json", is_open=True, summary="This document",
            ),
        ]  # fmt: skip

    # -- its life --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        sweeping = asyncio.ensure_future(self.sessions.sweep())
        with events.listening(Starts(self.metrics)):
            try:
                yield
            finally:
                sweeping.cancel()
                with suppress(asyncio.CancelledError):
                    await sweeping
                if self._agents is not None and not isinstance(agents := await self._agents, Problem):
                    await agents.close()
                await self.sessions.put_away()

    async def drain(self) -> None:
        """Let calls under way end, and refuse new ones with 503; stop those that do not end in time."""
        self.log.write("draining", running=self.admission.running, waiting=self.admission.waiting)
        has_ended = await self.admission.drain(self.settings.drain_seconds)
        stopped = None if has_ended else self.admission.running
        self._over.set()
        await self.admission.drain(STOP_SECONDS)
        self.log.write("drained", stopped=stopped)

    # -- the door --------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._routed(scope, receive, send)
            return
        request, began = Request(scope), time.monotonic()
        visit = scope[KEY] = Visit(over=self._over, has_unread_body=_has_body(request))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", visit.id.encode())]
            else:
                visit.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            self._check_site(request)
            visit.who = self._client(request)
            await self._routed({**scope, "app": self}, receive, sending)
        except HungUp:
            visit.outcome = visit.outcome or "hung up"
        except asyncio.CancelledError:
            if not self._over.is_set():
                raise
            # The server ends: the body of this request did not come, or its answer is not taken.
            ending = server_ends()
            visit.problem = ending.name
            if visit.status is None:
                visit.has_unread_body, ending.headers["Connection"] = False, "close"
                await self._refuse(visit, ending.response(), receive, sending)
        except Exception as error:
            problem = problem_of(error) or _router_problem(error)
            if problem is None:
                self.log.write("defect", id=visit.id, error=type(error).__name__, at_line=_place(error))
                problem = Problem("internal", f"the server has a defect: see its log for {visit.id}")
            visit.problem = problem.name
            self.metrics.refused(problem.name)
            if visit.status is None:
                await self._refuse(visit, problem.response(), receive, sending)
        finally:
            self.desk.bodies.release(visit)
            self._note(visit, scope["method"], time.monotonic() - began)

    async def _refuse(self, visit: Visit, response: Response, receive: Receive, send: Send) -> None:
        """Answer with a problem.

        Where a body was not read, the connection is of no more use. If it were closed at once, what the client still
        sends would have its system throw the answer away; so that is heard for a moment, and forgotten.
        """
        if visit.has_unread_body:
            response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": visit.has_unread_body})
        if visit.has_unread_body:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await _forgotten(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _check_site(self, request: Request) -> None:
        """Refuse what a browser sends for another site's page: it reaches servers on this machine, too.

        A name that an attacker lets point here (DNS rebinding) is no name of ours; and pages of other origins say so.

        Raises:
            Problem: if the request is such a one.
        """
        host = request.headers.get("host", "")
        if self.settings.tokens is None and not _is_own_name(host):
            raise Problem("misdirected", "ask for localhost or 127.0.0.1: without tokens there is no other name")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Problem("forbidden-origin", "pages of other sites may not call this server")

    def _client(self, request: Request) -> Client | None:
        """Client of a request, None if it has no token where one is needed.

        Raises:
            Problem: if it has a token that is none.
        """
        if self.settings.tokens is None:
            return self._local
        given = request.headers.getlist("authorization")
        kind, _, token = (given or [""])[0].partition(" ")
        if len(given) > 1:  # nobody knows which one others went by
            token = ""
        elif not kind:
            token = request.headers.get("x-access-token", "")  # as clients of E2B send it
        elif kind.lower() != "bearer":
            token = ""
        found = self.settings.tokens.find(token.strip()) if token else None
        if found is None and (kind or token):
            Visit().client  # noqa: B018 - raises
        return found

    def _note(self, visit: Visit, method: str, seconds: float) -> None:
        self.metrics.came(visit.bytes_in)
        self.metrics.went(visit.bytes_out)
        self.log.write(
            "request",
            id=visit.id,
            client=visit.who.name if visit.who else None,
            operation=visit.operation,
            method=method if method in {"GET", "POST", "DELETE", "HEAD"} else "other",
            status=visit.status,
            problem=visit.problem,
            outcome=visit.outcome,
            seconds=round(seconds, 6),
            fuel=visit.fuel,
            bytes_in=visit.bytes_in,
            bytes_out=visit.bytes_out,
        )

    def _answering(self, operations: Sequence[Operation]) -> Callable[[Request], Awaitable[Response]]:
        """Handler of the operations of a path, which refuses requests without a token unless one is open."""
        by_method: dict[str, Operation] = {one.method: one for one in operations}
        if "GET" in by_method:
            by_method["HEAD"] = by_method["GET"]

        async def handler(request: Request) -> Response:
            visit = visit_of(request)
            operation = by_method[request.method]
            visit.operation = operation.name
            if not operation.is_open:
                visit.client  # noqa: B018 - refuses a request without a token
            return await operation.handler(request)

        return handler

    # -- agents ----------------------------------------------------------------------------------

    def _mcp_operation(self) -> Operation:
        """Not in `/openapi.json`, which could not describe it."""
        return Operation(
            method="POST", path="/mcp", name="mcp", tag="MCP", handler=self._mcp, takes=JSON, gives=JSON,
            summary="Serve agents (Model Context Protocol)",
        )  # fmt: skip

    async def _mcp(self, request: Request) -> Response:
        self.admission.check()
        if self._agents is None:
            self._agents = asyncio.ensure_future(self._make_agents())
        agents = await asyncio.shield(self._agents)
        if isinstance(agents, Problem):
            raise agents
        return await agents.answer(request)

    async def _make_agents(self) -> Agents | Problem:
        """Answers to agents, made at the first request: loading the SDK takes a second, and it may not be there."""
        try:
            module = await asyncio.to_thread(import_module, f"{__package__}.agents")
        except ImportError as error:
            detail = f"agents need the MCP SDK ({error.name} is missing): pip install 'wasm-sandbox[mcp]'"
            return Problem("not-installed", detail)
        made: Agents = module.Agents(self.desk, self.sessions)
        return made

    # -- about the server ------------------------------------------------------------------------

    async def _playground(self, _: Request) -> Response:
        return Response(PAGE, media_type="text/html", headers=HEADERS)

    async def _health(self, _: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def _ready(self, _: Request) -> Response:
        self.admission.check()
        async with self._probing:
            at, fault = self._probed
            if time.monotonic() - at > PROBE_SECONDS or not at:
                fault = await self._probe()
                self._probed = time.monotonic(), fault
        if fault:
            raise Problem("host-unfit", fault, retry_after=PROBE_SECONDS)
        return PlainTextResponse("ready\n")

    async def _probe(self) -> str:
        """What is wrong with running guests; nothing as a rule."""
        try:
            result = await AsyncSandbox(limits=PROBE_LIMITS, isolation=self.settings.isolation).run_code("6 * 7")
        except SandboxError as error:
            return str(error)
        self.metrics.ended("probe", None, result)
        return _fault(result)

    async def _metrics(self, request: Request) -> Response:
        if not visit_of(request).client.may_read_metrics:
            raise Problem("forbidden-metrics", "metrics tell of all clients: this token is not for them (metrics)")
        return Response(self.metrics.text(), media_type=METRICS_TYPE)

    async def _openapi(self, _: Request) -> Response:
        return Response(self._document, media_type="application/json")


def _fault(result: CodeResult) -> str:
    if result.error is not None:
        return f"a probe run failed: {result.error.kind}"
    return "" if result.value == 42 else "a probe run gave a wrong value"


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        raise Problem("not-found", "see /openapi.json for what there is")


def _router_problem(error: Exception) -> Problem | None:
    """Problem that an exception of the router is: of a path that is there, with another method."""
    if not isinstance(error, HTTPException):
        return None
    detail = "see /openapi.json for what is answered here"
    return Problem("method-not-allowed", detail, headers=dict(error.headers or {}))


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


async def _forgotten(receive: Receive) -> None:
    """Hear the rest of a body, some of it."""
    size = 0
    while size < LINGER_BYTES:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        size += len(message.get("body", b""))


def _is_own_name(host: str) -> bool:
    """Whether a Host header names this machine for itself."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(name.lower())


def _place(error: BaseException) -> str:
    """Where an exception comes from, without its words, which may hold values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"


def make_app(settings: Settings, log: Log | None = None) -> App:
    """Make the application, for a server of one's own.

    Args:
        settings: settings.
        log: log; by default to standard error.
    """
    return App(settings, log)
