"""How tools with files are run: in the real guest, through the public functions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool

NOTHING: dict[str, bytes] = {}

RunBody = Callable[..., ToolExecutionResult]


@pytest.fixture(scope="session")
def run_with() -> RunBody:
    """``run_with(body, files={}, mounts=None, **limits)``: a tool ``f`` with these statements, and its result."""

    def run(body: str, files: Any = NOTHING, mounts: Any = None, **limits: Any) -> ToolExecutionResult:
        source = f"def f():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        tool = Tool(name="f", source_code=source)
        return run_tool(tool, limits=Limits(**{"timeout_seconds": 30.0, **limits}), files=files, mounts=mounts)

    return run


@pytest.fixture(scope="session")
def value_with(run_with: RunBody) -> Callable[..., Any]:
    """As ``run_with``, the value of a run that must succeed."""

    def run(body: str, files: Any = NOTHING, mounts: Any = None, **limits: Any) -> Any:
        result = run_with(body, files, mounts, **limits)
        assert result.error is None, result.error
        return result.func_return

    return run
