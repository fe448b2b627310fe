"""The one engine of the process: its images, its watchdog and threads, its end."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import wasmtime

from wasm_sandbox.engine.binding.configuration import Progress, engine_configuration
from wasm_sandbox.engine.binding.interpreter import check_interpreter
from wasm_sandbox.engine.compiled.loaded import ImageSource, LoadedImage
from wasm_sandbox.engine.compiled.loading import load_image
from wasm_sandbox.engine.memory.slots import OwnMemoryEngine, is_supported
from wasm_sandbox.engine.memory.trap_signals import TrapSignals
from wasm_sandbox.engine.run.execution import execute
from wasm_sandbox.engine.threads.guest_threads import Workers
from wasm_sandbox.engine.threads.turns import Turns
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.surroundings import Surroundings
from wasm_sandbox.images.image import EXPORTED_IMAGE_VARIABLE
from wasm_sandbox.outcome import Outcome, giving_up
from wasm_sandbox.request import ExecutionRequest

EXIT_GRACE_SECONDS = 1.0

MAX_IMAGES = 32
"""Loaded images that are kept; each holds its compiled code, mapped from the cache, and no instance."""

_DEFAULT, _NO_FUEL = "", " without fuel"

_log = logging.getLogger(__name__)


class GuestEngine:
    """The wasmtime engine, the images that run in it, and the threads that guests run on.

    Args:
        engine: the wasmtime engine; by default one with memory of ours where the system allows it.
    """

    def __init__(self, engine: wasmtime.Engine | None = None) -> None:
        self._engine = engine or (OwnMemoryEngine() if is_supported() else wasmtime.Engine(engine_configuration()))
        self._trap_signals = TrapSignals()  # after wasmtime has set its own
        if isinstance(self._engine, OwnMemoryEngine):
            self._trap_signals.allow_pausing()
        self._watchdog = Watchdog()
        self._workers = Workers()
        self._turns = Turns(self._watchdog)
        self._images: dict[str, LoadedImage] = {}  # by id, the default one by ""; the last used is last
        self._images_lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._running: set[Surroundings] = set()
        self._running_lock = threading.Lock()
        self._ready_since: float | None = None
        self._is_settled = False

    def settle(self) -> None:
        """Load no more variants of images: this process is about to lose the right to open files."""
        self._is_settled = True

    def image(
        self, progress: Progress | None = None, source: ImageSource | None = None, counts_fuel: bool = True
    ) -> LoadedImage:
        """The image of a source, by default the default image, loaded or prepared once; raises as `load_image`.

        Args:
            progress: told about every slow step.
            source: where it comes from.
            counts_fuel: whether its code takes fuel down. Without, it may do so all the same: where there is no other.
        """
        if source is None and os.environ.get(EXPORTED_IMAGE_VARIABLE):
            from wasm_sandbox.images.exported import exported_source

            source = exported_source()
        key = source.id if source is not None else _DEFAULT
        if not counts_fuel and not self._is_settled:
            key += _NO_FUEL
        found = self._found(key)
        if found is not None:
            return found
        with self._images_lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # others may load other images meanwhile
            found = self._found(key)
            if found is None:
                if source is None:
                    found = load_image(self._engine, progress, counts_fuel=counts_fuel)
                else:
                    found = source.load(self._engine, progress or _log.info, counts_fuel)
                self._keep(key, found)
        return found

    def _found(self, key: str) -> LoadedImage | None:
        with self._images_lock:
            image = self._images.pop(key, None)
            if image is not None:
                self._images[key] = image
            return image

    def _keep(self, key: str, image: LoadedImage) -> None:
        with self._images_lock:
            self._images[key] = image
            self._loading.pop(key, None)
            for oldest in list(self._images)[:-MAX_IMAGES]:
                del self._images[oldest]  # the runs that are using it keep it

    def start(
        self, request: ExecutionRequest, surroundings: Surroundings, source: ImageSource | None = None
    ) -> Future[Outcome]:
        """Run a request on a guest thread.

        If all threads are busy, the run waits for one as long as it may then take: for its own
        ``timeout_seconds`` (from when there is an image, where that has to be prepared first). A run that has
        waited so long is not begun; its outcome says so.

        Args:
            request: what to run.
            surroundings: clocks, entropy and the caller's way to cancel.
            source: of the image to run it in; the default image if not given.

        Returns:
            A future of the outcome; it raises what `image` raises if there is no image.

        Raises:
            HostError: the interpreter is exiting.
        """

        def work(deliver: Callable[[Outcome], None]) -> None:
            with self._running_lock:
                self._running.add(surroundings)
            try:
                image = self.image(source=source, counts_fuel=request.limits.fuel is not None)
                if self._ready_since is None:
                    self._ready_since = time.monotonic()
                with self._turns.turn(request.limits.timeout_seconds) as turn:
                    execute(image, self._watchdog, self._trap_signals, request, surroundings, deliver, turn)
            finally:
                with self._running_lock:
                    self._running.discard(surroundings)

        return self._workers.submit(work, giving_up(request.limits.timeout_seconds, lambda: self._ready_since))

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
        self._workers.close(deadline)
        self._watchdog.stop()
        for image in self._images.values():
            image.instances.close()  # while wasmtime can still call back


class _Process:
    """Holds the engine of this process."""

    engine: GuestEngine | None = None
    pid = 0
    lock = threading.Lock()
    inherited: GuestEngine | None = None
    """A parent's engine, seen from a forked child: never used, and never freed, for its threads are gone."""


def process_engine() -> GuestEngine:
    """The engine of this process, made on first use.

    After a fork the child gets an engine of its own: the parent's has threads that the child lacks.

    Raises:
        HostError: this interpreter cannot run guests.
    """
    if _Process.engine is None or _Process.pid != os.getpid():
        with _Process.lock:
            if _Process.engine is None or _Process.pid != os.getpid():
                check_interpreter()
                _Process.inherited = _Process.engine
                _Process.engine, _Process.pid = GuestEngine(), os.getpid()
    return _Process.engine


@atexit.register
def _shut_down() -> None:
    if _Process.engine is not None and _Process.pid == os.getpid():
        _Process.engine.shutdown()


if hasattr(os, "register_at_fork"):  # a thread that the child does not have may hold it
    # Not a function of ours, which the interpreter would keep, with all modules, until it is nearly gone: it frees
    # them slowly then.
    os.register_at_fork(after_in_child=_Process.lock._at_fork_reinit)  # type: ignore[attr-defined]
