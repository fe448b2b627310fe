"""Guests of sessions: kept alive on threads of this process, or at rest here between visits to worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from wasm_sandbox import engine, images, workers
from wasm_sandbox.engine import NONE_ELAPSED, CallOfKept, Elapsed, Rest
from wasm_sandbox.errors import SnapshotError, UnsupportedIsolation
from wasm_sandbox.workers import Visit

if TYPE_CHECKING:
    from wasm_sandbox.engine import Checkpoint, ImageSource, KeptGuest
    from wasm_sandbox.files import GivenFiles
    from wasm_sandbox.limits import Limits
    from wasm_sandbox.options import ImageChoice, Isolation
    from wasm_sandbox.outcome import Outcome
    from wasm_sandbox.request import ExecutionRequest


class Cancel(Protocol):
    """Call of a session's guest: the caller's way to cancel it, from any thread, before it is under way too."""

    def cancel(self) -> None:
        """End the call."""


class Keeper(Protocol):
    """Guest of a session. What ends it in a call takes it back to its checkpoint before that call."""

    def call(self, limits: Limits) -> Any:
        """Next call, for `start`: a `Cancel`."""

    def attempt(self, request: ExecutionRequest) -> Outcome | None:
        """Outcome of a request that is a short call, made on the calling thread; None if it is to be started."""

    def start(self, request: ExecutionRequest, call: Any) -> Future[Outcome]:
        """Run a request; the last call must have ended, or been cancelled."""

    def checkpoint(self) -> Checkpoint | None:
        """Checkpoint of the guest as it is; None if it is the image's."""

    def go_back(self, point: Checkpoint | None) -> None:
        """Let the next call begin at a checkpoint."""

    def pack(self) -> int:
        """Keep what only a rollback needs in less memory; the number of bytes that it takes less."""

    def rest(self) -> None:
        """Give back what the next call can make again."""

    def close(self) -> None:
        """Give its memory back."""


MOST_AT_REST_BYTES = 4 << 20
"""Size of a checkpoint up to which a guest is at rest while it is not used: to restore more takes many milliseconds."""


class OnThreads:
    """Guest that lives in this process, on its threads (`Keeper`).

    Nothing waits for a call that was ended: the guest goes on from its checkpoint in a new one, also while the thread
    of the old one is still inside of a host function.

    Args:
        source: source of its image.
        given: files of the caller; None for no file system.
        limits: limits of what it may create and write.
        point: checkpoint to begin at; None for the image as it is.

    Raises:
        HostError: if the image cannot be loaded.
    """

    def __init__(self, source: ImageSource, given: GivenFiles | None, limits: Limits, point: Checkpoint | None) -> None:
        self._source, self._given, self._limits = source, given, limits
        self._kept = engine.process_engine().keep(source, given, limits, point)
        self._last: tuple[CallOfKept, Future[Outcome]] | None = None

    def call(self, limits: Limits) -> CallOfKept:
        return CallOfKept(limits)

    def attempt(self, request: ExecutionRequest) -> Outcome | None:
        return engine.process_engine().attempt_in(self._current(), request)

    def start(self, request: ExecutionRequest, call: CallOfKept) -> Future[Outcome]:
        future = engine.process_engine().start_in(self._current(), request, call)
        self._last = call, future
        return future

    def _current(self) -> KeptGuest:
        """The guest, a new one if the last call ended it."""
        last = self._last
        if last is not None and _is_over(*last):
            old = self._kept
            point, calls = old.handed_over()
            self._kept = engine.process_engine().keep(self._source, self._given, self._limits, point, old.clocks, calls)
            old.abandon()
        self._last = None  # not before: a signal handler may raise meanwhile
        return self._kept

    def checkpoint(self) -> Checkpoint | None:
        return self._current().checkpoint()

    def go_back(self, point: Checkpoint | None) -> None:
        self._current().go_back(point)

    def pack(self) -> int:
        return self._kept.pack(MOST_AT_REST_BYTES)

    def rest(self) -> None:
        self._kept.rest(MOST_AT_REST_BYTES)

    def close(self) -> None:
        self._kept.abandon()


