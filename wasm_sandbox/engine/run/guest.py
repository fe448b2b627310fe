"""`Guest`: one live instance with its world. A run calls it once; whoever keeps it calls it again and again."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import wasmtime

from wasm_sandbox.decode.frame import HEADER_BYTES, head_bytes
from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.compiled.instances import PooledInstance
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.tool_codes import ToolCode
from wasm_sandbox.engine.memory.poll_page import PollPage
from wasm_sandbox.engine.memory.slots import Slot
from wasm_sandbox.engine.memory.trap_signals import TrapSignals
from wasm_sandbox.engine.module.metering import (
    ALONE_EXPORT,
    FUEL_EXPORT,
    GROWN_EXPORT,
    INEXHAUSTIBLE_FUEL,
    POLL_EXPORT,
)
from wasm_sandbox.engine.run.point import GuestMemory
from wasm_sandbox.engine.start.base import Ended
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.engine.threads.turns import Turn
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.channel import Channel
from wasm_sandbox.engine.world.clocks import Clocks
from wasm_sandbox.engine.world.descriptors import Descriptors
from wasm_sandbox.engine.world.file_system import FileSystem
from wasm_sandbox.engine.world.mounts import Mounts
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.process import Process, entries
from wasm_sandbox.engine.world.sockets import Sockets
from wasm_sandbox.engine.world.streams import Streams
from wasm_sandbox.engine.world.surroundings import Surroundings
from wasm_sandbox.engine.world.world import Halt, World
from wasm_sandbox.errors import HostError
from wasm_sandbox.events import mark
from wasm_sandbox.files import GivenFiles, joined
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending
from wasm_sandbox.request import ExecutionRequest, Peer, Tap

NEAR_CEILING_BYTES = 1 << 20

OWED_FUEL = 200_000
"""Fuel that a guest may owe for work of the host's."""

_TRAPS = wasmtime.TrapCode

STACK_POINTER_EXPORT = "__stack_pointer"
"""Export name of the global with the address of the top of the stack that compilers keep in memory."""

_NO_MEMORY = f"(os error {errno.ENOMEM})"
"""Rust's words end so where the system gives wasmtime no memory for an instance of its own."""


TAIL_SLACK_BYTES = 64 << 10  # most output after a frame that is still found

_NOWHERE = OutputPipe(0)
"""Where output goes before the first call: there is none."""

_NOTHING = Ended(0, None)


SHORT_FUEL = 400_000
"""Most fuel of a short call: less than a millisecond. Its thread hears of no signal meanwhile, and what is not done by
then has been in vain."""


class Watch(NamedTuple):
    """Watchdog and trap signals of an engine: what every guest is stopped by."""

    watchdog: Watchdog
    trap_signals: TrapSignals


