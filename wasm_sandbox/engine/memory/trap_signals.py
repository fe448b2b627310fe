"""Signal handlers by which wasmtime catches the traps of guests: kept in place.

On POSIX an illegal operation of a guest is a signal (SIGILL, SIGSEGV ...) that wasmtime's handler turns
into a trap. `faulthandler.enable()` puts its own handlers in front, and those end the process;
`faulthandler.disable()` puts back what was there before wasmtime. Either way, from then on any guest could
kill the process. So the handlers are looked at before every run (a few microseconds) and put back. One of ours comes
before wasmtime's where guests can be paused (`engine.memory.pausing`).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from typing import Any

from wasm_sandbox.engine.memory import pausing

_NAMES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")
_SIGNALS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))
_Action = ctypes.c_size_t * 64  # a struct sigaction takes 152 bytes with glibc; it starts with the handler

_log = logging.getLogger(__name__)


# Guarantees:
# - after `restore` each signal has the handler that it had when the engine had just been made, or the pause handler;
# - `allow_pausing` is called before the first guest; the handlers to keep are the same from then on.
# Locks: `_lock` is held while handlers are put back, and nothing else is done then. Looking at them takes no lock.
class TrapSignals:
    """Signal handlers of the time when the engine had just been made, to be put back when they are replaced."""

    pausing: pausing.PauseHandler | None = None
    """The pause handler, where there is one for this system."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sigaction: Any = None
        self._actions: dict[int, Any] = {}
        # On macOS wasmtime listens to Mach exceptions, on Windows to vectored ones: no handler to keep.
        if os.name == "posix" and sys.platform != "darwin":
            self._sigaction = ctypes.PyDLL(None).sigaction  # keeps the interpreter lock: a matter of microseconds
            self._actions = {number: self._current(number) for number in _SIGNALS}

    def _current(self, number: int) -> Any:
        action = _Action()
        self._sigaction(number, None, action)
        return action

    def allow_pausing(self) -> None:
        """Put the pause handler in front of wasmtime's handler of SIGSEGV, if there is one for this system."""
        if not pausing.is_supported() or self._sigaction is None:
            return
        action = self._actions[signal.SIGSEGV]
        try:
            handler = pausing.PauseHandler(action[0])
        except OSError as error:
            _log.info("guests cannot be paused: %s", error)
            return
        action[0] = handler.address
        self._sigaction(signal.SIGSEGV, action, None)
        self.pausing = handler

    def restore(self) -> None:
        """Put back those handlers that something has replaced, and say so in the log."""
        found, sigaction = _Action(), self._sigaction
        replaced = []
        for number, action in self._actions.items():
            sigaction(number, None, found)
            if found[0] != action[0]:  # the rest has undefined bytes
                replaced.append(number)
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
