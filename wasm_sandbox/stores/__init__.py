"""Tools and variables kept in SQLite: one private file, each organisation's rows apart.

May import: values, tool.
Imported by: sandbox, cli, mcp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door
from wasm_sandbox.errors import SecretError as SecretError
from wasm_sandbox.errors import StoreError as StoreError

if TYPE_CHECKING:
    from wasm_sandbox.stores.configs import SandboxConfigManager as SandboxConfigManager
    from wasm_sandbox.stores.configs import SandboxEnvVar as SandboxEnvVar
    from wasm_sandbox.stores.organizations import LocalUser as LocalUser
    from wasm_sandbox.stores.tools import ToolManager as ToolManager

_HOMES = {
    "LocalUser": "organizations",
    "SandboxConfigManager": "configs",
    "SandboxEnvVar": "configs",
    "ToolManager": "tools",
}

__all__ = sorted({*_HOMES, "SecretError", "StoreError"})  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
