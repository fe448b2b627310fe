"""Pre-initialisation: write an instance's memory and globals back into its module.

The idea is that of Wizer (https://github.com/bytecodealliance/wizer): run the expensive start-up once,
then make a module whose initial state is what the start-up left. It is only right for a module with
one memory of its own, no start function, a table that start-up did not change, and mutable globals
that can all be read; each is checked.
"""

from __future__ import annotations

from dataclasses import dataclass

from wasm_sandbox.guest import wasm_binary as wb

CHUNK_BYTES = 4096
JOINED_GAP_CHUNKS = 3  # a gap smaller than this costs less than another segment

_ZERO_CHUNK = bytes(CHUNK_BYTES)


class SnapshotError(RuntimeError):
    """A module cannot be pre-initialised: its state is not all in one memory and its globals."""


def mutable_globals(module: bytes) -> list[str]:
    """Names under which a module exports its mutable globals, in the order of the globals.

    Raises:
        SnapshotError: the module does not meet the conditions for a snapshot.
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
    for index, global_ in enumerate(wb.read_globals(bodies.get(wb.GLOBAL, b"\0"))):
        if global_.mutable:
            if index not in by_index:
                raise SnapshotError(f"mutable global {index} is not exported: its value cannot be read")
            names.append(by_index[index])
    return names


def data_segments(memory: bytes) -> list[tuple[int, bytes]]:
    """The parts of a memory that are not zero, as few segments: (address, bytes)."""
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
    """A guest that has been started, as a module and its memory."""

    without_data: bytes
    """The module with the memory's size but not its content: whoever makes instances sees to that."""
    memory: bytes
    globals: dict[str, int]
    """The mutable ones, by the names under which the module that was run exported them."""

    def module(self) -> bytes:
        """The module with all that it needs."""
        # Last in a module, after the code. Without a data count section, code that used passive segments
        # would no longer validate: compiling the result proves that there is none.
        return self.without_data + wb.section(wb.DATA, wb.active_data(data_segments(self.memory)))


def take_snapshot(module: bytes, memory: bytes, globals_: dict[str, int], dropped_exports: frozenset[str]) -> Snapshot:
    """A module that starts with this memory and these mutable globals; its code is untouched.

    Args:
        module: the module that was run, as bytes.
        memory: its whole linear memory, a multiple of 64 KiB.
        globals_: export name -> value, for each name of `mutable_globals`.
        dropped_exports: functions that must not run a second time.

    Raises:
        SnapshotError: as `mutable_globals`, or a value is missing.
    """
    names = mutable_globals(module)
    if missing := [name for name in names if name not in globals_]:
        raise SnapshotError(f"no value for the mutable globals {', '.join(missing)}")
    if len(memory) % wb.PAGE_BYTES:
        raise SnapshotError("the memory is not a whole number of pages")
    out = [wb.HEADER]
    for number, body in wb.sections(module):
        match number:
            case wb.CUSTOM | wb.DATA | wb.DATA_COUNT:
                continue
            case wb.MEMORY:
                new = wb.memory_with_minimum(body, len(memory) // wb.PAGE_BYTES)
            case wb.GLOBAL:
                remaining = iter(names)
                entries = [
                    g.with_value(globals_[next(remaining)]) if g.mutable else g.encoded for g in wb.read_globals(body)
                ]
                new = wb.unsigned(len(entries)) + b"".join(entries)
            case wb.EXPORT:
                new = wb.write_exports([e for e in wb.read_exports(body) if e.name not in dropped_exports])
            case _:
                new = body
        out.append(wb.section(number, new))
    return Snapshot(b"".join(out), memory, globals_)
