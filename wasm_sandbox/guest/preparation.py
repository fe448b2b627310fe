"""Making the compiled image: unpack the guest, start it once, capture it, compile it. Seconds, once per machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import wasmtime

from wasm_sandbox.config import MIB, MIN_MEMORY_BYTES, ROOM_BYTES, Limits
from wasm_sandbox.errors import ImageError
from wasm_sandbox.guest import _capi, snapshot
from wasm_sandbox.guest.artifact import Artifact
from wasm_sandbox.guest.image import Wanted
from wasm_sandbox.guest.image_file import memory_part, with_memory
from wasm_sandbox.guest.metering import meter, meter_code
from wasm_sandbox.guest.own_memory import OwnMemoryEngine
from wasm_sandbox.guest.pipe import OutputPipe
from wasm_sandbox.guest.request import ExecutionRequest
from wasm_sandbox.guest.settings import WASM_STACK_BYTES, Progress
from wasm_sandbox.guest.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.guest.wasi import FixedSurroundings, Halt, HostFunctions, World
from wasm_sandbox.guest.wasm_binary import MalformedModule

PREPARE_SECONDS = 600.0
_TABLE = "__indirect_function_table"
_ONCE_ONLY = frozenset({"_initialize", "sandbox_init", "sandbox_seal", _TABLE})

MAX_SCRATCH_BYTES = 2048 * MIB
"""What a guest may take while it is prepared."""

MAX_IMAGE_BYTES = 1024 * MIB
"""A quarter of what a guest can address at all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One more script of the preparation, after the warm-up of the default image."""

    what: str
    """Names it in messages."""
    script: str
    stdin: bytes = b""
    """What it reads on standard input."""
    progress: bool = False
    """Whether it is slow enough to be told about."""


def prepare(guest_engine: wasmtime.Engine, wanted: Wanted, steps: Sequence[Step] = ()) -> bytes:
    """Pre-initialise and compile the default image, or one that takes further steps; the content of its file.

    Args:
        guest_engine: the engine that will run its instances.
        wanted: of what, and how.
        steps: what is done beyond the warm-up of the default image.

    Raises:
        ArtifactError, ImageError: as `load_image`.
    """
    part = memory_part(wanted.sibling) if wanted.sibling else None
    wanted.progress("unpacking the guest")
    built = wanted.artifact.read()
    own_memory = isinstance(guest_engine, OwnMemoryEngine)
    with ThreadPoolExecutor(1, "wasm-sandbox-metering") as beside:
        metered = beside.submit(meter_code, built, wanted.counts_fuel)  # while the guest is compiled and started
        if wanted.sibling and part:  # the same guest, compiled otherwise: it need not be started again
            initialised = snapshot.take_snapshot(built, part.read(wanted.sibling), part.globals, _ONCE_ONLY)
        else:
            initialised = _started(built, wanted.progress, steps)
    wanted.progress("compiling for this machine")
    try:
        plain = initialised.without_data if own_memory else initialised.module()
        module = meter(plain, wanted.counts_fuel, metered.result())
        code = bytes(wasmtime.Module(guest_engine, module).serialize())
    except (MalformedModule, wasmtime.WasmtimeError) as error:
        raise ImageError(f"the pre-initialised guest does not compile: {error}") from error
    return with_memory(code, initialised) if own_memory else code


def prepare_snapshot(artifact: Artifact, progress: Progress, steps: Sequence[Step] = ()) -> snapshot.Snapshot:
    """The pre-initialised guest of the default image, or of one that takes further steps; raises as `prepare`."""
    progress("unpacking the guest")
    return _started(artifact.read(), progress, steps)


def _started(module: bytes, progress: Progress, steps: Sequence[Step]) -> snapshot.Snapshot:
    progress("starting CPython and importing its library")
    return pre_initialise(module, steps=steps, progress=progress)


def pre_initialise(
    module: bytes,
    preload: tuple[str, ...] = PRELOAD,
    scripts: list[str] | None = None,
    steps: Sequence[Step] = (),
    progress: Progress = _log.debug,
) -> snapshot.Snapshot:
    """A guest that starts where the given one stands after its start-up, imports and warm-up.

    Args:
        module: the guest as built.
        preload: names of modules to import.
        scripts: warm-up scripts, run in order; the default image's when not given.
        steps: further scripts, run after these.
        progress: told about every step.

    Returns:
        The pre-initialised module and its memory. The same inputs give the same bytes.

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
    if scripts is None:
        scripts = warm_up_scripts()
    all_steps = [*(Step("a warm-up script", script) for script in scripts), *steps]
    store = wasmtime.Store(scratch_engine)
    store.set_limits(memory_size=MAX_SCRATCH_BYTES)
    store.set_epoch_deadline(1)
    last_word = threading.Timer(PREPARE_SECONDS, scratch_engine.increment_epoch)
    last_word.daemon = True
    functions.enter(world)
    try:
        last_word.start()
        instance = world.instance = _capi.Instance(store, linker.instantiate_pre(scratch_module))
        globals_wanted = snapshot.mutable_globals(module)
        memory, globals_ = _initialise(instance, world, globals_wanted, preload, all_steps, progress)
    except (_capi.GuestStopped, snapshot.SnapshotError) as error:
        too_long = world.halt_reason() is Halt.DEADLINE
        reason = f"it took more than {PREPARE_SECONDS:g} s" if too_long else str(error)
        raise ImageError(f"the guest cannot be initialised: {reason}; it said: {_said(world)}") from error
    finally:
        last_word.cancel()
        functions.leave()
        world.instance = None
        store.close()
    most = MAX_IMAGE_BYTES if steps else MIN_MEMORY_BYTES - ROOM_BYTES
    if len(memory) > most:
        raise ImageError(
            f"the image takes {len(memory) >> 20} MiB of memory, at most {most >> 20} MiB leave room for a run; "
            "preload less"
        )
    try:
        return snapshot.take_snapshot(module, memory, globals_, _ONCE_ONLY)
    except (snapshot.SnapshotError, ValueError) as error:
        raise ImageError(f"the guest cannot be captured: {error}") from error


