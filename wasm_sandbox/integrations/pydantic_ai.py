"""pydantic-ai: a toolset with one tool, run_python, whose code calls the tools of another toolset as functions.

``Agent(model, toolsets=[WasmToolset(FunctionToolset([search, fetch]))])``. Variables are kept for a run of the agent.
What it cannot do: tools that are deferred or need an approval are left out, for code cannot wait for them; calls from
code are not counted in `RunUsage.tool_calls`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_ai import ModelRetry, RunContext, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
from typing_extensions import TypedDict

from wasm_sandbox import AsyncSandbox, AsyncSession
from wasm_sandbox.integrations.offers import CODE_SCHEMA, RUN_PYTHON, described, offered, plain, telling, text_of

MAX_RETRIES = 2


class _Arguments(TypedDict):
    code: str


@dataclass
class WasmToolset(WrapperToolset[Any]):
    """Toolset that runs code, which calls the tools of the wrapped toolset.

    Attributes:
        wrapped: toolset whose tools the code may call.
        options: `RunOptions` of the sandbox.
        keeps_state: whether variables are kept from call to call of one run of the agent.
    """

    wrapped: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    keeps_state: bool = True
    _session: AsyncSession | None = field(default=None, init=False, repr=False, compare=False)

    async def for_run(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        """Toolset for one run of the agent, with variables of its own."""
        return replace(self, wrapped=await self.wrapped.for_run(ctx))

    async def for_run_step(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        """The same toolset, so that variables stay."""
        self.wrapped = await self.wrapped.for_run_step(ctx)
        return self

    async def __aexit__(self, *args: Any) -> bool | None:
        """End the session, and leave the wrapped toolset."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        is_handled: bool | None = await self.wrapped.__aexit__(*args)
        return is_handled

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """The one tool; its description has the signatures of the others."""
        functions = self._functions(await self.wrapped.get_tools(ctx), ctx)
        stubs = AsyncSandbox(functions=functions).functions.stubs()
        definition = ToolDefinition(
            name=RUN_PYTHON,
            description=described(stubs, keeps_state=self.keeps_state),
            parameters_json_schema=CODE_SCHEMA,
        )
        validator = TypeAdapter(_Arguments).validator
        tool = ToolsetTool(toolset=self, tool_def=definition, max_retries=MAX_RETRIES, args_validator=validator)
        return {RUN_PYTHON: tool}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> str:
        """Run code; its result, or its error, is text for the model."""
        functions = self._functions(await self.wrapped.get_tools(ctx), ctx)
        box = AsyncSandbox(**{**self.options, "functions": functions})
        if not self.keeps_state:
            return text_of(await box.run_code(tool_args["code"]))
        if self._session is None or self._session.is_closed:
            self._session = await box.session()
        return text_of(await self._session.run_code(tool_args["code"], functions=functions))

    def _functions(self, tools: Mapping[str, ToolsetTool[Any]], ctx: RunContext[Any]) -> list[Any]:
        own = list(self.options.get("functions") or [])
        for name, tool in tools.items():
            definition = tool.tool_def
            if definition.kind == "function":
                call = telling(self._caller(name, tool, ctx), ModelRetry, ValidationError)
                own.append(offered(name, call, definition.description, definition.parameters_json_schema))
        return own

    def _caller(self, name: str, tool: ToolsetTool[Any], ctx: RunContext[Any]) -> Callable[..., Any]:
        async def call(**arguments: Any) -> Any:
            checked = tool.args_validator.validate_python(arguments)
            return plain(await self.wrapped.call_tool(name, checked, replace(ctx, tool_name=name), tool))

        return call
