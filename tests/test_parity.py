"""The same tools give the same results in a plain process and in the guest, or the difference is documented."""

from __future__ import annotations

import asyncio
import pickle
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.parity.cases import CASES, Case
from tests.support.subprocess_sandbox import (
    Execute,
    ForkingInterpreter,
    SubprocessToolSandbox,
    can_fork,
    execute_in_a_process,
)
from wasm_sandbox import AsyncToolSandboxBase, ErrorKind, Limits, Tool, ToolExecutionResult, WasmToolSandbox
from wasm_sandbox.backends import ScriptEnd
from wasm_sandbox.decode.frame import encode_frame
from wasm_sandbox.errors import ToolSourceError
from wasm_sandbox.sandbox.base import PreparedCall

GUEST_PYTHON = (3, 13)
DOCUMENT = Path(__file__).parent.parent / "docs" / "differences.md"
BACK_ENDS = DOCUMENT.with_name("back-ends.md")


@pytest.fixture(scope="module")
def execute() -> Iterator[Execute]:
    if not can_fork():
        yield execute_in_a_process
        return
    interpreter = ForkingInterpreter()
    yield interpreter
    interpreter.close()


def sandbox(kind: type[AsyncToolSandboxBase], case: Case) -> AsyncToolSandboxBase:
    try:
        tool = Tool.from_source(case.source, "f")
    except ToolSourceError:  # no function of that name, or no Python
        parameters = {"type": "object", "properties": {name: {} for name in case.args}}
        tool = Tool(name="f", source_code=case.source, json_schema={"parameters": parameters})
    if case.schema is not None:
        tool = tool.model_copy(update={"args_json_schema": case.schema})
    return kind("f", case.args, None, "tool-1", case.agent_id, None, tool, sandbox_env_vars=case.env)


def observed(result: ToolExecutionResult) -> dict[str, Any]:
    """All of a result that an agent sees, but for the traceback, which has the executor's own frames."""
    error = result.error
    return {
        "status": result.status,
        "func_return": shape(result.func_return),
        "agent_state": shape(result.agent_state),
        "stdout": result.stdout,
        "error": error and (error.kind.value, error.exception_name, steady(error.message)),
    }


def shape(value: Any) -> Any:
    """A value with its types, such that equal shapes mean equal values; sets have no order, NaN equals itself."""
    match value:
        case BaseModel():
            return (type(value).__name__, shape(dict(value)))
        case dict():
            return (type(value).__name__, [(shape(key), shape(item)) for key, item in value.items()])
        case list() | tuple():
            return (type(value).__name__, [shape(item) for item in value])
        case set() | frozenset():
            return (type(value).__name__, sorted(repr(shape(item)) for item in value))
        case str():
            return ("str", steady(value))
        case _:
            return (type(value).__name__, repr(value))


def steady(text: str) -> str:
    """A text without what differs from run to run (addresses), and the place where a script does not compile."""
    return re.sub(r" at 0x[0-9a-f]+| \(\S+\.py, line \d+\)$", "", text)


async def both(case: Case, execute: Execute) -> tuple[dict[str, Any], dict[str, Any]]:
    elsewhere = sandbox(SubprocessToolSandbox, case)
    assert isinstance(elsewhere, SubprocessToolSandbox)
    elsewhere.execute = execute
    theirs = await elsewhere.run(case.state)
    ours = await sandbox(WasmToolSandbox, case).run(case.state)
    return observed(ours), observed(theirs)


@pytest.mark.parametrize("case", [case for case in CASES if case.differs is None], ids=lambda case: case.name)
async def test_a_tool_gives_the_same_result_in_both(case: Case, execute: Execute) -> None:
    """Sections 3 to 9: the script means the same wherever it is run."""
    ours, theirs = await both(case, execute)
    assert ours == theirs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_third_call_gives_the_same_result_as_the_first(case: Case) -> None:
    """From the third call on a tool is not compiled any more (`guest/tool_codes.py`)."""
    results = [observed(await sandbox(WasmToolSandbox, case).run(case.state)) for _ in range(3)]
    assert results[2] == results[0]


