"""The file of a compiled image: wasmtime's code and, where linear memory is ours, what instances' memory starts as.

    code (an ELF file, as wasmtime writes it) | zeros | memory | trailer

The memory begins at a multiple of 64 KiB, so that any system can map it from the file. wasmtime reads its own part
and does not mind what follows it. The code is that of the guest alone: all images of a guest begin with the same.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

ALIGNMENT_BYTES = 64 << 10
"""No supported system has larger pages."""

_TRAILER = struct.Struct("<16s32sQQQ")
_MAGIC = b"wasm-sandbox mm2"


class ImageParts(NamedTuple):
    """Where in an image's file its parts are, in bytes."""

    code_key: bytes
    """Names what the code was compiled from, for what and how: 32 bytes."""
    code_size: int
    """The code begins the file."""
    offset: int
    """Of the memory."""
    size: int
    """Of the memory."""

    def read_code(self, path: Path) -> bytes:
        """The code; raises OSError."""
        with path.open("rb") as file:
            return file.read(self.code_size)

    def read_memory(self, path: Path) -> bytes:
        """The memory; raises OSError."""
        with path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def with_memory(code_key: bytes, code: bytes, memory: bytes) -> bytes:
    """The content of the file of an image that brings its memory along."""
    padding = -len(code) % ALIGNMENT_BYTES
    trailer = _TRAILER.pack(_MAGIC, code_key, len(code), len(code) + padding, len(memory))
    return b"".join((code, bytes(padding), memory, trailer))


def image_parts(path: Path) -> ImageParts | None:
    """The parts of a file; None if wasmtime's code is all there is. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < _TRAILER.size:
            return None
        file.seek(size - _TRAILER.size)
        magic, *fields = _TRAILER.unpack(file.read())
        parts = ImageParts(*fields)
        whole = parts.code_size <= parts.offset and parts.offset + parts.size + _TRAILER.size == size
        return parts if magic == _MAGIC and whole else None
