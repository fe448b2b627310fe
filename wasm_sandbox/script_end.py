"""The name that `wasm_sandbox.backends` had in 0.1."""

from wasm_sandbox.backends import ScriptEnd, outcome_of, value_as_output

__all__ = ["ScriptEnd", "outcome_of", "value_as_output"]
