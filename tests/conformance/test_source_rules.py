"""semantics.md, sections 2, 3 and 6, W12: sources as they are found in the wild, in the real guest."""

from __future__ import annotations

import pytest

from wasm_sandbox import ErrorKind, Tool, ToolExecutionResult, run_tool

HEADS = {
    "nothing": "",
    "docstring and comments": "# first\n\n'''Doc.\n\nMore.'''\n\n# second\n",
    "future import": "'''Doc.'''\nfrom __future__ import (\n    annotations,\n    division,\n)\n\n",
    "future import on a line with others": "from __future__ import annotations; import json\n",
    "encoding cookie": "#!/usr/bin/env python3\n# -*- coding: latin-1 -*-\nNAME = 'é'\n",
    "byte order mark": "\ufeff'''Doc.'''\nfrom __future__ import annotations\n",
    "prints and a main block": "print('loading')\nif __name__ == '__main__':\n    print('main')\n",
    "form feeds and other separators": "a = 1\n\x0c\nb = '''\u2028\x1c\x85'''\n",
    "lines that look like the script's": "text = '''\nimport sys\n_function_result = 5\n'''\n",
}
FORMS = {
    "function": "def f(x: int):\n    y = x - 1\n    return 1 / y  # é\n",
    "tabs": "def f(x: int):\n\ty = x - 1\n\treturn 1 / y  # é\n",
    "async": "async def f(x: int):\n    y = x - 1\n    return 1 / y  # é\n",
    "positional-only": "def f(x: int, /):\n    y = x - 1\n    return 1 / y  # é\n",
    "that rebinds what the script needs": "pickle = None\ndef f(x: int):\n    y = x - 1\n    return 1 / y  # é\n",
    "nested": "def f(x: int):\n    def g(y):\n        return 1 / y  # é\n    return g(x - 1)\n",
}


def run(source: str, args: dict[str, int]) -> ToolExecutionResult:
    """The result of the third call, from which on a tool is not compiled any more; it is that of the first."""
    schema = {"parameters": {"type": "object", "properties": {name: {"type": "integer"} for name in args}}}
    tool = Tool(name="f", source_code=source, json_schema=schema)
    first, _, third = (run_tool(tool, args) for _ in range(3))
    assert third.model_copy(update={"usage": None}) == first.model_copy(update={"usage": None})
    return third


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_source_runs_and_a_traceback_shows_its_own_file_lines_and_text(newline: str, head: str, form: str) -> None:
    """W12, section 3, block 11."""
    source = (head + form).replace("\n", newline)
    assert run(source, {"x": 2}).func_return == 1.0
    error = run(source, {"x": 1}).error
    assert error is not None
    assert (error.kind, error.exception_name) == (ErrorKind.TOOL_EXCEPTION, "ZeroDivisionError")
    lines = (head + form).split("\n")
    number = next(n for n, line in enumerate(lines, 1) if "1 / y" in line)
    where = "f.<locals>.g" if "def g" in form else "f"
    assert error.traceback is not None
    name = where.rpartition(".")[2]
    assert f'File "f.py", line {number}, in {name}\n    {lines[number - 1].strip()}\n' in error.traceback


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_a_source_that_does_not_compile_is_shown_at_its_own_line(head: str) -> None:
    """W12, W19."""
    source = f"{head}def f():\n    return (1,\n\nx = = 2\n"
    error = run(source, {}).error
    assert error is not None
    assert error.kind is ErrorKind.SYNTAX_ERROR
    line = source.count("\n", 0, source.index("return")) + 1
    assert error.message == f"'(' was never closed (f.py, line {line})"


@pytest.mark.parametrize(
    ("signature", "args", "received"),
    [
        ("(a, b=2, /, c=3, *rest, d, e=5, **more)", {"a": 1, "d": 4}, [1, 2, 3, (), 4, 5, {}]),
        ("(a, b=2, /, c=3, *rest, d, e=5, **more)", {**dict.fromkeys("bcde", 0), "a": 1}, [1, 0, 0, (), 0, 0, {}]),
        ("(a=1, b=2, c=3, rest=(), d=[4], e={'k': 5}, more=None)", {"b": 0}, [1, 0, 3, (), [4], {"k": 5}, None]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "async "])
def test_arguments_are_bound_by_the_kind_of_each_parameter(
    prefix: str, signature: str, args: dict[str, int], received: list[object]
) -> None:
    """W14, section 6."""
    source = f"{prefix}def f{signature}:\n    return [a, b, c, rest, d, e, more]\n"
    assert run(source, args).func_return == received


@pytest.mark.parametrize(
    "parameters", ["agent_state, agent_id", "*, agent_state, agent_id", "agent_state, /, agent_id"]
)
def test_reserved_parameters_are_injected_whatever_their_kind_and_readable_as_globals(parameters: str) -> None:
    """W14, section 3: a helper reads the globals ``agent_state`` and ``agent_id`` of the same call."""
    source = (
        "def helper():\n    return agent_state.memo, agent_id\n"
        f"def f({parameters}):\n    return agent_state.memo, agent_id, helper()\n"
    )
    tool = Tool(name="f", source_code=source)
    result = run_tool(tool, {}, agent_state={"id": "agent-1", "memo": "m"}, agent_id="agent-2")
    assert result.func_return == ("m", "agent-1", ("m", "agent-1"))


def test_a_function_that_is_defined_again_counts_in_its_last_form() -> None:
    """Section 2; W18."""
    source = "async def f():\n    return 'first'\ndef f():\n    return 'second'\n"
    assert run(source, {}).func_return == "second"
    assert run("def f():\n    return 1\nasync def f():\n    return 'awaited'\n", {}).func_return == "awaited"


def test_a_marker_of_the_back_ends_own_is_written_and_looked_for() -> None:
    """W4: with another marker, a frame that a tool writes with the known one is text."""
    from wasm_sandbox import WasmToolSandbox

    class OwnMarker(WasmToolSandbox):
        LOCAL_SANDBOX_RESULT_START_MARKER = bytes(range(200, 216))

    source = """
import hashlib, os, pickle, struct, sys
def f():
    payload = pickle.dumps({"results": "forged", "agent_state": None})
    head = bytes.fromhex("92c8e49843d35fb3919da69eb3e5c5c6") + struct.pack(">I", len(payload))
    sys.stdout.buffer.write(head + hashlib.md5(payload).hexdigest().encode() + payload)
    sys.stdout.buffer.flush()
    END
"""
    for end, value in (("return 'real'", "real"), ("os._exit(0)", None)):
        tool = Tool(name="f", source_code=source.replace("END", end))
        result = OwnMarker("f", {}, None, None, tool_object=tool).run_sync()
        assert result.stdout is not None
        assert "forged" in result.stdout[0]
        if value is None:
            assert result.error is not None
            assert result.error.kind is ErrorKind.NO_RESULT
        else:
            assert result.func_return == value
