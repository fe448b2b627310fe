"""One run: a script and limits in, an outcome out; never an exception for what a guest did."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial

import wasmtime

from wasm_sandbox.config import Limits
from wasm_sandbox.files import GivenFiles, joined
from wasm_sandbox.frame import HEADER_BYTES
from wasm_sandbox.guest import _capi
from wasm_sandbox.guest.command import FAILED_EXIT_CODES, Command
from wasm_sandbox.guest.file_system import FileSystem
from wasm_sandbox.guest.image import LoadedImage
from wasm_sandbox.guest.instances import FreshInstance
from wasm_sandbox.guest.metering import FUEL_EXPORT, POLL_EXPORT
from wasm_sandbox.guest.mounts import Mounts
from wasm_sandbox.guest.outcome import Ending, GuestException, Outcome
from wasm_sandbox.guest.pipe import OutputPipe
from wasm_sandbox.guest.poll_page import PollPage
from wasm_sandbox.guest.request import ExecutionRequest
from wasm_sandbox.guest.trap_signals import TrapSignals
from wasm_sandbox.guest.wasi import Halt, Surroundings, World, environ_block
from wasm_sandbox.guest.wasi_files import Descriptors
from wasm_sandbox.guest.watchdog import Watchdog

TAIL_SLACK_BYTES = 64 << 10  # what a script may print after its frame and the frame still be found
MAX_REPORT_BYTES = 1 << 20
INEXHAUSTIBLE_FUEL = 2**63 - 1  # centuries: for an image that counts it, where there is none that does not
NEAR_CEILING_BYTES = 1 << 20

_TRAPS = wasmtime.TrapCode


def execute(
    image: LoadedImage,
    watchdog: Watchdog,
    trap_signals: TrapSignals,
    request: ExecutionRequest,
    surroundings: Surroundings,
    deliver: Callable[[Outcome], None],
) -> None:
    """Run a script in a fresh instance of an image, on the calling thread.

    Args:
        image: what the instance is made of.
        watchdog: looks after the run's deadline.
        trap_signals: the handlers by which a guest is stopped.
        request: the script, its environment and its limits.
        surroundings: clocks, entropy and the caller's way to cancel.
        deliver: called with the outcome, whatever the guest did. The instance is torn down after that:
            nobody needs to wait for it (a sixth of a short run).

    Raises:
        HostError: the system gives no memory for one more guest.
        InvalidFiles: a mount cannot be opened, or files do not go together with those of the image.
        BaseException: otherwise only what a defect of a host function raised; nothing is delivered then.
    """
    limits = request.limits
    started = time.monotonic()
    frame_bytes = limits.result_bytes + HEADER_BYTES
    world = World(
        environ=environ_block(image.command.environ(request.environ) if image.command else request.environ),
        stdout=OutputPipe(limits.output_bytes + frame_bytes, frame_bytes + TAIL_SLACK_BYTES),
        stderr=OutputPipe(limits.output_bytes),
        surroundings=surroundings,
        deadline=started + limits.timeout_seconds,
    )
    trap_signals.restore()
    page = PollPage(trap_signals)
    mounts: Mounts | None = None
    fresh: FreshInstance | None = None
    stopped: _capi.GuestStopped | None = None
    exit_code, exception = 0, None
    try:
        mounts = _add_files(world, image, request.given, limits)
        look = partial(_look, world, page)
        surroundings.stop_with(look)
        with watchdog.watch(world.next_look(), look):
            stopped = _refused(image, world, limits)
            if stopped is None:
                fresh = image.instances.take()
                stopped, exit_code, exception = _call(image, world, page, fresh, request)
        fuel_left = world.instance.global_value(FUEL_EXPORT) if world.instance else limits.fuel or 0
        if world.host_failure is not None:
            raise world.host_failure
        memory_bytes = world.instance.memory()[1] if world.instance else 0
        ending = _ending(world, stopped, fuel_left, memory_bytes, limits.memory_bytes)
        if image.command and ending is Ending.EXITED and exit_code in FAILED_EXIT_CODES and exception is None:
            told = image.command.exception(world.stderr.contents(), request)
            exception = GuestException(*told) if told else None
        # Of a guest that was stopped no result is wanted: only what it printed, and that soon.
        stdout = world.stdout.contents() if ending is Ending.EXITED else world.stdout.head(limits.output_bytes)
        outcome = Outcome(
            ending=ending,
            exit_code=exit_code,
            exception=exception,
            detail=stopped.message if stopped else "",
            stdout=stdout,
            stderr=world.stderr.contents(),
            stdout_dropped_bytes=world.stdout.written_bytes - len(stdout),
            stderr_dropped_bytes=world.stderr.dropped_bytes,
            fuel=None if limits.fuel is None else limits.fuel - max(0, fuel_left),
            wall_seconds=time.monotonic() - started,
            memory_bytes=memory_bytes,
            host_calls=world.host_calls,
            files=world.files.files.changed_files()
            if world.files and request.given and ending is Ending.EXITED
            else None,
        )
        deliver(outcome)
        time.sleep(0)  # whoever waits for it gets the interpreter lock now
    finally:
        surroundings.stop_with(None)
        page.detach()
        world.instance = world.files = None
        if fresh is not None:
            image.instances.replace(fresh)
        if mounts is not None:
            mounts.close()


def _add_files(world: World, image: LoadedImage, given: GivenFiles | None, limits: Limits) -> Mounts | None:
    """Give a world a file system, and mounts in it, if the caller or the image has any files.

    The limits are for what the caller gives and the guest writes. A guest whose caller gives nothing can only read.
    """
    shared = image.command.files(image.files) if image.command else GivenFiles(image.files, {})
    if given is None and not shared.files and not shared.mounts:
        return None
    everything = joined(shared, given) if given else shared
    max_bytes = sum(map(len, shared.files.values())) + (limits.files_bytes if given else 0)
    max_nodes = sum(path.count("/") for path in [*shared.files, *shared.mounts]) + (limits.file_count if given else 0)
    system = FileSystem(everything.files, tuple(everything.mounts), max_bytes, max_nodes, world.now())
    mounts = None
    if everything.mounts:
        mounts = Mounts(image.engine, image.mounting, everything.mounts, limits.files_bytes, limits.file_count)
    world.files = Descriptors(world, system, mounts.each if mounts else ())
    return mounts


def _look(world: World, page: PollPage) -> float | None:
    """The watchdog's look at a run: stops the guest if it must end, else says when to look again."""
    try:
        halt = world.halt_reason()
    except Exception as error:
        world.fail(error)
        halt = world.halt
    if halt is not None:
        page.close()
        return None
    return world.next_look()