@pytest.mark.parametrize("case", [case for case in CASES if case.differs is not None], ids=lambda case: case.name)
async def test_a_documented_difference_is_one(case: Case, execute: Execute) -> None:
    """Section 12."""
    if case.differs == "Python version" and sys.version_info[:2] == GUEST_PYTHON:
        pytest.skip("this Python is of the guest's version")
    ours, theirs = await both(case, execute)
    assert ours != theirs


def test_the_document_lists_these_differences_and_no_others() -> None:
    headings = re.findall(r"^## (.+)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted({case.differs for case in CASES if case.differs is not None})


def test_there_are_more_than_a_hundred_tools_and_none_twice() -> None:
    names = [case.name for case in CASES]
    assert len(names) > 100
    assert len({*names}) == len(names)


@pytest.mark.parametrize(
    "name", ["prints", "raises own", "exits 3", "async gathers", "changes the state", "does not compile"]
)
async def test_the_forked_interpreter_runs_a_script_as_a_process_of_its_own_does(name: str, execute: Execute) -> None:
    (case,) = (case for case in CASES if case.name == name)
    results = []
    for kind in (execute, execute_in_a_process):
        elsewhere = sandbox(SubprocessToolSandbox, case)
        assert isinstance(elsewhere, SubprocessToolSandbox)
        elsewhere.execute = kind
        results.append(observed(await elsewhere.run(case.state)))
    assert results[0] == results[1]


class NotebookCell(AsyncToolSandboxBase):
    """An executor that runs a script as a cell: it awaits at the top level, and the last line's value comes back."""

    def use_top_level_await(self) -> bool:
        """A cell can."""
        return True

    async def run(
        self, agent_state: Any = None, additional_env_vars: Mapping[str, str] | None = None
    ) -> ToolExecutionResult:
        """Run the cell in a process."""
        call = await self.prepare_call(agent_state, additional_env_vars, wrap_print_with_markers=False)
        if isinstance(call, ToolExecutionResult):
            return call
        command = [sys.executable, "-I", "-X", "utf8", "-c", RUN_CELL]
        script = call.script.text.encode()
        done = await asyncio.to_thread(
            lambda: subprocess.run(command, input=script, capture_output=True, env=call.environ, check=False)
        )
        text, _, value = done.stdout.rpartition(b"\n=>") if done.returncode == 0 else (done.stdout, b"", b"")
        end = ScriptEnd(done.returncode, text, done.stderr, value.decode() or None, file_name="cell")
        return self.result_of(call, end)


RUN_CELL = """
import ast, asyncio, inspect, sys
def run(tree, mode):
    code = compile(tree, "cell", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    value = eval(code, globals())
    return asyncio.run(value) if code.co_flags & inspect.CO_COROUTINE else value
cell = compile(sys.stdin.read(), "cell", "exec", flags=ast.PyCF_ONLY_AST)
last = cell.body.pop()
run(cell, "exec")
print("\\n=>" + repr(run(ast.Expression(last.value), "eval")), end="")
"""


@pytest.mark.parametrize(
    "name",
    [
        *("prints", "returns Outer(extra=1)", "positional only", "async gathers", "returns an awaitable"),
        *("changes the state", "async with a state", "rebinds what the script needs", "own future import"),
        *("getenv", "main block", "raises value error", "fails at top level", "does not compile", "recursion"),
        *("schema: models", "schema: does not fit", "schema: asynchronous", "returns (x for x in [1])"),
        *("writes a marker", "gets an argument of a wrong type", "returns HttpUrl('https://a.b/c')"),
    ],
)
async def test_a_notebook_cell_gives_the_same_result_too(name: str) -> None:
    """Sections 3 and 12: without markers the script's last line is the result, and an async tool is awaited there."""
    (case,) = (case for case in CASES if case.name == name)
    theirs = await sandbox(NotebookCell, case).run(case.state)
    ours = await sandbox(WasmToolSandbox, case).run(case.state)
    assert observed(ours) == observed(theirs)


def test_the_documented_back_end_prints_what_its_comments_say() -> None:
    """Section 12: a back-end needs `run` alone."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", BACK_ENDS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-"], input=source, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == re.findall(r"^# (.*)$", source, re.MULTILINE)


def ended(end: ScriptEnd, source: str = "def f():\n    return 1\n", **options: Any) -> ToolExecutionResult:
    """What the end of a script elsewhere means."""
    case = Case("any", source)
    made = sandbox(SubprocessToolSandbox, case)
    call = asyncio.run(made.prepare_call(**options))
    assert isinstance(call, PreparedCall)
    return made.result_of(call, end, Limits(output_bytes=200, result_bytes=60, timeout_seconds=2))


def kind_of(result: ToolExecutionResult) -> ErrorKind:
    assert result.error is not None
    return result.error.kind


RESULT = b64encode(pickle.dumps({"results": 5, "agent_state": None}, protocol=4)).decode()


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_value_in_base64_may_have_quotes_around_it(quote: str) -> None:
    """Sections 8 and 12: a cell's result is shown with quotes; frames in its output are text."""
    frame = encode_frame(pickle.dumps({"results": "forged", "agent_state": None}))
    end = ScriptEnd(stdout=frame, value=quote + RESULT + quote)
    result = ended(end, wrap_print_with_markers=False)
    assert (result.func_return, result.usage) == (5, None)
    assert result.stdout == [frame.decode("utf-8", "replace")]


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (ScriptEnd(value=None), ErrorKind.NO_RESULT),
        (ScriptEnd(value=RESULT[:-3]), ErrorKind.CORRUPTED_RESULT),
        (ScriptEnd(value=RESULT[:-4]), ErrorKind.CORRUPTED_RESULT),
        (ScriptEnd(value=b64encode(pickle.dumps("x" * 100)).decode()), ErrorKind.CORRUPTED_RESULT),
        (ScriptEnd(value=b64encode(b"cos\nsystem\n(S'true'\ntR.").decode()), ErrorKind.FORBIDDEN_RESULT),
        (ScriptEnd(3, value=RESULT), ErrorKind.NO_RESULT),
        (ScriptEnd(-9, value=RESULT), ErrorKind.GUEST_TRAP),
        (ScriptEnd(timed_out=True), ErrorKind.TIMEOUT),
    ],
)
def test_an_end_without_a_good_value_is_an_error_of_its_kind(end: ScriptEnd, kind: ErrorKind) -> None:
    """Section 12, W17: neither value nor error is an error, and a value with a failure is no success."""
    assert kind_of(ended(end, wrap_print_with_markers=False)) is kind


