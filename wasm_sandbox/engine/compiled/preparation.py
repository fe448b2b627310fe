"""Preparation of an image: unpack the guest, compile it, start it once, capture it. Seconds, once per machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import wasmtime

from wasm_sandbox.decode.tracebacks import exception_of
from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.binding.configuration import WASM_STACK_BYTES, Progress
from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.compiled.steps import Step
from wasm_sandbox.engine.compiled.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.engine.memory.base import LinearMemory
from wasm_sandbox.engine.module import snapshot
from wasm_sandbox.engine.module.binary import MalformedModule
from wasm_sandbox.engine.module.image_file import image_parts, with_memory
from wasm_sandbox.engine.module.metering import (
    FUEL_EXPORT,
    INEXHAUSTIBLE_FUEL,
    MeteredCode,
    Metering,
    meter,
    meter_code,
)
from wasm_sandbox.engine.threads.guest_threads import on_guest_thread
from wasm_sandbox.engine.world.clocks import Clocks
from wasm_sandbox.engine.world.host_functions import HostFunctions
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.process import Process
from wasm_sandbox.engine.world.streams import Streams
from wasm_sandbox.engine.world.surroundings import FixedSurroundings
from wasm_sandbox.engine.world.world import Halt, World
from wasm_sandbox.errors import ImageError
from wasm_sandbox.limits import MIB, MIN_MEMORY_BYTES, ROOM_BYTES, Limits
from wasm_sandbox.request import ExecutionRequest

PREPARE_SECONDS = 600.0
_TABLE = "__indirect_function_table"
ONCE_ONLY = frozenset({"_initialize", "sandbox_init", "sandbox_seal", _TABLE})
"""Exports that instances of a snapshot do not need."""

_STARTING, _COMPILING = "starting CPython and importing its library", "compiling for this machine"

MAX_SCRATCH_BYTES = 2048 * MIB
"""Memory limit of a guest while it is prepared."""

MAX_IMAGE_BYTES = 1024 * MIB
"""Largest memory of an image with packages: a quarter of what a guest can address."""

_log = logging.getLogger(__name__)


def prepare(
    memory: LinearMemory,
    build: Build,
    progress: Progress,
    steps: Sequence[Step] = (),
    code_from: Path | None = None,
    memory_from: Path | None = None,
) -> bytes:
    """Pre-initialise and compile the image without packages, or one with further steps; the content of its file.

    Args:
        memory: engine that will run its instances.
        build: build of its guest.
        progress: called at the start of every slow step.
        steps: steps after the warm-up.
        code_from: file of an image with the same code, if there is one.
        memory_from: file of an image with the same memory, if there is one.

    Raises:
        ArtifactError: if the guest module of this installation is missing or damaged.
        ImageError: if the guest could not be initialised.
    """
    if build.keeps_memory_apart:
        return _code_and_memory(memory, build, progress, steps, code_from, memory_from)
    built = _unpacked(build.artifact, progress)
    with ThreadPoolExecutor(1, "wasm-sandbox-metering") as beside:
        metered = beside.submit(meter_code, built, build.metering)  # while the guest is compiled and started
        progress(_STARTING)
        initialised = pre_initialise(built, preload_of(build.artifact), steps=steps, progress=progress)
    progress(_COMPILING)
    return _compiled(memory.engine, initialised.module(ONCE_ONLY), build.metering, metered.result())


def prepare_snapshot(artifact: Artifact, progress: Progress, steps: Sequence[Step] = ()) -> snapshot.Snapshot:
    """Pre-initialise the guest of the image without packages, or of one with further steps.

    Raises:
        ArtifactError: if the guest module of this installation is missing or damaged.
        ImageError: if the guest could not be initialised.
    """
    built = _unpacked(artifact, progress)
    progress(_STARTING)
    return on_guest_thread(lambda: pre_initialise(built, preload_of(artifact), steps=steps, progress=progress))


def preload_of(artifact: Artifact) -> tuple[str, ...]:
    """Modules that a guest imports at its start."""
    return (*PRELOAD, *artifact.preload)


def _unpacked(artifact: Artifact, progress: Progress) -> bytes:
    progress("unpacking the guest")
    return artifact.read()


def _code_and_memory(
    linear: LinearMemory,
    build: Build,
    progress: Progress,
    steps: Sequence[Step],
    code_from: Path | None,
    memory_from: Path | None,
) -> bytes:
    """Content of the file of an image with its memory, apart from the code.

    Each part is taken from another image's file if it is there. Otherwise the guest is compiled, and started in the
    code that its instances will run.
    """
    code = memory = None
    try:
        if code_from and (parts := image_parts(code_from)):
            code = parts.read_code(code_from)
        if memory_from and (parts := image_parts(memory_from)):
            memory = parts.read_memory(memory_from)
    except OSError as error:
        _log.info("another image cannot be read (%s): doing all of its work again", error)
    if code is not None and memory is not None:
        return with_memory(build.code_key, code, memory)
    built = _unpacked(build.artifact, progress)
    if code is None:
        progress(_COMPILING)
        code = _compiled(linear.engine, snapshot.without_data(built), build.metering)
    if memory is None:
        progress(_STARTING)
        preload = preload_of(build.artifact)
        memory = pre_initialise(built, preload, steps=steps, progress=progress, compiled=(linear, code)).memory
    return with_memory(build.code_key, code, memory)


def _compiled(engine: wasmtime.Engine, module: bytes, metering: Metering, metered: MeteredCode | None = None) -> bytes:
    try:
        return bytes(wasmtime.Module(engine, meter(module, metering, metered)).serialize())
    except (MalformedModule, wasmtime.WasmtimeError) as error:
        raise ImageError(f"the guest does not compile: {error}") from error


def pre_initialise(
    module: bytes,
    preload: tuple[str, ...] = PRELOAD,
    scripts: list[str] | None = None,
    steps: Sequence[Step] = (),
    progress: Progress = _log.debug,
    compiled: tuple[LinearMemory, bytes] | None = None,
) -> snapshot.Snapshot:
    """Take a guest through its start-up, imports and warm-up in a scratch instance, and capture it.

    Args:
        module: the guest as built.
        preload: names of modules to import.
        scripts: warm-up scripts, run in order; by default those of the image without packages.
        steps: further scripts, run after these.
        progress: called at the start of every slow step.
        compiled: engine, and metered code without data that was compiled for it; by default the guest is compiled for
            this one start.

    Returns:
        The guest and its memory. The same inputs give the same bytes, however it was compiled.

    Raises:
        ImageError: if the guest reported a failure, or its state cannot be captured.
    """
    if scripts is None:
        scripts = warm_up_scripts(preload)
    all_steps = [*(Step("a warm-up script", script) for script in scripts), *steps]
    scratch = _FinalCode(module, *compiled) if compiled else _ThrowawayCode(module)
    world = World(FixedSurroundings(), deadline=time.monotonic() + PREPARE_SECONDS)
    streams = Streams(world, OutputPipe(MIB), OutputPipe(MIB))
    world.offer(streams, Clocks(world, streams.is_open), Process(world))
    functions = HostFunctions(scratch.linker, scratch.module)
    store = wasmtime.Store(scratch.engine)
    store.set_limits(memory_size=MAX_SCRATCH_BYTES)
    last_word = threading.Timer(PREPARE_SECONDS, scratch.stop)
    last_word.daemon = True
    functions.enter(world)
    try:
        instance = world.instance = scratch.instance(store)
        last_word.start()
        memory = _initialise(instance, streams, snapshot.mutable_globals(module), preload, all_steps, progress)
    except (capi.GuestStopped, snapshot.SnapshotError) as error:
        too_long = world.halt_reason() is Halt.DEADLINE
        reason = f"it took more than {PREPARE_SECONDS:g} s" if too_long else str(error)
        raise ImageError(f"the guest cannot be initialised: {reason}; it said: {_said(streams)}") from error
    finally:
        last_word.cancel()
        functions.leave()
        world.close()
        store.close()
        scratch.close()
    most = MAX_IMAGE_BYTES if steps or preload != PRELOAD else MIN_MEMORY_BYTES - ROOM_BYTES
    if len(memory) > most:
        raise ImageError(
            f"the image takes {len(memory) >> 20} MiB of memory, at most {most >> 20} MiB leave room for a run; "
            "preload less"
        )
    return snapshot.Snapshot(module, memory)


class _ThrowawayCode:
    """Scratch guest in code for one start: a deadline but no fuel, by the quickest compiler of this machine.

    Expected of the baseline compiler: a third of Cranelift's time. Measured: 2.0 s instead of 6.7 s.
    """

    def __init__(self, module: bytes) -> None:
        self.engine, self.module = self._compiled(module)
        self.linker = wasmtime.Linker(self.engine)
        self.stop = self.engine.increment_epoch

    def instance(self, store: wasmtime.Store) -> capi.Instance:
        store.set_epoch_deadline(1)
        return capi.Instance(store, self.linker.instantiate_pre(self.module))

    def close(self) -> None:
        """Do nothing: the memory is closed with the store."""

    @classmethod
    def _compiled(cls, module: bytes) -> tuple[wasmtime.Engine, wasmtime.Module]:
        config = cls._configuration()
        try:
            capi.use_baseline_compiler(config)
            quick = wasmtime.Engine(config)
            return quick, wasmtime.Module(quick, module)
        except wasmtime.WasmtimeError as error:
            _log.debug("no baseline compiler here (%s): using Cranelift", error)
        config = cls._configuration()
        config.cranelift_opt_level = "none"
        slow = wasmtime.Engine(config)
        return slow, wasmtime.Module(slow, module)

    @staticmethod
    def _configuration() -> wasmtime.Config:
        config = wasmtime.Config()
        capi.give_stack(config, WASM_STACK_BYTES)
        config.epoch_interruption = True  # a package that is imported may never come to an end
        return config


class _FinalCode:
    """Scratch guest in the code that the image's instances will run.

    Raises:
        ImageError: if the code is for another engine, or the system gives no memory.
    """

    def __init__(self, module: bytes, memory: LinearMemory, code: bytes) -> None:
        self._memory, self.engine = memory, memory.engine
        self.linker = wasmtime.Linker(self.engine)
        try:
            self.module = wasmtime.Module.deserialize(self.engine, code)
            memories = memory.unstarted(*snapshot.initial_memory(module))
        except (wasmtime.WasmtimeError, ValueError, OSError) as error:
            raise ImageError(f"the guest cannot be initialised: {error}") from error
        if memories is None:
            raise ImageError("the guest cannot be initialised: its memory is not apart from its code")
        self._memories, self.stop = memories, memories.poll.stop

    def instance(self, store: wasmtime.Store) -> capi.Instance:
        instance = self._memory.instance(store, self.linker.instantiate_pre(self.module), self._memories)
        instance.set_global(FUEL_EXPORT, INEXHAUSTIBLE_FUEL)
        return instance

    def close(self) -> None:
        """Unmap the memories; the store must be closed."""
        self._memories.close()


def _initialise(
    instance: capi.Instance,
    streams: Streams,
    globals_: list[str],
    preload: tuple[str, ...],
    steps: Sequence[Step],
    progress: Progress,
) -> bytes:
    """Start the scratch instance, run the steps, and read its memory."""

    def besides_memory() -> tuple[list[bytes], list[int]]:
        return instance.table_entries(_TABLE), [instance.global_value(name) for name in globals_]

    before = besides_memory()
    instance.call("_initialize")
    names = ",".join(preload).encode() + b"\0"
    _expect_zero(instance.call("sandbox_init", instance.place(names)), "sandbox_init", streams)
    for step in steps:
        if step.progress:
            progress(step.what)
        address = instance.place(ExecutionRequest(step.script, {}, Limits()).encode())
        if not address:
            raise ImageError(f"{step.what} does not fit the guest's memory")
        streams.stdin = step.stdin
        _expect_zero(instance.call("sandbox_run", address), step.what, streams)
    _expect_zero(instance.call("sandbox_seal"), "sandbox_seal", streams)
    if besides_memory() != before:
        raise snapshot.SnapshotError("its start-up changed the function table or a global")
    _, size = instance.memory()
    return instance.read(0, size)


def _expect_zero(code: int, what: str, streams: Streams) -> None:
    if code:
        said = _said(streams)
        raised = exception_of(said)
        reason = f" ({raised[0]}: {raised[1][:300]})" if raised else ""  # first: a long message is shown by its begin
        raise ImageError(f"{what} failed with code {code}{reason}: {said}")


def _said(streams: Streams) -> str:
    return streams.stderr.contents().decode("utf-8", "replace").strip()[-2000:] or "nothing"
