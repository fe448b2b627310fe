"""What an image is called: its id, and the names of its compiled code."""

from __future__ import annotations

import hashlib
import json
import platform
import sys

import wasmtime

from wasm_sandbox.engine.binding.configuration import ENGINE_SETTINGS
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.compiled.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.engine.memory.slots import is_supported
from wasm_sandbox.engine.module.binary import PAGE_BYTES
from wasm_sandbox.engine.module.metering import METERING_FORMAT
from wasm_sandbox.limits import MIB, MIN_MEMORY_BYTES, ROOM_BYTES

SNAPSHOT_FORMAT = 4
"""Raised when the way a snapshot is made changes: part of an image's identity."""


def image_id(artifact: Artifact) -> str:
    """The identity of the default image: the same on every machine."""
    parts = [str(SNAPSHOT_FORMAT), artifact.sha256, *PRELOAD, *warm_up_scripts()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compile_key(image: str, own_memory: bool | None = None, counts_fuel: bool = True) -> str:
    """Names the compiled form of an image: it differs by engine version, settings and machine.

    Args:
        image: the image's id.
        own_memory: whether linear memory is ours; by default as `GuestEngine` has it.
        counts_fuel: whether fuel is taken down in its code.
    """
    if own_memory is None:
        own_memory = is_supported()
    return f"{image[:16]}-{_compiled_digest(image, own_memory, counts_fuel).hex()[:16]}"


def code_key(artifact: Artifact, counts_fuel: bool) -> bytes:
    """Names the compiled code of a guest whose memory is ours, whatever image it is for."""
    return _compiled_digest(artifact.sha256, True, counts_fuel)


def _compiled_digest(what: str, own_memory: bool, counts_fuel: bool) -> bytes:
    machine = [wasmtime_version(), sys.platform, platform.machine()]
    parts = [what, METERING_FORMAT, *machine, ENGINE_SETTINGS, own_memory, counts_fuel]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def memory_bytes_of(module: wasmtime.Module) -> int:
    """The memory that every instance of a module starts with."""
    types = [export.type for export in module.exports if isinstance(export.type, wasmtime.MemoryType)]
    return sum(type_.limits.min for type_ in types) * PAGE_BYTES


def min_memory_bytes(image_bytes: int) -> int:
    """The smallest memory limit, in whole MiB, for an image that takes so much from the start."""
    return max(MIN_MEMORY_BYTES, -(-(image_bytes + ROOM_BYTES) // MIB) * MIB)
