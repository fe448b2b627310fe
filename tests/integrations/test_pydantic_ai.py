"""pydantic-ai: an agent's code calls the tools of a toolset, in the real framework with a scripted model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integrations.groups import needs

pytestmark = needs("pydantic_ai", "pydantic-ai")

pydantic_ai = pytest.importorskip("pydantic_ai", reason="needs pydantic-ai: pip install --group pydantic-ai")

from pydantic_ai import RunContext  # noqa: E402 - after the look for it
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart  # noqa: E402 - as above
from pydantic_ai.models.function import FunctionModel  # noqa: E402 - as above
from pydantic_ai.toolsets import FunctionToolset  # noqa: E402 - as above

from wasm_sandbox.integrations.pydantic_ai import WasmToolset  # noqa: E402 - as above


async def price(item: str, count: int = 1) -> int:
    """Price in cents."""
    if item == "gold":
        raise pydantic_ai.ModelRetry("there is no gold, ask for tea")
    return {"tea": 300, "cake": 450}[item] * count


def whose(ctx: RunContext[str]) -> str:
    """Name of who asks."""
    return str(ctx.deps)


def tools() -> Any:
    return FunctionToolset([price, whose])


def scripted(*codes: str) -> tuple[Any, list[Any]]:
    """A model that runs each code and says at last what came back; and what it was asked."""
    asked: list[Any] = []

    def respond(messages: Any, info: Any) -> Any:
        asked.append((messages, info))
        if len(asked) <= len(codes):
            return ModelResponse(parts=[ToolCallPart("run_python", {"code": codes[len(asked) - 1]})])
        return ModelResponse(parts=[TextPart(str(messages[-1].parts[0].content))])

    return FunctionModel(respond), asked


async def said(toolset: Any, *codes: str) -> str:
    model, _ = scripted(*codes)
    agent = pydantic_ai.Agent(model, toolsets=[toolset], deps_type=str)
    return str((await agent.run("Go on.", deps="Ada")).output)


async def test_code_calls_the_agents_tools_and_the_answer_comes_back() -> None:
    code = "import asyncio\n[await whose(), *await asyncio.gather(price('tea'), price(item='cake', count=2))]"
    assert await said(WasmToolset(tools()), code) == "['Ada', 300, 900]"


async def test_the_model_sees_one_tool_with_the_signatures_of_the_others() -> None:
    model, asked = scripted()
    await pydantic_ai.Agent(model, toolsets=[WasmToolset(tools())], deps_type=str).run("Go on.", deps="Ada")
    (tool,) = asked[0][1].function_tools
    assert tool.name == "run_python"
    assert "async def price(item: str, count: int | None = 1)" in tool.description
    assert "Price in cents." in tool.description


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("await price('gold')", "there is no gold, ask for tea"),
        ("await price()", "TypeError"),
        ("await price('tea', count='many')", "count"),
        ("await price('salt')", "KeyError"),
        ("1 / 0", "ZeroDivisionError"),
        ("while True: pass", "timeout"),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model(code: str, words: str) -> None:
    assert words in await said(WasmToolset(tools(), options={"limits": {"timeout_seconds": 0.5}}), code)


async def test_variables_are_kept_for_a_run_and_no_longer() -> None:
    toolset = WasmToolset(tools())
    assert await said(toolset, "x = 1", "x + 1") == "2"
    assert "NameError" in await said(toolset, "x")


async def test_runs_side_by_side_have_variables_of_their_own() -> None:
    import asyncio

    toolset = WasmToolset(tools())
    both = await asyncio.gather(said(toolset, "x = 'one'", "x"), said(toolset, "x = 'two'", "x"))
    assert [*both] == ["'one'", "'two'"]


async def test_nothing_is_kept_where_it_is_not_wanted() -> None:
    assert "NameError" in await said(WasmToolset(tools(), keeps_state=False), "x = 1", "x")


async def test_tools_that_wait_for_a_person_are_left_out() -> None:
    toolset: Any = FunctionToolset([whose])
    toolset.add_function(price, requires_approval=True)
    assert "NameError" in await said(WasmToolset(toolset), "price('tea')")


async def test_a_toolset_with_other_names_and_filters_goes_through() -> None:
    wrapped: Callable[..., Any] = tools().filtered(lambda ctx, tool: tool.name == "price").prefixed("shop")
    assert await said(WasmToolset(wrapped), "await shop_price('tea')") == "300"
