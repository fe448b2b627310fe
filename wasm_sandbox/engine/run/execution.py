"""One run: a script and limits in, an outcome out; never an exception for what a guest did."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import wasmtime

from wasm_sandbox.decode.frame import HEADER_BYTES
from wasm_sandbox.engine.binding import capi as _capi
from wasm_sandbox.engine.compiled.command import FAILED_EXIT_CODES, Command
from wasm_sandbox.engine.compiled.instances import FreshInstance
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.tool_codes import ToolCode, key_of
from wasm_sandbox.engine.memory.poll_page import PollPage
from wasm_sandbox.engine.memory.trap_signals import TrapSignals
from wasm_sandbox.engine.module.metering import FUEL_EXPORT, INEXHAUSTIBLE_FUEL, POLL_EXPORT
from wasm_sandbox.engine.run.compile_ahead import compile_ahead
from wasm_sandbox.engine.threads.turns import Turn
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.descriptors import Descriptors
from wasm_sandbox.engine.world.file_system import FileSystem
from wasm_sandbox.engine.world.mounts import Mounts
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.surroundings import Surroundings
from wasm_sandbox.engine.world.world import Halt, World, environ_block
from wasm_sandbox.files import GivenFiles, joined
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, GuestException, Outcome
from wasm_sandbox.request import ExecutionRequest

TAIL_SLACK_BYTES = 64 << 10  # what a script may print after its frame and the frame still be found
MAX_REPORT_BYTES = 1 << 20
NEAR_CEILING_BYTES = 1 << 20

_TRAPS = wasmtime.TrapCode


def execute(
    image: LoadedImage,
    watchdog: Watchdog,
    trap_signals: TrapSignals,
    request: ExecutionRequest,
    surroundings: Surroundings,
    deliver: Callable[[Outcome], None],
    turn: Turn | None = None,
) -> None:
    """Run a script in a fresh instance of an image, on the calling thread.

    Args:
        image: what the instance is made of.
        watchdog: looks after the run's deadline.
        trap_signals: the handlers by which a guest is stopped.
        request: the script, its environment and its limits.
        surroundings: clocks, entropy and the caller's way to cancel.
        deliver: called with the outcome, whatever the guest did. The instance is torn down after that:
            nobody needs to wait for it (a sixth of a short run). At the deadline another thread may call it.
        turn: the run's, among those that want to compute.

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
        watchdog=watchdog,
        turn=turn,
    )
    trap_signals.restore()
    page = PollPage(trap_signals)
    key = key_of(request) if image.command is None else None
    code = image.tool_codes.find(key) if key else None
    run = _Run(world, page, limits, started, deliver)
    mounts: Mounts | None = None
    fresh: FreshInstance | None = None
    stopped: _capi.GuestStopped | None = None
    exit_code, exception = 0, None
    try:
        mounts = _add_files(world, image, request.given, limits)
        surroundings.stop_with(run.stop_if_over)
        with watchdog.watch(world.next_look(), run.look):
            stopped = _refused(image, world, limits)
            if stopped is None:
                try:
                    fresh = image.instances.take()
                except _capi.GuestStopped as error:  # the system has no memory for it, or a foreign module is at fault
                    stopped = error
                else:
                    run.can_be_left = fresh.slot is not None and mounts is None
                    stopped, exit_code, exception = _call(image, world, page, fresh, request, code)
        if world.host_failure is not None:
            raise world.host_failure
        if run.is_delivered:
            return
        ending = _ending(world, stopped, run.fuel_left(), run.memory_bytes(), limits.memory_bytes)
        if image.command and ending is Ending.EXITED and exit_code in FAILED_EXIT_CODES and exception is None:
            told = image.command.exception(world.stderr.contents(), request)
            exception = GuestException(*told) if told else None
        files = world.files.files.changed_files() if world.files and request.given else None
        run.deliver(ending, stopped.message if stopped else "", exit_code, exception, files)
        time.sleep(0)  # whoever waits for it gets the interpreter lock now
    finally:
        surroundings.stop_with(None)
        page.detach()
        world.instance = world.files = None
        if fresh is not None:
            image.instances.replace(fresh)
        if mounts is not None:
            mounts.close()
    if key and ending is Ending.EXITED and not exit_code and image.tool_codes.is_wanted(key):
        image.tool_codes.keep(key, compile_ahead(image, request))


