"""Engine of the process: its images, its watchdog and threads, its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial

from wasm_sandbox.engine.binding.configuration import Progress
from wasm_sandbox.engine.binding.interpreter import check_interpreter
from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.compiled.built_in import BUILT_IN_IMAGE
from wasm_sandbox.engine.compiled.cache import ImageCache
from wasm_sandbox.engine.compiled.loaded import ImageSource, LoadedImage
from wasm_sandbox.engine.compiled.loading import Loader
from wasm_sandbox.engine.memory.base import LinearMemory, MemoryKind
from wasm_sandbox.engine.memory.kept import KeptMemory, is_supported
from wasm_sandbox.engine.memory.trap_signals import TrapSignals
from wasm_sandbox.engine.memory.wasmtimes import WasmtimeMemory
from wasm_sandbox.engine.module.metering import Metering
from wasm_sandbox.engine.run.execution import attempt_kept, execute, execute_kept
from wasm_sandbox.engine.run.guest import Watch
from wasm_sandbox.engine.run.kept import CallOfKept, KeptGuest
from wasm_sandbox.engine.run.point import Checkpoint, Rest
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.engine.threads.guest_threads import MAX_THREADS, GuestThreads, on_guest_thread
from wasm_sandbox.engine.threads.turns import AT_ONCE, QUANTUM_SECONDS, Turns
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.surroundings import Elapsed, Surroundings
from wasm_sandbox.errors import HostError
from wasm_sandbox.events import mark
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.forks import PerProcess
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Outcome, Patience
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.switches import engine_is_plain

EXIT_GRACE_SECONDS = 1.0

TEND_SECONDS = 0.001
"""Interval of the looks at a guest whose last call has left a checkpoint to be taken."""


MAX_IMAGES = 32
"""Size of the LRU of loaded images; each holds its compiled code, mapped from the cache, and its idle instances."""

_USUAL = (Metering.FUEL, Metering.DEADLINE)
"""Meterings that requests ask for, the usual one first."""

_log = logging.getLogger(__name__)


# Guarantees:
# - an image is loaded once while it is kept, however many threads ask for it; others may be loaded meanwhile;
# - every request has an outcome, or an exception of the host's own, unless it is cut off by the interpreter's exit;
#   none is begun after `close`.
# Locks, in this order: the lock of an image, held while that is loaded; `_images_lock`; and `_running_lock`. The last
# two are held for a look-up only, and never together.
class GuestEngine:
    """Engine: wasmtime, the images that run in it, and the threads that guests run on.

    Args:
        memory: wasmtime engine and provider of its instances' memory; by default memory of ours where the system
            allows it.
        is_plain: whether to do without the mechanisms that have a plain twin: wasmtime's own memory, no signal
            handler of ours and so no pausing, no code kept between runs.
        metering: metering of the guests' code; by default fuel where a request limits it.
        most_threads: maximum number of guests on a thread; the others wait.
        at_once: maximum number of them that compute at a time.
        quantum: longest time that one computes while others wait, in seconds.
    """

    def __init__(
        self,
        memory: LinearMemory | None = None,
        *,
        is_plain: bool = False,
        metering: Metering | None = None,
        most_threads: int = MAX_THREADS,
        at_once: int = AT_ONCE,
        quantum: float = QUANTUM_SECONDS,
    ) -> None:
        self._memory = memory or _memory(_memory_kind(is_plain))
        self._metering, self._keeps_code = metering, not is_plain
        trap_signals = TrapSignals()  # after wasmtime has set its own
        if self._memory.kind is MemoryKind.KEPT:
            trap_signals.allow_pausing()
        self.watch = Watch(Watchdog(), trap_signals)
        """What looks after its guests, those that are kept too."""
        self._threads = GuestThreads(self.watch.watchdog, most_threads)
        self._turns = Turns(self.watch.watchdog, at_once, quantum)
        self._images: dict[tuple[str, Metering], LoadedImage] = {}  # the last used is last
        self._images_lock = threading.Lock()
        self._loading: dict[tuple[str, Metering], threading.Lock] = {}
        self._running: set[Surroundings | CallOfKept] = set()
        self._running_lock = threading.Lock()
        self._ready_since: float | None = None
        self._is_settled = False
        self._is_closed = False

    def settle(self) -> None:
        """Use the images that count fuel for every request: this process is about to lose the right to open files."""
        self._is_settled = True

    @property
    def mechanisms(self) -> dict[str, str]:
        """Mechanisms that have a plain twin, for a reader: name -> state."""
        can_pause = self.watch.trap_signals.pausing is not None
        return {
            "memory": "kept between runs" if self._memory.kind is MemoryKind.KEPT else "wasmtime's own",
            "pausing": "yes" if can_pause else "no",
            "code of tools": "kept between runs" if self._keeps_code else "not kept",
        }

    def image(
        self,
        source: ImageSource = BUILT_IN_IMAGE,
        metering: Metering = Metering.FUEL,
        progress: Progress | None = None,
        cache: ImageCache | None = None,
    ) -> LoadedImage:
        """Load the image of a source, or take it from the LRU.

        Args:
            source: source of the image; by default our guest without packages.
            metering: metering of its code. An exported image, and a settled engine, count fuel all the same.
            progress: called at the start of every slow step.
            cache: cache of compiled images; by default the user's.

        Raises:
            HostError: if the image cannot be loaded; the message says what to do.
        """
        metering = self._metering or metering
        key = source.id, Metering.FUEL if self._is_settled else metering
        found = self._found(key)
        if found is not None:
            return found
        with self._images_lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # others may load other images meanwhile
            found = self._found(key)
            if found is None:
                loader = Loader(self._memory, metering, progress, cache, self._keeps_code)
                found = on_guest_thread(lambda: source.load(loader))
                self._keep(key, found)
        return found

    def _found(self, key: tuple[str, Metering]) -> LoadedImage | None:
        with self._images_lock:
            image = self._images.pop(key, None)
            if image is not None:
                self._images[key] = image
            return image

    def _keep(self, key: tuple[str, Metering], image: LoadedImage) -> None:
        with self._images_lock:
            self._images[key] = image
            self._loading.pop(key, None)
            for oldest in list(self._images)[:-MAX_IMAGES]:
                del self._images[oldest]  # the runs that are using it keep it

    def start(
        self, request: ExecutionRequest, surroundings: Surroundings, source: ImageSource = BUILT_IN_IMAGE
    ) -> Future[Outcome]:
        """Run a request on a guest thread.

        If all threads are busy, the run waits for one, at most for its own ``timeout_seconds`` (counted from when
        the engine has loaded its first image). A run that has waited so long is not begun; its outcome says so.

        Args:
            request: the script, its environment and its limits.
            surroundings: clocks, entropy and the caller's way to cancel.
            source: source of the image to run it in; by default our guest without packages.

        Returns:
            A future of the outcome, which raises HostError if the image cannot be loaded.

        Raises:
            HostError: if the interpreter is exiting, or the system gives no thread.
        """

        def work(deliver: Callable[[Outcome], None]) -> None:
            with self._running_lock:
                if self._is_closed:
                    raise HostError("the interpreter is exiting: no guest can be started")
                self._running.add(surroundings)
            try:
                image = self.image(source, Metering.DEADLINE if request.limits.fuel is None else Metering.FUEL)
                if self._ready_since is None:
                    self._ready_since = time.monotonic()
                with self._turns.turn(request.limits.timeout_seconds) as turn:
                    execute(image, self.watch, request, surroundings, deliver, turn)
            finally:
                with self._running_lock:
                    self._running.discard(surroundings)

        with mark("submit", request):
            return self._threads.submit(work, Patience(request.limits.timeout_seconds, lambda: self._ready_since))

    def keep(
        self,
        source: ImageSource,
        given: GivenFiles | None,
        limits: Limits,
        point: Checkpoint | None = None,
        clocks: tuple[Elapsed, int] | None = None,
        calls: Sequence[ExecutionRequest] = (),
    ) -> KeptGuest:
        """Make a guest that is kept between calls; its instance is made by the first one.

        Args:
            source: source of its image, which is loaded now.
            given: files of the caller, if it gives any.
            limits: limits of what the guest may create and write, and whether fuel is counted.
            point: checkpoint to begin at.
            clocks, calls: as of `KeptGuest`.

        Raises:
            HostError: if the image cannot be loaded.
        """
        image = self.image(source, Metering.DEADLINE if limits.fuel is None else Metering.FUEL)
        return KeptGuest(image, self.watch, given, limits, point, clocks, calls, self._threads)

    def start_in(self, kept: KeptGuest, request: ExecutionRequest, call: CallOfKept) -> Future[Outcome]:
        """Run a request in a guest that is kept, on a guest thread, as `start` does in a fresh one.

        Args:
            kept: the guest.
            request: script and limits.
            call: surroundings of the call, once it is under way, and the caller's way to cancel it before.
        """

        def work(deliver: Callable[[Outcome], None]) -> None:
            with self._running_lock:
                if self._is_closed:
                    raise HostError("the interpreter is exiting: no guest can be started")
                self._running.add(call)
            try:
                with self._turns.turn(request.limits.timeout_seconds) as turn:
                    execute_kept(kept, request, call.surroundings, deliver, turn)
            finally:
                with self._running_lock:
                    self._running.discard(call)

        self._ready_since = self._ready_since or time.monotonic()
        with mark("submit", request):
            return self._threads.submit(work, Patience(request.limits.timeout_seconds, lambda: self._ready_since))

    def attempt_in(self, kept: KeptGuest, request: ExecutionRequest) -> Outcome | None:
        """Make a call of a guest that is kept on the calling thread, if it is a short one (`attempt_kept`).

        Returns:
            Its outcome; None if nothing has happened, and it is to be started (`start_in`).

        Raises:
            BaseException: as of `attempt_kept`.
        """
        if not request.call or request.tap is not None or request.limits.fuel is None:
            return None
        if self._is_closed or len(self._running) >= AT_ONCE:
            return None
        outcome = attempt_kept(kept, request)
        if outcome is not None and kept.wants_tending():
            self._threads.submit(partial(_tend, kept))
        return outcome

    def visit(
        self, source: ImageSource, request: ExecutionRequest, call: CallOfKept, rest: Rest
    ) -> Future[tuple[Outcome, Checkpoint | None]]:
        """Run a request in a guest that is at rest, and keep nothing of it.

        Args:
            source: source of its image.
            request: script, limits and files.
            call: as of `start_in`.
            rest: the guest.

        Returns:
            A future of the outcome, and of the checkpoint after it; None if the call ended the guest. It raises
            SnapshotError if the guest's checkpoint is none of this image.
        """

        def work(deliver: Callable[[tuple[Outcome, Checkpoint | None]], None]) -> None:
            outcomes: list[Outcome] = []

            def take(outcome: Outcome) -> None:
                outcomes.append(outcome)
                if outcome.is_over:  # nobody needs to wait for what is left to be done
                    deliver((outcome, None))

            image = self.image(source)
            kept = KeptGuest(image, self.watch, request.given, rest.limits, rest.point, (rest.elapsed, rest.calls))
            try:
                with self._turns.turn(request.limits.timeout_seconds) as turn:
                    execute_kept(kept, request, call.surroundings, take, turn)
                if not outcomes[0].is_over:
                    deliver((outcomes[0], kept.point))
            finally:
                kept.close()

        return self._threads.submit(work)

    @property
    def threads(self) -> int:
        """Number of threads for guests, busy and idle."""
        return self._threads.threads

    @property
    def running_guests(self) -> int:
        """Number of guests that are on a thread now."""
        return len(self._running)

    def close(self) -> None:
        """Stop every guest, then the threads: none may outlive the interpreter.

        All of it is done, also if a signal handler raises meanwhile.
        """
        deadline = time.monotonic() + EXIT_GRACE_SECONDS
        with self._running_lock:
            self._is_closed = True
            running = list(self._running)
        with ExitStack() as stack:  # the last one first
            stack.callback(self._close_images)
            stack.callback(self.watch.watchdog.close)
            stack.callback(self._threads.close, deadline)
            for surroundings in running:
                stack.callback(surroundings.cancel)

    def _close_images(self) -> None:
        """Tear the idle instances down, while wasmtime can still call back."""
        with self._images_lock:
            images = list(self._images.values())
        with ExitStack() as stack:
            for image in images:
                stack.callback(image.instances.close)

    def __enter__(self) -> GuestEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tend(kept: KeptGuest, deliver: Callable[[None], None]) -> None:
    """Look after a guest whose caller did not wait for its checkpoint."""
    deliver(None)
    while True:
        time.sleep(TEND_SECONDS)
        if not kept.tend():
            return


def _memory_kind(is_plain: bool) -> MemoryKind:
    return MemoryKind.WASMTIME if is_plain or not is_supported() else MemoryKind.KEPT


def leaves_guests() -> bool:
    """Whether this process delivers an outcome at the deadline while the guest is still inside of a host function.

    Raises:
        HostError: if a switch has no value that is known.
    """
    return _memory_kind(engine_is_plain()) is MemoryKind.KEPT


def _memory(kind: MemoryKind) -> LinearMemory:
    return KeptMemory() if kind is MemoryKind.KEPT else WasmtimeMemory()


def usual_builds(artifact: Artifact) -> list[Build]:
    """Builds that guests of ours can have in the engine of this process, the usual one first; no engine is made.

    Raises:
        HostError: if a switch has no value that is known.
    """
    kind = _memory_kind(engine_is_plain())
    return [Build(artifact, StartKind.REACTOR, metering, kind) for metering in _USUAL]


def _made() -> GuestEngine:
    check_interpreter()
    return GuestEngine(is_plain=engine_is_plain())


_engine = PerProcess(_made, GuestEngine.close)


def process_engine() -> GuestEngine:
    """The engine of this process, made on first use; after a fork the child gets one of its own.

    Raises:
        HostError: if this interpreter cannot run guests.
    """
    return _engine.get()
