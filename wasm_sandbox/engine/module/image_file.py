"""File of a compiled image: wasmtime's code and, where linear memory is ours, the initial memory of instances.

    code (an ELF file, as wasmtime writes it) | zeros | memory | trailer

The memory begins at a multiple of 64 KiB, so that any system can map it from the file. wasmtime reads its own part
and does not mind what follows it. The code is that of the guest alone: all images of a guest begin with the same.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

ALIGNMENT_BYTES = 64 << 10
"""Alignment of the memory in the file; no supported system has larger pages."""

_TRAILER = struct.Struct("<16s32sQQQ")
_MAGIC = b"wasm-sandbox mm2"


class ImageParts(NamedTuple):
    """Parts of an image's file."""

    code_key: bytes
    """Key of the code (`Build.code_key`): 32 bytes."""
    code_size: int
    """Size of the code, with which the file begins, in bytes."""
    offset: int
    """Offset of the memory in bytes."""
    size: int
    """Size of the memory in bytes."""

    def read_code(self, path: Path) -> bytes:
        """Read the code.

        Raises:
            OSError: if the file cannot be read.
        """
        with path.open("rb") as file:
            return file.read(self.code_size)

    def read_memory(self, path: Path) -> bytes:
        """Read the memory.

        Raises:
            OSError: if the file cannot be read.
        """
        with path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def with_memory(code_key: bytes, code: bytes, memory: bytes) -> bytes:
    """Content of the file of an image with its memory."""
    padding = -len(code) % ALIGNMENT_BYTES
    trailer = _TRAILER.pack(_MAGIC, code_key, len(code), len(code) + padding, len(memory))
    return b"".join((code, bytes(padding), memory, trailer))


def image_parts(path: Path) -> ImageParts | None:
    """Parts of a file; None if wasmtime's code is all there is.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < _TRAILER.size:
            return None
        file.seek(size - _TRAILER.size)
        magic, *fields = _TRAILER.unpack(file.read())
        parts = ImageParts(*fields)
        whole = parts.code_size <= parts.offset and parts.offset + parts.size + _TRAILER.size == size
        return parts if magic == _MAGIC and whole else None
