"""Parts of this process's address space, by the system calls themselves: reserved, mapped, protected, given back.

`AddressSpace.protect` is for any POSIX system, all else for Linux. Python's own ``mmap`` cannot place a mapping. See
mmap(2), madvise(2), and for the pages that were written to "PAGEMAP_SCAN" in
https://docs.kernel.org/admin-guide/mm/pagemap.html (Linux 6.7 and newer).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

NO_ACCESS, READ, READ_WRITE, READ_EXECUTE = 0, 1, 3, 5

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x02, 0x10, 0x20, 0x4000
_MADV_DONTNEED = 4

_LARGE_BYTES = 1 << 20
"""Giving back the pages of so much takes longer than getting the interpreter lock again: it is let go of meanwhile."""

PAGEMAP_SCAN = 0xC0606610
"""The number of the ``ioctl`` on ``/proc/self/pagemap``."""

_IS_FILE, _IS_PRESENT, _IS_SWAPPED = 1 << 2, 1 << 3, 1 << 4
_SCAN = struct.Struct("<12Q")  # struct pm_scan_arg


class _Libc:
    """The calls, bound once. Those of microseconds keep the interpreter lock: getting it back may take longer."""

    def __init__(self) -> None:
        quick, slow = ctypes.PyDLL(None, use_errno=True), ctypes.CDLL(None, use_errno=True)
        size, number, address = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
        self.mmap = self._bound(quick, "mmap", address, address, size, number, number, number, ctypes.c_long)
        self.mprotect = self._bound(quick, "mprotect", number, address, size, number)
        self.munmap = self._bound(slow, "munmap", number, address, size)
        self.madvise = self._bound(slow, "madvise", number, address, size, number)

    @staticmethod
    def _bound(library: Any, name: str, result: Any, *arguments: Any) -> Any:
        function = library[name]
        function.restype, function.argtypes = result, arguments
        return function


class AddressSpace:
    """System calls about memory; each raises OSError when the system refuses it."""

    def __init__(self) -> None:
        self._libc = _Libc()
        self._no_address = ctypes.c_void_p(-1).value

    def reserve(self, size: int) -> int:
        """The address of a new range that nothing can be read from or written to, and that takes no memory."""
        return self._map(None, size, NO_ACCESS, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)

    def empty(self, address: int, size: int) -> None:
        """Make a part of a reserved range what it was when it was reserved."""
        if size >= _LARGE_BYTES:
            self.forget_changes(address, size)
        self._map(address, size, NO_ACCESS, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED, -1, 0)

    def map_file(self, address: int | None, size: int, access: int, descriptor: int, offset: int) -> int:
        """Map a part of a file, privately: what is written stays in this process. Gives the address."""
        return self._map(address, size, access, _MAP_PRIVATE | (_MAP_FIXED if address else 0), descriptor, offset)

    def protect(self, address: int, size: int, access: int) -> None:
        if self._libc.mprotect(address, size, access):
            raise self._error()

    def forget_changes(self, address: int, size: int) -> None:
        """Drop what was written to a private mapping: it shows its file, or zeros, again."""
        if self._libc.madvise(address, size, _MADV_DONTNEED):
            raise self._error()

    def release(self, address: int, size: int) -> None:
        if self._libc.munmap(address, size):
            raise self._error()

    def _map(self, address: int | None, size: int, access: int, flags: int, descriptor: int, offset: int) -> int:
        found = self._libc.mmap(address, size, access, flags, descriptor, offset)
        if found == self._no_address:
            raise self._error()
        return int(found or 0)

    @staticmethod
    def _error() -> OSError:
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number))


class PageScanner:
    """Finds the pages of a private mapping that this process has written to.

    Raises:
        OSError: this system cannot tell: an older kernel, no /proc, or a filter of system calls.
    """

    MAX_RANGES = 1024

    def __init__(self, space: AddressSpace) -> None:
        import fcntl  # lazy: POSIX has it

        self._ioctl = fcntl.ioctl
        self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            probe = space.reserve(PAGE_BYTES)
            try:
                self.written(probe, PAGE_BYTES, 1)
            finally:
                space.release(probe, PAGE_BYTES)
        except BaseException:
            os.close(self._pagemap)
            raise

    def written(self, address: int, size: int, most_pages: int) -> list[tuple[int, int]] | None:
        """Start and end of every range of written pages; None if they are more, or in more pieces, than asked for."""
        found = (ctypes.c_uint64 * (3 * self.MAX_RANGES))()  # start, end, categories
        # Written to: not a page of the file any more, wherever it is now.
        argument = bytearray(
            _SCAN.pack(
                _SCAN.size, 0, address, address + size, 0, ctypes.addressof(found), self.MAX_RANGES, most_pages + 1,
                _IS_FILE, _IS_FILE, _IS_PRESENT | _IS_SWAPPED, _IS_PRESENT,
            )
        )  # fmt: skip
        count = self._ioctl(self._pagemap, PAGEMAP_SCAN, argument)
        ranges = [(found[3 * i], found[3 * i + 1]) for i in range(count)]
        if count == self.MAX_RANGES or sum(end - start for start, end in ranges) > most_pages * PAGE_BYTES:
            return None
        return ranges

    def __del__(self) -> None:
        if hasattr(self, "_pagemap"):
            os.close(self._pagemap)
