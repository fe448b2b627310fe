"""Pausing guests: a signal handler of ours, in front of wasmtime's, in which a guest's thread waits.

A metered guest reads its poll page at every charge (`wasm_sandbox.guest.metering`). If that cannot be read, the system
sends the thread a signal, and wasmtime's handler for it ends the guest. The handler here comes first and looks at the
*pause word* of the page: while it says so the thread sleeps, and then reads the page again. Java's virtual machines
keep their threads waiting at safepoints in this way.

A signal handler runs in the middle of anything and without the interpreter lock, so it cannot be written in Python: it
is some 90 bytes of machine code, for Linux on x86-64. Elsewhere guests are not paused.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

from wasm_sandbox.guest.address_space import PAGE_BYTES, READ_EXECUTE, READ_WRITE, AddressSpace

WORD_DISTANCE = 64 << 10
"""From the first byte of a poll page to its pause word, which no guest can address."""

_FUTEX_WAKE_PRIVATE = 129

_SYSTEM_CALL_FUTEX = 202

# rdi, rsi and rdx are what every handler gets; rsi leads to siginfo_t, which has the faulting address at 16 (see
# sigaction(2)). The system call is futex(2): it tells by itself whether there is a word to read (EFAULT if not), and
# waits only while that says so. Assembled with GNU as; `tests/guest/test_pausing.py` does it again where there is one.
ASSEMBLY = """
    endbr64
    push rdi
    push rsi
    push rdx
    mov rdi, [rsi+16]
    test edi, 0xfff         # a poll page's first byte?
    jnz pass_on
    add rdi, 0x10000        # WORD_DISTANCE
wait:
    mov esi, 128            # FUTEX_WAIT, private
    mov edx, 0x11111111     # the word for a pause
    xor r10d, r10d          # for ever
    mov eax, 202            # futex
    syscall
    test eax, eax
    jz look
    cmp eax, -11            # EAGAIN: it says something else
    je look
    cmp eax, -4             # EINTR
    jne pass_on
look:
    mov eax, [rdi]
    sub eax, edx
    jz wait
    cmp eax, 1              # the word for going on
    jne pass_on
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
"""

CODE = bytes.fromhex(
    "f30f1efa 57 56 52 488b7e10 f7c7ff0f0000 7538 4881c700000100"
    "be80000000 ba11111111 4531d2 b8ca000000 0f05 85c0 740a 83f8f5 7405 83f8fc 750f"
    "8b07 29d0 74d8 83f801 7504 5a 5e 5f c3"
    "5a 5e 5f 48b82222222222222222 ffe0"
)
_PAUSE_PLACE, _HANDLER_PLACE = b"\x11" * 4, b"\x22" * 8


def is_supported() -> bool:
    """Whether there is such a handler for this system."""
    return sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in ("x86_64", "AMD64")


class PauseHandler:
    """The handler, in memory of its own for as long as the process lives, and the words that it understands.

    Args:
        before: the address of the handler that gets all signals that have nothing to do with a pause.

    Raises:
        OSError: the system allows no more code in this process.
    """

    def __init__(self, before: int) -> None:
        # No word that is found elsewhere by chance: it decides whether a faulting thread of the host goes on waiting.
        self._pause = int.from_bytes(os.urandom(4), "little") % (2**32 - 3)
        self._go_on, self._stop = self._pause + 1, self._pause + 2
        code = CODE.replace(_PAUSE_PLACE, self._pause.to_bytes(4, "little"))
        code = code.replace(_HANDLER_PLACE, before.to_bytes(8, "little"))
        space = AddressSpace()
        self.address = space.reserve(PAGE_BYTES)
        space.protect(self.address, PAGE_BYTES, READ_WRITE)
        ctypes.memmove(self.address, code, len(code))
        space.protect(self.address, PAGE_BYTES, READ_EXECUTE)
        self._system_call = ctypes.PyDLL(None).syscall
        self._system_call.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long]

    def pause(self, page: int) -> None:
        """Let whoever faults at this page wait."""
        self._word(page).value = self._pause

    def go_on(self, page: int) -> None:
        """Let them read the page again: it must be readable."""
        self._say(page, self._go_on)

    def stop(self, page: int) -> None:
        """Let the handler before have them."""
        self._say(page, self._stop)

    def _say(self, page: int, word: int) -> None:
        place = self._word(page)
        was_paused = place.value == self._pause
        place.value = word
        if was_paused:
            self._system_call(_SYSTEM_CALL_FUTEX, page + WORD_DISTANCE, _FUTEX_WAKE_PRIVATE, 1)

    @staticmethod
    def _word(page: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(page + WORD_DISTANCE)
