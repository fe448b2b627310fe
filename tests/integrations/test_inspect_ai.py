"""Inspect: the code of a model that is evaluated calls other tools, in the real framework with its mock model."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.groups import needs

pytestmark = needs("inspect_ai", "inspect-ai")

pytest.importorskip("inspect_ai", reason="needs inspect-ai: pip install --group inspect-ai")

import inspect_ai  # noqa: E402 - after the look for it
from inspect_ai.dataset import Sample  # noqa: E402 - as above
from inspect_ai.model import ModelOutput, ModelUsage, get_model  # noqa: E402 - as above
from inspect_ai.scorer import includes  # noqa: E402 - as above
from inspect_ai.solver import generate, use_tools  # noqa: E402 - as above
from inspect_ai.tool import Tool, ToolError, tool  # noqa: E402 - as above

from wasm_sandbox.integrations.inspect_ai import sandbox_python  # noqa: E402 - as above


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Inspect leaves streams unclosed: what warns of them is to do so in the test, which lets it."""
    yield
    gc.collect()


@tool
def price() -> Tool:
    async def execute(item: str, count: int = 1) -> int:
        """Price in cents.

        Args:
            item: What is bought.
            count: How many.
        """
        if item == "gold":
            raise ToolError("there is no gold")
        return {"tea": 300, "cake": 450}[item] * count

    return execute


def told(directory: Path, *samples: list[str], tools: Any = None) -> list[list[str]]:
    """What the tool said to each code of each sample, of which there is one at a time."""
    calls = [said(code) for codes in samples for code in [*codes, None]]
    task = inspect_ai.Task(
        dataset=[Sample(input="Go on.", target="done") for _ in samples],
        solver=[use_tools(tools or sandbox_python([price()], limits={"timeout_seconds": 0.5})), generate()],
        scorer=includes(),
    )
    (log,) = inspect_ai.eval(
        task,
        model=get_model("mockllm/model", custom_outputs=calls),
        log_dir=str(directory),
        display="none",
        max_samples=1,
        max_tasks=1,
    )
    assert log.status == "success", log.error
    assert log.samples is not None
    return [[found.text for found in sample.messages if found.role == "tool"] for sample in log.samples]


def said(code: str | None) -> ModelOutput:
    made = ModelOutput.for_tool_call("mockllm/model", "run_python", {"code": code})
    made = made if code else ModelOutput.from_content("mockllm/model", "done")
    made.usage = ModelUsage()  # or it counts tokens, with a table from the network
    return made


def test_code_calls_the_other_tools_and_the_answer_comes_back(tmp_path: Path) -> None:
    code = "import asyncio\nprint('so')\nsum(await asyncio.gather(price('tea'), price(item='cake', count=2)))"
    assert told(tmp_path, [code]) == [["so\n1200"]]


def test_what_goes_wrong_is_told_to_the_model(tmp_path: Path) -> None:
    codes = ["await price('gold')", "await price()", "await price('salt')", "1 / 0", "while True: pass"]
    (found,) = told(tmp_path, codes)
    for text, words in zip(
        found, ["there is no gold", "TypeError", "KeyError", "ZeroDivision", "timeout"], strict=True
    ):
        assert words in text


def test_variables_are_kept_for_a_sample_and_no_other(tmp_path: Path) -> None:
    count = "x = globals().get('x', 0) + 1\nx"
    assert told(tmp_path, [count, count], [count]) == [["1", "2"], ["1"]]


def test_nothing_is_kept_where_it_is_not_wanted(tmp_path: Path) -> None:
    count = "x = globals().get('x', 0) + 1\nx"
    assert told(tmp_path, [count, count], tools=sandbox_python(keeps_state=False)) == [["1", "1"]]


def test_the_model_sees_the_signatures_of_the_other_tools() -> None:
    from inspect_ai.tool import ToolDef

    definition = ToolDef(sandbox_python([price()]))
    assert definition.name == "run_python"
    assert "async def price(item: str, count: int" in definition.description