class _Run:
    """A run under way, as the thread that it is on and the watchdog both see it."""

    can_be_left = False
    """Whether its outcome is known before it has stopped: nothing outside of it can change any more."""

    def __init__(
        self, world: World, page: PollPage, limits: Limits, started: float, deliver: Callable[[Outcome], None]
    ) -> None:
        self._world, self._page, self._limits, self._started, self._deliver = world, page, limits, started, deliver
        self.is_delivered = False

    def look(self) -> float | None:
        """The watchdog's look, which is made only while the thread is inside `Watchdog.watch`.

        To stop, the guest needs one more turn on a processor, and among many that compute it may wait long for
        that. Nobody needs to wait with it: its next charge is a trap, whenever that is.
        """
        again = self.stop_if_over()
        if self._world.halt is Halt.DEADLINE and self.can_be_left and not self.is_delivered:
            self.deliver(Ending.DEADLINE, "")
        return again

    def stop_if_over(self) -> float | None:
        """Stop the guest if it must end, else say when to look again."""
        try:
            halt = self._world.halt_reason()
        except Exception as error:
            self._world.fail(error)
            halt = self._world.halt
        if halt is not None:
            self._page.close()
            return None
        return self._world.next_look()

    def deliver(
        self,
        ending: Ending,
        detail: str,
        exit_code: int = 0,
        exception: GuestException | None = None,
        files: dict[str, bytes] | None = None,
    ) -> None:
        """Hand over the outcome; the guest may still be about to stop."""
        world, fuel = self._world, self._limits.fuel
        # Of a guest that was stopped no result is wanted: only what it printed, and that soon.
        exited = ending is Ending.EXITED
        stdout = world.stdout.contents() if exited else world.stdout.head(self._limits.output_bytes)
        stderr = world.stderr.contents()
        outcome = Outcome(
            ending=ending,
            exit_code=exit_code,
            exception=exception,
            detail=detail,
            stdout=stdout,
            stderr=stderr,
            stdout_dropped_bytes=world.stdout.written_bytes - len(stdout),
            stderr_dropped_bytes=world.stderr.written_bytes - len(stderr),
            fuel=None if fuel is None else fuel - max(0, self.fuel_left()),
            wall_seconds=time.monotonic() - self._started,
            memory_bytes=self.memory_bytes(),
            host_calls=world.host_calls,
            files=files if exited else None,
        )
        self.is_delivered = True
        self._deliver(outcome)

    def fuel_left(self) -> int:
        """Below zero if the guest was stopped for lack of it. The guest may be running: it is one aligned word."""
        instance = self._world.instance
        return instance.global_value(FUEL_EXPORT) if instance else self._limits.fuel or 0

    def memory_bytes(self) -> int:
        return self._world.instance.memory()[1] if self._world.instance else 0


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
    image: LoadedImage,
    world: World,
    page: PollPage,
    fresh: FreshInstance,
    request: ExecutionRequest,
    code: ToolCode | None,
) -> tuple[_capi.GuestStopped | None, int, GuestException | None]:
    """Run: why the guest was stopped (if it was), its exit code, its exception."""
    image.host_functions.enter(world)
    instance = world.instance = fresh.instance
    try:
        instance.limit(request.limits.memory_bytes)
        fuel = INEXHAUSTIBLE_FUEL if request.limits.fuel is None else request.limits.fuel
        if code and code.fuel > fuel:
            code = None  # the run ends in the compiler, as without it
        instance.set_global(FUEL_EXPORT, fuel - code.fuel if code else fuel)
        if fresh.slot is not None:
            page.attach(*fresh.slot.poll_span, fresh.slot.poll)
        else:
            page.attach(*instance.memory_named(POLL_EXPORT))
        if world.turn is not None and page.can_pause:
            world.turn.can_be_paused(page)
        if image.command is not None:
            return _call_command(world, instance, image.command, request)
        if len(request.script) + sum(map(len, request.values)) > request.limits.memory_bytes:  # perhaps gigabytes
            return _too_long(), 0, None
        address = instance.place(request.encode(code.data if code else b""))
        if not address:
            return _too_long(), 0, None
        exit_code = instance.call("sandbox_run", address)
        return None, exit_code, _read_report(instance) if exit_code else None
    except _capi.GuestStopped as stopped:
        return stopped, world.exit_code, None
    finally:
        image.host_functions.leave()


def _too_long() -> _capi.GuestStopped:
    code = _TRAPS.ALLOCATION_TOO_LARGE.value
    return _capi.GuestStopped(code, "the script does not fit the guest's memory")


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
