"""The page that a metered guest reads at every charge: made unreadable, it stops the guest within microseconds."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable

from wasm_sandbox.guest.address_space import NO_ACCESS, AddressSpace
from wasm_sandbox.guest.trap_signals import TrapSignals


def _protection_call() -> Callable[[int, int], None]:
    """A function that makes a range of this process's memory unreadable, or raises OSError."""
    if os.name == "nt":
        virtual_protect = ctypes.WinDLL("kernel32", use_last_error=True).VirtualProtect  # type: ignore[attr-defined,unused-ignore]
        virtual_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]
        page_no_access, before = 0x01, ctypes.c_uint32()

        def make_unreadable(address: int, size: int) -> None:
            if not virtual_protect(address, size, page_no_access, ctypes.byref(before)):
                raise ctypes.WinError(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]

        return make_unreadable
    space = AddressSpace()
    return lambda address, size: space.protect(address, size, NO_ACCESS)


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
        if self._span is not None:
            _make_unreadable(*self._span)
