"""Pipe for a guest's output, which keeps a bounded part of any amount."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

_memory_view = ctypes.pythonapi.PyMemoryView_FromMemory
_memory_view.restype, _memory_view.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_READ_ONLY = 0x100  # PyBUF_READ


def memory_at(address: int, size: int) -> memoryview:
    """View of this process's memory, valid until the guest runs on."""
    view: memoryview = _memory_view(address, size, _READ_ONLY)
    return view


# Guarantees: the guest's own thread writes; the watchdog's may read `head`, `contents` and the counts meanwhile, at the
# deadline. A write appends to the head by one operation, which the interpreter lock keeps whole. Locks: none.
class OutputPipe:
    """Pipe that keeps the first ``head_bytes`` bytes written and the last ``tail_bytes``; what is between is dropped.

    The guest is never blocked and never told: a flood costs the host a bounded amount of memory
    and, per write, no more copying than what is kept. Nothing that was written is moved again: the interpreter
    lock is held meanwhile, and whoever stops guests waits for it.
    """

    def __init__(self, head_bytes: int, tail_bytes: int = 0) -> None:
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self._head, self._tail = bytearray(), bytearray()
        self._tail_start = 0
        """Offset of the oldest byte of a full tail, the next to be overwritten."""
        self.written_bytes = 0

    def write_from(self, address: int, size: int, following: int = 0) -> None:
        """Append ``size`` bytes of this process's memory at ``address``.

        Args:
            address: address of the bytes.
            size: number of the bytes.
            following: number of bytes that the same write appends after these. What they push out of the
                tail is not copied: a write that names one large range a thousand times stays cheap.
        """
        self.written_bytes += size
        room = self._head_bytes - len(self._head)
        if room > 0:
            taken = min(room, size)
            self._head += memory_at(address, taken)
            address, size = address + taken, size - taken
        kept = min(size, self._tail_bytes - following)
        if kept > 0:
            self._keep_last(memory_at(address + size - kept, kept))

    def _keep_last(self, data: memoryview) -> None:
        """Put data of at most the tail's size at its end, over the oldest bytes when it is full."""
        room = self._tail_bytes - len(self._tail)
        self._tail += data[:room]
        data = data[room:]
        while data:
            place = min(len(data), self._tail_bytes - self._tail_start)
            with memoryview(self._tail) as tail:
                tail[self._tail_start : self._tail_start + place] = data[:place]
            self._tail_start = (self._tail_start + place) % self._tail_bytes
            data = data[place:]

    def write_all(self, spans: Iterable[tuple[int, int]], total: int) -> None:
        """Append ranges of memory, (address, size) each, ``total`` bytes together."""
        for address, size in spans:
            total -= size
            self.write_from(address, size, total)

    def contents(self) -> bytes:
        """Kept output, head and tail together."""
        if not self._tail:
            return bytes(self._head)
        with memoryview(self._tail) as tail:
            return b"".join((self._head, tail[self._tail_start :], tail[: self._tail_start]))  # megabytes: copied once

    def head(self, size: int) -> bytes:
        """First ``size`` bytes of the head."""
        return bytes(self._head[:size])  # no view: the guest may be writing

    @property
    def dropped_bytes(self) -> int:
        """Number of written bytes that `contents` leaves out."""
        return self.written_bytes - len(self._head) - len(self._tail)
