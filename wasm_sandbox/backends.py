"""Public face for back-ends of your own: the execution script runs elsewhere, and its end is read here.

`AsyncToolSandboxBase.prepare_call` makes the script, another executor runs it, and `AsyncToolSandboxBase.result_of`
takes its `ScriptEnd`.
"""

from __future__ import annotations

from wasm_sandbox.sandbox.base import AsyncToolSandboxBase, PreparedCall
from wasm_sandbox.sandbox.script_end import ScriptEnd, outcome_of, value_as_output

__all__ = ["AsyncToolSandboxBase", "PreparedCall", "ScriptEnd", "outcome_of", "value_as_output"]