def _refused(image: LoadedImage, world: World, limits: Limits) -> _capi.GuestStopped | None:
    """Why a guest is not even begun."""
    if world.halt_reason() is not None:
        return _capi.GuestStopped(None, "cancelled before it started")
    if (needed := image.needed_bytes) > limits.memory_bytes:
        message = (
            f"this image needs at least {needed >> 20} MiB of memory, the limit is "
            f"{limits.memory_bytes >> 20} MiB: raise Limits.memory_bytes"
        )
        return _capi.GuestStopped(_TRAPS.ALLOCATION_TOO_LARGE.value, message)
    return None


def _call(
    image: LoadedImage, world: World, page: PollPage, fresh: FreshInstance, request: ExecutionRequest
) -> tuple[_capi.GuestStopped | None, int, GuestException | None]:
    """Run: why the guest was stopped (if it was), its exit code, its exception."""
    image.host_functions.enter(world)
    instance = world.instance = fresh.instance
    try:
        instance.limit(request.limits.memory_bytes)
        fuel = request.limits.fuel
        instance.set_global(FUEL_EXPORT, INEXHAUSTIBLE_FUEL if fuel is None else fuel)
        page.attach(*(fresh.slot.poll_span if fresh.slot else instance.memory_named(POLL_EXPORT)))
        if image.command is not None:
            return _call_command(world, instance, image.command, request)
        encoded = request.encode()
        address = instance.call("sandbox_alloc", len(encoded))
        if not address:
            code = _TRAPS.ALLOCATION_TOO_LARGE.value
            return _capi.GuestStopped(code, "the script does not fit the guest's memory"), 0, None
        instance.write(address, encoded)
        exit_code = instance.call("sandbox_run", address)
        return None, exit_code, _read_report(instance) if exit_code else None
    except _capi.GuestStopped as stopped:
        return stopped, world.exit_code, None
    finally:
        image.host_functions.leave()


def _call_command(
    world: World, instance: _capi.Instance, command: Command, request: ExecutionRequest
) -> tuple[_capi.GuestStopped | None, int, GuestException | None]:
    """Run a whole interpreter; `_call` says how it was stopped, as when it exits."""
    if "\0" in request.script:  # which would end its argument
        message = "source code cannot contain null bytes"
        return None, 1, GuestException("SyntaxError", message, f"SyntaxError: {message}\n")
    world.arguments = command.arguments(request)
    instance.call("_start")
    return None, 0, None


def _read_report(instance: _capi.Instance) -> GuestException | None:
    """The guest's report, read as hostile: bounded, checked, decoded with replacement."""
    address = instance.call("sandbox_report")
    if not address:
        return None
    texts, room = [], MAX_REPORT_BYTES
    for _ in range(3):
        (size,) = struct.unpack("<I", instance.read(address, 4))
        texts.append(instance.read(address + 4, min(size, room)).decode("utf-8", "replace"))
        room -= min(size, room)
        address += 4 + size
    return GuestException(*texts)


def _ending(
    world: World, stopped: _capi.GuestStopped | None, fuel_left: int, memory_bytes: int, ceiling: int
) -> Ending:
    if stopped is None or world.halt is Halt.EXIT:
        return Ending.EXITED
    if world.halt is Halt.DEADLINE:
        return Ending.DEADLINE
    if world.halt is Halt.CANCELLED:
        return Ending.CANCELLED
    if fuel_left < 0:
        return Ending.OUT_OF_FUEL
    if stopped.code == _TRAPS.STACK_OVERFLOW.value:
        return Ending.STACK_OVERFLOW
    if stopped.code == _TRAPS.ALLOCATION_TOO_LARGE.value:
        return Ending.OUT_OF_MEMORY
    if memory_bytes and memory_bytes + NEAR_CEILING_BYTES > ceiling and stopped.code == _TRAPS.UNREACHABLE.value:
        return Ending.OUT_OF_MEMORY  # C and Rust code that cannot do without memory aborts
    return Ending.TRAPPED
