"""Compiling a tool ahead, in an instance of its own, so that later calls need not compile it."""

from __future__ import annotations

import logging
import struct
import time

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.tool_codes import MAX_CODE_BYTES, ToolCode, lines_of
from wasm_sandbox.engine.compiled.warm_up import templates
from wasm_sandbox.engine.module.metering import FUEL_EXPORT
from wasm_sandbox.engine.world.clocks import Clocks
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.process import Process
from wasm_sandbox.engine.world.streams import Streams
from wasm_sandbox.engine.world.surroundings import FixedSurroundings
from wasm_sandbox.engine.world.world import World
from wasm_sandbox.errors import HostError
from wasm_sandbox.request import ExecutionRequest

_log = logging.getLogger(__name__)

COMPILE_FUEL = 50_000_000
"""Fuel for compiling one tool: some tenths of a second. 64 KiB of code take less."""

_BESIDES_FUEL, _BESIDES_FUEL_PER_BYTE = 16_000, 6
"""Fuel that is not for the compiler, but for writing the code down and for reading it in a run. Measured with tools of
2 to 200 lines, whose calls then cost the same within one percent; those of `tests/test_counts.py`, with more in
their scripts than the tool, cost up to 4.2 % more."""


def compile_ahead(image: LoadedImage, request: ExecutionRequest) -> ToolCode | None:
    """Let a fresh instance compile a request's script from the tool's source on; None if it cannot.

    The instance gets these lines, which are the code's key, and nothing else of the request.
    """
    alone = _lines_alone(request)
    if alone is None:
        return None
    world = World(FixedSurroundings(), deadline=time.monotonic() + request.limits.timeout_seconds)
    streams = Streams(world, OutputPipe(0), OutputPipe(0))
    world.offer(streams, Clocks(world, streams.is_open), Process(world))
    try:
        pooled = image.instances.take()
    except (HostError, capi.GuestStopped) as error:
        _log.debug("nothing is compiled ahead: %s", error)
        return None
    image.host_functions.enter(world)
    try:
        return _compiled(pooled.instance, alone)
    except capi.GuestStopped as stopped:
        _log.debug("a tool is not compiled ahead: %s", stopped)
        return None
    finally:
        image.host_functions.leave()
        world.close()
        image.instances.replace(pooled)


def _lines_alone(request: ExecutionRequest) -> ExecutionRequest | None:
    """A request for the same lines, right after what all scripts of their shape begin with; None for another script."""
    lines = lines_of(request)
    for opening, closing in templates():
        if request.script.startswith(opening) and lines.endswith(closing):
            first_line = 1 + opening.count("\n")
            return ExecutionRequest(opening + lines, {}, request.limits, tool_first_line=first_line, tool_line_count=1)
    return None


def _compiled(instance: capi.Instance, request: ExecutionRequest) -> ToolCode | None:
    instance.limit(request.limits.memory_bytes)
    instance.set_global(FUEL_EXPORT, COMPILE_FUEL)
    address = instance.place(request.encode())
    if not address or instance.call("sandbox_compile", address):
        return None
    spent = COMPILE_FUEL - instance.global_value(FUEL_EXPORT)
    report = instance.call("sandbox_report")
    (size,) = struct.unpack("<I", instance.read(report, 4))
    if size > MAX_CODE_BYTES:
        return None
    fuel = max(0, spent - _BESIDES_FUEL - _BESIDES_FUEL_PER_BYTE * size)
    return ToolCode(instance.read(report + 4, size), fuel)
