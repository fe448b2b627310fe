"""Run untrusted Python tools in-process, in a CPython on WASI held inside wasmtime.

The names below load on first use: importing the package loads neither wasmtime nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.config import SandboxConfig as SandboxConfig
    from wasm_sandbox.errors import ArgumentSchemaError as ArgumentSchemaError
    from wasm_sandbox.errors import ArtifactError as ArtifactError
    from wasm_sandbox.errors import BadArguments as BadArguments
    from wasm_sandbox.errors import CacheError as CacheError
    from wasm_sandbox.errors import HostError as HostError
    from wasm_sandbox.errors import ImageError as ImageError
    from wasm_sandbox.errors import ImageNotFound as ImageNotFound
    from wasm_sandbox.errors import InvalidEnvironment as InvalidEnvironment
    from wasm_sandbox.errors import InvalidFiles as InvalidFiles
    from wasm_sandbox.errors import InvalidNetwork as InvalidNetwork
    from wasm_sandbox.errors import PackageError as PackageError
    from wasm_sandbox.errors import SandboxError as SandboxError
    from wasm_sandbox.errors import SecretError as SecretError
    from wasm_sandbox.errors import SessionError as SessionError
    from wasm_sandbox.errors import SnapshotError as SnapshotError
    from wasm_sandbox.errors import StoreError as StoreError
    from wasm_sandbox.errors import ToolSourceError as ToolSourceError
    from wasm_sandbox.errors import UnsupportedIsolation as UnsupportedIsolation
    from wasm_sandbox.errors import UnsupportedToolError as UnsupportedToolError
    from wasm_sandbox.files import HostDir as HostDir
    from wasm_sandbox.functions.declared import HostFunction as HostFunction
    from wasm_sandbox.functions.declared import host_function as host_function
    from wasm_sandbox.functions.gates import Deny as Deny
    from wasm_sandbox.images.image import Image as Image
    from wasm_sandbox.limits import Limits as Limits
    from wasm_sandbox.network import Network as Network
    from wasm_sandbox.network import Secret as Secret
    from wasm_sandbox.results import Call as Call
    from wasm_sandbox.results import CodeResult as CodeResult
    from wasm_sandbox.results import Connection as Connection
    from wasm_sandbox.results import ErrorKind as ErrorKind
    from wasm_sandbox.results import Event as Event
    from wasm_sandbox.results import Request as Request
    from wasm_sandbox.results import ToolError as ToolError
    from wasm_sandbox.results import ToolExecutionResult as ToolExecutionResult
    from wasm_sandbox.results import Usage as Usage
    from wasm_sandbox.sandbox.async_session import AsyncPaused as AsyncPaused
    from wasm_sandbox.sandbox.async_session import AsyncSession as AsyncSession
    from wasm_sandbox.sandbox.base import AsyncToolSandboxBase as AsyncToolSandboxBase
    from wasm_sandbox.sandbox.boxes import AsyncSandbox as AsyncSandbox
    from wasm_sandbox.sandbox.boxes import Sandbox as Sandbox
    from wasm_sandbox.sandbox.boxes import run_code as run_code
    from wasm_sandbox.sandbox.session import Paused as Paused
    from wasm_sandbox.sandbox.session import Session as Session
    from wasm_sandbox.sandbox.session import SessionPoint as SessionPoint
    from wasm_sandbox.sandbox.wasm import WasmToolSandbox as WasmToolSandbox
    from wasm_sandbox.sandbox.wasm import run_tool as run_tool
    from wasm_sandbox.tool.definition import Tool as Tool

__version__ = "0.1.0"

_HOMES = {
    "ArgumentSchemaError": "errors",
    "ArtifactError": "errors",
    "AsyncPaused": "sandbox.async_session",
    "AsyncSandbox": "sandbox.boxes",
    "AsyncSession": "sandbox.async_session",
    "AsyncToolSandboxBase": "sandbox.base",
    "BadArguments": "errors",
    "CacheError": "errors",
    "Call": "results",
    "CodeResult": "results",
    "Connection": "results",
    "Deny": "functions.gates",
    "ErrorKind": "results",
    "Event": "results",
    "HostDir": "files",
    "HostError": "errors",
    "HostFunction": "functions.declared",
    "Image": "images.image",
    "ImageError": "errors",
    "ImageNotFound": "errors",
    "InvalidEnvironment": "errors",
    "InvalidFiles": "errors",
    "InvalidNetwork": "errors",
    "Limits": "limits",
    "Network": "network",
    "PackageError": "errors",
    "Paused": "sandbox.session",
    "Request": "results",
    "Sandbox": "sandbox.boxes",
    "SandboxConfig": "config",
    "SandboxError": "errors",
    "Secret": "network",
    "SecretError": "errors",
    "Session": "sandbox.session",
    "SessionError": "errors",
    "SessionPoint": "sandbox.session",
    "SnapshotError": "errors",
    "StoreError": "errors",
    "Tool": "tool.definition",
    "ToolError": "results",
    "ToolExecutionResult": "results",
    "ToolSourceError": "errors",
    "UnsupportedIsolation": "errors",
    "UnsupportedToolError": "errors",
    "Usage": "results",
    "WasmToolSandbox": "sandbox.wasm",
    "host_function": "functions.declared",
    "run_code": "sandbox.boxes",
    "run_tool": "sandbox.wasm",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
