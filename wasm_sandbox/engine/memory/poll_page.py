"""Poll page: a guest reads it at every safepoint, and is stopped or paused by making it unreadable."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable

from wasm_sandbox.engine.memory.address_space import NO_ACCESS, AddressSpace
from wasm_sandbox.engine.memory.pausing import PauseHandler
from wasm_sandbox.engine.memory.slots import Slot
from wasm_sandbox.engine.memory.trap_signals import TrapSignals

_log = logging.getLogger(__name__)


def _protection_call() -> Callable[[int, int], None]:
    """Function that makes a range of this process's memory unreadable; it raises OSError where that fails."""
    if os.name == "nt":
        virtual_protect = ctypes.WinDLL("kernel32", use_last_error=True).VirtualProtect  # type: ignore[attr-defined,unused-ignore]  # Windows only
        virtual_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]
        page_no_access, before = 0x01, ctypes.c_uint32()

        def make_unreadable(address: int, size: int) -> None:
            if not virtual_protect(address, size, page_no_access, ctypes.byref(before)):
                raise ctypes.WinError(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]  # Windows only

        return make_unreadable
    space = AddressSpace()
    return lambda address, size: space.protect(address, size, NO_ACCESS)


_make_unreadable = _protection_call()


# Guarantees:
# - any thread may stop, pause or resume the guest at any time, also before it has memory and after that is gone: only
#   between `attach` and `detach` is an address touched;
# - a guest that is stopped is never resumed, and one that is attached later is stopped at once.
# Locks, in this order: `_lock`, `TrapSignals._lock`. `Turns._lock` or a watchdog's `_Entry.lock` may be held outside.
# The guest itself sleeps in the signal handler without any lock.
class PollPage:
    """Poll page of one guest.

    Args:
        trap_signals: the signal handlers, put back before each fault that is provoked.
    """

    def __init__(self, trap_signals: TrapSignals) -> None:
        self._trap_signals = trap_signals
        self._lock = threading.Lock()
        self._span: tuple[int, int] | None = None
        self._pausing: tuple[PauseHandler, Slot] | None = None
        self._is_stopped = self._is_paused = False

    def attach(self, address: int, size: int, slot: Slot | None = None) -> None:
        """Use this page from now on: the guest has its memory.

        Args:
            address: address of the page.
            size: size of the page in bytes.
            slot: the slot of the page, if it is ours; only then can the guest be paused. It is there at least until
                `detach`: who forgets to close it unmaps no page that is touched.
        """
        with self._lock:
            self._span = address, size
            if slot is not None and self._trap_signals.pausing is not None:
                self._pausing = self._trap_signals.pausing, slot
                self._trap_signals.pausing.adopt(address)
            if self._is_stopped:
                self._stop()

    @property
    def can_pause(self) -> bool:
        """Whether `pause` does anything now."""
        return self._pausing is not None

    def detach(self) -> None:
        """Touch the page no more: its memory is about to be given back."""
        with self._lock:
            self._span = self._pausing = None

    def pause(self) -> None:
        """Let the guest sleep at its next safepoint, until `resume` or `stop`."""
        with self._lock:
            if self._pausing is None or self._is_stopped or self._is_paused:
                return
            handler, slot = self._pausing
            handler.pause(slot.poll.address)
            try:
                self._protect()
            except OSError as error:
                _log.warning("a guest cannot be paused and goes on: %s", error)
                handler.go_on(slot.poll.address)
            else:
                self._is_paused = True

    def resume(self) -> None:
        """Let a guest that is paused go on."""
        with self._lock:
            if self._pausing is None or self._is_stopped or not self._is_paused:
                return
            self._is_paused = False
            handler, slot = self._pausing
            try:
                slot.poll.restore()
            except OSError as error:
                _log.error("a guest cannot go on after a pause and is stopped: %s", error)
                handler.stop(slot.poll.address)
            else:
                handler.go_on(slot.poll.address)

    def stop(self) -> None:
        """Trap the guest at its next safepoint."""
        with self._lock:
            self._is_stopped = True
            self._stop()

    def _stop(self) -> None:
        self._protect()
        if self._pausing is not None:
            handler, slot = self._pausing
            handler.stop(slot.poll.address)

    def _protect(self) -> None:
        self._trap_signals.restore()  # the guest's next safepoint is a signal
        if self._span is not None:
            _make_unreadable(*self._span)
