"""`Service`: the tools that a client sees, and what becomes of a call of one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import mcp_types as types
from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server
from pydantic import BaseModel, ConfigDict, ValidationError

import wasm_sandbox
from wasm_sandbox import AsyncSandbox, CodeResult, Limits, SandboxError, Tool, ToolExecutionResult, stores
from wasm_sandbox.mcp.answers import OUTPUT_SCHEMA, Refused, answer, failure, is_quick
from wasm_sandbox.mcp.calls import MAX_CODE_CHARACTERS, Calls, Program, Scope, SessionName
from wasm_sandbox.mcp.progress import Progress
from wasm_sandbox.mcp.sessions import finished

RUN_PYTHON, RESET = "run_python", "reset"

MAX_SHOWN_ERRORS = 5

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Names that the protocol allows."""

_log = logging.getLogger("wasm_sandbox.mcp")

Context = ServerRequestContext[Any, Any]
M = TypeVar("M", bound=BaseModel)


class _Reset(BaseModel):
    model_config = ConfigDict(extra="forbid")

    session: SessionName


# Guarantees: whatever a call is given and whatever its guest does, the client gets a tool result, and no protocol error
# but for a request that is none. A call that is cancelled, or whose client is gone, has its guest stopped. All of it
# runs on the event loop of the server, and so do the calls.
class Service:
    """Code and stored tools, as a server of the Model Context Protocol offers them.

    Args:
        calls: maker of the calls, as `BoxCalls`.
        has_stored_tools: whether the stored tools are offered, which run with the stored variables.
    """

    def __init__(self, calls: Calls, *, has_stored_tools: bool = True) -> None:
        self._calls, self._has_stored_tools = calls, has_stored_tools
        self._tools, self._user = stores.ToolManager(), stores.LocalUser()
        self._lives = 0
        self._warming: asyncio.Task[None] | None = None
        self.server: Server[Any] = Server(
            "wasm-sandbox",
            version=wasm_sandbox.__version__,
            title="wasm-sandbox",
            instructions=_INSTRUCTIONS,
            lifespan=self._lifespan,
            get_tool_input_schema=_no_headers,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Server[Any]) -> AsyncIterator[None]:
        """Life of the server: its image is loaded while clients shake hands; at its end no session is left.

        Over HTTP each owner's transports enter it: it begins with the first, and ends with the last.
        """
        self._lives += 1
        if self._warming is None:
            self._warming = asyncio.ensure_future(self._warm())
        try:
            yield
        finally:
            self._lives -= 1
            if not self._lives:
                self._warming.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._warming
                await self._calls.close()

    async def _warm(self) -> None:
        try:
            await self._calls.warm()
        except SandboxError as error:  # whoever calls is told, too
            _log.warning("no code can be run: %s", error)

    # -- what there is ---------------------------------------------------------------------------

    async def _list(self, context: Context, _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        scope = _scope_of(context)
        tools = [_run_python_tool(self._calls.box(scope), await self._calls.images(scope)), _RESET_TOOL]
        for tool in await self._stored():
            if tool.name in (RUN_PYTHON, RESET) or _TOOL_NAME.fullmatch(tool.name) is None:
                _log.warning("the stored tool %r is left out: the name is taken, or no name for a client", tool.name)
            else:
                tools.append(_described(tool))
        return types.ListToolsResult(tools=tools)

    async def _stored(self) -> Sequence[Tool]:
        if not self._has_stored_tools:
            return ()
        try:
            return await self._tools.list_tools_async(self._user)
        except SandboxError as error:  # the rest is there all the same
            _log.warning("stored tools are left out: %s", error)
            return ()

    # -- calls -----------------------------------------------------------------------------------

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        name, given = params.name, params.arguments or {}
        try:
            if name == RUN_PYTHON:
                return await self._run(context, _checked(Program, name, given))
            if name == RESET:
                return await self._reset(context, _checked(_Reset, name, given))
            return await self._run_stored(context, name, given)
        except Refused as error:
            return failure(error.kind, str(error))
        except SandboxError as error:
            return failure(type(error).__name__, str(error))
        except Exception:  # a defect of ours: the client must not wait, nor hear of this host
            _log.exception("a call of %r failed", name)
            return failure("internal_error", f"{name}: an internal error of wasm-sandbox, which its log tells of")

    async def _run(self, context: Context, given: Program) -> types.CallToolResult:
        async with _listening(context) as options:
            call = self._calls.run_code(_scope_of(context), given, **options)
            result, is_new = await finished(asyncio.ensure_future(call))
        return await _answered(result, session=given.session, is_new=is_new)

    async def _reset(self, context: Context, given: _Reset) -> types.CallToolResult:
        await self._calls.reset(_scope_of(context), given.session)
        text = f"The session {given.session} is forgotten; its name begins a new one."
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=text)],
            structured_content={"status": "success", "session": given.session},
        )

    async def _run_stored(self, context: Context, name: str, given: dict[str, Any]) -> types.CallToolResult:
        tool = None
        if self._has_stored_tools:
            tool = await self._tools.get_tool_by_name_async(name, self._user)
        if tool is None:
            raise Refused("unknown_tool", f"there is no tool {name[:128]!r}: list the tools")
        async with _listening(context) as options:
            call = self._calls.run_tool(_scope_of(context), tool, given, self._user, **options)
            result = await finished(asyncio.ensure_future(call))
        return await _answered(result)


