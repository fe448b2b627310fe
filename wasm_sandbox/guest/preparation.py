"""Making the compiled image: unpack the guest, start it once, capture it, compile it. Seconds, once per machine."""

from __future__ import annotations

import logging
import time

import wasmtime

from wasm_sandbox.config import MIB, MIN_MEMORY_BYTES, Limits
from wasm_sandbox.errors import ImageError
from wasm_sandbox.guest import _capi, snapshot
from wasm_sandbox.guest.artifact import Artifact
from wasm_sandbox.guest.metering import meter
from wasm_sandbox.guest.pipe import OutputPipe
from wasm_sandbox.guest.request import ExecutionRequest
from wasm_sandbox.guest.settings import WASM_STACK_BYTES, Progress
from wasm_sandbox.guest.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.guest.wasi import FixedSurroundings, HostFunctions, World
from wasm_sandbox.guest.wasm_binary import MalformedModule

PREPARE_SECONDS = 600.0
_TABLE = "__indirect_function_table"
_ONCE_ONLY = frozenset({"_initialize", "sandbox_init", "sandbox_seal", _TABLE})

_log = logging.getLogger(__name__)


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
        return bytes(wasmtime.Module(guest_engine, meter(initialised)).serialize())
    except (MalformedModule, wasmtime.WasmtimeError) as error:
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
