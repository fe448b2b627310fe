"""The file of a compiled image: wasmtime's code and, where linear memory is ours, what instances' memory starts as.

    code (an ELF file, as wasmtime writes it) | zeros | memory | globals, in JSON | trailer

The memory begins at a multiple of 64 KiB, so that any system can map it from the file. wasmtime reads its own part
and does not mind what follows it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wasm_sandbox.guest.snapshot import Snapshot

ALIGNMENT_BYTES = 64 << 10
"""No supported system has larger pages."""

_TRAILER = struct.Struct("<16sQQQ")
_MAGIC = b"wasm-sandbox mem"


class MemoryPart(NamedTuple):
    """Where in the file the memory is, in bytes, and the globals that belong to it."""

    offset: int
    size: int
    globals: dict[str, int]

    def read(self, path: Path) -> bytes:
        """The memory itself; raises OSError."""
        with path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def with_memory(code: bytes, snapshot: Snapshot) -> bytes:
    """The content of the file of an image that brings its memory along."""
    padding = -len(code) % ALIGNMENT_BYTES
    globals_ = json.dumps(snapshot.globals, sort_keys=True).encode()
    trailer = _TRAILER.pack(_MAGIC, len(code) + padding, len(snapshot.memory), len(globals_))
    return b"".join((code, bytes(padding), snapshot.memory, globals_, trailer))


def memory_part(path: Path) -> MemoryPart | None:
    """Where the memory is in a file; None if wasmtime's code is all there is."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < _TRAILER.size:
            return None
        file.seek(size - _TRAILER.size)
        magic, offset, length, globals_length = _TRAILER.unpack(file.read())
        if magic != _MAGIC or offset + length + globals_length + _TRAILER.size != size:
            return None
        file.seek(offset + length)
        return MemoryPart(offset, length, json.loads(file.read(globals_length)))