# Guarantees:
# - `cancel` of its surroundings, and the watchdog's looks, may come from any thread at any time: they stop the poll
#   page, by which the guest traps at its next safepoint;
# - no look is under way once `call` has returned: it leaves `Watchdog.watch` first. A `cancel` may still be: it finds
#   the poll page detached;
# - a guest that was stopped, that trapped or that left by ``proc_exit`` has ended: it is never called again.
# The caller sees to it that of `call`, `snapshot` and `close` one is made at a time.
# Locks: none of its own; a look holds `_Entry.lock` and takes `PollPage._lock`.
class Guest:
    """One live instance with its world.

    Args:
        image: image of the instance, which is made by the first call.
        watch: watchdog and trap signals of the engine.
        surroundings: clocks, entropy and the caller's way to cancel.
        deadline: deadline of the first call, on the clock of `time.monotonic`, in seconds.
        is_kept: whether it is called again and again, so that its instance is to tell what was written to.

    Attributes:
        world: imports that it may call.
        streams: standard streams.
        files: descriptors and file system; None if its limits allow no file, and nothing was given.
        page: poll page, by which it is stopped and paused.
        ended: exit code and exception of the last call.
        detail: the engine's own words for an abnormal ending.
    """

    def __init__(
        self,
        image: LoadedImage,
        watch: Watch,
        surroundings: Surroundings,
        deadline: float,
        is_kept: bool = False,
    ) -> None:
        self.image, self._watch = image, watch
        self.world = World(surroundings, deadline, watch.watchdog)
        self.streams = Streams(self.world, _NOWHERE, _NOWHERE)
        self._limits_of_pipes: Limits | None = None
        self.files: Descriptors | None = None
        self.ended, self.detail = _NOTHING, ""
        self._process = Process(self.world)
        self.page = PollPage(watch.trap_signals)
        self._channel: Channel | None = None
        self._is_kept = is_kept
        self._pooled: PooledInstance | None = None
        self._ending: Ending | None = None
        self._given_fuel = self._owed_fuel = self._host_calls_before = 0
        self._environ: Mapping[str, str] | None = None
        """Environment that the guest has from the call before; None if that was a script, or there was none."""
        watch.trap_signals.restore()

    def renew(self, surroundings: Surroundings, peer: Peer) -> None:
        """Give a guest that is called again the surroundings and the other end of its channel for this call."""
        self.world.surroundings = surroundings
        if self._channel is not None:
            self._channel.peer = peer

    def equip(
        self, given: GivenFiles | None, limits: Limits, peer: Peer | None = None, has_network: bool = False
    ) -> None:
        """Offer the capabilities, before the first call.

        Args:
            given: files and mounts of the caller; those of the image are added.
            limits: limits of what the guest may create and write: without files of a caller, a scratch file system.
            peer: other end of the guest's channel, if it has one.
            has_network: whether that serves connections, too.

        Raises:
            InvalidFiles: if a mount cannot be opened, or the files do not go together with those of the image.
        """
        self.files = self._files(given, limits)
        is_open = self.files.is_open if self.files else self.streams.is_open
        files = () if self.files is None else (self.files,)
        self.world.offer(self.streams, Clocks(self.world, is_open), self._process, *files)
        if peer is not None:
            self._channel = Channel(self.world, peer, self._spend)
            self.world.offer(self._channel)
            if has_network:
                self.world.offer(Sockets(self.world, self._channel, self._spend))

    def _files(self, given: GivenFiles | None, limits: Limits) -> Descriptors | None:
        """Files of the caller and of the image, and room for what the guest writes; None if there is nothing of these.

        What the caller gave, and what the guest makes, is counted; what the image has is not.
        """
        image = self.image
        shared = image.start.files(image.files)
        if given is None and not shared.files and not shared.mounts and not limits.file_count:
            return None
        everything = joined(shared, given) if given else shared

        def make_files() -> FileSystem:
            max_bytes = sum(map(len, shared.files.values())) + limits.files_bytes
            max_nodes = sum(path.count("/") for path in [*shared.files, *shared.mounts]) + limits.file_count
            return FileSystem(everything.files, tuple(everything.mounts), max_bytes, max_nodes, self.world.now())

        mounts = None
        if everything.mounts:
            engine = image.memory.engine
            mounts = Mounts(engine, lambda: image.mounting, everything.mounts, limits.files_bytes, limits.file_count)
        return Descriptors(self.world, self.streams, make_files, mounts)

    def call(
        self,
        request: ExecutionRequest,
        deadline: float,
        *,
        turn: Turn | None = None,
        code: ToolCode | None = None,
        when_late: Callable[[], None] | None = None,
    ) -> Ending:
        """Run a script in the instance, on the calling thread; what it prints is in the pipes of `streams` then.

        Args:
            request: the script, its environment and its limits.
            deadline: deadline of the call, on the clock of `time.monotonic`, in seconds.
            turn: turn of the run, among those that want to compute.
            code: compiled code of the script from the tool's source on, if there is any.
            when_late: called by the watchdog at the deadline, where the outcome is known before the guest has
                stopped: nothing outside of it can change any more.

        Returns:
            How the script ended.

        Raises:
            RuntimeError: if an earlier call has ended the guest.
            HostError: if the system gives no memory for one more guest.
            BaseException: if a host function raised it, by a defect.
        """
        is_new = self._prepare(request, deadline, turn)
        world, surroundings = self.world, self.world.surroundings

        def look() -> float | None:
            again = self.stop_if_over()
            if world.halt is Halt.DEADLINE and when_late is not None and self._can_be_left:
                when_late()
            return again

        stopped: capi.GuestStopped | None = None
        try:
            surroundings.stop_with(self.stop_if_over)
            with mark("call", self), self._watch.watchdog.watch(world.next_look(), look):
                stopped = self._refused(request.limits) or self._run(request, code, is_new)
        finally:
            surroundings.stop_with(None)
        if world.host_failure is not None:
            raise world.host_failure
        if stopped is not None and stopped.message.rstrip().endswith(_NO_MEMORY):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self._ending = self._ending_of(stopped, request.limits.memory_bytes)
        self.detail = stopped.message if stopped else ""
        if self._ending is Ending.EXITED and self.ended.exit_code and self.ended.exception is None:
            told = self.image.start.exception(self.ended.exit_code, self.streams.stderr.contents(), request)
            self.ended = self.ended._replace(exception=told)
        return self._ending

    def attempt(self, request: ExecutionRequest) -> bool:
        """Make a call on the calling thread, any thread, if it is a short one that needs nothing of the host.

        It runs on a stack of its own; no code of the host's runs meanwhile, and fuel ends it. So it does the same each
        time that it is made, and no signal handler can come in between.

        Returns:
            Whether it came to its end. If not, nothing outside of the guest has changed: the guest is to be closed, and
            the call, whose peer this guest never had, can be made by another one.

        Raises:
            RuntimeError: as of `call`.
        """
        assert request.environ == self._environ
        self._prepare(request, math.inf, None)
        instance = self._instance()
        instance.set_global(ALONE_EXPORT, 1, capi.I32)
        instance.on_own_stack = True
        with mark("call", self):
            stopped = self._run(request, None, False, SHORT_FUEL)
        instance.on_own_stack = False
        instance.set_global(ALONE_EXPORT, 0, capi.I32)
        return stopped is None

    def tell_environ(self, environ: Mapping[str, str]) -> None:
        """Take it that a guest out of a checkpoint has this environment."""
        self._environ = environ

    @property
    def is_alone(self) -> bool:
        """Whether the last call needed nothing of the host, so that the next one may do without, too."""
        return self.world.host_calls == self._host_calls_before

    def can_attempt(self, request: ExecutionRequest) -> bool:
        """Whether a call may be a short one (`attempt`): on memory of ours, without news of its environment."""
        is_ours = self._pooled is not None and self._pooled.slot is not None
        has_room = self.image.needed_bytes <= request.limits.memory_bytes
        return is_ours and has_room and request.environ == self._environ

    def _prepare(self, request: ExecutionRequest, deadline: float, turn: Turn | None) -> bool:
        """Make ready for a call, and see whether the guest has to be told of a new environment.

        Raises:
            RuntimeError: if an earlier call has ended the guest.
        """
        if self._ending not in (None, Ending.EXITED) or (self._pooled is not None and self._has_ended):
            raise RuntimeError(f"the guest has ended ({self._ending}): it cannot be called again")
        world = self.world
        world.deadline, world.turn = deadline, turn
        streams = self.streams
        if request.limits is not self._limits_of_pipes or streams.stdout.written_bytes or streams.stderr.written_bytes:
            streams.stdout, streams.stderr = _pipes(request.limits)
            self._limits_of_pipes = request.limits
        self.streams.tap = None if request.tap is None else self._tapped(request.tap)
        self.ended, self.detail, self._given_fuel = _NOTHING, "", 0
        self._host_calls_before = world.host_calls
        # Where a guest was at rest, it is another one: what is deterministic may not depend on that.
        is_new = not request.call or request.limits.deterministic or request.environ != self._environ
        self._environ = request.environ if request.call else None
        if is_new:
            self._process.environ = entries(self.image.start.environ(request.environ))
            self._process.arguments = self.image.start.arguments(request)
        return is_new

    def _tapped(self, tap: Tap) -> Callable[[int, bytes], None]:
        """A tap that ends the guest, if that is to end, before more of its memory is looked at."""
        tap.begin(self.world.wait)

        def output(fd: int, data: bytes) -> None:
            tap.output(fd, data)
            self.world.check()

        return output

    def _refused(self, limits: Limits) -> capi.GuestStopped | None:
        """Reason not to begin the guest at all, if there is one."""
        if self.world.halt_reason() is not None:
            return capi.GuestStopped(None, "cancelled before it started")
        if (needed := self.image.needed_bytes) > limits.memory_bytes:
            message = (
                f"this image needs at least {needed >> 20} MiB of memory, the limit is "
                f"{limits.memory_bytes >> 20} MiB: raise Limits.memory_bytes"
            )
            return capi.GuestStopped(_TRAPS.ALLOCATION_TOO_LARGE.value, message)
        return None

    def _run(
        self, request: ExecutionRequest, code: ToolCode | None, is_new: bool, most_fuel: int = INEXHAUSTIBLE_FUEL
    ) -> capi.GuestStopped | None:
        """Run the script, or make the call, in an instance from the pool if there is none yet.

        Args:
            request: the script or call, and its limits.
            code: compiled code of the script's tool.
            is_new: whether the guest has to be told of a new environment.
            most_fuel: most fuel, beside that of the limits.

        Returns:
            The guest's stop, if it was stopped.
        """
        world, functions = self.world, self.image.host_functions
        functions.enter(world)
        try:
            instance = self._instance()
            instance.limit(request.limits.memory_bytes)
            fuel = min(most_fuel, INEXHAUSTIBLE_FUEL if request.limits.fuel is None else request.limits.fuel)
            if code and code.fuel > fuel:
                code = None  # the run ends in the compiler, as without it
            instance.set_global(FUEL_EXPORT, fuel - code.fuel if code else fuel)
            self._given_fuel, self._owed_fuel = fuel, 0
            if world.turn is not None and self.page.can_pause:
                world.turn.can_be_paused(self.page)
            self.ended = self.image.start.run(instance, request, code.data if code else b"", is_new)
            return None
        except capi.GuestStopped as stopped:
            self.ended = Ended(world.exit_code, None)
            return stopped
        finally:
            functions.leave()

    def _instance(self, is_restored: bool = False) -> capi.Instance:
        """The instance; one that is kept begins in pages that nothing was written to, or with those of a snapshot."""
        if self._pooled is None:
            with mark("take"):
                instances = self.image.instances
                self._pooled = instances.fresh() if self._is_kept and not is_restored else instances.take()
            self.world.instance = self._pooled.instance
            slot = self._pooled.slot
            if slot is not None:
                self.page.attach(*slot.poll_span, slot)
            else:
                self.page.attach(*self._pooled.instance.memory_named(POLL_EXPORT))
        return self._pooled.instance

    def stop_if_over(self) -> float | None:
        """Stop the guest if it must end, else return the time of the next look. Any thread may call it."""
        try:
            halt = self.world.halt_reason()
        except Exception as error:
            self.world.fail(error)
            halt = self.world.halt
        if halt is not None:
            self.page.stop()
            self.world.surroundings.wake()
            return None
        return self.world.next_look()

    @property
    def _can_be_left(self) -> bool:
        """Whether the outcome is known at the deadline, before the guest has stopped."""
        return self._pooled is not None and self._pooled.slot is not None and not (self.files and self.files.has_mounts)

    @property
    def _has_ended(self) -> bool:
        return self.world.halt is not None or self.image.start.kind is StartKind.COMMAND

    def _ending_of(self, stopped: capi.GuestStopped | None, ceiling: int) -> Ending:
        halt = self.world.halt
        if stopped is None or halt is Halt.EXIT:
            return Ending.EXITED
        if halt is Halt.DEADLINE:
            return Ending.DEADLINE
        if halt is Halt.CANCELLED:
            return Ending.CANCELLED
        if self.fuel_left() < 0:
            return Ending.OUT_OF_FUEL
        if stopped.code == _TRAPS.STACK_OVERFLOW.value:
            return Ending.STACK_OVERFLOW
        if stopped.code == _TRAPS.MEMORY_OUT_OF_BOUNDS.value and self._overran_stack():
            return Ending.STACK_OVERFLOW
        if stopped.code == _TRAPS.ALLOCATION_TOO_LARGE.value:
            return Ending.OUT_OF_MEMORY
        if stopped.code == _TRAPS.UNREACHABLE.value and self._lacks_memory(ceiling):
            return Ending.OUT_OF_MEMORY  # C, C++ and Rust code that cannot do without memory aborts
        return Ending.TRAPPED

    def _overran_stack(self) -> bool:
        """Whether the stack in the guest's memory was overrun: it ends at address 0, and its pointer is below that."""
        if (instance := self.world.instance) is None:
            return False
        try:
            return instance.global_value(STACK_POINTER_EXPORT) < 0
        except capi.GuestStopped:  # a module that is not ours need not export it
            return False

    def _lacks_memory(self, ceiling: int) -> bool:
        """Whether the guest was refused memory when it last asked for it, or is about to be."""
        if (instance := self.world.instance) is None:
            return False
        return instance.global_value(GROWN_EXPORT) == -1 or self.memory_bytes() + NEAR_CEILING_BYTES > ceiling

    def fuel_left(self) -> int:
        """Fuel left; negative if the guest was stopped for lack of it, 0 if there is no instance.

        The guest may be running meanwhile: it is one aligned word.
        """
        instance = self.world.instance
        return instance.global_value(FUEL_EXPORT) - self._owed_fuel if instance else 0

    def fuel_spent(self) -> int:
        """Fuel that the call has used; 0 if it was not begun."""
        return self._given_fuel - max(0, self.fuel_left()) if self._given_fuel else 0

    def _spend(self, fuel: int) -> None:
        """Take fuel for work of the host's; the guest stops at its next safepoint if there is none left.

        It is taken from the guest in sums that are worth the way: that is a tenth of a short round trip.
        """
        self._owed_fuel += fuel
        if self._owed_fuel >= OWED_FUEL and (instance := self.world.instance) is not None:
            instance.set_global(FUEL_EXPORT, instance.global_value(FUEL_EXPORT) - self._owed_fuel)
            self._owed_fuel = 0

    @property
    def has_instance(self) -> bool:
        """Whether there is an instance: after the first call has begun, and before `close`."""
        return self.world.instance is not None

    def memory_bytes(self) -> int:
        """Size of the linear memory; 0 if there is no instance."""
        return self.world.instance.memory()[1] if self.world.instance else 0

    def snapshot(self, before: GuestMemory | None = None) -> GuestMemory:
        """State of the guest between two calls: what of its memory differs from the image.

        Args:
            before: state at an earlier time; what is the same is shared with it.

        Raises:
            RuntimeError: if the guest has not been called yet, or has ended.
            OSError: if the system refuses to tell.
        """
        if not self.is_at_rest or self._pooled is None:
            raise RuntimeError("only a guest between two calls has a snapshot")
        slot = self._pooled.slot
        changed = (
            self.image.changed(self._pooled.instance)
            if slot is None
            else slot.written(dict(before.changed) if before else {})
        )
        return GuestMemory(self.memory_bytes(), tuple(changed), self._globals())

    @property
    def is_over(self) -> bool:
        """Whether it cannot be called again."""
        return self._has_ended

    @property
    def is_at_rest(self) -> bool:
        """Whether it was called and can be called again."""
        return self.has_instance and self._ending is Ending.EXITED and not self._has_ended

    def _globals(self) -> dict[str, int]:
        instance = self.world.instance
        names = self.image.mutable_globals if instance is not None else ()
        return {name: instance.global_value(name) for name in names if instance is not None}

    def restore(self, memory: GuestMemory, most_bytes: int) -> None:
        """Make the memory of a guest that has not been called yet what it was at a snapshot.

        Args:
            memory: state at the snapshot.
            most_bytes: most bytes of its linear memory.

        Raises:
            GuestStopped: if the memory is too large, or not that of a guest of this image.
            HostError: if the system gives no memory for one more guest.
        """
        instance = self._instance(is_restored=True)
        assert self._pooled is not None
        instance.limit(most_bytes)
        if memory.globals != self._globals():
            raise capi.GuestStopped(None, "its globals are not those of a guest at rest")
        instance.grow_to(memory.size)
        slot = self._pooled.slot
        if slot is None:
            for offset, data in memory.changed:
                instance.write(offset, data)
        else:
            self._put(slot, memory)
        self._ending = Ending.EXITED

    @staticmethod
    def _put(slot: Slot, memory: GuestMemory) -> None:
        try:
            slot.put(memory)
        except ValueError as error:
            raise capi.GuestStopped(None, str(error)) from None
        except OSError as error:
            raise HostError(f"the system gives no memory for one more guest ({error.strerror or error})") from error

    def close(self) -> None:
        """Tear the instance down, make a fresh one for the pool, and close the capabilities."""
        self.page.detach()
        self.files = None
        self.world.instance = None
        pooled, self._pooled = self._pooled, None
        try:
            if pooled is not None:
                with mark("replace", pooled):
                    self.image.instances.replace(pooled)
        finally:
            self.world.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pipes(limits: Limits) -> tuple[OutputPipe, OutputPipe]:
    """Pipes of standard output, which has room for a framed result at its end, and of standard error."""
    frame_bytes = limits.result_bytes + HEADER_BYTES
    stdout = OutputPipe(head_bytes(limits.output_bytes, limits.result_bytes), frame_bytes + TAIL_SLACK_BYTES)
    return stdout, OutputPipe(limits.output_bytes)
