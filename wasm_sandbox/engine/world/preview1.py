"""Constants of WASI preview 1 (witx: ``wasi_snapshot_preview1``), and the interfaces of capabilities."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

WASI_MODULE = "wasi_snapshot_preview1"

# errno
SUCCESS, E2BIG, EACCES, EBADF, EEXIST, EFAULT, EFBIG, EILSEQ = 0, 1, 2, 8, 20, 21, 22, 25
EINVAL, EIO, EISDIR, EMFILE, ENAMETOOLONG, ENOENT, ENOSPC = 28, 29, 31, 33, 37, 44, 51
ENOTDIR, ENOTEMPTY, ENOTSUP, EPERM, EROFS, ESPIPE, EXDEV, ENOTCAPABLE = 54, 55, 58, 63, 69, 70, 75, 76

STDIN, STDOUT, STDERR = 0, 1, 2
ROOT = 3
"""Descriptor of the one preopened directory."""

# filetype
UNKNOWN, CHARACTER_DEVICE, DIRECTORY, REGULAR_FILE, SYMBOLIC_LINK = 0, 2, 3, 4, 7

CREATE, MUST_BE_DIRECTORY, EXCLUSIVE, TRUNCATE = 1, 2, 4, 8  # oflags
APPEND, NONBLOCK = 1, 4  # fdflags
KEPT_FLAGS = APPEND | NONBLOCK
"""Flags of an open file that are told as they were set. No file is waited for, so NONBLOCK changes nothing."""

FOLLOW = 1  # lookupflags
RIGHT_READ, RIGHT_WRITE = 1 << 1, 1 << 6
ALL_RIGHTS = (1 << 30) - 1
FROM_START, FROM_HERE, FROM_END = range(3)  # whence
SET_ATIME, SET_ATIME_NOW, SET_MTIME, SET_MTIME_NOW = 1, 2, 4, 8  # fstflags

MAX_VECTORS = 1024
"""Most vectors of one call, as IOV_MAX of common systems, and most subscriptions of one poll."""


class Fault(Exception):
    """A guest pointer is outside of the guest's memory."""


class Refusal(Exception):
    """An import ends with an errno."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


Imported = Callable[..., int]
"""Import of a guest: a capability, and the arguments as unsigned integers -> errno."""


class Capability(Protocol):
    """Group of imports that a world offers to a guest."""

    functions: ClassVar[Mapping[str, Imported]]
    """Name of the import -> method that serves it, with the capability as its first argument."""

    def close(self) -> None:
        """Close resources of the host; the guest is gone. May be called again."""


class GuestMemory(Protocol):
    """Access to the memory of the guest that calls; a range outside of it raises `Fault`."""

    def span(self, pointer: int, size: int) -> int:
        """Address of a range, valid until the guest runs on."""
        ...

    def load(self, pointer: int, size: int) -> bytes:
        """Copy of a range."""
        ...

    def store(self, pointer: int, data: bytes) -> None:
        """Write bytes."""
        ...

    def check(self) -> None:
        """End the guest if its time is over."""
        ...

    def now(self) -> int:
        """Wall clock in nanoseconds since 1970."""
        ...


def vectors(memory: GuestMemory, pointer: int, count: int) -> list[tuple[int, int]]:
    """Ranges that an array of iovec names: (address in this process, size) each.

    Raises:
        Refusal: if there are more than `MAX_VECTORS`, or they are 4 GiB or more together.
        Fault: if the array or a range is outside of the guest's memory.
    """
    if count > MAX_VECTORS:
        raise Refusal(EINVAL)
    pairs = list(struct.iter_unpack("<II", memory.load(pointer, 8 * count)))
    if sum(size for _, size in pairs) > 0xFFFFFFFF:
        raise Refusal(EINVAL)
    return [(memory.span(start, size), size) for start, size in pairs]
