"""Whatever a tool's source and arguments are: a run returns a result, or raises what is documented."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool

FRAGMENTS = [
    "def f", "(", ")", ":", "\n", "\n    ", "return ", "x", "=", "1", "[", "]", "{", "}", "'", '"""', "lambda: ",
    "import sys", "import os; os._exit(0)", "raise ", "ValueError", "class ", "async ", "await ", "yield ", "f", ",",
    "*", "**", "/", "@", "#", "\\", "\t", "\r", "\x0c", "\ufeff", "é", "ﬁ", "\u2028", "\0", "\ud800", "0x", "1e9",
    "global f\n", "del f\n", "from __future__ import annotations\n", "from typing import *\n", "f'{", "}'",
    "sys.stdout", "print(1)", "while 1: break", "agent_state", "agent_id", "__builtins__", "print = 1\n",
    "pickle = 2\n",
]  # fmt: skip
SOURCES = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(lambda parts: "def f(x=1, **k):\n    " + "".join(parts)),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(lambda parts: "".join(parts) + "\ndef f(x=1):\n    return x"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SCHEMA = {"parameters": {"type": "object", "properties": {"x": {}, "print": {"type": "integer"}, "class": {}}}}


def run(source: Any, args: Any, schema: Any = None) -> ToolExecutionResult:
    tool = Tool(name="f", source_code=source, json_schema=schema)
    return run_tool(tool, args, limits=Limits(timeout_seconds=5, fuel=300_000_000))


def is_whole(result: ToolExecutionResult) -> None:
    assert (result.status == "success") == (result.error is None)
    assert result.error is None or type(result.func_return) is str
    for stream in (result.stdout, result.stderr):
        assert stream is not None
        assert all(type(text) is str for text in stream)
        "".join(stream).encode()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(source=SOURCES)
def test_any_source_gives_a_result(source: str) -> None:
    is_whole(run(source, {}))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(args=st.dictionaries(st.sampled_from(["x", "print", "class", "y", "a b", ""]) | st.text(max_size=5), JSON))
def test_any_arguments_give_a_result(args: dict[str, Any]) -> None:
    is_whole(run("def f(x=None, **others):\n    return [x, others]", args, SCHEMA))


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(value=JSON)
def test_any_json_value_comes_back_as_it_was(value: Any) -> None:
    result = run("def f(x=None):\n    return x", {"x": value}, SCHEMA)
    assert repr(result.func_return) == repr(value)


EXTREME = {
    "infinite": float("-inf"), "a wide int": 10**4000, "a wider int": -(10**5000), "a lone surrogate": "\ud800",
    "a NUL": "\0", "a megabyte": "x" * 10**6, "lists": [[]] * 50,
}  # fmt: skip


@pytest.mark.parametrize("value", EXTREME.values(), ids=EXTREME.keys())
def test_extreme_json_values_come_back_as_they_were(value: Any) -> None:
    result = run("def f(x=None):\n    return [x]", {"x": value}, SCHEMA)
    assert result.error is None, result.error.message
    assert result.func_return == [value]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(output=st.binary(max_size=200), errors=st.binary(max_size=200), code=st.integers(0, 255))
def test_any_bytes_on_the_streams_and_any_exit_code_give_a_result(output: bytes, errors: bytes, code: int) -> None:
    result = run(
        f"import os\ndef f():\n    os.write(1, {output!r})\n    os.write(2, {errors!r})\n    os._exit({code})", {}
    )
    is_whole(result)
    assert result.error is not None
