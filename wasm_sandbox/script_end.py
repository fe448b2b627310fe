"""Alias of `wasm_sandbox.backends`: its name in 0.1."""

from wasm_sandbox.backends import ScriptEnd, outcome_of, value_as_output

__all__ = ["ScriptEnd", "outcome_of", "value_as_output"]
