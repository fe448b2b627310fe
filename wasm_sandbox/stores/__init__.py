"""Tools and variables kept in SQLite: one private file, each organisation's rows apart.

May import: values, tool.
Imported by: sandbox, cli.
"""

from wasm_sandbox.errors import SecretError, StoreError
from wasm_sandbox.stores.configs import SandboxConfigManager, SandboxEnvVar
from wasm_sandbox.stores.organizations import LocalUser
from wasm_sandbox.stores.tools import ToolManager

__all__ = ["LocalUser", "SandboxConfigManager", "SandboxEnvVar", "SecretError", "StoreError", "ToolManager"]