def _scope_of(context: Context) -> Scope:
    return {} if context.request is None else context.request.scope


@asynccontextmanager
async def _listening(context: Context) -> AsyncIterator[dict[str, Any]]:
    """Options of a run, whose progress is told to a client that asks for it."""
    if not context.meta or context.meta.get("progress_token") is None:
        yield {}
        return
    progress = Progress(context.session.report_progress)
    try:
        yield {"on_event": progress}
    finally:
        await progress.finish()


async def _answered(result: CodeResult | ToolExecutionResult, **session: Any) -> types.CallToolResult:
    """Tool result of a run, made on another thread where that takes long."""
    if is_quick(result):
        return answer(result, **session)
    return await asyncio.to_thread(answer, result, **session)


def _checked(model: type[M], name: str, given: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as errors:
        found = errors.errors(include_url=False, include_context=False, include_input=False)
        words = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in found[:MAX_SHOWN_ERRORS]]
        raise Refused("bad_arguments", f"{name}: {'; '.join(words)}"[:2000]) from None


def _no_headers(_: str) -> None:
    """No argument of a tool travels in a header."""


def _run_python_tool(box: AsyncSandbox, images: Sequence[str | None]) -> types.Tool:
    limits = cast(Limits, box.options["limits"])
    network = "with access to some hosts" if box.options["network"] else "without a network"
    schema = _RUN_PYTHON_SCHEMA
    if images:
        choice = {"enum": [*images], "description": "Which packages are there; a session keeps its image."}
        required = schema["required"] if None in images else [*schema["required"], "image"]
        schema = {**schema, "properties": {**schema["properties"], "image": choice}, "required": required}
    return types.Tool(
        name=RUN_PYTHON,
        title="Run Python",
        description=_RUN_PYTHON_TEXT.format(
            network=network, seconds=limits.timeout_seconds, mebibytes=limits.memory_bytes >> 20
        ),
        input_schema=schema,
        output_schema=OUTPUT_SCHEMA,
        annotations=types.ToolAnnotations(
            read_only_hint=box.options["network"] is None,
            destructive_hint=False,
            open_world_hint=box.options["network"] is not None,
        ),
    )


def _described(tool: Tool) -> types.Tool:
    """Stored tool, as clients see it."""
    found = (tool.json_schema or {}).get("parameters")
    parameters = {**found, "type": "object"} if isinstance(found, dict) else {"type": "object"}
    return types.Tool(
        name=tool.name, description=tool.description, input_schema=parameters, output_schema=OUTPUT_SCHEMA
    )


_INSTRUCTIONS = """\
run_python runs a Python program in a sandbox, and gives back what it prints, the value of its last expression, and \
pictures that it displays. With a session, variables are kept from call to call; reset forgets them. The other tools \
run in the same kind of sandbox."""

_RUN_PYTHON_TEXT = """\
Run a Python 3.13 program in a sandbox {network}, for at most {seconds:g} seconds and {mebibytes} MiB.

The value of the last expression comes back, and what was printed. The standard library and pydantic are there; so are \
display(value), for pictures and tables, and progress(done, total, text). `await` works at the top level. Without a \
session every call begins from nothing."""

_SESSION_SCHEMA = {"type": "string", "pattern": r"^[\w.-]{1,64}$"}

_RUN_PYTHON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "maxLength": MAX_CODE_CHARACTERS, "description": "Python source."},
        "inputs": {
            "type": ["object", "null"],
            "description": "Variables that the program finds, name -> value: for data that is no part of it.",
        },
        "session": {
            "type": ["string", "null"],
            "pattern": _SESSION_SCHEMA["pattern"],
            "description": "Name of a session, any that you like: calls with the same name share their variables. "
            "session_is_new in the result says that it began with this call, so nothing was kept.",
        },
    },
    "required": ["code"],
    "additionalProperties": False,
}

_RESET_TOOL = types.Tool(
    name=RESET,
    title="Reset a session",
    description="Forget all variables of a session, and stop what runs in it.",
    input_schema={
        "type": "object",
        "properties": {"session": {**_SESSION_SCHEMA, "description": "Its name."}},
        "required": ["session"],
        "additionalProperties": False,
    },
    output_schema=OUTPUT_SCHEMA,
    annotations=types.ToolAnnotations(idempotent_hint=False, destructive_hint=True, open_world_hint=False),
)
