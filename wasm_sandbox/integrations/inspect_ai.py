"""Inspect: a tool that runs a model's code, which calls other tools as functions.

``use_tools(sandbox_python([search(), fetch()]))``. Variables are kept for a sample. What it cannot do: it is a tool,
and no sandbox of Inspect's (``sandbox()``), so other tools that ask for one still need theirs; what tools give
besides text (pictures) reaches the code as text; a view of the transcript has one call, of run_python, and not those
that code made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from inspect_ai.tool import Tool, ToolDef, ToolError, tool
from inspect_ai.util import store

from wasm_sandbox import AsyncSandbox, AsyncSession, HostFunction, Sandbox
from wasm_sandbox.integrations.offers import MAX_CHARACTERS, KeptSessions, described, offered, plain, telling, text_of

_KEY = "wasm_sandbox.session"


@tool(name="run_python")
def sandbox_python(
    tools: Sequence[Tool | Callable[..., Any]] = (),
    *,
    keeps_state: bool = True,
    max_sessions: int = 64,
    max_characters: int = MAX_CHARACTERS,
    **options: Any,
) -> Tool:
    """Make a tool that runs code.

    Args:
        tools: tools that the code may call, by their names.
        keeps_state: whether variables are kept from call to call of a sample.
        max_sessions: most samples whose variables are kept.
        max_characters: most characters of a result that the model is told.
        options: `RunOptions` of the sandbox.
    """
    own: list[Any] = [*(options.pop("functions", None) or []), *map(_function, tools)]
    box = AsyncSandbox(**{**options, "functions": own})
    sessions = KeptSessions(Sandbox(**{**options, "functions": own}), max_sessions, 3600.0)

    async def execute(code: str) -> str:
        """Run a Python program.

        Args:
            code: Python source.
        """
        runner = AsyncSession(await asyncio.to_thread(sessions.get, _sample())) if keeps_state else box
        return text_of(await runner.run_code(code), max_characters)

    description = described(box.functions.stubs(), keeps_state=keeps_state)
    return ToolDef(execute, name="run_python", description=description, parameters={"code": "Python source."}).as_tool()


def _sample() -> str:
    """Key of the sample that is evaluated: its store has one."""
    if store().get(_KEY) is None:
        store().set(_KEY, uuid4().hex)
    return str(store().get(_KEY))


def _function(given: Tool | Callable[..., Any]) -> HostFunction:
    definition = ToolDef(given)

    async def call(**arguments: Any) -> Any:
        return plain(await definition.tool(**arguments))

    schema = definition.parameters.model_dump(exclude_none=True)
    return offered(definition.name, telling(call, ToolError), definition.description, schema)
