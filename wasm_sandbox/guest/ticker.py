"""The epoch ticker: one thread that advances the engine's epoch while guests run."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import wasmtime

from wasm_sandbox.errors import HostError

TICK_SECONDS = 0.01
LINGER_SECONDS = 0.25  # keeps ticking this long after the last guest, so that a busy host does not wake it per run


class EpochTicker:
    """Counts running guests (``with ticker:`` around each) and ticks while there are any.

    One ticker serves every guest of the engine; deadlines and cancellation are per store, in the
    epoch callback, so that no guest's end can disturb another.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._guests = 0
        self._idle_since = 0.0
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def ticking(self) -> bool:
        """Whether the epoch is advancing now."""
        return self._wanted.is_set()

    def __enter__(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._start()
            self._guests += 1
            if not self._wanted.is_set():
                self._wanted.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._guests -= 1
            self._idle_since = time.monotonic()

    def _start(self) -> None:
        thread = threading.Thread(target=self._tick, name="wasm-sandbox-ticker", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            raise HostError(f"no thread can be started to watch over deadlines: {error}") from error
        self._thread = thread  # only now: a guest without a ticker would never end

    def stop(self) -> None:
        """End the thread, for good."""
        self._stopped = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _tick(self) -> None:
        while True:
            self._wanted.wait()
            if self._stopped:
                return
            self._engine.increment_epoch()
            with self._lock:
                if not self._guests and time.monotonic() - self._idle_since > LINGER_SECONDS:
                    self._wanted.clear()
                    continue
            time.sleep(TICK_SECONDS)
