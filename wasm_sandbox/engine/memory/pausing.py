"""Pausing guests: a signal handler of ours, in front of wasmtime's, in which a guest's thread waits.

A metered guest reads its poll page at every charge (`engine.module.metering`). If that cannot be read, the system
sends the thread a signal, and wasmtime's handler for it ends the guest. The handler here comes first and looks at the
*pause word* of the page: while it says so the thread sleeps, and then reads the page again. Java's virtual machines
keep their threads waiting at safepoints in this way.

A signal handler runs in the middle of anything and without the interpreter lock, so it cannot be written in Python: it
is some 130 bytes of machine code, for Linux on x86-64 (``pause_handler.s``). Elsewhere guests are not paused.
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
    """Whether there is such a handler for this system."""
    return sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in ("x86_64", "AMD64")


class PauseHandler:
    """The handler, in memory of its own for as long as the process lives.

    Args:
        before: the address of the handler that gets all signals that have nothing to do with a pause.

    Raises:
        OSError: the system allows no more code in this process.
    """

    def __init__(self, before: int) -> None:
        # What a thread faults at may be anything, with words of a guest's choice around it: it cannot know the mark.
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
        """Know a poll page; whoever faults at it is to read it again."""
        ctypes.memmove(page - WORD_DISTANCE + MARK_OFFSET, self._mark, len(self._mark))
        self.go_on(page)

    def pause(self, page: int) -> None:
        """Let whoever faults at this page wait."""
        self._word(page).value = PAUSE

    def go_on(self, page: int) -> None:
        """Let them read the page again: it must be readable."""
        self._say(page, GO_ON)

    def stop(self, page: int) -> None:
        """Let the handler before have them."""
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
