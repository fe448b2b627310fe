"""How hostile tools are run: in the real guest, through the public functions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool

RunBody = Callable[..., ToolExecutionResult]


@pytest.fixture(scope="session")
def run_body() -> RunBody:
    """``run_body(body, top="", args={}, **limits)``: a tool ``f`` with these statements, and its result."""

    def run(body: str, top: str = "", args: dict[str, Any] | None = None, **limits: Any) -> ToolExecutionResult:
        names = ", ".join(args or {})
        source = f"{textwrap.dedent(top)}\ndef f({names}):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        limits = {"timeout_seconds": 30.0, **limits}
        tool = Tool.from_source(source) if args else Tool(name="f", source_code=source)  # a schema for the arguments
        return run_tool(tool, args, limits=Limits(**limits))

    run("return 1")  # the image is loaded: no test's time holds it
    return run
