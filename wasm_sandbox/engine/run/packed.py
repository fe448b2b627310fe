"""Checkpoints that are kept in little memory while nobody needs them: what differs from the image, bit by bit.

Most of a small session's pages differ from the image's in a few counts of references.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from wasm_sandbox.engine.run.point import Checkpoint, GuestMemory

Content = Callable[[int, int], bytes]
"""Content of an image's memory: offset and size of a range -> its bytes, zeros behind the image's end."""

_LEVEL = 1
"""Level of the compression: almost all of it is zeros."""


class Packed(NamedTuple):
    """Checkpoint, packed."""

    rest: Checkpoint
    """The checkpoint without the ranges of its memory."""
    places: tuple[tuple[int, int], ...]
    """Offset and size of each range."""
    data: bytes
    """Difference of all ranges to the image, compressed."""

    def unpacked(self, content: Content) -> Checkpoint:
        """The checkpoint as it was."""
        differences = zlib.decompress(self.data)
        memory = replace(self.rest.memory, changed=tuple(_pieces(self.places, differences, content)))
        return replace(self.rest, memory=memory)


def pack(point: Checkpoint, content: Content) -> Packed:
    """Pack a checkpoint.

    Args:
        point: the checkpoint.
        content: content of its image.
    """
    changed = point.memory.changed
    places = tuple((offset, len(data)) for offset, data in changed)
    differences = b"".join(_difference(data, content(offset, len(data))) for offset, data in changed)
    memory = GuestMemory(point.memory.size, (), point.memory.globals)
    # In one piece: each call gives the interpreter lock away, and may wait for it.
    return Packed(replace(point, memory=memory), places, zlib.compress(differences, _LEVEL))


def _pieces(places: Sequence[tuple[int, int]], differences: bytes, content: Content) -> Iterator[tuple[int, bytes]]:
    at = 0
    for offset, size in places:
        yield offset, _difference(differences[at : at + size], content(offset, size))
        at += size


def _difference(data: bytes, other: bytes) -> bytes:
    """Bits in which two texts of one size differ; of these and one of the texts it makes the other one."""
    return (int.from_bytes(data, "little") ^ int.from_bytes(other, "little")).to_bytes(len(data), "little")
