"""`KeptGuest`: a guest that is called again and again, and is taken back when a call ends it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.run.guest import SHORT_FUEL, Guest, Watch
from wasm_sandbox.engine.run.outcomes import outcome_of
from wasm_sandbox.engine.run.packed import Packed, pack
from wasm_sandbox.engine.run.point import Checkpoint
from wasm_sandbox.engine.threads.guest_threads import GuestThreads, wait_for
from wasm_sandbox.engine.world.preview1 import ENOSPC, Refusal
from wasm_sandbox.engine.world.surroundings import (
    NONE_ELAPSED,
    Elapsed,
    LiveSurroundings,
    Surroundings,
    surroundings_for,
)
from wasm_sandbox.errors import HostError, SnapshotError
from wasm_sandbox.events import mark
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest

SHORT_SECONDS = 0.1
"""Shortest time limit of a call that is tried on its caller's thread: nothing looks at its deadline."""

SHORT_BYTES = 16 << 10
"""Most bytes of such a call, which are kept for a while."""

MOST_SHORT_CALLS = 256
"""Most of them between two checkpoints. To make them anew takes as long as they took."""

MOST_FAILURES_COUNTED = 6
"""Most that were tried in vain that count: each doubles the short calls that must come before the next try."""

_log = logging.getLogger(__name__)


# Guarantees: `cancel` may come from any thread, before the call is under way too. Locks: none; a cancel that crosses
# the making of the surroundings is found by one side or the other.
class CallOfKept:
    """Call of a guest that is kept: the caller's way to cancel it.

    Args:
        limits: limits of the call; ``deterministic`` decides on its surroundings.
        abandoned: whether nobody waits any more, for callers that can go without saying so.
    """

    def __init__(self, limits: Limits, abandoned: Callable[[], bool] | None = None) -> None:
        self._limits, self._abandoned = limits, abandoned
        self.is_cancelled = False
        self._around: Surroundings | None = None

    def surroundings(self, elapsed: Elapsed, calls: int) -> Surroundings:
        """Surroundings of the call, which begins now."""
        self._around = surroundings_for(self._limits, self._abandoned, elapsed, calls)
        if self.is_cancelled:
            self._around.cancel()
        return self._around

    def cancel(self) -> None:
        """End the call, from any thread."""
        self.is_cancelled = True
        if self._around is not None:
            self._around.cancel()


