"""Recursion through C and deep sources (cpython 112215, 95335): an `lru_cache` that calls itself 700 times fails.

The kind: every way in which Python calls Python by way of C, every recursion that is C's alone, and every text that
nests. It goes as deep as native CPython 3.13 with its default limits; what is deeper than that, and a limit that was
raised, end in an exception and never in a trap.
"""

from __future__ import annotations

import pytest

from tests.support.recursion import PATHS, SOURCES
from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool

pytestmark = pytest.mark.long

MEASURED = 0.97
"""Of a native depth: they are known to one percent, and a few frames around a script differ."""
BEYOND = (2_000, 12_000, 60_000)
QUADRATIC = {"yield from", "for gen", "async for"}
"""Each level goes through all above it."""
REFUSALS = {"RecursionError", "MemoryError", "SyntaxError", "IndentationError", "ValueError", "OperationalError", ""}
"""How a recursion may end that goes too deep, with its name or without an exception."""


def run(body: str) -> ToolExecutionResult:
    source = "def f():\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "    return ended\n"
    limits = Limits(timeout_seconds=60, fuel=None, memory_bytes=512 << 20)
    return run_tool(Tool.from_source(source), limits=limits)


def attempts(name: str, depths: tuple[int, ...], limit: int | None = None) -> ToolExecutionResult:
    """How recursions of these depths end: name of the exception, or nothing."""
    setup, call = (PATHS[name][1], "go(n)") if name in PATHS else ("", f"compile({SOURCES[name][1]}, 'x', 'exec')")
    raised = f"sys.setrecursionlimit({limit})\n" if limit else ""
    return run(
        f"import sys\n{raised}ended = []\nnamespace = {{'__name__': 'probe'}}\nexec({setup!r}, namespace)\n"
        f"for n in {list(depths)}:\n    namespace['n'] = n\n"
        f"    try: exec({call!r}, namespace)\n    except Exception as error: ended.append(type(error).__name__)\n"
        "    else: ended.append('')"
    )


@pytest.mark.parametrize("name", [*PATHS, *SOURCES])
def test_the_guest_recurses_as_deep_as_native_python(name: str) -> None:
    depth = {**PATHS, **SOURCES}[name][0]
    result = attempts(name, (int(depth * MEASURED),))
    assert (result.error, result.func_return) == (None, [""])


@pytest.mark.parametrize("limit", [None, 10**6])
@pytest.mark.parametrize("name", [*PATHS, *SOURCES])
def test_what_is_deeper_ends_in_an_exception(name: str, limit: int | None) -> None:
    result = attempts(name, BEYOND[:1] if name in QUADRATIC else BEYOND, limit)
    assert result.error is None
    assert set(result.func_return) <= REFUSALS


@pytest.mark.parametrize("name", SOURCES)
def test_a_tool_that_nests_too_deeply_is_a_syntax_error_in_words(name: str) -> None:
    nested = str(eval(SOURCES[name][1], {"n": 20_000 if SOURCES[name][0] > 300 else SOURCES[name][0] + 200}))
    source = "def f():\n    return 1\n\ndef unused():\n" + "".join(f"    {line}\n" for line in nested.splitlines())
    tool = Tool.model_construct(name="f", source_code=source, json_schema={"name": "f", "parameters": {}})
    result = run_tool(tool, limits=Limits(timeout_seconds=60, fuel=None, memory_bytes=1 << 30))
    if result.error is None:
        assert result.func_return == 1
    else:
        assert result.error.kind == "syntax_error"
        assert len(result.error.message.split()) > 3
