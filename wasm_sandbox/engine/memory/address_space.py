"""Memory mappings of this process, by the system calls themselves.

`AddressSpace.protect` is for any POSIX system, all else for Linux. Python's own ``mmap`` cannot place a mapping. See
mmap(2), madvise(2), and for the pages that were written to "PAGEMAP_SCAN" in
https://docs.kernel.org/admin-guide/mm/pagemap.html (Linux 6.7 and newer).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from typing import Any

NO_ACCESS, READ, READ_WRITE, READ_EXECUTE = 0, 1, 3, 5

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x02, 0x10, 0x20, 0x4000
_MADV_DONTNEED = 4

_LARGE_BYTES = 1 << 20
"""Size from which giving pages back takes longer than getting the interpreter lock again, which is released for it."""

PAGEMAP_SCAN = 0xC0606610
"""Number of the ``ioctl`` on ``/proc/self/pagemap``."""

_IS_FILE, _IS_PRESENT, _IS_SWAPPED = 1 << 2, 1 << 3, 1 << 4
_SCAN = struct.Struct("<12Q")  # struct pm_scan_arg
_RANGE = struct.Struct("<3Q")  # struct page_region: start, end, categories

MAX_RANGES = 1024
"""Most ranges of written pages that a scan tells."""


class _Libc:
    """System calls, bound once. Those of microseconds keep the interpreter lock: getting it back may take longer."""

    def __init__(self) -> None:
        quick, slow = ctypes.PyDLL(None, use_errno=True), ctypes.CDLL(None, use_errno=True)
        size, number, address = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
        self.mmap = self._bound(quick, "mmap", address, address, size, number, number, number, ctypes.c_long)
        self.mprotect = self._bound(quick, "mprotect", number, address, size, number)
        self.ioctl = self._bound(quick, "ioctl", number, number, ctypes.c_ulong, address)
        self.forget = self._bound(quick, "madvise", number, address, size, number)
        self.memcpy = self._bound(quick, "memcpy", address, address, address, size)
        self.compare = self._bound(quick, "memcmp", number, address, address, size)
        self.munmap = self._bound(slow, "munmap", number, address, size)
        self.madvise = self._bound(slow, "madvise", number, address, size, number)

    @staticmethod
    def _bound(library: Any, name: str, result: Any, *arguments: Any) -> Any:
        function = library[name]
        function.restype, function.argtypes = result, arguments
        return function


# Guarantees: no state but the bound functions, and `errno` is each thread's own: any thread may use it at any time.
# Whoever hands in a range must own it. Locks: none.
class AddressSpace:
    """System calls on memory mappings.

    Every method raises OSError if the system refuses the call.
    """

    def __init__(self) -> None:
        self._libc = _Libc()
        self._no_address = ctypes.c_void_p(-1).value

    def reserve(self, size: int) -> int:
        """Address of a new range without access, which takes address space but no memory."""
        return self._map(None, size, NO_ACCESS, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)

    def empty(self, address: int, size: int) -> None:
        """Turn a part of a reserved range back into one without access and content."""
        if size >= _LARGE_BYTES:
            self.forget_changes(address, size)
        self._map(address, size, NO_ACCESS, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED, -1, 0)

    def map_file(self, address: int | None, size: int, access: int, descriptor: int, offset: int) -> int:
        """Map a part of a file copy-on-write; the address of the mapping."""
        return self._map(address, size, access, _MAP_PRIVATE | (_MAP_FIXED if address else 0), descriptor, offset)

    def protect(self, address: int, size: int, access: int) -> None:
        """Set the access to a range."""
        if self._libc.mprotect(address, size, access):
            raise self._error()

    def forget_changes(self, address: int, size: int) -> None:
        """Drop what was written to a copy-on-write mapping: it shows its file, or zeros, again."""
        advise = self._libc.madvise if size >= _LARGE_BYTES else self._libc.forget
        if advise(address, size, _MADV_DONTNEED):
            raise self._error()

    def control(self, descriptor: int, request: int, argument: ctypes.Array[ctypes.c_char]) -> int:
        """Result of ``ioctl``, for requests that take microseconds."""
        result = int(self._libc.ioctl(descriptor, request, argument))
        if result < 0:
            raise self._error()
        return result

    def copy(self, address: int, data: bytes, size: int) -> None:
        """Copy bytes into memory; large ones without the interpreter lock."""
        (ctypes.memmove if size >= _LARGE_BYTES else self._libc.memcpy)(address, data, size)

    def is_equal(self, address: int, data: bytes) -> bool:
        """Whether memory holds these bytes, which are few: the interpreter lock is kept."""
        return not self._libc.compare(address, data, len(data))

    def release(self, address: int, size: int) -> None:
        """Unmap a range."""
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


class _Scan:
    """Buffers of one scan, and pages of which it writes to one, which is known therefore."""

    PAGES = 64

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._found = bytearray(MAX_RANGES * _RANGE.size)
        self._found_address = ctypes.addressof(ctypes.c_char.from_buffer(self._found))
        self._size = self.PAGES * PAGE_BYTES
        self._address = space.reserve(self._size)
        space.protect(self._address, self._size, READ_WRITE)
        self._of_own_pages = ctypes.create_string_buffer(_SCAN.size)
        self._of_others = ctypes.create_string_buffer(_SCAN.size)
        self._fill(self._of_own_pages, self._address, self._size, self.PAGES)

    def _fill(self, argument: ctypes.Array[ctypes.c_char], address: int, size: int, most_pages: int) -> None:
        # Written to: not a page of the file any more, wherever it is now.
        _SCAN.pack_into(
            argument, 0,
            _SCAN.size, 0, address, address + size, 0, self._found_address, MAX_RANGES, most_pages + 1,
            _IS_FILE, _IS_FILE, _IS_PRESENT | _IS_SWAPPED, _IS_PRESENT,
        )  # fmt: skip

    def sees_this_process(self, pagemap: int) -> bool:
        """Whether the page that is written to now, one of many, is the one that a scan finds."""
        page = self._address + time.perf_counter_ns() % self.PAGES * PAGE_BYTES
        ctypes.memset(page, 1, 1)
        count = self._space.control(pagemap, PAGEMAP_SCAN, self._of_own_pages)
        self._space.forget_changes(page, PAGE_BYTES)
        return count == 1 and _RANGE.unpack_from(self._found)[:2] == (page, page + PAGE_BYTES)

    def written(self, pagemap: int, address: int, size: int, most_pages: int) -> list[tuple[int, int]] | None:
        """As `PageScanner.written`, of whatever process the list of pages is."""
        self._fill(self._of_others, address, size, most_pages)
        count = self._space.control(pagemap, PAGEMAP_SCAN, self._of_others)
        if count == MAX_RANGES:
            return None
        with memoryview(self._found) as found:
            ranges = [(start, end) for start, end, _ in _RANGE.iter_unpack(found[: count * _RANGE.size])]
        return None if sum(end - start for start, end in ranges) > most_pages * PAGE_BYTES else ranges

    def close(self) -> None:
        """Unmap the pages."""
        self._space.release(self._address, self._size)


# Guarantees: each scan has buffers and a page of its own: any thread may scan at any time, until `close`. Locks: none;
# a scan that nobody uses is taken and put back by one operation each, which the interpreter lock keeps whole.
class PageScanner:
    """Finder of the written pages of a copy-on-write mapping, by the ``ioctl`` `PAGEMAP_SCAN`.

    The list of pages is that of the process that opened it, also where the child of a fork reads it: it would tell of
    other memory. So every scan proves itself first, by a page that has just been written to.

    Raises:
        OSError: if this system cannot tell: an older kernel, no /proc, or a filter of system calls.
    """

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._unused: list[_Scan] = []
        self._pagemap = -1
        self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            probe = space.reserve(PAGE_BYTES)
            try:
                if self.written(probe, PAGE_BYTES, 1) is None:
                    raise OSError(errno.ENODATA, "the list of pages is not that of this process")
            finally:
                space.release(probe, PAGE_BYTES)
        except BaseException:
            self.close()
            raise

    def written(self, address: int, size: int, most_pages: int) -> list[tuple[int, int]] | None:
        """Start and end of every range of written pages.

        Returns:
            None if there are more pages, or more ranges, than allowed, or if it is not this process's memory that a
            scan sees.

        Raises:
            OSError: if the system refuses a call.
        """
        try:
            scan = self._unused.pop()
        except IndexError:
            scan = _Scan(self._space)
        try:
            is_ours = scan.sees_this_process(self._pagemap)
            ranges = scan.written(self._pagemap, address, size, most_pages) if is_ours else None
        except OSError:
            scan.close()  # its page may still be written to
            raise
        self._unused.append(scan)
        return ranges

    def close(self) -> None:
        """Close the pagemap."""
        pagemap, self._pagemap = self._pagemap, -1
        if pagemap >= 0:
            os.close(pagemap)
        while self._unused:
            self._unused.pop().close()

    def __del__(self) -> None:
        self.close()
