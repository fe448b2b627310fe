"""The file of a compiled image: wasmtime's code and, where linear memory is ours, what instances' memory starts as.

    code (an ELF file, as wasmtime writes it) | zeros | memory | trailer

The memory begins at a multiple of 64 KiB, so that any system can map it from the file. wasmtime reads its own part
and does not mind what follows it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

ALIGNMENT_BYTES = 64 << 10
"""No supported system has larger pages."""

_TRAILER = struct.Struct("<16sQQ")
_MAGIC = b"wasm-sandbox mem"


@dataclass(frozen=True)
class MemoryPart:
    """Where in the file the memory is, in bytes."""

    offset: int
    size: int


def with_memory(code: bytes, memory: bytes) -> bytes:
    """The content of the file of an image that brings its memory along."""
    padding = -len(code) % ALIGNMENT_BYTES
    return b"".join((code, bytes(padding), memory, _TRAILER.pack(_MAGIC, len(code) + padding, len(memory))))


def memory_part(path: Path) -> MemoryPart | None:
    """Where the memory is in a file; None if wasmtime's code is all there is."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < _TRAILER.size:
            return None
        file.seek(size - _TRAILER.size)
        magic, offset, length = _TRAILER.unpack(file.read())
    if magic != _MAGIC or offset % ALIGNMENT_BYTES or offset + length + _TRAILER.size != size:
        return None
    return MemoryPart(offset, length)
