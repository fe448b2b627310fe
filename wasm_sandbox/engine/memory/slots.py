"""Linear memory that is ours and not wasmtime's (Linux): kept between runs, put back as the image has it.

The first touch of a page costs more than most of what a short guest does with it. So a guest's memory is a *slot*:
a private mapping of the image's memory, and after a run the pages that were written to are copied back from the
image; the next guest finds them there, and touches nothing for the first time. Where the system cannot tell which
pages those are, or where they are many, what was written is dropped altogether, and the pages come anew.

`kept.KeptMemory` hands them out. Elsewhere wasmtime makes each instance's memory (`wasmtimes.WasmtimeMemory`).
"""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.memory.address_space import NO_ACCESS, READ, READ_WRITE, AddressSpace, PageScanner
from wasm_sandbox.engine.memory.address_space import PAGE_BYTES as SYSTEM_PAGE_BYTES
from wasm_sandbox.engine.memory.layout import (
    ADDRESSABLE_BYTES,
    GUARD_BYTES,
    POLL_PAGE_BYTES,
    RESERVED_BYTES,
    WORD_DISTANCE,
    WORD_PAGE_BYTES,
)
from wasm_sandbox.engine.module.image_file import ImageParts

MOST_KEPT_BYTES = 4 << 20
"""A run that has written to more pages than this leaves none of them behind. A small tool writes to 1 to 2 MiB."""

_log = logging.getLogger(__name__)


class PlainMemory:
    """The memory of an instance of any module, empty at first, for one use."""

    capacity = ADDRESSABLE_BYTES
    bytes_before = GUARD_BYTES

    def __init__(self, space: AddressSpace, minimum: int) -> None:
        self._space = space
        self._reserved = space.reserve(self.bytes_before + RESERVED_BYTES)
        self.address, self.size = self._reserved + self.bytes_before, 0
        try:
            self.grow(minimum)
        except OSError:
            self.release()
            raise

    def grow(self, size: int) -> None:
        """Make so many bytes usable from the first one on; raises OSError or `capi.NoRoom`."""
        if size > self.capacity:
            raise capi.NoRoom
        if size > self.size:
            self._space.protect(self.address + self.size, size - self.size, READ_WRITE)
            self.size = size

    def release(self) -> None:
        self._space.release(self._reserved, self.bytes_before + RESERVED_BYTES)


class PollMemory(PlainMemory):
    """A memory of one page that can only be read: what a guest is stopped and paused by (`poll_page`).

    In front of its guard is its pause word (`pausing`).
    """

    capacity = POLL_PAGE_BYTES
    bytes_before = WORD_DISTANCE

    def grow(self, size: int) -> None:
        if size != POLL_PAGE_BYTES:
            raise capi.NoRoom
        self._space.protect(self.address, size, READ)
        self._space.protect(self.address - WORD_DISTANCE, WORD_PAGE_BYTES, READ_WRITE)
        self.size = size

    def close(self) -> None:
        """Make it unreadable: the guest is stopped at its next charge."""
        self._space.protect(self.address, self.size, NO_ACCESS)

    def restore(self) -> None:
        """Readable again after it was closed."""
        self._space.protect(self.address, self.size, READ)


class ImageMemory:
    """An image's memory: a part of its file, mapped once to copy from.

    Args:
        space: system calls.
        path: the image's file.
        parts: where in it the memory is.
        scanner: finds the pages of a slot to put back; without one all of them come anew.
    """

    def __init__(self, space: AddressSpace, path: Path, parts: ImageParts, scanner: PageScanner | None) -> None:
        self.offset, self.size = parts.offset, parts.size
        self._space, self._scanner = space, scanner
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.address = space.map_file(None, self.size, READ, self.descriptor, self.offset)
        except BaseException:
            os.close(self.descriptor)
            raise

    def new_slot(self) -> Slot:
        """The memories for one instance; raises OSError if the system gives none."""
        return Slot(self._space, self, self._scanner)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._space.release(self.address, self.size)
            os.close(self.descriptor)


class Memories:
    """The memories of one guest: its linear memory, of so many bytes at first, and its poll page."""

    def __init__(self, space: AddressSpace, size: int) -> None:
        self.linear = PlainMemory(space, size)
        self.poll = PollMemory(space, POLL_PAGE_BYTES)

    def __del__(self) -> None:
        for memory in (getattr(self, "linear", None), getattr(self, "poll", None)):
            if memory is not None:
                memory.release()


class Slot(Memories):
    """The memories of one guest of an image, which are kept: its linear memory is as the image has it."""

    def __init__(self, space: AddressSpace, image: ImageMemory, scanner: PageScanner | None) -> None:
        self._space, self._image, self._scanner = space, image, scanner
        super().__init__(space, 0)
        space.map_file(self.linear.address, image.size, READ_WRITE, image.descriptor, image.offset)
        self.linear.size = image.size

    @property
    def poll_span(self) -> tuple[int, int]:
        """Address and size of the poll page."""
        return self.poll.address, self.poll.size

    def restore(self) -> None:
        """Make the memory equal to the image's again, to the last byte; raises OSError.

        The guest that had it must be gone.
        """
        address, size = self.linear.address, self._image.size
        if self.linear.size > size:
            self._space.empty(address + size, self.linear.size - size)
            self.linear.size = size
        written = self._written(address, size)
        if written is None:
            self._space.forget_changes(address, size)
        else:
            distance = self._image.address - address
            for start, end in written:
                ctypes.memmove(start, start + distance, end - start)
        self.poll.restore()

    def _written(self, address: int, size: int) -> list[tuple[int, int]] | None:
        """The pages to put back; None for all of them."""
        if self._scanner is None:
            return None
        try:
            return self._scanner.written(address, size, MOST_KEPT_BYTES // SYSTEM_PAGE_BYTES)
        except OSError as error:  # a filter of system calls that came after the engine
            _log.debug("pages cannot be looked for: %s", error)
            return None
