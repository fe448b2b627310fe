"""Images: a guest module ready to run - located, pre-initialised, compiled, cached."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import wasmtime

from wasm_sandbox.config import MIB, MIN_MEMORY_BYTES, Limits
from wasm_sandbox.errors import ImageError
from wasm_sandbox.guest import _capi, snapshot
from wasm_sandbox.guest.artifact import Artifact, find_artifact
from wasm_sandbox.guest.cache import ImageCache
from wasm_sandbox.guest.pipe import OutputPipe
from wasm_sandbox.guest.request import ExecutionRequest
from wasm_sandbox.guest.settings import ENGINE_SETTINGS, WASM_STACK_BYTES
from wasm_sandbox.guest.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.guest.wasi import FixedSurroundings, HostFunctions, World

SNAPSHOT_FORMAT = 1
"""Raised when the way a snapshot is made changes: part of an image's identity."""

PREPARE_SECONDS = 600.0
_ONCE_ONLY = frozenset({"_initialize", "sandbox_init", "sandbox_seal", "__indirect_function_table"})
_TABLE = "__indirect_function_table"

Progress = Callable[[str], None]
"""Called with a few words at the start of every slow step."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """A compiled, pre-initialised guest, linked to our host functions: instances come from ``pre``."""

    id: str
    """Hash of everything that its memory was made from."""
    path: Path
    """The compiled image in the cache."""
    engine: wasmtime.Engine
    pre: wasmtime.InstancePre
    host_functions: HostFunctions
    load_seconds: float


def image_id(artifact: Artifact) -> str:
    """The identity of the default image: the same on every machine."""
    parts = [str(SNAPSHOT_FORMAT), artifact.sha256, *PRELOAD, *warm_up_scripts()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compile_key(image: str) -> str:
    """Names the compiled form of an image: it differs by engine version, settings and machine."""
    parts = [image, version("wasmtime"), sys.platform, platform.machine(), ENGINE_SETTINGS]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{image[:16]}-{digest[:16]}"


def load_image(
    guest_engine: wasmtime.Engine, progress: Progress | None = None, cache: ImageCache | None = None
) -> Image:
    """The default image: from the cache, or prepared now (seconds) and put there.

    Args:
        guest_engine: the engine that will run its instances.
        progress: told about every slow step.
        cache: where compiled images are; the user's cache directory by default.

    Raises:
        CacheError: the cache directory cannot be used or written.
        ArtifactError: the guest module of this installation is missing or damaged.
        ImageError: the guest module could not be initialised.
    """
    started = time.monotonic()
    artifact = find_artifact()
    identity = image_id(artifact)
    cache = cache or ImageCache()
    key = compile_key(identity)
    module = _load_compiled(guest_engine, cache, key)
    if module is None:
        with cache.lock(key):  # of several processes one prepares, the others find it done
            module = _load_compiled(guest_engine, cache, key)
            if module is None:
                cache.add(key, prepare(guest_engine, artifact, progress or _log.info))
                module = _load_compiled(guest_engine, cache, key)
    if module is None:
        raise ImageError(
            f"the image just written to {cache.path(key)} cannot be loaded: is something else changing it?"
        )
    linker = wasmtime.Linker(guest_engine)
    functions = HostFunctions(linker, module)
    pre = linker.instantiate_pre(module)
    return Image(identity, cache.path(key), guest_engine, pre, functions, time.monotonic() - started)


def _load_compiled(guest_engine: wasmtime.Engine, cache: ImageCache, key: str) -> wasmtime.Module | None:
    path = cache.find(key)
    if path is None:
        return None
    try:
        return wasmtime.Module.deserialize_file(guest_engine, str(path))
    except wasmtime.WasmtimeError as error:
        _log.warning("the compiled image %s is not for this engine (%s): preparing it again", path, error)
        return None


def prepare(guest_engine: wasmtime.Engine, artifact: Artifact, progress: Progress) -> bytes:
    """Pre-initialise and compile the default image; the compiled code.

    Raises:
        ArtifactError, ImageError: as `load_image`.
    """
    progress("unpacking the guest")
    module = artifact.read()
    progress("starting CPython and importing its library")
    initialised = pre_initialise(module)
    progress("compiling for this machine")
    try:
        return bytes(wasmtime.Module(guest_engine, initialised).serialize())
    except wasmtime.WasmtimeError as error:
        raise ImageError(f"the pre-initialised guest does not compile: {error}") from error


def pre_initialise(module: bytes, preload: tuple[str, ...] = PRELOAD, scripts: list[str] | None = None) -> bytes:
    """A module that starts where the guest stands after its start-up, imports and warm-up.

    Args:
        module: the guest as built.
        preload: names of modules to import.
        scripts: warm-up scripts, run in order; the default image's when not given.

    Returns:
        The bytes of the pre-initialised module. The same inputs give the same bytes.

    Raises:
        ImageError: the guest reported a failure, or its state cannot be captured.
    """
    scratch_module, scratch_engine = _compile_scratch(module)
    linker = wasmtime.Linker(scratch_engine)
    functions = HostFunctions(linker, scratch_module)
    world = World(
        environ=[],
        stdout=OutputPipe(MIB),
        stderr=OutputPipe(MIB),
        surroundings=FixedSurroundings(),
        deadline=time.monotonic() + PREPARE_SECONDS,
    )
    store = wasmtime.Store(scratch_engine)
    functions.enter(world)
    try:
        instance = world.instance = _capi.Instance(store, linker.instantiate_pre(scratch_module))
        memory, globals_ = _initialise(instance, world, snapshot.mutable_globals(module), preload, scripts)
    except (_capi.GuestStopped, snapshot.SnapshotError) as error:
        raise ImageError(f"the guest cannot be initialised: {error}; it said: {_said(world)}") from error
    finally:
        functions.leave()
        world.instance = None
        store.close()
    if len(memory) > MIN_MEMORY_BYTES - 16 * MIB:
        raise ImageError(
            f"the image needs {len(memory) >> 20} MiB, which leaves no room under the smallest memory limit"
        )
    try:
        return snapshot.write_snapshot(module, memory, globals_, _ONCE_ONLY)
    except (snapshot.SnapshotError, ValueError) as error:
        raise ImageError(f"the guest cannot be captured: {error}") from error


def _compile_scratch(module: bytes) -> tuple[wasmtime.Module, wasmtime.Engine]:
    """Compile for one short use: no metering, the quickest compiler that this machine has.

    Expected of the baseline compiler: a third of Cranelift's time. Measured: 2.0 s instead of 6.7 s.
    """
    config = wasmtime.Config()
    config.max_wasm_stack = WASM_STACK_BYTES
    try:
        _capi.use_baseline_compiler(config)
        quick = wasmtime.Engine(config)
        return wasmtime.Module(quick, module), quick
    except wasmtime.WasmtimeError as error:
        _log.debug("no baseline compiler here (%s): using Cranelift", error)
    config = wasmtime.Config()
    config.max_wasm_stack = WASM_STACK_BYTES
    config.cranelift_opt_level = "none"
    slow = wasmtime.Engine(config)
    return wasmtime.Module(slow, module), slow


def _initialise(
    instance: _capi.Instance,
    world: World,
    globals_: list[str],
    preload: tuple[str, ...],
    scripts: list[str] | None,
) -> tuple[bytes, dict[str, int]]:
    """Drive the scratch instance through its life before the snapshot; its memory and globals then."""
    table = instance.table_entries(_TABLE)
    instance.call("_initialize")
    names = ",".join(preload).encode() + b"\0"
    address = instance.call("sandbox_alloc", len(names))
    instance.write(address, names)
    _expect_zero(instance.call("sandbox_init", address), "sandbox_init", world)
    for script in warm_up_scripts() if scripts is None else scripts:
        request = ExecutionRequest(script, {}, Limits()).encode()
        address = instance.call("sandbox_alloc", len(request))
        instance.write(address, request)
        _expect_zero(instance.call("sandbox_run", address), "a warm-up script", world)
    _expect_zero(instance.call("sandbox_seal"), "sandbox_seal", world)
    if instance.table_entries(_TABLE) != table:
        raise snapshot.SnapshotError("its start-up changed the function table")
    _, size = instance.memory()
    return instance.read(0, size), {name: instance.global_value(name) for name in globals_}


def _expect_zero(code: int, what: str, world: World) -> None:
    if code:
        raise ImageError(f"{what} failed with code {code}: {_said(world)}")


def _said(world: World) -> str:
    return world.stderr.contents().decode("utf-8", "replace").strip()[-2000:] or "nothing"
