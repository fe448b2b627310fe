"""Pre-initialisation: write an instance's memory back into its module.

The idea is that of Wizer (https://github.com/bytecodealliance/wizer): run the expensive start-up once,
then make a module whose initial state is what the start-up left. It is only right for a module with
one memory of its own, no start function, and a table and mutable globals that start-up left as they
were; each is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wasm_sandbox.engine.module import binary as wb

CHUNK_BYTES = 4096
JOINED_GAP_CHUNKS = 3  # a gap smaller than this costs less than another segment

_ZERO_CHUNK = bytes(CHUNK_BYTES)
_DATA = frozenset({wb.CUSTOM, wb.DATA, wb.DATA_COUNT})


class SnapshotError(RuntimeError):
    """A module cannot be pre-initialised: its state is not all in one memory."""


def mutable_globals(module: bytes) -> list[str]:
    """Export names of a module's mutable globals, in the order of the globals.

    Raises:
        SnapshotError: if the module does not meet the conditions for a snapshot.
    """
    bodies = dict(wb.sections(module))
    if wb.START in bodies:
        raise SnapshotError("the module has a start function: it would run again in every instance")
    if wb.MEMORY not in bodies:
        raise SnapshotError("the module has no memory of its own")
    if any(wb.import_counts(bodies.get(wb.IMPORT, b"\0"))[1:]):
        raise SnapshotError("the module imports something other than functions")
    if wb.Reader(bodies[wb.MEMORY]).unsigned() != 1:
        raise SnapshotError("the module has more than one memory")
    exports = wb.read_exports(bodies.get(wb.EXPORT, b"\0"))
    by_index = {e.index: e.name for e in exports if e.kind == wb.EXPORT_GLOBAL}
    names = []
    for index, is_mutable in enumerate(wb.mutable_globals(bodies.get(wb.GLOBAL, b"\0"))):
        if is_mutable:
            if index not in by_index:
                raise SnapshotError(f"mutable global {index} is not exported: its value cannot be read")
            names.append(by_index[index])
    return names


def data_segments(memory: bytes) -> list[tuple[int, bytes]]:
    """Segments for the parts of a memory that are not zero: (address, bytes)."""
    runs: list[list[int]] = []
    for start in range(0, len(memory), CHUNK_BYTES):
        if memory[start : start + CHUNK_BYTES] == _ZERO_CHUNK:
            continue
        if runs and start - runs[-1][1] < JOINED_GAP_CHUNKS * CHUNK_BYTES:
            runs[-1][1] = start + CHUNK_BYTES
        else:
            runs.append([start, start + CHUNK_BYTES])
    return [(start, memory[start:end].rstrip(b"\0")) for start, end in runs]


@dataclass(frozen=True)
class Snapshot:
    """A guest after its start-up."""

    built: bytes
    """Module that was started."""
    memory: bytes
    """Whole linear memory after that, a multiple of 64 KiB."""

    def module(self, dropped_exports: frozenset[str] = frozenset()) -> bytes:
        """Module that starts with this memory; its code is untouched.

        Args:
            dropped_exports: names of exports to leave out, of functions that must not run a second time.

        Raises:
            SnapshotError: if the module does not meet the conditions for a snapshot, or the memory is not a whole
                number of pages.
        """
        mutable_globals(self.built)
        if len(self.memory) % wb.PAGE_BYTES:
            raise SnapshotError("the memory is not a whole number of pages")
        out = [wb.HEADER]
        for number, body in wb.sections(without_data(self.built)):
            match number:
                case wb.MEMORY:
                    new = wb.memory_with_minimum(body, len(self.memory) // wb.PAGE_BYTES)
                case wb.EXPORT:
                    new = wb.write_exports([e for e in wb.read_exports(body) if e.name not in dropped_exports])
                case _:
                    new = body
            out.append(wb.section(number, new))
        # Last in a module, after the code.
        return b"".join(out) + wb.section(wb.DATA, wb.active_data(data_segments(self.memory)))


def without_data(module: bytes) -> bytes:
    """Module without its data: whoever makes instances fills their memory.

    It is the same for all snapshots of a guest. Without a data count section, code that used passive segments no
    longer validates: compiling it proves that there is none.
    """
    parts = [wb.section(number, body) for number, body in wb.sections(module) if number not in _DATA]
    return b"".join([wb.HEADER, *parts])


def initial_memory(module: bytes) -> tuple[int, Iterator[tuple[int, bytes]]]:
    """Initial size of a module's memory in bytes, and its segments: (address, bytes).

    Raises:
        MalformedModule: if a segment is none of `active_data`.
    """
    bodies = dict(wb.sections(module))
    return wb.minimum_pages(bodies[wb.MEMORY]) * wb.PAGE_BYTES, wb.read_active_data(bodies.get(wb.DATA, b"\0"))
