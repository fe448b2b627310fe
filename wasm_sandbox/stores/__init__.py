"""Where tools, sandbox configurations and their variables are kept, per organisation."""

from wasm_sandbox.errors import SecretError, StoreError
from wasm_sandbox.stores.configs import SandboxConfigManager, SandboxEnvVar
from wasm_sandbox.stores.organizations import LocalUser
from wasm_sandbox.stores.tools import ToolManager

__all__ = ["LocalUser", "SandboxConfigManager", "SandboxEnvVar", "SecretError", "StoreError", "ToolManager"]
