"""OpenAI Agents: a function tool that runs code, which calls other function tools as functions.

``Agent(name=..., tools=[sandbox_tool([search, fetch])])``. What it cannot do: tools that need an approval or have
guardrails are refused, for a call from code would go round them; hosted tools of OpenAI's are no functions.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Unpack

from agents import FunctionTool
from agents.tool_context import ToolContext

from wasm_sandbox import HostFunction
from wasm_sandbox.integrations.offers import (
    CODE_SCHEMA,
    MAX_CHARACTERS,
    RUN_PYTHON,
    Runners,
    described,
    offered,
    plain,
    text_of,
)
from wasm_sandbox.options import RunOptions


def sandbox_tool(
    tools: Sequence[FunctionTool] = (),
    *,
    session_key: Callable[[ToolContext[Any]], Hashable] | None = None,
    max_sessions: int = 16,
    idle_seconds: float = 900.0,
    max_characters: int = MAX_CHARACTERS,
    **options: Unpack[RunOptions],
) -> FunctionTool:
    """Make a tool that runs code.

    Args:
        tools: tools that the code may call, by their names.
        session_key: says by a call's context whose variables are used, as by the id of a conversation; without it, and
            where it gives None, every call begins from nothing.
        max_sessions: most keys whose variables are kept.
        idle_seconds: seconds without a call after which variables are forgotten.
        max_characters: most characters of a result that the model is told.
        options: `RunOptions` of the sandbox.

    Raises:
        ValueError: if a tool needs an approval, or has guardrails.
    """
    for tool in tools:
        if tool.needs_approval or tool.tool_input_guardrails or tool.tool_output_guardrails:
            raise ValueError(f"{tool.name} needs an approval or has guardrails: a call from code would go round them")
    runners = Runners(options, max_sessions, idle_seconds)

    async def run(context: ToolContext[Any], arguments: str) -> str:
        try:
            code = json.loads(arguments)["code"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return 'the arguments must be JSON as {"code": "..."}'
        if not isinstance(code, str):
            return "code must be text"
        functions = runners.functions(_function(tool, context) for tool in tools)
        runner = await runners.get_async(session_key(context) if session_key is not None else None)
        return text_of(await runner.run_code(code, functions=functions), max_characters)

    stubs = runners.stubs(_function(tool, None) for tool in tools)
    return FunctionTool(
        name=RUN_PYTHON,
        description=described(stubs, keeps_state=session_key is not None),
        params_json_schema=CODE_SCHEMA,
        on_invoke_tool=run,
    )


def _function(tool: FunctionTool, context: ToolContext[Any] | None) -> HostFunction:
    numbers = itertools.count(1)

    async def call(**arguments: Any) -> Any:
        assert context is not None
        given = json.dumps(arguments)
        inner = ToolContext(
            context=context.context,
            usage=context.usage,
            tool_name=tool.name,
            tool_call_id=f"{context.tool_call_id}_{tool.name}_{next(numbers)}",
            tool_arguments=given,
        )
        return plain(await tool.on_invoke_tool(inner, given))

    return offered(tool.name, call, tool.description, tool.params_json_schema)