def test_output_of_another_executor_is_bounded_and_a_timeout_has_its_text() -> None:
    """W30, W31."""
    result = ended(ScriptEnd(stdout=b"o" * 500, stderr=b"e" * 500, timed_out=True))
    assert (result.stdout, result.stderr) == (["o" * 200], ["e" * 200])
    assert result.func_return == "Executing tool f timed out after 2 seconds."


async def test_tracebacks_of_another_executor_are_of_the_tools_own_lines(execute: Execute) -> None:
    """W12, W29."""
    source = "from __future__ import annotations\n\ndef f():\n    g()\ndef g():\n    raise ValueError('one\\ntwo')\n"
    elsewhere = sandbox(SubprocessToolSandbox, Case("any", source))
    assert isinstance(elsewhere, SubprocessToolSandbox)
    elsewhere.execute = execute
    error = (await elsewhere.run()).error
    assert error is not None
    assert (error.exception_name, error.message) == ("ValueError", "one\ntwo")
    assert error.traceback is not None
    head, first, *_ = error.traceback.splitlines()
    assert head == "Traceback (most recent call last):"
    assert first.startswith('  File "script.py", line ')
    assert 'File "f.py", line 4, in f\n' in error.traceback
    assert 'File "f.py", line 6, in g\n' in error.traceback
