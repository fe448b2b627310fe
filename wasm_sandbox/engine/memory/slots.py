"""Linear memory of ours (Linux): kept between runs, restored from the image.

The first touch of a page costs more than most of what a short guest does with it. So a guest's memory is a *slot*:
a copy-on-write mapping of the image's memory. After a run the pages that were written to are copied back from the
image; the next guest finds them mapped. Where the system cannot tell which pages those are, or where they are many,
all that was written is dropped, and the pages are mapped anew.

`kept.KeptMemory` hands them out. Elsewhere wasmtime makes each instance's memory (`wasmtimes.WasmtimeMemory`).
"""

from __future__ import annotations

import ctypes
import logging
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.memory.address_space import NO_ACCESS, READ, READ_WRITE, AddressSpace, PageScanner
from wasm_sandbox.engine.memory.address_space import PAGE_BYTES as SYSTEM_PAGE_BYTES
from wasm_sandbox.engine.memory.frozen import Frozen, FrozenMemories, Pieces
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
"""Most bytes of written pages that a slot keeps; after a run that wrote to more it keeps none. A small tool writes to
1 to 2 MiB."""

SCANNED_BYTES = 2 << 20
"""Part of a memory that has no more ranges of pages than a scan tells."""

PIECE_BYTES = 64 << 10
"""Size of the pieces that a memory is told in, and compared in."""

_log = logging.getLogger(__name__)


class MappedMemory:
    """Linear memory in an address range of its own, between guards, zero at first.

    Args:
        space: system calls.
        minimum: size in bytes.

    Raises:
        OSError: if the system gives no memory.
        NoRoom: if the size is beyond `capacity`.
    """

    capacity = ADDRESSABLE_BYTES
    reserved_bytes = ADDRESSABLE_BYTES
    guard_bytes = GUARD_BYTES
    bytes_before = GUARD_BYTES

    def __init__(self, space: AddressSpace, minimum: int) -> None:
        self._space = space
        self._reserved = space.reserve(self.bytes_before + RESERVED_BYTES)
        self.address, self.size = self._reserved + self.bytes_before, 0
        try:
            self.grow(minimum)
        except BaseException:
            self.close()
            raise

    def grow(self, size: int) -> None:
        """Make the memory so many bytes large; a smaller size changes nothing.

        Raises:
            OSError: if the system gives no memory.
            NoRoom: if the size is beyond `capacity`.
        """
        if size > self.capacity:
            raise capi.NoRoom
        if size > self.size:
            self._space.protect(self.address + self.size, size - self.size, READ_WRITE)
            self.size = size

    def close(self) -> None:
        """Unmap the memory and its guards."""
        reserved, self._reserved = self._reserved, 0
        if reserved:
            self._space.release(reserved, self.bytes_before + RESERVED_BYTES)


class PollMemory(MappedMemory):
    """Poll page, which can only be read, behind a guard and the pause word (`poll_page`, `pausing`)."""

    capacity = POLL_PAGE_BYTES
    bytes_before = WORD_DISTANCE

    def grow(self, size: int) -> None:
        if size != POLL_PAGE_BYTES:
            raise capi.NoRoom
        self._space.protect(self.address, size, READ)
        self._space.protect(self.address - WORD_DISTANCE, WORD_PAGE_BYTES, READ_WRITE)
        self.size = size

    def stop(self) -> None:
        """Make the page unreadable: the guest is stopped at its next charge."""
        self._space.protect(self.address, self.size, NO_ACCESS)

    def restore(self) -> None:
        """Make the page readable again, after `stop` or a pause."""
        self._space.protect(self.address, self.size, READ)


