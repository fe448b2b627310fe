"""The same tools give the same results in a plain process and in the guest, or the difference is documented."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.executors.subprocess_sandbox import (
    Execute,
    ForkingInterpreter,
    SubprocessToolSandbox,
    can_fork,
    execute_in_a_process,
)
from tests.parity.cases import CASES, Case
from wasm_sandbox import AsyncToolSandboxBase, Tool, ToolExecutionResult, WasmToolSandbox
from wasm_sandbox.safe_pickle import decode_envelope
from wasm_sandbox.tool import ToolSourceError

GUEST_PYTHON = (3, 13)
DOCUMENT = Path(__file__).parent.parent / "docs" / "differences.md"


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
    """Sections 3, 4 and 7 to 9: the script means the same wherever it is run."""
    ours, theirs = await both(case, execute)
    assert ours == theirs


@pytest.mark.parametrize("case", [case for case in CASES if case.differs is not None], ids=lambda case: case.name)
async def test_a_documented_difference_is_one(case: Case, execute: Execute) -> None:
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
        """Run the cell in a process; only for tools that succeed."""
        environ = await self._gather_env_vars(agent_state, additional_env_vars, None, False)
        script = await self.generate_execution_script(agent_state)
        command = [sys.executable, "-I", "-X", "utf8", "-c", RUN_CELL]
        done = await asyncio.to_thread(
            lambda: subprocess.run(command, input=script.encode(), capture_output=True, env=environ, check=True)
        )
        text, _, value = done.stdout.decode().rpartition("\n=>")
        envelope = decode_envelope(base64.b64decode(value))
        state = envelope.agent_state if self.inject_agent_state else None
        if state is not None and isinstance(agent_state, BaseModel):
            state = type(agent_state).model_validate(state)
        return ToolExecutionResult(
            status="success", func_return=envelope.results, agent_state=state, stdout=[text] if text else []
        )


RUN_CELL = """
import ast, asyncio, inspect, sys
def run(tree, mode):
    code = compile(tree, "cell", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    value = eval(code, globals())
    return asyncio.run(value) if code.co_flags & inspect.CO_COROUTINE else value
cell = ast.parse(sys.stdin.read())
last = cell.body.pop()
run(cell, "exec")
print("\\n=>" + run(ast.Expression(last.value), "eval"), end="")
"""


@pytest.mark.parametrize(
    "name",
    [
        *("prints", "returns Outer(extra=1)", "positional only", "async gathers", "returns an awaitable"),
        *("changes the state", "async with a state", "rebinds what the script needs", "own future import"),
        *("getenv", "main block"),
    ],
)
async def test_a_notebook_cell_gives_the_same_result_too(name: str) -> None:
    """Sections 3 and 12: without markers the script's last line is the result, and an async tool is awaited there."""
    (case,) = (case for case in CASES if case.name == name)
    theirs = await sandbox(NotebookCell, case).run(case.state)
    ours = await sandbox(WasmToolSandbox, case).run(case.state)
    assert observed(ours) == observed(theirs)
