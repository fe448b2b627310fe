"""Pausing guests: a signal handler of ours, in front of wasmtime's, in which a guest's thread waits.

A metered guest reads its poll page at every charge (`engine.module.metering`). If that cannot be read, the system
sends the thread a signal, and wasmtime's handler for it ends the guest. The handler here comes first and looks at the
*pause word* of the page: while it says so the thread sleeps, and then reads the page again. Java's virtual machines
keep their threads waiting at safepoints in this way.

A signal handler runs in the middle of anything and without the interpreter lock, so it cannot be written in Python: it
is some 130 bytes of machine code, for Linux on x86-64. Elsewhere guests are not paused.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

from wasm_sandbox.engine.memory.address_space import PAGE_BYTES, READ_EXECUTE, READ_WRITE, AddressSpace
from wasm_sandbox.engine.memory.layout import MARK_OFFSET, WORD_DISTANCE

_GO_ON, _PAUSE, _STOP = range(3)

_FUTEX_WAKE_PRIVATE = 129

_SYSTEM_CALL_FUTEX = 202

# rdi, rsi and rdx are what every handler gets; rsi leads to siginfo_t, which has the faulting address at 16 (see
# sigaction(2)). The system call is futex(2). Assembled with GNU as; `tests/engine/memory/test_pausing.py` repeats it.
ASSEMBLY = """
    endbr64
    push rdi
    push rsi
    push rdx
    mov rdi, [rsi+16]
    test edi, 0xfff         # a poll page's first byte?
    jnz pass_on
    sub rdi, 0x2010000      # WORD_DISTANCE
    mov esi, 128            # FUTEX_WAIT, private
    mov edx, 1              # _PAUSE
    lea r10, no_time[rip]
    mov eax, 202            # it answers EFAULT where nothing can be read, and does not wait
    syscall
    cmp eax, -14
    je pass_on
    movabs rcx, 0x1111111111111111  # the mark
    cmp [rdi+8], rcx
    jne pass_on
    xor r10d, r10d          # for ever, from now on
look:
    mov eax, [rdi]
    cmp eax, edx
    ja pass_on              # _STOP
    jb go_on
    mov eax, 202
    syscall
    jmp look
go_on:
    pop rdx
    pop rsi
    pop rdi
    ret
pass_on:
    pop rdx
    pop rsi
    pop rdi
    movabs rax, 0x2222222222222222  # the handler before
    jmp rax
no_time:
    .quad 0, 0
"""

CODE = bytes.fromhex(
    "f30f1efa575652488b7e10f7c7ff0f0000754c4881ef00000102be80000000ba010000004c8d1543"
    "000000b8ca0000000f0583f8f2742848b9111111111111111148394f0875184531d28b0739d0770f"
    "7209b8ca0000000f05ebef5a5e5fc35a5e5f48b82222222222222222ffe000000000000000000000"
    "000000000000"
)
_MARK_PLACE, _HANDLER_PLACE = b"\x11" * 8, b"\x22" * 8


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
        code = CODE.replace(_MARK_PLACE, self._mark).replace(_HANDLER_PLACE, before.to_bytes(8, "little"))
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
        self._word(page).value = _PAUSE

    def go_on(self, page: int) -> None:
        """Let them read the page again: it must be readable."""
        self._say(page, _GO_ON)

    def stop(self, page: int) -> None:
        """Let the handler before have them."""
        self._say(page, _STOP)

    def _say(self, page: int, word: int) -> None:
        place = self._word(page)
        was_paused = place.value == _PAUSE
        place.value = word
        if was_paused:
            self._system_call(_SYSTEM_CALL_FUTEX, page - WORD_DISTANCE, _FUTEX_WAKE_PRIVATE, 1)

    @staticmethod
    def _word(page: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(page - WORD_DISTANCE)