# Guarantees:
# - calls of one guest follow one another: each waits until the last one has been wound up, on its own thread;
# - after a call that ended the guest, after `go_back` and after `rest`, the next one begins at the last checkpoint;
# - `point` is never changed in place: whoever holds it may share it with other guests;
# - whoever closes or abandons it can be sure that its instance is torn down: by itself, or by who holds `_lock` then;
# - no instance is made or torn down on the main thread, where a signal handler may raise in what wasmtime calls; but
#   those of a session that nobody closes are freed wherever the last reference goes;
# - what a signal handler raises there leaves all as it was before a step, or after it: what belongs together is changed
#   by one statement, in which none can come.
# Locks, in this order: `_lock` is held from `begin` to `end` of a call by the guest's thread (`held`), for a short
# call, and for a checkpoint; `_end_lock` from the delivery of a call's outcome until its checkpoint is taken: whoever
# goes on elsewhere waits for that, and for no call; `_base_lock` while what belongs together is read or changed: the
# checkpoint and the calls after it, and the guests that are to be torn down.
class KeptGuest:
    """Guest of a session: its last checkpoint, and the live instance that is at it, if there is one.

    Args:
        image: image of the guest.
        watch: watchdog and trap signals of the engine.
        given: files of the caller, if it gives any.
        limits: limits of what the guest may create and write.
        point: checkpoint to begin at; None for the image as it is.
        clocks: clocks and number of calls so far; by default those of the checkpoint.
        calls: short calls since the checkpoint.
        threads: threads for guests; None if this is called on such threads only.
    """

    def __init__(
        self,
        image: LoadedImage,
        watch: Watch,
        given: GivenFiles | None,
        limits: Limits,
        point: Checkpoint | None,
        clocks: tuple[Elapsed, int] | None = None,
        calls: Sequence[ExecutionRequest] = (),
        threads: GuestThreads | None = None,
    ) -> None:
        self._threads = threads
        self.image, self._watch, self._given, self._limits = image, watch, given, limits
        self._point = point
        self._packed: Packed | None = None
        """The checkpoint, instead of `_point`."""
        self._is_own = False
        """Whether nobody else holds the checkpoint."""
        self._lock, self._end_lock, self._base_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._is_ending = False
        self._guest: Guest | None = None
        self._begun: Guest | None = None
        """Guest in a short call; it stays here if that call has to be made by another one."""
        self._spoilt: list[Guest] = []
        """Guests that are to be torn down."""
        self._is_at_point = False
        """Whether the guest has run nothing since `point`."""
        self._since = list(calls)
        """Short calls since `point`: a guest at the checkpoint that makes them is what this one is, to the byte."""
        self._is_tended, self._tended_calls = False, -1
        self._short_in_a_row = self._failures = 0
        self._elapsed, self._calls = clocks or ((point.elapsed, point.calls) if point else (NONE_ELAPSED, 0))
        self._is_closed = False

    @property
    def point(self) -> Checkpoint | None:
        """Checkpoint at which the next call begins if this one ends the guest; None for the image as it is."""
        if (packed := self._packed) is not None:
            point = packed.unpacked(self.image.content)
            self._point, self._packed = point, None
        return self._point

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep calls, and whatever changes the guest, out meanwhile."""
        try:
            with self._lock:
                yield
        finally:
            self._drop_if_abandoned()

    def _drop_if_abandoned(self) -> None:
        """Tear down what was closed while `_lock` was held, unless somebody else holds it, who does it then."""
        while self._is_closed and self._guests and self._lock.acquire(blocking=False):
            try:
                self._go_to(None)
            finally:
                self._lock.release()

    @property
    def _guests(self) -> list[Guest]:
        """All that are not torn down yet."""
        return [*self._spoilt, *filter(None, (self._guest, self._begun))]

    @property
    def clocks(self) -> tuple[Elapsed, int]:
        """Clocks of the guest, and its number of calls, for the surroundings of the next call."""
        return self._elapsed, self._calls

    def begin(self, surroundings: Surroundings, deadline: float, request: ExecutionRequest) -> Guest:
        """Guest for the next call, at the last checkpoint; the caller is inside `held`.

        Raises:
            SnapshotError: if the checkpoint is not one of a guest of this image.
            HostError: if the system gives no memory for one more guest.
            RuntimeError: if it was closed.
        """
        if self._is_closed:
            raise RuntimeError("the guest was closed")
        assert request.peer is not None
        self._settle()
        self._calls += 1
        self._is_at_point = False
        if self._guest is not None:
            self._guest.renew(surroundings, request.peer)
            return self._guest
        self._guest = self._made(surroundings, deadline, request)
        return self._guest

    def _made(self, surroundings: Surroundings, deadline: float, request: ExecutionRequest) -> Guest:
        """A guest at the checkpoint."""
        guest = Guest(self.image, self._watch, surroundings, deadline, is_kept=True)
        try:
            guest.equip(self._given, self._limits, request.peer, request.has_network)
            if self.point is not None:
                self._restore(guest, self.point)
        except BaseException:
            guest.close()
            raise
        return guest

    def _restore(self, guest: Guest, point: Checkpoint) -> None:
        if point.image_id != self.image.id:
            raise SnapshotError(f"the snapshot is of image {point.image_id[:16]}, and this is {self.image.id[:16]}")
        try:
            guest.restore(point.memory, point.memory.size)  # which was checked, or was had already
            if point.files is not None:
                if guest.files is None:
                    raise Refusal(ENOSPC)
                guest.files.restore(point.files)
        except (capi.GuestStopped, Refusal) as error:
            reason = getattr(error, "message", "") or "its files do not fit the limits"
            raise SnapshotError(f"the snapshot cannot be restored: {reason}") from None

    def deliver(self, outcome: Outcome, deliver: Callable[[Outcome], None]) -> None:
        """Deliver the outcome of a call, which `end` is to follow; the caller is inside `held`, or a watchdog."""
        if not outcome.is_over:
            self._end_lock.acquire()
            self._is_ending = True
        deliver(outcome)

    def end(self) -> None:
        """Wind a call up: take a checkpoint, or go back to the last one; the caller is inside `held`."""
        try:
            self._end()
        finally:
            if self._is_ending:
                self._is_ending = False
                self._end_lock.release()

    def _end(self) -> None:
        guest = self._guest
        if guest is None:
            return
        if not guest.is_at_rest or self._is_closed:
            self._drop()
            return
        self._elapsed = guest.world.surroundings.elapsed()
        is_short = guest.is_alone and guest.fuel_spent() <= SHORT_FUEL // 2
        self._short_in_a_row = self._short_in_a_row + 1 if is_short else 0
        self._take(guest)

    # -- short calls -----------------------------------------------------------------------------

    def attempt(self, request: ExecutionRequest) -> Outcome | None:
        """Make a call on the calling thread if it is a short one; see `execution.attempt_kept`."""
        limits = request.limits
        if limits.deterministic or limits.timeout_seconds < SHORT_SECONDS or len(request.call) > SHORT_BYTES:
            return None
        with self._lock:
            guest = self._guest
            if guest is None or self._is_closed or not self._expects_short() or not guest.can_attempt(request):
                return None
            if len(self._since) >= MOST_SHORT_CALLS:
                self._settle()
            started = time.monotonic()
            self._begun, self._guest, self._is_at_point = guest, None, False
            if not guest.attempt(request):
                self._failures = min(self._failures + 1, MOST_FAILURES_COUNTED)
                self._short_in_a_row = 0
                return None
            outcome = outcome_of(guest, request, Ending.EXITED, started)
            self._calls += 1
            self._since.append(request)  # from here on the call has been made, if by another guest
            self._begun, self._guest = None, guest
            return outcome

    def _expects_short(self) -> bool:
        """Whether the next call is likely to be short: it is in vain otherwise, and the guest has to be made anew."""
        return self._short_in_a_row >= 1 << self._failures

    def _settle(self) -> None:
        """Take the checkpoint after short calls; the caller has `_lock`."""
        self._close_spoilt()
        if not self._since:
            return
        if self._guest is None:
            self._guest = self._made_anew(self._since)
        with mark("checkpoint"):
            self._take(self._guest)

    def _made_anew(self, calls: Sequence[ExecutionRequest]) -> Guest:
        """A guest at the checkpoint, after these calls.

        Raises:
            HostError: if the system gives it less than the one before.
        """
        guest = self._made(LiveSurroundings(), math.inf, calls[0])
        try:
            guest.tell_environ(calls[0].environ)
            if not all(map(guest.attempt, calls)):
                raise HostError("a session cannot be brought back: the system gives it less than before")
        except BaseException:
            guest.close()
            raise
        return guest

    def handed_over(self) -> tuple[Checkpoint | None, Sequence[ExecutionRequest]]:
        """Checkpoint, and the short calls after it, for another guest to go on from; a call may be under way.

        What a call that has been answered has left is in it.
        """
        with self._end_lock, self._base_lock:
            return self.point, tuple(self._since)

    def wants_tending(self) -> bool:
        """Whether somebody is to call `tend` from now on, until it says no more; asked after each `attempt`."""
        with self._lock:
            if self._is_tended or not self._since:
                return False
            self._is_tended, self._tended_calls = True, self._calls
            return True

    def tend(self) -> bool:
        """Take the checkpoint after short calls, unless there was a call since the last look; on a thread for guests.

        Returns:
            Whether to look again in a moment.
        """
        if not self._lock.acquire(blocking=False):
            return True
        try:
            calls, self._tended_calls = self._tended_calls, self._calls
            if self._since and calls != self._calls and not self._is_closed:
                return True
            self._is_tended = False
            self._settle()
            return False
        finally:
            self._lock.release()
            self._drop_if_abandoned()

    # -- points ----------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint | None:
        """Checkpoint of the guest as it is; None if it is the image's. It waits for a call that is under way."""
        if self._guest is None and (self._since or self._guests) and self._threads and _hears_signals():
            return wait_for(self._threads.do(self._checkpoint))  # not with the lock: who waits may be interrupted
        return self._checkpoint()

    def _checkpoint(self) -> Checkpoint | None:
        with self.held():
            self._settle()
            if self._guest is not None and self._guest.is_at_rest and not self._is_at_point:
                self._take(self._guest)
            self._is_own = False
            return self.point

    def _take(self, guest: Guest) -> None:
        """Take the checkpoint that a guest is at."""
        files = guest.files.state() if guest.files is not None else None
        memory = guest.snapshot(self._point.memory if self._point is not None else None)
        point = Checkpoint(self.image.id, memory, files, self._elapsed, self._calls)
        with self._base_lock:
            self._point, self._packed, self._since, self._is_at_point, self._is_own = point, None, [], True, True

    def go_back(self, point: Checkpoint | None) -> None:
        """Let the next call begin at a checkpoint. It waits for a call that is under way."""
        with self.held():
            self._go_to(point)

    def _go_to(self, point: Checkpoint | None) -> None:
        """Set the checkpoint, without the guest and the calls that came after the one before."""
        with self._base_lock:
            guests = self._guests
            self._point, self._packed, self._since, self._is_own = point, None, [], False
            self._spoilt, self._guest, self._begun = guests, None, None
        self._close_spoilt()

    def pack(self, most_bytes: int) -> int:
        """Keep the checkpoint in less memory, unless a call is under way, or others hold it, too.

        Args:
            most_bytes: size of a checkpoint up to which it is done: packing and unpacking take time.

        Returns:
            Number of bytes that it takes less now.
        """
        if not self._lock.acquire(blocking=False):
            return 0
        try:
            point = self._point
            if self._packed is not None or point is None or not self._is_own or point.memory.nbytes > most_bytes:
                return 0
            packed = pack(point, self.image.content)
            self._point, self._packed = None, packed
            return point.memory.nbytes - len(packed.data)
        finally:
            self._lock.release()
            self._drop_if_abandoned()

    def rest(self, most_bytes: int) -> None:
        """Give the instance back and keep the checkpoint, unless a call is under way.

        Args:
            most_bytes: size of a checkpoint up to which it is done: the next call restores it.
        """
        if self._lock.acquire(blocking=False):
            try:
                if self._is_at_point and self._nbytes <= most_bytes:
                    self._drop()
            finally:
                self._lock.release()
            self._drop_if_abandoned()

    @property
    def _nbytes(self) -> float:
        """Size in bytes of what `_restore` has to put into a guest; infinite if there is no checkpoint."""
        if (packed := self._packed) is not None:
            return sum(size for _, size in packed.places) + packed.rest.nbytes
        return math.inf if self._point is None else self._point.nbytes

    def _drop(self) -> None:
        """Tear the instance down."""
        with self._base_lock:
            self._spoilt, self._guest, self._begun = self._guests, None, None
        self._close_spoilt()

    def _close_spoilt(self) -> None:
        """Tear down what is to be, on a thread that hears of no signals; the caller has `_lock`."""
        if self._begun is not None:
            with self._base_lock:
                self._spoilt, self._begun = [*self._spoilt, self._begun], None
        if not self._spoilt:
            return
        if self._threads is not None and _hears_signals():
            try:
                wait_for(self._threads.do(self._tear_down))
                return
            except HostError as error:
                _log.debug("a guest is torn down where it was given up: %s", error)
        self._tear_down()

    def _tear_down(self) -> None:
        with self._base_lock:
            spoilt, self._spoilt = self._spoilt, []
        while spoilt:
            spoilt.pop().close()

    def close(self) -> None:
        """Tear the instance down; the checkpoint goes with it. It waits for a call that is under way."""
        with self._lock:
            self._is_closed = True
            self._go_to(None)

    def abandon(self) -> None:
        """Close it without waiting: a call that is under way does it when it ends."""
        self._is_closed = True
        self._drop_if_abandoned()


def _hears_signals() -> bool:
    """Whether signal handlers run on the calling thread."""
    return threading.current_thread() is threading.main_thread()
