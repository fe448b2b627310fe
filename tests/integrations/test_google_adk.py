"""Google ADK: an agent's code calls functions of the program, in the real framework with a scripted model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.integrations.groups import needs

pytestmark = needs("google.adk", "google-adk")

pytest.importorskip("google.adk", reason="needs google-adk: pip install --group google-adk")

from google.adk.agents import LlmAgent  # noqa: E402 - after the look for it
from google.adk.models.base_llm import BaseLlm  # noqa: E402 - as above
from google.adk.models.llm_response import LlmResponse  # noqa: E402 - as above
from google.adk.runners import InMemoryRunner  # noqa: E402 - as above
from google.genai import types  # noqa: E402 - as above

from wasm_sandbox.integrations.google_adk import WasmCodeExecutor  # noqa: E402 - as above


async def price(item: str, count: int = 1) -> int:
    """Price in cents."""
    return {"tea": 300, "cake": 450}[item] * count


class Scripted(BaseLlm):
    """Model that writes each code, and says at last what came back."""

    model: str = "scripted"
    codes: list[str]
    asked: list[str] = []  # noqa: RUF012 - a field of pydantic's, which copies it

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        last = llm_request.contents[-1]
        self.asked.append(str(last))
        if self.codes:
            text = f"So.\n```python\n{self.codes.pop(0)}\n```"
        else:
            text = "\n".join(part.text or str(part.code_execution_result or "") for part in last.parts)
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=text)]))


async def told(executor: Any, *codes: str, session: Any = None, runner: Any = None) -> tuple[str, list[str], Any]:
    """What the agent said at last, what the model was asked, and the runner with its artifacts."""
    model = Scripted(codes=list(codes))
    agent = LlmAgent(name="clerk", model=model, code_executor=executor, instruction="Prices:\n" + executor.stubs())
    runner = InMemoryRunner(agent, app_name="shop")
    found = await runner.session_service.create_session(app_name="shop", user_id="ada")
    message = types.Content(role="user", parts=[types.Part(text="Go on.")])
    said = ""
    async for event in runner.run_async(user_id="ada", session_id=found.id, new_message=message):
        for part in (event.content.parts if event.content else None) or []:
            said = part.text or said
    kept = await runner.artifact_service.list_artifact_keys(app_name="shop", user_id="ada", session_id=found.id)
    artifacts = {
        name: await runner.artifact_service.load_artifact(
            app_name="shop", user_id="ada", session_id=found.id, filename=name
        )
        for name in kept
    }
    await runner.close()
    return said, agent.model.asked, artifacts


async def test_code_calls_functions_and_the_answer_comes_back() -> None:
    code = "import asyncio\nprint('so')\nsum(await asyncio.gather(price('tea'), price(item='cake', count=2)))"
    said, _, _ = await told(WasmCodeExecutor(functions=[price]), code)
    assert "so\n1200" in said


async def test_what_goes_wrong_is_told_to_the_model() -> None:
    executor = WasmCodeExecutor(functions=[price], timeout_seconds=1, error_retry_attempts=5)
    codes = ["await price('salt')", "1 / 0", "while True: pass"]
    said, asked, _ = await told(executor, *codes)
    assert "timeout" in said
    for text, words in zip(asked[1:], ["KeyError", "ZeroDivisionError", "timeout"], strict=True):
        assert words in text


async def test_files_that_the_code_writes_are_artifacts() -> None:
    _, _, artifacts = await told(WasmCodeExecutor(), "open('/out.txt', 'w').write('hello')")
    assert [artifact.inline_data.data for artifact in artifacts.values()] == [b"hello"]


async def test_variables_are_kept_if_it_is_stateful() -> None:
    said, _, _ = await told(WasmCodeExecutor(stateful=True), "x = 20", "x + 1")
    assert "21" in said
    said, _, _ = await told(WasmCodeExecutor(error_retry_attempts=5), "x = 20", "x + 1")
    assert "NameError" in said


@pytest.mark.parametrize("stateful", [True, False])
async def test_files_of_a_request_are_there(stateful: bool) -> None:
    executor = WasmCodeExecutor(optimize_data_file=True, stateful=stateful)
    agent = LlmAgent(name="clerk", model=Scripted(codes=["open('data_1_1.csv').read()"]), code_executor=executor)
    runner = InMemoryRunner(agent, app_name="shop")
    found = await runner.session_service.create_session(app_name="shop", user_id="ada")
    table = types.Part(inline_data=types.Blob(mime_type="text/csv", data=b"item,cents\ntea,300\n"))
    message = types.Content(role="user", parts=[table, types.Part(text="Go on.")])
    events = [event async for event in runner.run_async(user_id="ada", session_id=found.id, new_message=message)]
    await runner.close()
    assert "tea,300" in str(events[-1].content)
