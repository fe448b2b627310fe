"""Settings of the wasmtime engine; those that change compiled code are part of the cache's key."""

from __future__ import annotations

from collections.abc import Callable

import wasmtime

from wasm_sandbox.engine.binding import capi

Progress = Callable[[str], None]
"""Called with a few words at the start of every slow step."""

WASM_STACK_BYTES = 20 << 20
"""Native stack of a guest. CPython's limit of 10,000 levels in C (`runtime/patches`) took 15.0 MiB at most in 220 ways
to recurse, with a limit for Python that was out of the way (`tests/public_reports/test_recursion.py`): a function of
SQLite's that queries a database. Other machines have other frames."""

ENGINE_SETTINGS = {
    "cranelift_opt_level": "speed",
    "wasm_threads": False,
}


def engine_configuration(own_memory: bool = False) -> wasmtime.Config:
    """Configuration with `ENGINE_SETTINGS`, for code with branch hints (`metering`).

    Args:
        own_memory: whether linear memory will be ours (`engine.memory.kept`).
    """
    config = wasmtime.Config()
    capi.heed_branch_hints(config)
    if own_memory:
        capi.copy_data_segments(config)
    capi.give_stack(config, WASM_STACK_BYTES)
    for name, value in ENGINE_SETTINGS.items():
        setattr(config, name, value)
    return config