def _is_over(call: CallOfKept, future: Future[Outcome]) -> bool:
    """Whether a call has ended its guest, or is about to."""
    return call.is_cancelled or not future.done() or future.exception() is not None or future.result().is_over


# Guarantees: a call that was cancelled changes nothing, also where its worker has ended it. Locks: `_lock` guards both
# facts; nothing is called with it.
class _CallOfVisit:
    """Call of a guest that is at rest in this process, on its way to a worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._stop: Callable[[], None] | None = None

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Set the function that stops it."""
        with self._lock:
            self._stop, is_cancelled = stop, self._is_cancelled
        if is_cancelled:
            stop()

    def cancel(self) -> None:
        """End the call, from any thread."""
        with self._lock:
            self._is_cancelled, stop = True, self._stop
        if stop is not None:
            stop()

    def unless_cancelled(self, act: Callable[[], None]) -> None:
        """Do something short, which a cancel comes before or after."""
        with self._lock:
            if not self._is_cancelled:
                act()


class AtRest:
    """Guest that is at rest in this process, and goes to a worker for each call (`Keeper`).

    A worker keeps nothing of it, and whatever becomes of that worker, the guest is what it was before the call.

    Args:
        source: source of its image.
        limits: limits of what it may create and write.
        point: checkpoint to begin at; None for the image as it is.
    """

    def __init__(self, source: ImageSource, limits: Limits, point: Checkpoint | None) -> None:
        self._source, self._limits, self._point = source, limits, point
        self._elapsed = point.elapsed if point else NONE_ELAPSED
        self._calls = point.calls if point else 0

    def call(self, _: Limits) -> _CallOfVisit:
        return _CallOfVisit()

    def attempt(self, request: ExecutionRequest) -> None:
        return None

    def start(self, request: ExecutionRequest, call: _CallOfVisit) -> Future[Outcome]:
        rest = Rest(self._point, self._elapsed, self._calls, self._limits)
        self._calls += 1
        visit = Visit(rest, self._source.id, lambda point: call.unless_cancelled(lambda: self._keep(point)))
        future, stop = workers.process_pool().start(request, visit=visit, source=self._source)
        call.stop_with(stop)
        return future

    def _keep(self, point: Checkpoint) -> None:
        self._elapsed = Elapsed(*map(max, self._elapsed, point.elapsed))  # whatever a worker says: clocks go on
        self._point = replace(point, elapsed=self._elapsed, calls=self._calls)

    def checkpoint(self) -> Checkpoint | None:
        return self._point

    def go_back(self, point: Checkpoint | None) -> None:
        self._point = point

    def pack(self) -> int:
        """It is what the next call begins at, and crosses to a worker as it is."""
        return 0

    def rest(self) -> None:
        """It is at rest already."""

    def close(self) -> None:
        self._point = None


def keeper(
    isolation: Isolation,
    image: ImageChoice | str | None,
    given: GivenFiles | None,
    limits: Limits,
    point: Checkpoint | None,
) -> Keeper:
    """Make the guest of a session.

    Args:
        isolation: where it runs.
        image: its image, or the name of that; by default the default image.
        given: files of the caller; None for no file system.
        limits: limits of what it may create and write.
        point: checkpoint to begin at.

    Raises:
        HostError: if the image cannot be loaded.
        SnapshotError: if the checkpoint is of another image.
        UnsupportedIsolation: if the image is none of our own guest.
    """
    chosen = None if image is None else images.choose_image(image, None, may_build=False)
    source = chosen.source if chosen is not None else images.default_source()
    if chosen is not None and not chosen.has_own_guest:
        raise UnsupportedIsolation("a session needs our own guest: an image of another CPython runs once")
    if point is not None and point.image_id != source.id:
        raise SnapshotError(
            f"the snapshot is of image {point.image_id[:16]}, and this is {source.id[:16]}: load it with the "
            "image and the version that it was made with"
        )
    if isolation == "process":
        return AtRest(source, limits, point)
    return OnThreads(source, given, limits, point)