def _compile_scratch(module: bytes) -> tuple[wasmtime.Module, wasmtime.Engine]:
    """Compile for one short use: a deadline but no fuel, the quickest compiler that this machine has.

    Expected of the baseline compiler: a third of Cranelift's time. Measured: 2.0 s instead of 6.7 s.
    """
    config = _scratch_configuration()
    try:
        _capi.use_baseline_compiler(config)
        quick = wasmtime.Engine(config)
        return wasmtime.Module(quick, module), quick
    except wasmtime.WasmtimeError as error:
        _log.debug("no baseline compiler here (%s): using Cranelift", error)
    config = _scratch_configuration()
    config.cranelift_opt_level = "none"
    slow = wasmtime.Engine(config)
    return wasmtime.Module(slow, module), slow


def _scratch_configuration() -> wasmtime.Config:
    config = wasmtime.Config()
    config.max_wasm_stack = WASM_STACK_BYTES
    config.epoch_interruption = True  # a package that is imported may never come to an end
    return config


def _initialise(
    instance: _capi.Instance,
    world: World,
    globals_: list[str],
    preload: tuple[str, ...],
    steps: Sequence[Step],
    progress: Progress,
) -> tuple[bytes, dict[str, int]]:
    """Drive the scratch instance through its life before the snapshot; its memory and globals then."""
    table = instance.table_entries(_TABLE)
    instance.call("_initialize")
    names = ",".join(preload).encode() + b"\0"
    address = instance.call("sandbox_alloc", len(names))
    instance.write(address, names)
    _expect_zero(instance.call("sandbox_init", address), "sandbox_init", world)
    for step in steps:
        if step.progress:
            progress(step.what)
        request = ExecutionRequest(step.script, {}, Limits()).encode()
        address = instance.call("sandbox_alloc", len(request))
        instance.write(address, request)
        world.stdin = step.stdin
        _expect_zero(instance.call("sandbox_run", address), step.what, world)
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
