"""Rules of the generated script that only the real guest can show."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from wasm_sandbox import Limits, Tool, ToolExecutionResult, WasmToolSandbox, run_tool
from wasm_sandbox.decode.frame import split_frames
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.generate import generate_script

SHAPES = {"plain": "", "guarded": "\ndel sys, pickle, struct, hashlib, base64"}


def run(source: str, args: dict[str, Any] | None = None, **options: Any) -> ToolExecutionResult:
    properties: dict[str, Any] = {key: {} for key in args or {}}
    tool = Tool(name="tool", source_code=source, json_schema={"parameters": {"properties": properties}})
    return run_tool(tool, args, **options)


@pytest.mark.parametrize("ending", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("prefix", ["", "async "])
def test_the_payload_is_a_pickle_of_protocol_4(prefix: str, ending: str) -> None:
    """Section 7's reference bytes; W38."""
    tool = Tool(name="tool", source_code=f"{prefix}def tool(): return 1{ending}")
    request = ExecutionRequest(generate_script(tool, {}).text, {}, Limits())
    outcome = process_engine().start(request, LiveSurroundings()).result()
    assert split_frames(outcome.stdout, max_payload=1000).payload == bytes.fromhex(
        "80049520000000000000007d94288c07726573756c7473944b018c0b6167656e745f7374617465944e752e"
    )


def test_the_checksum_needs_no_openssl() -> None:
    """W26: it is the guest's own MD5, which no policy of the host disables."""
    assert run("def tool(): return hashlib.md5(b'').hexdigest()").func_return == "d41d8cd98f00b204e9800998ecf8427e"
    error = run("def tool():\n    import _hashlib").error
    assert error is not None
    assert error.exception_name == "ModuleNotFoundError"


@pytest.mark.parametrize("prefix", ["", "async "])
def test_tools_may_use_the_scripts_globals_without_importing_them(prefix: str) -> None:
    """Section 3."""
    source = f"""{prefix}def tool(x: List[int]) -> Optional[Dict[str, Any]]:
    return [os.sep, sys.byteorder, pickle.loads(pickle.dumps(1)), base64.b64encode(b'a'), struct.calcsize('>I'),
            hashlib.md5(b'').digest_size, client, Letta, agent_state, __name__, x]
"""
    expected = ["/", "little", 1, b"YQ==", 4, 16, None, None, None, "__main__", [1]]
    assert run(source, {"x": [1]}).func_return == expected


@pytest.mark.parametrize("ending", SHAPES.values(), ids=SHAPES)
def test_the_client_is_none_where_there_is_none_and_a_key_does_not_change_that(ending: str) -> None:
    """Section 3, block 8; W39: its absence does not fail the tool."""
    result = run(f"def tool(): return [client, Letta]{ending}", additional_env_vars={"LETTA_API_KEY": "key"})
    assert (result.func_return, result.stdout, result.stderr) == ([None, None], [], [])


@pytest.mark.parametrize("ending", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("prefix", ["", "async "])
def test_a_result_that_pydantic_cannot_dump_becomes_text_with_a_notice(prefix: str, ending: str) -> None:
    """Section 7, fallback 2; W22: kept as it was, the notice in the tool's output."""
    source = f"""
import dataclasses
@dataclasses.dataclass(frozen=True)
class D:
    n: int
{prefix}def tool():
    print("before")
    return {{D(1)}}{ending}
"""
    result = run(source)
    assert (result.status, result.func_return) == ("success", "{D(n=1)}")
    assert result.stdout == ["before\nFailed to serialize result with Pydantic wrapper: unhashable type: 'dict'\n"]


def test_an_error_in_the_text_of_a_result_is_the_tools() -> None:
    """Section 7, fallback 2."""
    source = """
from dataclasses import dataclass
@dataclass(frozen=True, repr=False)
class D:  # what it becomes is no member of a set
    x: int
    def __repr__(self): raise KeyError("no text")
def tool(): return {D(1)}
"""
    result = run(source)
    assert result.error is not None
    assert (result.error.kind, result.error.exception_name) == ("tool_exception", "KeyError")


def test_a_tool_level_name_wins_over_nothing_but_itself() -> None:
    """W8: legacy let a tool's own globals replace arguments of the same name; here both are what they say."""
    source = "import json\nx = 100\ndef tool(json, x, y=0):\n    return [json, x, globals()['x'], y]"
    assert run(source, {"json": "text", "x": 5}).func_return == ["text", 5, 100, 0]


def test_a_source_without_the_function_is_the_tools_name_error() -> None:
    """Section 2."""
    for source in ("", "def other(): ..."):
        error = run(source).error
        assert error is not None
        assert (error.exception_name, error.message) == ("NameError", "name 'tool' is not defined")


@pytest.mark.parametrize("ending", SHAPES.values(), ids=SHAPES)
async def test_the_global_state_after_the_call_is_what_comes_back(ending: str) -> None:
    """Section 7: changes in place show, rebinding the parameter does not."""

    @dataclasses.dataclass
    class State:
        memo: str = ""

    source = f"def tool(agent_state):\n    agent_state.memo = 'in place'\n    agent_state = 5\n    return 1{ending}"
    tool = Tool(name="tool", source_code=source)
    result = await WasmToolSandbox("tool", {}, None, None, tool_object=tool).run(agent_state=State())
    assert result.agent_state == {"memo": "in place"}
