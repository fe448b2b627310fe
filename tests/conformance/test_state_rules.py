"""semantics.md, W2, W24, W25: the agent state on its way in and out, in the real guest."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import BaseModel

from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.generate import generate_script

TOUCH = "def f(agent_state):\n    agent_state.memo = 'seen'\n    return len(agent_state.{})\n"
TAKE = "def f(value):\n    return {'memo': 'seen', 'value': value}\n"


def fuel_of(result: ToolExecutionResult) -> int:
    assert result.success_flag, result.error
    assert result.usage is not None
    assert result.usage.fuel is not None
    return result.usage.fuel


def fuel_of_literal(tool: Tool, value: Any) -> int:
    """Of the same call by the plain script, in which the argument is spelled out."""
    script = generate_script(tool, {"value": value}).text
    outcome = process_engine().start(ExecutionRequest(script, {}, Limits()), LiveSurroundings()).result()
    assert (outcome.exit_code, outcome.exception) == (0, None)
    assert outcome.fuel is not None
    return outcome.fuel


class Wide(BaseModel):
    id: str = "agent-1"
    memo: str = ""
    text: str = ""
    ascii: str = ""
    octets: bytes = b""
    records: list[dict[str, Any]] = []


MEGABYTE = {
    "text": "".join(random.Random(5).choices("абвгдежзийклмнопрстуфхцчшщъыьэюя .\n", k=500_000)),
    "ascii": "".join(random.Random(6).choices("abcdefghijklmnopqrstuvwxyz0123456789 .'", k=1_000_000)),
    "octets": random.Random(8).randbytes(500_000),
    "records": [{"id": n, "name": f"user {n}", "score": n / 7, "tags": ["a", None]} for n in range(15_000)],
}


@pytest.mark.long
@pytest.mark.parametrize("kind", MEGABYTE)
@pytest.mark.parametrize("make", [Wide, dict], ids=["model", "mapping"])
def test_a_large_state_costs_no_more_than_a_large_literal_that_is_returned(make: Any, kind: str) -> None:
    """W25: counted in fuel, which no load of the machine changes. Both go in and come back, one megabyte each;
    a fifth more is for reading bytes where an argument is text. (Handed over beside the script, as our own guest
    gets it, an argument of many parts costs a quarter of either.)"""
    state = run_tool(
        Tool(name="f", source_code=TOUCH.format(kind)), agent_state=make(id="agent-1", **{kind: MEGABYTE[kind]})
    )
    schema = {"parameters": {"type": "object", "properties": {"value": {}}}}
    take = Tool(name="f", source_code=TAKE, json_schema=schema)
    argument = run_tool(take, {"value": MEGABYTE[kind]})
    assert state.func_return == len(MEGABYTE[kind])
    back = state.agent_state
    assert (back.memo if make is Wide else back["memo"]) == "seen"
    assert (getattr(back, kind) if make is Wide else back[kind]) == MEGABYTE[kind]
    assert argument.func_return["value"] == MEGABYTE[kind]
    assert fuel_of(state) < 1.2 * fuel_of_literal(take, MEGABYTE[kind])
    assert fuel_of(argument) < 1.2 * fuel_of_literal(take, MEGABYTE[kind])


@pytest.mark.parametrize("more", ["", ", /"])
def test_names_of_a_tool_do_not_touch_a_large_state(more: str) -> None:
    """W8, W25: what reads it is read before the tool."""
    source = f"def f(agent_state{more}):\n    return agent_state.t"
    head = "base64 = zlib = pickle = None\ndef __import__(name): raise ValueError\n"
    text = random.Random(7).randbytes(100_000)
    schema = {"parameters": {"type": "object", "properties": {}}}
    tool = Tool(name="f", source_code=head + source, json_schema=schema)
    assert run_tool(tool, agent_state={"t": text}).func_return == text
    models = {"type": "object", "properties": {"x": {"$ref": "#/$defs/base64"}}}
    models["$defs"] = {"base64": {"title": "base64", "type": "object", "properties": {}}}
    tool = Tool(name="f", source_code=source, args_json_schema=models)
    assert run_tool(tool, agent_state={"t": text}).func_return == text
