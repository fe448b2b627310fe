"""Memories of guests at rest in files without a name (Linux), which any number of slots map copy-on-write.

A session is forked by giving another slot its pages. To copy them is to touch each of them; long runs of pages are
mapped instead, from a file that is written once, and a guest pays for those that it writes to. It is made when a
memory is asked for a second time: one that is restored once is copied.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from wasm_sandbox.engine.memory.address_space import PAGE_BYTES

RUN_BYTES = 256 << 10
"""Size from which a run of pages is mapped: below it copying is as quick, and takes no mapping of the process's."""

MAX_RUNS = 64
"""Most runs of one memory: each takes up to two of the 65,530 mappings that a process may have."""

MAX_FROZEN = 16
MAX_FROZEN_BYTES = 512 << 20
"""Most files that one image's memories are in, and their bytes; what is mapped stays until the last slot lets go."""

_log = logging.getLogger(__name__)


class Shared:
    """What slots share of one memory at rest, beside its pieces; only `FrozenMemories` looks into it."""

    is_known = False
    frozen: Frozen | None = None


class Pieces(Protocol):
    """State of a memory at rest, of which only this matters here."""

    @property
    def changed(self) -> Sequence[tuple[int, bytes]]:
        """Offset and bytes of each piece, in order."""

    @property
    def shared(self) -> Shared:
        """What slots share of it."""


class Run(NamedTuple):
    """Run of pages in a file."""

    start: int
    """Offset in the memory."""
    end: int
    place: int
    """Offset in the file."""


# Guarantees: the file is sealed: nobody changes it, whoever maps it; it is closed by `__del__`, after the last of those
# who are about to map it. Locks: none.
class Frozen:
    """Long runs of a memory's pages in a sealed file.

    Args:
        pieces: offset and bytes of each piece of the memory.

    Raises:
        OSError: if the system makes no such file, or has no room for it.
    """

    def __init__(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        self.descriptor = -1
        self.runs: tuple[Run, ...] = ()
        self.pieces = {offset: data for run in _runs(pieces) for offset, data in run}
        """Pieces in the file."""
        if not self.pieces:
            return
        import fcntl  # lazy: Windows has none

        self.descriptor = os.memfd_create("wasm-sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            self.runs = tuple(self._written(_runs(pieces)))
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            self.close()
            raise

    def _written(self, runs: Sequence[Sequence[tuple[int, bytes]]]) -> list[Run]:
        found, place = [], 0
        for run in runs:
            start = run[0][0]
            end = run[-1][0] + len(run[-1][1])
            found.append(Run(start, end, place))
            for _, data in run:
                if os.pwrite(self.descriptor, data, place) != len(data):
                    raise OSError("the system has no room for a frozen memory")
                place += len(data)
        return found

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return sum(map(len, self.pieces.values()))

    def close(self) -> None:
        """Close the file; mappings of it stay."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _runs(pieces: Sequence[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
    """Pieces of whole pages, one after the other without a gap, in runs that are long enough; the longest ones."""
    runs: list[list[tuple[int, bytes]]] = []
    end = -1
    for offset, data in pieces:
        if offset % PAGE_BYTES or len(data) % PAGE_BYTES:
            continue
        if offset != end:
            runs.append([])
        runs[-1].append((offset, data))
        end = offset + len(data)
    sized = [(sum(len(data) for _, data in run), run) for run in runs]
    longest = sorted((found for found in sized if found[0] >= RUN_BYTES), key=lambda found: -found[0])[:MAX_RUNS]
    return sorted(run for _, run in longest)


# Guarantees: any thread may ask at any time; two that ask at once may both make a file, of which one is kept. A file
# goes with its memory. Locks: `_lock` guards what is shared of all memories, and `_last`; no file is made with it.
class FrozenMemories:
    """Frozen memories of one image's guests, of which a bounded number have a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: list[weakref.ref[Shared]] = []
        """Those with a file, the one that was asked for last at the end."""

    def of(self, memory: Pieces) -> Frozen | None:
        """What of a memory is in a file; None if all of it is to be copied."""
        if sum(len(data) for _, data in memory.changed) < RUN_BYTES or not hasattr(os, "memfd_create"):
            return None
        shared = memory.shared
        with self._lock:
            is_known, shared.is_known = shared.is_known, True
            if shared.frozen is not None or not is_known:
                return self._used(shared)
        try:
            frozen = Frozen(memory.changed)
        except OSError as error:
            _log.debug("a memory is not frozen: %s", error)
            return None
        with self._lock:
            shared.frozen = frozen
            return self._used(shared)

    def _used(self, shared: Shared) -> Frozen | None:
        """Its file, which is the last one to be dropped now; the caller holds `_lock`."""
        frozen = shared.frozen
        if frozen is None or not frozen.runs:
            return frozen
        others = [found for found in self._last if (other := found()) is not None and other is not shared]
        self._last = [*others, weakref.ref(shared)]
        room = MAX_FROZEN_BYTES
        for number, reference in enumerate(reversed(self._last)):
            if (found := reference()) is not None and found.frozen is not None:
                room -= found.frozen.nbytes
                if number and (number >= MAX_FROZEN or room < 0):
                    found.frozen = None
        return frozen
