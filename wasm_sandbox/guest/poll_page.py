"""The page that a metered guest reads at every charge: made unreadable, it stops the guest within microseconds."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable

from wasm_sandbox.guest.trap_signals import TrapSignals


def _protection_call() -> Callable[[int, int], bool]:
    """A function that makes a range of this process's memory unreadable, and says whether it is."""
    if os.name == "nt":
        virtual_protect = ctypes.WinDLL("kernel32", use_last_error=True).VirtualProtect  # type: ignore[attr-defined,unused-ignore]
        virtual_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]
        page_no_access, before = 0x01, ctypes.c_uint32()
        return lambda address, size: bool(virtual_protect(address, size, page_no_access, ctypes.byref(before)))
    # PyDLL keeps the interpreter lock: among many guests that call the host, getting it back takes longer than this.
    mprotect = ctypes.PyDLL(None, use_errno=True).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    prot_none = 0
    return lambda address, size: mprotect(address, size, prot_none) == 0


_make_unreadable = _protection_call()


class PollPage:
    """The poll page of one run.

    Another thread may close it at any time, also before the guest has one and after it is gone: between
    `attach` and `detach` the address is known to be the guest's own.
    """

    def __init__(self, trap_signals: TrapSignals) -> None:
        self._trap_signals = trap_signals
        self._lock = threading.Lock()
        self._span: tuple[int, int] | None = None
        self._closed = False

    def attach(self, address: int, size: int) -> None:
        """The guest has its memory now."""
        with self._lock:
            self._span = address, size
            if self._closed:
                self._protect()

    def detach(self) -> None:
        """The memory is about to be given back."""
        with self._lock:
            self._span = None

    def close(self) -> None:
        """Stop the guest at its next charge."""
        with self._lock:
            self._closed = True
            if self._span is not None:
                self._protect()

    def _protect(self) -> None:
        self._trap_signals.restore()  # the guest's next charge is a trap
        if self._span is not None and not _make_unreadable(*self._span):
            raise OSError(ctypes.get_errno(), "the guest's poll page cannot be made unreadable")
