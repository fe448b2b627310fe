"""Many cores and many machines: an executor of worker processes that each hold an engine, and calls that are values.

May import: values, faces.
Imported by: nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.parallel.calls import ToolCall as ToolCall
    from wasm_sandbox.parallel.calls import run_call as run_call
    from wasm_sandbox.parallel.executor import SandboxExecutor as SandboxExecutor

_HOMES = {
    "SandboxExecutor": "executor",
    "ToolCall": "calls",
    "run_call": "calls",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
