"""Extra and missing arguments (python-sdk 3514, parlant PR 228).

A missing required argument ran the module and ended as the tool's own exception; extra arguments of a tool with
``**kwargs`` were dropped. Of a tool whose schema is that of its signature, the first is refused before anything runs,
and the second are passed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, Tool, run_tool
from wasm_sandbox.errors import BadArguments
from wasm_sandbox.script.generate import generate_script


@st.composite
def signatures(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    """A signature, its required names, and all of its names."""
    count = draw(st.integers(1, 5))
    defaults = draw(st.integers(0, count))
    names = [f"p{number}" for number in range(count)]
    positional = draw(st.integers(0, count))
    keyword_only = draw(st.integers(positional, count))
    parts: list[str] = []
    for number, name in enumerate(names):
        if number == keyword_only and number:
            parts.append("*")
        parts.append(name if number < count - defaults else f"{name}=0")
        if number + 1 == positional and positional:
            parts.append("/")
    kind = draw(st.sampled_from(["def", "async def"]))
    source = f"print('ran')\n{kind} f({', '.join(parts)}):\n    return 1\n"
    return source, names[: count - defaults], names


@given(drawn=signatures(), data=st.data())
@settings(max_examples=300)
def test_a_call_is_refused_if_and_only_if_a_required_argument_is_missing(
    drawn: tuple[str, list[str], list[str]], data: st.DataObject
) -> None:
    source, required, names = drawn
    given = data.draw(st.sets(st.sampled_from(names)))
    tool = Tool.from_source(source)
    missing = [name for name in required if name not in given]
    refused = refusal(tool, dict.fromkeys(given, 1))
    if refused is None or "positional-only" in str(refused):  # one cannot be given without those before it
        assert not missing
    else:
        assert refused.argument == missing[0]


def refusal(tool: Tool, args: dict[str, Any]) -> BadArguments | None:
    try:
        generate_script(tool, args)
    except BadArguments as error:
        return error
    return None


@pytest.mark.parametrize(
    "source",
    [
        "print('ran')\ndef f(a, b): return a + b",
        "print('ran')\nasync def f(*, a, b): return a + b",
        "import functools\nprint('ran')\n@functools.cache\ndef f(a, b): return a + b",
        "print('ran')\ndef f(a: int, b: 'int | None'): return a + b",
        "print('ran')\ndef f(a, b, **rest): return a + b",
    ],
)
def test_nothing_runs_without_a_required_argument(source: str) -> None:
    result = run_tool(Tool.from_source(source), {"a": 1})
    assert result.error is not None
    assert (result.error.kind, result.stdout or []) == (ErrorKind.BAD_ARGUMENTS, [])
    assert "argument 'b': it is required, and missing" in result.error.message


def test_none_and_what_is_injected_are_not_missing() -> None:
    assert run_tool(Tool.from_source("def f(a): return [a]"), {"a": None}).func_return == [None]
    assert run_tool(Tool.from_source("def f(agent_state, agent_id): return 1")).func_return == 1


def test_the_command_ends_with_bad_usage(tmp_path: Path) -> None:
    file = tmp_path / "tool.py"
    file.write_text("print('ran')\ndef f(a, b, **rest): return [a, b, rest]\n")
    command = [sys.executable, "-m", "wasm_sandbox", "run", str(file), "--args"]
    done = subprocess.run([*command, '{"a": 1}'], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'b'" in done.stderr
    done = subprocess.run([*command, '{"a": 1, "b": 2, "c": 3}'], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"c": 3' in done.stdout


NAMES = st.one_of(
    st.sampled_from(["kwargs", "class", "a b", "é", "sys", "print", "f", "self", "request_heartbeat", "json", "__x__"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)


@given(extra=st.dictionaries(NAMES, st.integers() | st.text(max_size=3), max_size=4))
@settings(max_examples=25)
def test_extra_arguments_reach_a_tool_that_takes_any(extra: dict[str, Any]) -> None:
    extra = {name: value for name, value in extra.items() if name.isascii() and name != "a"}
    result = run_tool(Tool.from_source("def f(a, **kwargs): return kwargs"), {"a": 1, **extra})
    assert result.func_return == extra


def test_extra_arguments_are_converted_by_the_annotation() -> None:
    tool = Tool.from_source("def f(**kwargs: int): return kwargs")
    assert tool.json_schema is not None
    assert tool.json_schema["parameters"] == {
        "type": "object", "properties": {}, "required": [], "additionalProperties": {"type": "integer"},
    }  # fmt: skip
    assert run_tool(tool, {"x": "5"}).func_return == {"x": 5}
    result = run_tool(tool, {"x": "five"})
    assert result.error is not None
    assert result.error.kind is ErrorKind.BAD_ARGUMENTS


def test_extra_arguments_of_any_other_tool_are_left_out() -> None:
    for source in ("def f(a): return a", "def f(a, *args): return a"):
        assert run_tool(Tool.from_source(source), {"a": 1, "b": 2}).func_return == 1


def test_a_tool_given_by_hand_is_held_to_nothing_but_its_schema() -> None:
    schema = {"parameters": {"properties": {"a": {}, "b": {}}, "required": ["a", "b"], "additionalProperties": True}}
    tool = Tool(name="f", source_code="def f(a, b=2, **kwargs): return [a, b, kwargs]", json_schema=schema)
    assert run_tool(tool, {"a": 1, "c": 3}).func_return == [1, 2, {}]


def test_a_function_of_the_program_is_held_to_its_signature_too() -> None:
    def f(a: int, **kwargs: int) -> list[Any]:
        return [a, kwargs]

    assert run_tool(f, {"a": "1", "b": "2"}).func_return == [1, {"b": 2}]
    result = run_tool(f, {"b": 2})
    assert result.error is not None
    assert result.error.kind is ErrorKind.BAD_ARGUMENTS
