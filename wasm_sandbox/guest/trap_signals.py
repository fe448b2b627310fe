"""Keeps the signal handlers by which wasmtime catches the traps of guests.

On POSIX an illegal operation of a guest is a signal (SIGILL, SIGSEGV ...) that wasmtime's handler turns
into a trap. `faulthandler.enable()` puts its own handlers in front, and those end the process;
`faulthandler.disable()` puts back what was there before wasmtime. Either way, from then on any guest could
kill the process. So the handlers are looked at before every run (a few microseconds) and put back.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from typing import Any

_NAMES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")
_SIGNALS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))
_ACTION_BYTES = 512  # a struct sigaction takes 152 bytes with glibc; it starts with the handler
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)

_log = logging.getLogger(__name__)


class TrapSignals:
    """The handlers that were in place when the engine had just been made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sigaction: Any = None
        self._actions: dict[int, bytes] = {}
        # On macOS wasmtime listens to Mach exceptions, on Windows to vectored ones: no handler to keep.
        if os.name == "posix" and sys.platform != "darwin":
            self._sigaction = ctypes.PyDLL(None).sigaction  # keeps the interpreter lock: a matter of microseconds
            self._actions = {number: self._current(number) for number in _SIGNALS}

    def _current(self, number: int) -> bytes:
        action = ctypes.create_string_buffer(_ACTION_BYTES)
        self._sigaction(number, None, action)
        return action.raw

    def restore(self) -> None:
        """Put back those handlers that something has replaced, and say so in the log."""
        replaced = [number for number, action in self._actions.items() if not self._is_in_place(number, action)]
        if not replaced:
            return
        with self._lock:
            for number in replaced:
                self._sigaction(number, self._actions[number], None)
        _log.warning(
            "the handlers of %s were replaced after the first run, which would let a guest end this process: they "
            "were put back. Enable faulthandler before the first run, and do not disable it after that",
            ", ".join(signal.Signals(number).name for number in replaced),
        )

    def _is_in_place(self, number: int, action: bytes) -> bool:
        return self._current(number)[:_POINTER_BYTES] == action[:_POINTER_BYTES]  # the rest has undefined bytes
