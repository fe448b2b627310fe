"""Tools that are called again: compiled ahead in a guest of their own, and like any others in all that can be seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.engines import settled
from tests.support.usage import counted
from wasm_sandbox import ErrorKind, Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.compiled import tool_codes
from wasm_sandbox.engine.compiled.tool_codes import ToolCode, ToolCodes, key_of
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.generate import generate_script

SCHEMA: dict[str, Any] = {"parameters": {"properties": {"x": {}}}}


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolCodes]:
    """Those of the default image, none at first."""
    image = process_engine().image()
    fresh = ToolCodes()
    before = image.tool_codes
    object.__setattr__(image, "tool_codes", fresh)
    yield fresh
    object.__setattr__(image, "tool_codes", before)


def call(source: str, times: int = 4, **options: Any) -> list[ToolExecutionResult]:
    """Some calls of a tool ``f`` in a row, each with another ``x`` if it takes one."""
    tool = Tool(name="f", source_code=source, json_schema=SCHEMA)
    results = []
    for n in range(times):
        results.append(run_tool(tool, {"x": n} if "(x" in source else {}, **options))
        settle()
    return results


def settle() -> None:
    """Wait until what follows a reply is done."""
    settled(process_engine())


def known(codes: ToolCodes) -> list[ToolCode]:
    return list(codes.known.values())


def test_the_third_call_has_the_code_that_was_made_after_the_second(codes: ToolCodes) -> None:
    source = "def f(x):\n    return x + 1\n"
    assert [r.func_return for r in call(source, 1)] == [1]
    assert known(codes) == []
    assert [r.func_return for r in call(source, 1)] == [1]
    (code,) = known(codes)
    assert 0 < len(code.data) < 1000
    assert [r.func_return for r in call(source, 5)] == [1, 2, 3, 4, 5]
    assert known(codes) == [code]


def test_the_code_is_what_runs(codes: ToolCodes) -> None:
    """Shown by other code in its place, which no guest can arrange."""
    call("def f(x):\n    return 'one'\n", 2)
    call("def f(x):\n    return 'two'\n", 2)
    (first, second), one = known(codes), next(iter(codes.known))
    codes.keep(one, second)
    assert [r.func_return for r in call("def f(x):\n    return 'one'\n", 1)] == ["two"]
    codes.keep(one, first)
    assert [r.func_return for r in call("def f(x):\n    return 'one'\n", 1)] == ["one"]


SOURCES = {
    "a function": "def f(x):\n    return x\n",
    "no arguments": "def f():\n    return 5\n",
    "a docstring at its top": "'''Not of the script.'''\ndef f():\n    return __doc__\n",
    "a docstring after an argument": "'''Not of the script.'''\ndef f(x):\n    return __doc__\n",
    "its own source": "import inspect\ndef f(x):  # é\n    return inspect.getsource(f)\n",
    "classes": "class A:\n    def g(self):\n        return type(self).__qualname__\ndef f(x):\n    return A().g()\n",
    "its code": "def f(x):\n    c = f.__code__\n    return c.co_filename, c.co_firstlineno, c.co_name, c.co_qualname\n",
    "a lambda's code": "g = (\n  lambda: 0)\ndef f():\n    return g.__code__.co_firstlineno, g.__code__.co_filename\n",
    "an exception": "\n\ndef f(x):\n    def g(y):\n        return 1 / (y - y)\n    return g(x)\n",
    "an exception at its top": "import math\nx = math.sqrt(-1)\ndef f():\n    return 1\n",
    "no such function": "def g(x):\n    return 1\n",
    "a missing argument": "def f(x, y):\n    return 1\n",
    "annotations": "x: int = 1\ndef f():\n    return __annotations__\n",
    "constants": "a = b'x' * 3\nb = (1, 2.5, None, True, 'é')\ndef f():\n    return a, b, 10**30\n",
    "a generator": "def f(x):\n    return [*(n for n in range(x))]\n",
    "globals of the script": "def f(x):\n    return sorted(n for n in globals() if not n.startswith('result_'))\n",
    "a match": "def f(x):\n    match [x, 1]:\n        case [int(a), 1]:\n            return a\n",
    "CRLF": "def f(x):\r\n    return 1 / 0\r\n",
    "other ends of lines": "a = '''\u2028\x0c\x1c'''\ndef f(x):\n    return 1 / 0\n",
    "an exit": "import sys\ndef f(x):\n    print('bye')\n    sys.exit(0)\n",
    "the compiler, taken away": "import builtins\ndef f():\n    builtins.compile = None\n    return 1\n",
    "awaiting": "async def f(x):\n    return x\n",
    "positional-only": "def f(x, /):\n    return x\n",
    "a syntax error": "def f(x):\n    return = 1\n",
    "deep recursion": "def f(x):\n    return f(x)\n",
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_call_is_the_same_with_and_without_it(source: str, codes: ToolCodes, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = call(source)
    monkeypatch.setattr(ToolCodes, "find", lambda self, key: None)
    theirs = call(source)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.model_copy(update={"usage": None}) == other.model_copy(update={"usage": None})
        assert mine.usage is not None
        assert other.usage is not None
        fuel = counted(other.usage.fuel)
        assert abs(counted(mine.usage.fuel) - fuel) < 0.09 * fuel


def test_what_was_spared_is_paid_for_so_that_fuel_is_about_the_same(codes: ToolCodes) -> None:
    source = "def f(x):\n" + "".join(f"    y{n} = x * {n} + len(str(x))\n" for n in range(200)) + "    return y9\n"
    first, _, third, fourth = (counted(r.usage.fuel) for r in call(source) if r.usage)
    (code,) = known(codes)
    assert code.fuel > 0.8 * first
    assert abs(third - first) < 0.03 * first
    assert abs(fourth - third) < 0.01 * third


def test_less_fuel_than_compiling_takes_is_too_little_as_ever(codes: ToolCodes) -> None:
    source = "def f(x):\n    return x + 1\n"
    call(source)
    (code,) = known(codes)
    (cramped,) = call(source, 1, limits=Limits(fuel=code.fuel - 1))
    assert cramped.error is not None
    assert cramped.error.kind is ErrorKind.OUT_OF_FUEL
    (scarce,) = call(source, 1, limits=Limits(fuel=code.fuel + 100))
    assert scarce.error is not None
    assert scarce.error.kind is ErrorKind.OUT_OF_FUEL


def test_no_code_is_given_to_other_lines(codes: ToolCodes) -> None:
    tools = [f"def f(x):\n    return {n}\n" for n in range(8)]
    for _ in range(4):
        assert [call(source, 1)[0].func_return for source in tools] == list(range(8))
    assert len(known(codes)) == 8


def test_the_same_lines_at_another_place_of_a_script_have_the_lines_of_that_place(codes: ToolCodes) -> None:
    tool = Tool(name="f", source_code="def f(x):\n    return x\nif x: 1 / 0\n", json_schema=SCHEMA)
    made = generate_script(tool, {"x": 0})
    first = made.tool_first_line

    def outcome(x: int, more: int) -> Outcome:
        text = made.text.replace("x = 0\n", f"x = {x}\n" + "more = 1\n" * more)
        limits = Limits(timeout_seconds=30)
        request = ExecutionRequest(text, {}, limits, tool_first_line=first + more, tool_line_count=3)
        outcome = process_engine().start(request, LiveSurroundings()).result()
        settle()
        return outcome

    assert [outcome(0, 0).exit_code for _ in range(3)] == [0, 0, 0]
    assert len(known(codes)) == 1
    for more in (0, 1, 7):
        exception = outcome(1, more).exception
        assert exception is not None
        assert 'File "tool.py", line 3, in <module>\n    if x: 1 / 0\n' in exception.traceback


@pytest.mark.parametrize(
    "limits", [Limits(deterministic=True), Limits(fuel=None)], ids=["deterministic", "without fuel"]
)
def test_where_fuel_must_be_the_same_or_is_not_counted_nothing_is_compiled_ahead(limits: Limits) -> None:
    request = ExecutionRequest("a = 1\ndef f(): pass\n", {}, limits, tool_first_line=2, tool_line_count=1)
    assert key_of(request) is None


def test_the_key_is_of_all_lines_from_the_tool_on() -> None:
    def key(script: str, first: int = 2) -> bytes | None:
        return key_of(ExecutionRequest(script, {}, Limits(), tool_first_line=first, tool_line_count=1))

    assert key("a = 1\ndef f(): pass\nend") == hashlib.sha256(b"def f(): pass\nend").digest()
    assert key("a = 2\ndef f(): pass\nend") == key("a = 1\ndef f(): pass\nend")
    assert key("a = 1\nb\ndef f(): pass\nend", 3) == key("a = 1\ndef f(): pass\nend")
    assert key("a = 1\ndef f(): pass\nEnd") != key("a = 1\ndef f(): pass\nend")
    assert key("a = 1\n" + "#" * tool_codes.MAX_SOURCE_BYTES) is not None
    assert key("a = 1\n" + "#" * (tool_codes.MAX_SOURCE_BYTES + 1)) is None


def test_a_script_that_is_no_tool_call_has_none() -> None:
    assert key_of(ExecutionRequest("print(1)", {}, Limits())) is None


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return [" + "x," * 40_000 + "]\n",  # more code than is kept
        "from __future__ import annotations\ndef f(x):\n    return 1\n",  # no prepared script
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_ahead_runs_as_ever_and_is_not_tried_again(source: str, codes: ToolCodes) -> None:
    results = call(source)
    assert [r.status for r in results] == ["success"] * 4
    assert all(len(code.data) <= tool_codes.MAX_CODE_BYTES for code in known(codes))


def test_a_source_that_takes_the_compiler_long_is_given_up_ahead(
    codes: ToolCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasm_sandbox.engine.run.compile_ahead.COMPILE_FUEL", 20_000)
    assert [r.func_return for r in call("def f(x):\n    return x + 1\n")] == [1, 2, 3, 4]
    assert known(codes) == []


def test_runs_that_fail_are_not_compiled_ahead(codes: ToolCodes) -> None:
    call("def f(x):\n    return 1 / 0\n")
    assert len(codes) == 0


def test_the_tools_that_were_not_called_the_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_codes, "MAX_TOOLS", 3)
    codes = ToolCodes()
    keys = [bytes([n]) for n in range(5)]
    for key in keys[:3]:
        assert not codes.is_wanted(key)
        assert codes.is_wanted(key)
        assert not codes.is_wanted(key)  # somebody is at it
        codes.keep(key, ToolCode(key, 1))
    assert codes.find(keys[0]) == ToolCode(keys[0], 1)
    assert not codes.is_wanted(keys[3])
    assert [codes.find(key) is not None for key in keys] == [True, False, True, False, False]
    codes.keep(keys[1], ToolCode(b"late", 1))
    assert codes.find(keys[1]) is None


def test_many_threads_that_call_many_tools_get_their_own_results(codes: ToolCodes) -> None:
    def one(n: int) -> ToolExecutionResult:
        tool = Tool(name="f", source_code=f"def f(x):\n    return x, {n % 5}\n", json_schema=SCHEMA)
        return run_tool(tool, {"x": n})

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(200)))
    settle()
    assert [tuple(result.func_return) for result in results] == [(n, n % 5) for n in range(200)]
    assert len(known(codes)) == 5


SECRET = "sesame-" * 3
SEEN: dict[str, dict[str, Any]] = {
    "an argument": {"args": {"x": SECRET}},
    "a long argument": {"args": {"x": SECRET * 5000}},
    "a name of an argument": {"args": {"x": {SECRET: 1}}},
    "the agent's state": {"args": {"x": 1}, "agent_state": {"id": "a", "secret": SECRET}},
    "a variable": {"args": {"x": 1}, "additional_env_vars": {"NAME": SECRET}},
    "a file": {"args": {"x": 1}, "files": {"/f": SECRET.encode()}},
    "a path": {"args": {"x": 1}, "files": {f"/{SECRET}": b""}},
}


@pytest.mark.parametrize("call_with", SEEN.values(), ids=SEEN.keys())
@pytest.mark.parametrize(
    "source", ["def f(x):\n    return 'its line'", "def f(x, agent_state):\n    return 'its line'"]
)
def test_what_compiles_ahead_has_the_lines_and_nothing_else_of_the_call(
    call_with: dict[str, Any], source: str, codes: ToolCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its memory is looked at, when it begins and when it has done its work."""
    memories: list[bytes] = []
    really_call = capi.Instance.call

    def look_and_call(instance: capi.Instance, name: str, *arguments: int) -> int:
        if name != "sandbox_compile":
            return really_call(instance, name, *arguments)
        memories.append(instance.read(0, instance.memory()[1]))
        result = really_call(instance, name, *arguments)
        memories.append(instance.read(0, instance.memory()[1]))
        return result

    monkeypatch.setattr(capi.Instance, "call", look_and_call)
    tool = Tool(name="f", source_code=source, json_schema=SCHEMA)
    options: dict[str, Any] = {"agent_state": {"id": "a"}, **call_with}
    arguments = options.pop("args")
    for _ in range(3):
        result = run_tool(tool, arguments, **options)
        assert result.func_return == "its line", result.error
        settle()
    assert len(memories) == 2
    assert len(known(codes)) == 1
    for memory in memories:
        assert b"return 'its line'" in memory
        assert SECRET.encode() not in memory
