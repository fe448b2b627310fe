"""LangChain and LangGraph: a tool that runs code, which calls other tools as functions.

``create_agent(model, tools=[sandbox_tool([search, fetch])])``. Variables are kept for each thread of LangGraph
(``thread_id``) with ``keeps_state=True``. What it cannot do: a tool that interrupts the graph ends the code, and when
the graph is resumed the code begins again; arguments that LangGraph injects (state, store) are not there for other
tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import ValidationError

from wasm_sandbox import CodeResult, HostFunction
from wasm_sandbox.integrations.offers import (
    CODE_SCHEMA,
    MAX_CHARACTERS,
    RUN_PYTHON,
    Runners,
    described,
    offered,
    plain,
    telling,
    text_of,
)
from wasm_sandbox.options import RunOptions


def sandbox_tool(
    tools: Sequence[BaseTool] = (),
    *,
    keeps_state: bool = False,
    max_sessions: int = 16,
    idle_seconds: float = 900.0,
    max_characters: int = MAX_CHARACTERS,
    **options: Unpack[RunOptions],
) -> StructuredTool:
    """Make a tool that runs code.

    Args:
        tools: tools that the code may call, by their names.
        keeps_state: whether variables are kept from call to call with the same ``thread_id``; without one every call
            begins from nothing.
        max_sessions: most threads whose variables are kept.
        idle_seconds: seconds without a call after which variables are forgotten.
        max_characters: most characters of a result that the model is told.
        options: `RunOptions` of the sandbox.
    """
    runners = Runners(options, max_sessions, idle_seconds)

    def run(code: str, config: RunnableConfig) -> str:
        functions = runners.functions(_function(tool, config) for tool in tools)
        runner = runners.get(_thread(config) if keeps_state else None)
        return _told(runner.run_code(code, functions=functions), max_characters)

    async def run_later(code: str, config: RunnableConfig) -> str:
        functions = runners.functions(_function_later(tool, config) for tool in tools)
        runner = await runners.get_async(_thread(config) if keeps_state else None)
        return _told(await runner.run_code(code, functions=functions), max_characters)

    stubs = runners.stubs(_function(tool, {}) for tool in tools)
    return StructuredTool.from_function(
        func=run,
        coroutine=run_later,
        name=RUN_PYTHON,
        description=described(stubs, keeps_state=keeps_state),
        args_schema=CODE_SCHEMA,
        infer_schema=False,
    )


def _thread(config: RunnableConfig) -> str | None:
    thread = (config.get("configurable") or {}).get("thread_id")
    return None if thread is None else str(thread)


def _told(result: CodeResult, max_characters: int) -> str:
    for call in result.calls:  # LangGraph's own way out of a node, which is no error of the code
        if any(kind.__name__ == "GraphBubbleUp" for kind in type(call.cause).__mro__):
            raise call.cause
    return text_of(result, max_characters)


def _function(tool: BaseTool, config: RunnableConfig) -> HostFunction:
    def call(**arguments: Any) -> Any:
        return plain(tool.invoke(arguments, config))

    return offered(tool.name, telling(call, ToolException, ValidationError), tool.description, _schema(tool))


def _function_later(tool: BaseTool, config: RunnableConfig) -> HostFunction:
    async def call(**arguments: Any) -> Any:
        return plain(await tool.ainvoke(arguments, config))

    return offered(tool.name, telling(call, ToolException, ValidationError), tool.description, _schema(tool))


def _schema(tool: BaseTool) -> Mapping[str, Any]:
    schema = tool.tool_call_schema
    return schema if isinstance(schema, dict) else schema.model_json_schema()