# Guarantees: the mapping is only read, and stays as it is as long as an instance's slot refers to it: the pool of the
# image and every slot do, so it is closed by `__del__`, after the last of them. Locks: none.
class ImageMemory:
    """Initial memory of an image: a part of its file, mapped once to restore slots from.

    Args:
        space: system calls.
        path: the image's file.
        parts: the place of the memory in it.
        scanner: finder of written pages; without one all pages of a slot are mapped anew.

    Raises:
        OSError: if the file cannot be opened or mapped.
    """

    def __init__(self, space: AddressSpace, path: Path, parts: ImageParts, scanner: PageScanner | None) -> None:
        self.offset, self.size = parts.offset, parts.size
        self._space, self._scanner = space, scanner
        self.frozen = FrozenMemories()
        self.address = 0
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.address = space.map_file(None, self.size, READ, self.descriptor, self.offset)
        except BaseException:
            self.close()
            raise

    def content(self, offset: int, size: int) -> bytes:
        """Bytes of a range, as far as it is in the image."""
        return ctypes.string_at(self.address + offset, max(0, min(size, self.size - offset)))

    def new_slot(self) -> Slot:
        """Memories for one more instance.

        Raises:
            OSError: if the system gives no memory.
        """
        return Slot(self._space, self, self._scanner)

    def close(self) -> None:
        """Unmap the memory and close the file; no slot may need it any more."""
        address, self.address = self.address, 0
        descriptor, self.descriptor = self.descriptor, -1
        if address:
            self._space.release(address, self.size)
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class Memories:
    """Linear memory and poll page of one guest.

    Args:
        space: system calls.
        size: size of the linear memory in bytes.

    Raises:
        OSError: if the system gives no memory.
    """

    def __init__(self, space: AddressSpace, size: int) -> None:
        self._mapped: list[MappedMemory] = []
        self.linear = MappedMemory(space, size)
        self._mapped.append(self.linear)
        self.poll = PollMemory(space, POLL_PAGE_BYTES)
        self._mapped.append(self.poll)

    def close(self) -> None:
        """Unmap both memories; the guest must be gone."""
        mapped, self._mapped = self._mapped, []
        for memory in mapped:
            memory.close()

    def __del__(self) -> None:
        self.close()


