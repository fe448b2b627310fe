"""The engines that a system may get: with linear memory of ours, put back in either way, and with wasmtime's own."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

from wasm_sandbox import Limits
from wasm_sandbox.engine.compiled.cache import ImageCache
from wasm_sandbox.engine.compiled.instances import InstancePool
from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.memory.kept import KeptMemory, is_supported
from wasm_sandbox.engine.memory.wasmtimes import WasmtimeMemory
from wasm_sandbox.engine.module.metering import Metering
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.switches import engine_is_plain

ENGINES = ["of this system", "own memory, anew each time", "wasmtime's memory"]
"""The last two are what systems get that lack something; this one runs all three if it is a Linux."""


def run(guests: GuestEngine, script: str = "pass", **limits: float | None) -> Outcome:
    """The outcome of a script in a guest of an engine."""
    request = ExecutionRequest(script, {}, Limits.model_validate({"timeout_seconds": 30, **limits}))
    return guests.start(request, LiveSurroundings()).result()


def settled(guests: GuestEngine) -> InstancePool:
    """The pool of the default image, when what earlier runs have left behind has been torn down and replaced."""
    deadline = time.monotonic() + 20
    while guests.running_guests and time.monotonic() < deadline:
        time.sleep(0.005)
    return guests.image().instances


def cache_with_code(directory: Path, metering: Metering = Metering.FUEL) -> ImageCache:
    """A cache that has the code of the default image, in an image of another name, and not that image."""
    cache = ImageCache(directory)
    cache.add("another-image", process_engine().image(metering=metering).path.read_bytes())
    return cache


@cache
def engine(kind: str) -> GuestEngine:
    """The engine of a kind, one for the whole process."""
    if kind == "of this system":
        return process_engine() if not engine_is_plain() else GuestEngine()
    if kind == "wasmtime's memory" or not is_supported():
        return GuestEngine(WasmtimeMemory())
    return GuestEngine(KeptMemory(scan=False))
