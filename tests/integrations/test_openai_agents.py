"""OpenAI Agents: an agent's code calls its other tools, in the real framework with a model that follows a script."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integrations.groups import needs

pytestmark = needs("agents", "openai-agents")

agents = pytest.importorskip("agents", reason="needs openai-agents: pip install --group openai-agents")

from agents import Model, RunContextWrapper  # noqa: E402 - after the look for it
from agents.items import ModelResponse  # noqa: E402 - as above
from openai.types.responses import (  # noqa: E402 - as above
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from wasm_sandbox.integrations.openai_agents import sandbox_tool  # noqa: E402 - as above


@agents.function_tool
async def price(item: str, count: int = 1) -> int:
    """Price in cents."""
    return {"tea": 300, "cake": 450}[item] * count


@agents.function_tool
def whose(context: RunContextWrapper[str]) -> str:
    """Name of who asks."""
    return str(context.context)


class Scripted(Model):
    """Model that runs each code, and says at last what came back."""

    def __init__(self, *codes: Any) -> None:
        self._codes = list(codes)
        self.tools: list[Any] = []
        self._calls = 0

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        self.tools = args[1] if len(args) > 1 else kwargs["tools"]
        if self._codes:
            self._calls += 1
            code = self._codes.pop(0)
            arguments = code if isinstance(code, bytes) else json.dumps({"code": code}).encode()
            output: Any = ResponseFunctionToolCall(
                type="function_call", name="run_python", call_id=f"call{self._calls}", arguments=arguments.decode()
            )
        else:
            text = ResponseOutputText(type="output_text", text=str(input[-1]["output"]), annotations=[])
            output = ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[text])
        return ModelResponse(output=[output], usage=agents.Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


async def said(tool: Any, *codes: Any, context: str = "Ada") -> str:
    agent = agents.Agent(name="clerk", model=Scripted(*codes), tools=[tool])
    return str((await agents.Runner.run(agent, "Go on.", context=context)).final_output)


@pytest.fixture(autouse=True)
def no_network() -> None:
    agents.set_tracing_disabled(True)


async def test_code_calls_the_agents_tools_and_the_answer_comes_back() -> None:
    code = "import asyncio\nprint(await whose())\nawait asyncio.gather(price('tea'), price(item='cake', count=2))"
    assert await said(sandbox_tool([price, whose]), code) == "Ada\n[300, 900]"


async def test_the_model_sees_one_tool_with_the_signatures_of_the_others() -> None:
    model = Scripted("1")
    tool = sandbox_tool([price, whose])
    await agents.Runner.run(agents.Agent(name="clerk", model=model, tools=[tool]), "Go on.", context="Ada")
    (seen,) = model.tools
    assert "async def price(item: str, count: int" in seen.description
    assert "Name of who asks." in seen.description


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("await price('salt')", "An error occurred"),
        ("await price()", "TypeError"),
        ("1 / 0", "ZeroDivisionError"),
        ("while True: pass", "timeout"),
        (b"no json", "must be JSON"),
        (b'{"code": 5}', "must be text"),
        (b"[]", "must be JSON"),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model(code: Any, words: str) -> None:
    assert words in await said(sandbox_tool([price], limits={"timeout_seconds": 0.5}), code)


async def test_variables_are_those_of_the_key() -> None:
    tool = sandbox_tool(session_key=lambda context: context.context)
    count = "x = globals().get('x', 0) + 1\nx"
    assert [await said(tool, count, context=name) for name in ("Ada", "Bob", "Ada")] == ["1", "1", "2"]
    assert await said(sandbox_tool(), count, count) == "1"


async def test_tools_that_a_call_from_code_would_go_round_are_refused() -> None:
    @agents.function_tool(needs_approval=True)
    def pay(cents: int) -> str:
        """Pay."""
        return "paid"

    with pytest.raises(ValueError, match="pay needs an approval"):
        sandbox_tool([pay])
