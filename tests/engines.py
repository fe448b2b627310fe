"""The engines that a system may get: with linear memory of ours, put back in either way, and with wasmtime's own."""

from __future__ import annotations

from functools import cache

import wasmtime

from wasm_sandbox.guest.engine import GuestEngine, process_engine
from wasm_sandbox.guest.own_memory import OwnMemoryEngine, is_supported
from wasm_sandbox.guest.settings import engine_configuration

ENGINES = ["of this system", "own memory, anew each time", "wasmtime's memory"]
"""The last two are what systems get that lack something; this one runs all three if it is a Linux."""


@cache
def engine(kind: str) -> GuestEngine:
    """The engine of a kind, one for the whole process."""
    if kind == "of this system":
        return process_engine()
    if kind == "wasmtime's memory" or not is_supported():
        return GuestEngine(wasmtime.Engine(engine_configuration()))
    return GuestEngine(OwnMemoryEngine(scan=False))
