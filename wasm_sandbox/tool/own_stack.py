"""Work on a thread of our own: with a native stack that fits what hostile text can nest, and for so much time."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from wasm_sandbox.errors import HostError, pass_on
from wasm_sandbox.forks import start_thread

STACK_BYTES = 16 << 20
"""CPython's parser recurses 6,000 calls deep at most, which take 2 MiB, and a tree is as high as a statement has tokens
(`bounds.MAX_STATEMENT_TOKENS`): 3 MiB. Pages that are not used cost nothing."""

_LOOK_SECONDS = 0.02
_LOOK_AGAIN_SECONDS = 0.002

_WEAK_MODULES = ("weakref", "_weakrefset")

T = TypeVar("T")

_here = threading.local()


class TooSlow(BaseException):
    """Work that used up its processor time; no ``Exception``, so that libraries let it pass."""


def on_own_stack(work: Callable[[], T], cpu_seconds: float | None = None) -> T:
    """Do work on a thread with `STACK_BYTES` of native stack, whatever stack the caller has, and wait for it.

    Args:
        work: what is done.
        cpu_seconds: processor time that it may take. It is looked at every few hundredths of a second, and ends Python
            code, not a C function.

    Raises:
        TooSlow: if the work took more than ``cpu_seconds``.
        HostError: if the system gives no thread.
        BaseException: what ``work`` raises.
    """
    if getattr(_here, "is_own", False):
        return work()
    return _OwnThread(work).result(cpu_seconds)


# Guarantees:
# - an exception is sent into the thread only while its work is under way (`_lock`), so it ends no other.
# Locks: `_lock`, for moments.
class _OwnThread(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._is_working = True
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._clock: int | None = None

    def result(self, cpu_seconds: float | None) -> T:
        """Start the thread, wait until it is done, and return or raise what came of it."""
        thread = threading.Thread(target=self._serve, name="wasm-sandbox-reader", daemon=True)
        try:
            start_thread(thread, STACK_BYTES)
        except (RuntimeError, MemoryError) as error:
            pass_on(error)
            raise HostError(f"no thread can be started to read a source on: {error}") from error
        if cpu_seconds is None:
            thread.join()
        else:
            began = time.monotonic()
            look_seconds = _LOOK_SECONDS
            while thread.is_alive():
                thread.join(look_seconds)
                if self._seconds(began) > cpu_seconds:
                    self._stop(thread)
                    look_seconds = _LOOK_AGAIN_SECONDS
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or it and its traceback would refer to each other
        return self._values[0]

    def _serve(self) -> None:
        _here.is_own = True
        try:
            if hasattr(time, "pthread_getcpuclockid"):
                self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._values.append(self._work())
        except BaseException as error:
            self._error = error
        try:
            with self._lock:
                self._is_working = False
            time.sleep(0)  # what was sent at the last moment is raised by now
        except TooSlow as error:
            self._is_working = False
            self._error = error

    def _seconds(self, began: float) -> float:
        """Processor time of the thread; where the system does not tell, the time since it began."""
        try:
            return time.monotonic() - began if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # it has ended
            return 0.0

    def _stop(self, thread: threading.Thread) -> None:
        import ctypes  # lazy: for what is too slow only

        with self._lock:
            if self._is_working and thread.ident is not None and not _drops_exceptions(thread.ident):
                ident, error = ctypes.c_ulong(thread.ident), ctypes.py_object(TooSlow)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)


def _drops_exceptions(ident: int) -> bool:
    """Whether a thread is in a finalizer, or in a callback of a weak reference or of the collector.

    The interpreter drops what is raised there, with a traceback on stderr, and work goes on. A collection holds the
    interpreter's lock but in such calls: a thread that collects is found in one more often than not.
    """
    callbacks = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    frame = sys._current_frames().get(ident)
    while frame is not None:
        code, module = frame.f_code, frame.f_globals.get("__name__")
        if code.co_name == "__del__" or module in _WEAK_MODULES or code in callbacks:
            return True
        frame = frame.f_back
    return False
