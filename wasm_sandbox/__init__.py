"""Run untrusted Python tools in-process, in a CPython on WASI held inside wasmtime.

The names below load on first use: importing the package loads neither wasmtime nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasm_sandbox.config import SandboxConfig
    from wasm_sandbox.files import HostDir
    from wasm_sandbox.images.image import Image
    from wasm_sandbox.limits import Limits
    from wasm_sandbox.results import ErrorKind, ToolError, ToolExecutionResult, Usage
    from wasm_sandbox.sandbox.base import AsyncToolSandboxBase
    from wasm_sandbox.sandbox.wasm import WasmToolSandbox, run_tool
    from wasm_sandbox.tool.definition import Tool

__version__ = "0.1.0"

__all__ = [
    "AsyncToolSandboxBase",
    "ErrorKind",
    "HostDir",
    "Image",
    "Limits",
    "SandboxConfig",
    "Tool",
    "ToolError",
    "ToolExecutionResult",
    "Usage",
    "WasmToolSandbox",
    "run_tool",
]

_HOMES = {
    "AsyncToolSandboxBase": "sandbox.base",
    "ErrorKind": "results",
    "HostDir": "files",
    "Image": "images.image",
    "Limits": "limits",
    "SandboxConfig": "config",
    "Tool": "tool.definition",
    "ToolError": "results",
    "ToolExecutionResult": "results",
    "Usage": "results",
    "WasmToolSandbox": "sandbox.wasm",
    "run_tool": "sandbox.wasm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
