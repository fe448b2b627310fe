"""Pausing guests at safepoints: a handler of SIGSEGV, in front of wasmtime's, in which a guest's thread sleeps.

A metered guest reads its poll page at every charge (`engine.module.metering`): that is its safepoint, as in Java's
virtual machines. If the page cannot be read, the thread gets SIGSEGV, and wasmtime's handler ends the guest. The pause
handler comes first and looks at the page's *pause word*, a futex: while that says `PAUSE` the thread sleeps, and then
it reads the page again.

A signal handler runs between any two instructions and without the interpreter lock, so it cannot be Python: it is some
130 bytes of machine code for Linux on x86-64 (``pause_handler.s``). Elsewhere guests are not paused.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

from wasm_sandbox.engine.memory.address_space import PAGE_BYTES, READ_EXECUTE, READ_WRITE, AddressSpace
from wasm_sandbox.engine.memory.layout import MARK_OFFSET, WORD_DISTANCE
from wasm_sandbox.engine.memory.pause_handler_x86_64 import CODE, HANDLER_PLACE, MARK_PLACE

GO_ON, PAUSE, STOP = range(3)
"""Values of a pause word; the pause handler compares them by size."""

SYSTEM_CALL_FUTEX = 202
"""Number of futex(2) on x86-64."""

FUTEX_PRIVATE_FLAG = 128
"""Flag of a futex of one process: who wakes and who waits must agree on it."""

_FUTEX_WAKE_PRIVATE = 1 | FUTEX_PRIVATE_FLAG


def is_supported() -> bool:
    """Whether there is a pause handler for this system."""
    return sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in ("x86_64", "AMD64")


class PauseHandler:
    """The pause handler's machine code, mapped for the lifetime of the process, and the pause words that it reads.

    Args:
        before: address of the signal handler for every fault that is no pause.

    Raises:
        OSError: if the system allows no more executable memory in this process.
    """

    address: int
    """Entry point of the signal handler."""

    def __init__(self, before: int) -> None:
        # A fault may be at any address, with bytes of a guest's choice in front of it; no guest can know the mark.
        self._mark = os.urandom(8)
        code = CODE.replace(MARK_PLACE, self._mark).replace(HANDLER_PLACE, before.to_bytes(8, "little"))
        space = AddressSpace()
        self.address = space.reserve(PAGE_BYTES)
        space.protect(self.address, PAGE_BYTES, READ_WRITE)
        ctypes.memmove(self.address, code, len(code))
        space.protect(self.address, PAGE_BYTES, READ_EXECUTE)
        self._system_call = ctypes.PyDLL(None).syscall
        self._system_call.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long]

    def adopt(self, page: int) -> None:
        """Mark a poll page as one of this process, with its pause word at `GO_ON`."""
        ctypes.memmove(page - WORD_DISTANCE + MARK_OFFSET, self._mark, len(self._mark))
        self.go_on(page)

    def pause(self, page: int) -> None:
        """Make the thread that faults at this poll page sleep, until `go_on` or `stop`."""
        self._word(page).value = PAUSE

    def go_on(self, page: int) -> None:
        """Wake the thread that sleeps, to read the poll page again.

        The page must be readable by then, or the thread faults at it for ever.
        """
        self._say(page, GO_ON)

    def stop(self, page: int) -> None:
        """Pass on the faults at this poll page, also that of a thread that sleeps: a trap ends its guest."""
        self._say(page, STOP)

    def _say(self, page: int, word: int) -> None:
        place = self._word(page)
        was_paused = place.value == PAUSE
        place.value = word
        if was_paused:
            self._system_call(SYSTEM_CALL_FUTEX, page - WORD_DISTANCE, _FUTEX_WAKE_PRIVATE, 1)

    @staticmethod
    def _word(page: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(page - WORD_DISTANCE)
