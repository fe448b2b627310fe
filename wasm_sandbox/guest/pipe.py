"""Where a guest's output goes: a pipe that keeps a bounded part of any amount."""

from __future__ import annotations

import ctypes


class OutputPipe:
    """Keeps the first ``head_bytes`` bytes written and the last ``tail_bytes``; what is between is dropped.

    The guest is never blocked and never told: a flood costs the host a bounded amount of memory
    and, per write, no more than what is kept.
    """

    def __init__(self, head_bytes: int, tail_bytes: int = 0) -> None:
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self._head, self._tail = bytearray(), bytearray()
        self.written_bytes = 0

    def write_from(self, address: int, size: int) -> None:
        """Append ``size`` bytes of this process's memory at ``address``."""
        self.written_bytes += size
        room = self._head_bytes - len(self._head)
        if room > 0:
            taken = min(room, size)
            self._head += ctypes.string_at(address, taken)
            address, size = address + taken, size - taken
        if size and self._tail_bytes:
            skipped = max(0, size - self._tail_bytes)
            self._tail += ctypes.string_at(address + skipped, size - skipped)
            if len(self._tail) > 2 * self._tail_bytes:  # cut rarely, so that small writes stay cheap
                del self._tail[: -self._tail_bytes]

    def contents(self) -> bytes:
        """What was kept, head and tail together."""
        if not self._tail:
            return bytes(self._head)
        return bytes(self._head) + bytes(self._tail[-self._tail_bytes :])

    @property
    def dropped_bytes(self) -> int:
        """How many of the written bytes `contents` leaves out."""
        return self.written_bytes - len(self._head) - min(len(self._tail), self._tail_bytes)
