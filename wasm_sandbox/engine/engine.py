"""The one engine of the process: its images, its watchdog and threads, its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from wasm_sandbox.engine.binding.configuration import Progress
from wasm_sandbox.engine.binding.interpreter import check_interpreter
from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.compiled.cache import ImageCache
from wasm_sandbox.engine.compiled.loaded import ImageSource, LoadedImage
from wasm_sandbox.engine.compiled.loading import Loader
from wasm_sandbox.engine.compiled.plain import PLAIN_IMAGE
from wasm_sandbox.engine.memory.base import LinearMemory, MemoryKind
from wasm_sandbox.engine.memory.kept import KeptMemory, is_supported
from wasm_sandbox.engine.memory.trap_signals import TrapSignals
from wasm_sandbox.engine.memory.wasmtimes import WasmtimeMemory
from wasm_sandbox.engine.module.metering import Metering
from wasm_sandbox.engine.run.execution import execute
from wasm_sandbox.engine.run.guest import Watch
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.engine.threads.guest_threads import MAX_THREADS, GuestThreads
from wasm_sandbox.engine.threads.per_process import PerProcess
from wasm_sandbox.engine.threads.turns import AT_ONCE, QUANTUM_SECONDS, Turns
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.surroundings import Surroundings
from wasm_sandbox.events import mark
from wasm_sandbox.outcome import Outcome, Patience
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.switches import engine_is_plain

EXIT_GRACE_SECONDS = 1.0

MAX_IMAGES = 32
"""Loaded images that are kept; each holds its compiled code, mapped from the cache, and no instance."""

_USUAL = (Metering.FUEL, Metering.DEADLINE)
"""What requests ask for."""

_log = logging.getLogger(__name__)


# Guarantees:
# - an image is loaded once, however many threads ask for it; others may be loaded meanwhile;
# - every request has an outcome, or an exception of the host's own; none is begun after `shutdown`.
# Locks, in this order: `_images_lock` and `_running_lock`, each held for a look-up only; the lock of an image that is
# being loaded is held while it is, and none of the two within it for longer than that.
class GuestEngine:
    """The wasmtime engine, the images that run in it, and the threads that guests run on.

    Args:
        memory: the engine, and where the memory of its instances comes from; by default memory of ours where the
            system allows it.
        is_plain: whether to do without the mechanisms that have a plain twin: wasmtime's own memory, no signal
            handler of ours and so no pausing, no code kept between runs.
        metering: what is written into the code of guests; by default fuel where a request limits it.
        most_threads: how many guests may be on a thread at a time; the others wait.
        at_once: how many of them may compute at a time.
        quantum: for how long one computes while others wait, in seconds.
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
        self._running: set[Surroundings] = set()
        self._running_lock = threading.Lock()
        self._ready_since: float | None = None
        self._is_settled = False

    def settle(self) -> None:
        """Load no more variants of images: this process is about to lose the right to open files."""
        self._is_settled = True

    @property
    def mechanisms(self) -> dict[str, str]:
        """What this engine does beyond the plain ways, for a reader: name -> what."""
        can_pause = self.watch.trap_signals.pausing is not None
        return {
            "memory": "kept between runs" if self._memory.kind is MemoryKind.KEPT else "wasmtime's own",
            "pausing": "yes" if can_pause else "no",
            "code of tools": "kept between runs" if self._keeps_code else "not kept",
        }

    def image(
        self,
        source: ImageSource = PLAIN_IMAGE,
        metering: Metering = Metering.FUEL,
        progress: Progress | None = None,
        cache: ImageCache | None = None,
    ) -> LoadedImage:
        """The image of a source, by default our guest without packages, loaded or prepared once.

        Args:
            source: where it comes from.
            metering: what is written into its code. There may be fuel in it all the same: where there is no other.
            progress: told about every slow step.
            cache: where compiled images are; the user's cache directory by default.

        Raises:
            HostError: if it cannot be had; the message says what to do.
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
                found = source.load(Loader(self._memory, metering, progress, cache, self._keeps_code))
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
        self, request: ExecutionRequest, surroundings: Surroundings, source: ImageSource = PLAIN_IMAGE
    ) -> Future[Outcome]:
        """Run a request on a guest thread.

        If all threads are busy, the run waits for one as long as it may then take: for its own
        ``timeout_seconds`` (from when there is an image, where that has to be prepared first). A run that has
        waited so long is not begun; its outcome says so.

        Args:
            request: what to run.
            surroundings: clocks, entropy and the caller's way to cancel.
            source: of the image to run it in; by default our guest without packages.

        Returns:
            A future of the outcome; it raises what `image` raises if there is no image.

        Raises:
            HostError: the interpreter is exiting.
        """

        def work(deliver: Callable[[Outcome], None]) -> None:
            with self._running_lock:
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

    @property
    def threads(self) -> int:
        """How many threads there are for guests, busy and idle."""
        return self._threads.threads

    @property
    def running_guests(self) -> int:
        """How many guests are on a thread now."""
        return len(self._running)

    def shutdown(self) -> None:
        """Stop every guest, then the threads: none may outlive the interpreter."""
        deadline = time.monotonic() + EXIT_GRACE_SECONDS
        with self._running_lock:
            for surroundings in self._running:
                surroundings.cancel()
        self._threads.close(deadline)
        self.watch.watchdog.stop()
        for image in self._images.values():
            image.instances.close()  # while wasmtime can still call back


def _memory_kind(is_plain: bool) -> MemoryKind:
    return MemoryKind.WASMTIME if is_plain or not is_supported() else MemoryKind.KEPT


def _memory(kind: MemoryKind) -> LinearMemory:
    return KeptMemory() if kind is MemoryKind.KEPT else WasmtimeMemory()


def usual_builds(artifact: Artifact) -> list[Build]:
    """What a guest of ours can be in the engine of this process, the usual one first; no engine is made for it.

    Raises:
        HostError: if a switch has a value that means nothing.
    """
    kind = _memory_kind(engine_is_plain())
    return [Build(artifact, StartKind.REACTOR, metering, kind) for metering in _USUAL]


def _made() -> GuestEngine:
    check_interpreter()
    return GuestEngine(is_plain=engine_is_plain())


_engine = PerProcess(_made, GuestEngine.shutdown)


def process_engine() -> GuestEngine:
    """The engine of this process, made on first use; after a fork the child gets one of its own.

    Raises:
        HostError: if this interpreter cannot run guests.
    """
    return _engine.get()
