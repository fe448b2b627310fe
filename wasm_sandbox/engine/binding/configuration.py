"""How the engine is set: everything here that changes compiled code is part of the cache's key."""

from __future__ import annotations

from collections.abc import Callable

import wasmtime

from wasm_sandbox.engine.binding import capi

Progress = Callable[[str], None]
"""Called with a few words at the start of every slow step."""

WASM_STACK_BYTES = 2 << 20
"""What CPython's recursion limits were measured with. More than 2 MiB aborts the process unless the
size of asynchronous stacks is raised too, which wasmtime-py has no call for."""

ENGINE_SETTINGS = {
    "max_wasm_stack": WASM_STACK_BYTES,
    "cranelift_opt_level": "speed",
    "wasm_threads": False,
}


def engine_configuration(own_memory: bool = False) -> wasmtime.Config:
    """A fresh configuration with `ENGINE_SETTINGS`, for code with branch hints (`metering`).

    Args:
        own_memory: whether linear memory will be ours (`own_memory`).
    """
    config = wasmtime.Config()
    capi.heed_branch_hints(config)
    if own_memory:
        capi.copy_data_segments(config)
    for name, value in ENGINE_SETTINGS.items():
        setattr(config, name, value)
    return config
