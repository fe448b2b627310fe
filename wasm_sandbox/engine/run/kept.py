"""`KeptGuest`: a guest that is called again and again, and is taken back when a call ends it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.run.guest import Guest, Watch
from wasm_sandbox.engine.run.packed import Packed, pack
from wasm_sandbox.engine.run.point import Checkpoint
from wasm_sandbox.engine.world.preview1 import ENOSPC, Refusal
from wasm_sandbox.engine.world.surroundings import NONE_ELAPSED, Elapsed, Surroundings, surroundings_for
from wasm_sandbox.errors import SnapshotError
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.limits import Limits
from wasm_sandbox.request import ExecutionRequest


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
# - whoever closes or abandons it can be sure that its instance is torn down: by itself, or by who holds `_lock` then.
# Locks: `_lock` is held from `begin` to `end` of a call by the guest's thread (`held`), and for a checkpoint.
class KeptGuest:
    """Guest of a session: its last checkpoint, and the live instance that is at it, if there is one.

    Args:
        image: image of the guest.
        watch: watchdog and trap signals of the engine.
        given: files of the caller, if it gives any.
        limits: limits of what the guest may create and write.
        point: checkpoint to begin at; None for the image as it is.
        clocks: clocks and number of calls so far; by default those of the checkpoint.
    """

    def __init__(
        self,
        image: LoadedImage,
        watch: Watch,
        given: GivenFiles | None,
        limits: Limits,
        point: Checkpoint | None,
        clocks: tuple[Elapsed, int] | None = None,
    ) -> None:
        self.image, self._watch, self._given, self._limits = image, watch, given, limits
        self._point = point
        self._packed: Packed | None = None
        """The checkpoint, instead of `_point`."""
        self._is_own = False
        """Whether nobody else holds the checkpoint."""
        self._lock = threading.Lock()
        self._guest: Guest | None = None
        self._is_at_point = False
        """Whether the guest has run nothing since `point`."""
        self._elapsed, self._calls = clocks or ((point.elapsed, point.calls) if point else (NONE_ELAPSED, 0))
        self._is_closed = False

    @property
    def point(self) -> Checkpoint | None:
        """Checkpoint at which the next call begins if this one ends the guest; None for the image as it is."""
        if (packed := self._packed) is not None:
            self.point = packed.unpacked(self.image.content)
        return self._point

    @point.setter
    def point(self, point: Checkpoint | None) -> None:
        self._point = point
        self._packed = None

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
        while self._is_closed and self._guest is not None and self._lock.acquire(blocking=False):
            try:
                self.point = None
                self._drop()
            finally:
                self._lock.release()

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
        self._calls += 1
        self._is_at_point = False
        if self._guest is not None:
            self._guest.renew(surroundings, request.peer)
            return self._guest
        guest = Guest(self.image, self._watch, surroundings, deadline, is_kept=True)
        try:
            guest.equip(self._given, self._limits, request.peer, request.has_network)
            if self.point is not None:
                self._restore(guest, self.point)
        except BaseException:
            guest.close()
            raise
        self._guest = guest
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

    def end(self, takes_point: bool) -> None:
        """Wind a call up: take a checkpoint, or go back to the last one; the caller is inside `held`."""
        guest = self._guest
        if guest is None:
            return
        if not guest.is_at_rest or self._is_closed:
            self._drop()
            return
        self._elapsed = guest.world.surroundings.elapsed()
        if takes_point:
            self.point = self._taken(guest)

    def checkpoint(self) -> Checkpoint | None:
        """Checkpoint of the guest as it is; None if it is the image's. It waits for a call that is under way."""
        with self.held():
            if self._guest is not None and self._guest.is_at_rest and not self._is_at_point:
                self.point = self._taken(self._guest)
            self._is_own = False
            return self.point

    def _taken(self, guest: Guest) -> Checkpoint:
        files = guest.files.state() if guest.files is not None else None
        self._is_at_point = self._is_own = True
        before = self._point.memory if self._point is not None and self._packed is None else None
        return Checkpoint(self.image.id, guest.snapshot(before), files, self._elapsed, self._calls)

    def go_back(self, point: Checkpoint | None) -> None:
        """Let the next call begin at a checkpoint. It waits for a call that is under way."""
        with self.held():
            self.point, self._is_own = point, False
            self._drop()

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
            self._packed = pack(point, self.image.content)
            self._point = None
            return point.memory.nbytes - len(self._packed.data)
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
        guest, self._guest = self._guest, None
        if guest is not None:
            guest.close()

    def close(self) -> None:
        """Tear the instance down; the checkpoint goes with it. It waits for a call that is under way."""
        with self._lock:
            self._is_closed = True
            self.point = None
            self._drop()

    def abandon(self) -> None:
        """Close it without waiting: a call that is under way does it when it ends."""
        self._is_closed = True
        self._drop_if_abandoned()