class Slot(Memories):
    """Memories of one guest of an image, to be restored and used again; at first as the image has them."""

    def __init__(self, space: AddressSpace, image: ImageMemory, scanner: PageScanner | None) -> None:
        self._space, self._image, self._scanner = space, image, scanner
        super().__init__(space, 0)
        self._kept: list[tuple[int, int]] | None = []
        """Ranges of the pages that are kept of earlier guests, the image's again; None if nobody knows them."""
        self._frozen: Frozen | None = None
        """What is mapped instead of the image's pages."""
        self._map_image(0, image.size)
        self.linear.size = image.size

    def _map_image(self, start: int, end: int) -> None:
        image = self._image
        at = self.linear.address + start
        self._space.map_file(at, end - start, READ_WRITE, image.descriptor, image.offset + start)

    @property
    def poll_span(self) -> tuple[int, int]:
        """Address and size of the poll page."""
        return self.poll.address, self.poll.size

    def put(self, memory: Pieces) -> None:
        """Make a slot that is as the image what a guest's memory was at rest; it must be as large already.

        Then `written` tells of that, and of what is written from now on.

        Args:
            memory: pieces that differ from the image.

        Raises:
            OSError: if the system refuses a call; the slot is of no use then.
            ValueError: if a piece is outside of the memory.
        """
        pieces, base, limit = memory.changed, self.linear.address, self.linear.size
        if any(offset < 0 or offset + len(data) > limit for offset, data in pieces):
            raise ValueError("a piece is outside of the memory")
        self._let_go_of_others(pieces)
        frozen = self._image.frozen.of(memory)
        mapped: Mapping[int, bytes] = {}
        if frozen is not None and frozen.runs:
            self._frozen, mapped = frozen, frozen.pieces
            for start, end, place in frozen.runs:
                self._space.map_file(base + start, end - start, READ_WRITE, frozen.descriptor, place)
        for offset, data in pieces:
            if offset not in mapped:
                self._space.copy(base + offset, data, len(data))

    def _let_go_of_others(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Drop the pages that were kept of an earlier guest, and are the image's again, but for those of the pieces."""
        base, (kept, self._kept) = self.linear.address, (self._kept, None)
        if kept is None:
            self._space.forget_changes(base, self._image.size)
            return
        for start, end in _without(kept, pieces):
            self._space.forget_changes(base + start, end - start)

    def written(self, before: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
        """What differs from the image, and what was written to: offset and bytes of pieces of whole pages, in order.

        Where the system cannot tell, it is all of the memory that is not as in the image.

        Args:
            before: pieces of an earlier time; those that are the same now are given again, and not copied.

        Raises:
            OSError: if the system refuses a call.
        """
        base = self.linear.address
        ranges = list(self._different() if self._scanner is None else self._touched(0, self.linear.size))
        untouched: Mapping[int, bytes] = {}
        if self._frozen is not None:
            untouched = _outside_of(ranges, self._frozen.pieces)
            ranges = _joined([*ranges, *((run.start, run.end) for run in self._frozen.runs)])
        found = []
        for start, end in ranges:
            at = start
            while at < end:
                size = min(end, at // PIECE_BYTES * PIECE_BYTES + PIECE_BYTES) - at
                piece = untouched.get(at)
                if piece is None or len(piece) != size:
                    piece = before.get(at)
                    if piece is None or len(piece) != size or not self._space.is_equal(base + at, piece):
                        piece = ctypes.string_at(base + at, size)
                found.append((at, piece))
                at += size
        return found

    def _different(self) -> Iterator[tuple[int, int]]:
        base, image, size = self.linear.address, self._image.address, self._image.size
        for at in range(0, self.linear.size, PIECE_BYTES):
            now = ctypes.string_at(base + at, min(PIECE_BYTES, self.linear.size - at))
            known = max(0, min(len(now), size - at))
            if now != ctypes.string_at(image + at, known) + bytes(len(now) - known):
                yield at, at + len(now)

    def _touched(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges of offsets that were written to, in order; all of a part in which there are more than a scan tells."""
        assert self._scanner is not None
        base = self.linear.address
        written = self._scanner.written(base + start, end - start, (end - start) // SYSTEM_PAGE_BYTES)
        if written is not None:
            yield from ((first - base, last - base) for first, last in written)
        elif end - start <= SCANNED_BYTES:
            yield start, end
        else:
            middle = start + (end - start) // 2 // SYSTEM_PAGE_BYTES * SYSTEM_PAGE_BYTES
            yield from self._touched(start, middle)
            yield from self._touched(middle, end)

    def restore(self) -> None:
        """Make the memory equal to the image's again, to the last byte. The guest that had it must be gone.

        Raises:
            OSError: if the system refuses a call; the slot is of no use then.
        """
        address, size = self.linear.address, self._image.size
        self._kept = None
        if self.linear.size > size:
            self._space.empty(address + size, self.linear.size - size)
            self.linear.size = size
        if self._frozen is not None:
            for start, end, _ in self._frozen.runs:
                if start < size:
                    self._map_image(start, min(end, size))
            self._frozen = None
        written = self._written(address, size)
        if written is None:
            self._space.forget_changes(address, size)
        else:
            distance = self._image.address - address
            for start, end in written:
                ctypes.memmove(start, start + distance, end - start)
        self._kept = [(start - address, end - address) for start, end in written or ()]
        self.poll.restore()

    def _written(self, address: int, size: int) -> list[tuple[int, int]] | None:
        """Start and end of every range of pages to restore; None for the whole memory."""
        if self._scanner is None:
            return None
        try:
            return self._scanner.written(address, size, MOST_KEPT_BYTES // SYSTEM_PAGE_BYTES)
        except OSError as error:  # a filter of system calls that came after the engine
            _log.debug("pages cannot be looked for: %s", error)
            return None


def _without(ranges: Iterable[tuple[int, int]], pieces: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, int]]:
    """Parts of ranges of pages that no piece touches, in whole pages; both are in order."""
    number = 0
    for first, end in ranges:
        start = first
        while number < len(pieces) and pieces[number][0] + len(pieces[number][1]) <= start:
            number += 1
        at = number
        while at < len(pieces) and pieces[at][0] < end:
            offset, data = pieces[at]
            if start < (before := offset // SYSTEM_PAGE_BYTES * SYSTEM_PAGE_BYTES):
                yield start, before
            start = max(start, -(-(offset + len(data)) // SYSTEM_PAGE_BYTES) * SYSTEM_PAGE_BYTES)
            at += 1
        if start < end:
            yield start, end


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch or overlap as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _outside_of(ranges: Sequence[tuple[int, int]], pieces: Mapping[int, bytes]) -> Mapping[int, bytes]:
    """Pieces that no range touches; the ranges are in order and apart."""
    ends = [end for _, end in ranges]
    found = {}
    for offset, data in pieces.items():
        at = bisect_left(ends, offset + 1)  # the first range that ends behind the piece's beginning
        if at == len(ranges) or ranges[at][0] >= offset + len(data):
            found[offset] = data
    return found
