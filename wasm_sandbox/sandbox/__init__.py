"""Sandboxes, which users hold: one call of one tool, from arguments to result.

May import: values, tool, script, decode, images, functions, egress, stores, workers, engine.
Imported by: cli, bench, faces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.sandbox.base import AsyncToolSandboxBase as AsyncToolSandboxBase
    from wasm_sandbox.sandbox.boxes import AsyncSandbox as AsyncSandbox
    from wasm_sandbox.sandbox.boxes import Sandbox as Sandbox
    from wasm_sandbox.sandbox.boxes import run_code as run_code
    from wasm_sandbox.sandbox.plain_script import Output as Output
    from wasm_sandbox.sandbox.plain_script import run_program as run_program
    from wasm_sandbox.sandbox.plain_script import run_script as run_script
    from wasm_sandbox.sandbox.wasm import WasmToolSandbox as WasmToolSandbox
    from wasm_sandbox.sandbox.wasm import run_tool as run_tool

_HOMES = {
    "AsyncSandbox": "boxes",
    "AsyncToolSandboxBase": "base",
    "Output": "plain_script",
    "Sandbox": "boxes",
    "WasmToolSandbox": "wasm",
    "run_code": "boxes",
    "run_program": "plain_script",
    "run_script": "plain_script",
    "run_tool": "wasm",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
