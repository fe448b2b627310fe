"""Big values go to our own guest beside the script: nobody may be able to tell, except by time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasm_sandbox.bench.contenders import request_of
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.errors import BadArguments
from wasm_sandbox.limits import MIB
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.results import ErrorKind, ToolExecutionResult
from wasm_sandbox.sandbox.wasm import WasmToolSandbox, run_tool
from wasm_sandbox.script.arguments import MAX_DEPTH, ValuesApart
from wasm_sandbox.script.generate import ExecutionScript, generate_script
from wasm_sandbox.tool.definition import Tool
from wasm_sandbox.workers.messages import decode_request, encode_request

PADDING = "x" * 3000
RECORDS = [{"id": n, "name": f"user {n}", "score": n / 7} for n in range(2000)]

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.binary(max_size=20)
)
KEYS = st.text(max_size=5) | st.integers() | st.tuples(st.booleans(), st.text(max_size=3))
PLAIN = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple) | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=30,
)


def run(script: ExecutionScript) -> Outcome:
    return process_engine().start(request_of(script), LiveSurroundings()).result()


def both(tool: Tool, args: dict[str, Any], state: Any = None) -> tuple[Outcome, Outcome]:
    """The same call with its values beside the script, and spelled out in it."""
    apart = generate_script(tool, args, agent_state=state, apart=ValuesApart())
    spelled = generate_script(tool, args, agent_state=state)
    assert apart.values
    assert not spelled.values
    assert apart.text.count("\n") == spelled.text.count("\n")
    assert apart.tool_first_line == spelled.tool_first_line
    return run(apart), run(spelled)


def assert_alike(outcomes: tuple[Outcome, Outcome]) -> None:
    first, second = outcomes
    for what in ("ending", "exit_code", "exception", "stdout", "stderr"):
        assert getattr(first, what) == getattr(second, what), what


SHOW = Tool.from_source("def show(value: object) -> str:\n    return ascii(value)\n")


@given(PLAIN)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_any_plain_value_arrives_as_its_literal_would_make_it(value: Any) -> None:
    big = [value, PADDING]
    assert_alike(both(SHOW, {"value": big}))
    assert ascii(big) in run(generate_script(SHOW, {"value": big}, apart=ValuesApart())).stdout.decode(
        "ascii", "replace"
    )


@pytest.mark.parametrize("value", [PADDING, "й" * 3000, "\ud800" * 3000, b"\0\xff" * 2000, [float("nan")] * 200])
def test_long_and_odd_values_arrive(value: Any) -> None:
    assert_alike(both(SHOW, {"value": value}))


SOURCES = {
    "plain": "def take(a: object, b: object):\n    return len(a), b[0]\n",
    "mutates": "def take(a, b):\n    a[0]['id'] = 7\n    b.append(1)\n    return a[:2], a[0] is b[0], len(b)\n",
    "shows the order of its globals": "def take(a, b):\n    return [n for n in globals() if n[:2] != '__']\n",
    "shadows an argument": "import json as a\nb = 5\ndef take(a, b):\n    return str(type(a)), b\n",
    "raises": "def take(a, b):\n    return a[len(b)]['no']\n",
    "raises at the top": "len(a) / 0\ndef take(a, b):\n    return 1\n",
    "has positional-only parameters": "def take(a, /, b):\n    return len(a) + len(b)\n",
    "clears its globals": "def take(a, b):\n    globals().clear()\n    return len(a)\n",
    "is async": "async def take(a, b):\n    return len(a) + len(b)\n",
    "fails to compile": "def take(a, b:\n",
    "rebinds __import__": "import builtins\nbuiltins.__import__ = None\ndef take(a, b):\n    return len(a)\n",
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_tool_cannot_tell(source: str) -> None:
    properties = {"a": {"type": "array"}, "b": {"type": "array"}}
    schema = {"name": "take", "parameters": {"type": "object", "properties": properties}}
    tool = Tool(name="take", source_code=source, json_schema=schema)
    assert_alike(both(tool, {"b": list(RECORDS), "a": list(RECORDS)}))


def test_arguments_of_a_schema_are_checked_alike() -> None:
    schema = {
        "title": "Args",
        "type": "object",
        "properties": {"rows": {"type": "array", "items": {"type": "object"}}},
        "required": ["rows"],
    }
    tool = Tool(
        name="take",
        source_code="def take(rows):\n    return len(rows)\n",
        json_schema={"name": "take", "parameters": {"properties": {"rows": {"type": "array"}}}},
        args_json_schema=schema,
    )
    assert_alike(both(tool, {"rows": RECORDS}))
    result = run_tool(tool, {"rows": [*RECORDS, 1]})
    assert result.error is not None
    assert result.error.kind is ErrorKind.BAD_ARGUMENTS


def test_agent_state_arrives_and_comes_back() -> None:
    source = (
        "def remember(agent_state):\n    agent_state.seen = len(agent_state.rows)\n    return agent_state['seen']\n"
    )
    tool = Tool.from_source(source)
    state = {"id": "agent-1", "rows": RECORDS}
    assert_alike(both(tool, {}, state))
    result = run_tool(tool, agent_state=state)
    assert result.func_return == 2000
    assert result.agent_state == {**state, "seen": 2000}


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_big_values_go_in_and_come_back(isolation: Any) -> None:
    tool = Tool.from_source("def same(rows: list, text: str):\n    return rows, text\n")
    result = run_tool(tool, {"rows": RECORDS, "text": PADDING}, isolation=isolation)
    assert result.func_return == (RECORDS, PADDING)


def test_the_values_cross_to_a_worker_process() -> None:
    request = request_of(generate_script(SHOW, {"value": RECORDS}, apart=ValuesApart()))
    request = request._replace(values=(*request.values, b"more"))
    assert decode_request(*encode_request(request)) == request


def test_the_script_that_is_shown_spells_everything_out() -> None:
    sandbox = WasmToolSandbox("show", {"value": RECORDS}, None, None, tool_object=SHOW)
    assert repr(RECORDS) in asyncio.run(sandbox.generate_execution_script(None, wrap_print_with_markers=True))


def test_small_values_and_what_is_no_plain_data_are_spelled_out() -> None:
    class Text(str):
        """A text that is more than text."""

    part: list[int] = [1] * 100
    for value in (
        1,
        "short",
        [1, 2],
        {"a": [1]},
        Text(PADDING),
        set(range(100)),
        [part, part],
        [Text("a")] * 100,
    ):
        assert ValuesApart().source(value) is None


def test_a_value_that_cannot_be_passed_is_refused_as_ever() -> None:
    cyclic: list[Any] = [PADDING]
    cyclic.append(cyclic)
    deep: Any = PADDING
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    refused: list[Any] = [cyclic, deep, [*RECORDS, object()], [bytearray(9)] * 100, [frozenset()] * 100]
    for value in refused:
        with pytest.raises(BadArguments):
            generate_script(SHOW, {"value": value}, apart=ValuesApart())


def failed(result: ToolExecutionResult) -> ErrorKind | None:
    return result.error.kind if result.error else None


LARGER_THAN_A_GUEST: dict[str, Callable[[], Any]] = {
    "text": lambda: "x" * 70_000_000,
    "lists": lambda: [[n] for n in range(2_000_000)],
}
"""Made where they are used: every garbage collection of the process would go through them."""


@pytest.mark.long
@pytest.mark.parametrize("make", LARGER_THAN_A_GUEST.values(), ids=LARGER_THAN_A_GUEST.keys())
def test_more_than_the_memory_of_a_guest_is_out_of_memory(make: Callable[[], Any]) -> None:
    assert failed(run_tool(SHOW, {"value": make()}, limits={"memory_bytes": 64 * MIB})) is ErrorKind.OUT_OF_MEMORY


def test_the_memory_of_what_was_fetched_is_free_again() -> None:
    tool = Tool.from_source("def take(text: str) -> int:\n    more = bytes(len(text))\n    return len(more)\n")
    size = 40_000_000
    result = run_tool(tool, {"text": "x" * size}, limits={"memory_bytes": 200 * MIB})
    assert result.func_return == size
    assert result.usage is not None
    assert result.usage.peak_memory_bytes < 2.5 * size + 48 * MIB


def test_a_tool_that_fetches_again_only_fails_itself() -> None:
    tool = Tool.from_source(
        "def take(value: str):\n    import _sandbox_guest\n    return _sandbox_guest.value(0)\n", name="take"
    )
    result = run_tool(tool, {"value": PADDING})
    assert failed(result) is ErrorKind.TOOL_EXCEPTION
