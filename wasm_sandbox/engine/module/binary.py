"""Reading and writing the parts of the WebAssembly binary format that a snapshot changes.

Format: https://webassembly.github.io/spec/core/binary/ (sections, vectors and LEB128 numbers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

HEADER = b"\0asm\x01\0\0\0"
PAGE_BYTES = 65536

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA, DATA_COUNT, TAG = range(14)
SECTION_ORDER = (TYPE, IMPORT, FUNCTION, TABLE, MEMORY, TAG, GLOBAL, EXPORT, START, ELEMENT, DATA_COUNT, CODE, DATA)

EXPORT_MEMORY, EXPORT_GLOBAL = 2, 3
IMPORT_FUNCTION, IMPORT_TABLE, IMPORT_MEMORY, IMPORT_GLOBAL = range(4)

_END = 0x0B
_I32_CONST, _I64_CONST, _F32_CONST, _F64_CONST = 0x41, 0x42, 0x43, 0x44
_CONST_BYTES = {_F32_CONST: 4, _F64_CONST: 8}


_SEGMENT = re.compile(rb"\x00\x41([\x80-\xff]{0,4}[\x00-\x7f])\x0b")
"""Head of an active data segment of memory 0: its address, a constant."""


class MalformedModule(ValueError):
    """The bytes are not a WebAssembly module that can be rewritten."""


def unsigned(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        if not value:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def signed(value: int) -> bytes:
    """Signed LEB128."""
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        if (value == 0 and not low & 0x40) or (value == -1 and low & 0x40):
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def text(value: str) -> bytes:
    """Name: its UTF-8 bytes after their number."""
    raw = value.encode()
    return unsigned(len(raw)) + raw


class Reader:
    """Cursor over a section.

    Every method raises `MalformedModule` at the end of the section.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise MalformedModule("the module is cut short")
        self.at += 1
        return self.data[self.at - 1]

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise MalformedModule("the module is cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def name(self) -> str:
        try:
            return self.take(self.unsigned()).decode()
        except UnicodeDecodeError as error:
            raise MalformedModule("a name is not UTF-8") from error


def sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    """Sections of a module in order: number and body.

    Raises:
        MalformedModule: if the header is another one, or a section is cut short.
    """
    if module[:8] != HEADER:
        raise MalformedModule("not a WebAssembly 1.0 module")
    reader = Reader(module, 8)
    while reader.at < len(module):
        number = reader.byte()
        yield number, reader.take(reader.unsigned())


def section(number: int, body: bytes) -> bytes:
    """Section of a number, with its head."""
    return bytes([number]) + unsigned(len(body)) + body


@dataclass(frozen=True)
class Export:
    """Entry of the export section."""

    name: str
    kind: int
    index: int

    def encode(self) -> bytes:
        return text(self.name) + bytes([self.kind]) + unsigned(self.index)


def read_exports(body: bytes) -> list[Export]:
    """Entries of an export section."""
    reader = Reader(body)
    return [Export(reader.name(), reader.byte(), reader.unsigned()) for _ in range(reader.unsigned())]


def write_exports(exports: list[Export]) -> bytes:
    """Body of an export section."""
    return unsigned(len(exports)) + b"".join(export.encode() for export in exports)


def mutable_globals(body: bytes) -> list[bool]:
    """Mutability of each global of a global section, whose initialisers must be constants.

    Raises:
        MalformedModule: if an initialiser is anything else.
    """
    reader, found = Reader(body), []
    for _ in range(reader.unsigned()):
        _type, mutable, opcode = reader.byte(), reader.byte(), reader.byte()
        if opcode in (_I32_CONST, _I64_CONST):
            reader.unsigned()
        elif opcode in _CONST_BYTES:
            reader.take(_CONST_BYTES[opcode])
        else:
            raise MalformedModule(f"a global is initialised by opcode {opcode:#x}, not by a constant")
        if reader.byte() != _END:
            raise MalformedModule("a global's initialiser is not one constant")
        found.append(bool(mutable))
    return found


def minimum_pages(body: bytes) -> int:
    """Initial number of pages of the first memory of a memory section."""
    reader = Reader(body)
    reader.unsigned()
    reader.byte()
    return reader.unsigned()


def memory_with_minimum(body: bytes, pages: int) -> bytes:
    """Memory section of one memory, with another initial number of pages.

    Raises:
        MalformedModule: if there are more memories, or it is shared or 64-bit.
    """
    reader = Reader(body)
    if reader.unsigned() != 1:
        raise MalformedModule("the module has more than one memory")
    flags = reader.byte()
    if flags not in (0, 1):
        raise MalformedModule("the module's memory is shared or 64-bit")
    reader.unsigned()
    maximum = unsigned(reader.unsigned()) if flags else b""
    return unsigned(1) + bytes([flags]) + unsigned(pages) + maximum


def active_data(segments: list[tuple[int, bytes]]) -> bytes:
    """Data section of active segments of memory 0: (address, bytes) pairs."""
    parts = [unsigned(len(segments))]
    for address, data in segments:
        as_i32 = address - (1 << 32) if address >= 1 << 31 else address
        parts += [b"\0", bytes([_I32_CONST]), signed(as_i32), bytes([_END]), unsigned(len(data)), data]
    return b"".join(parts)


def read_active_data(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Segments of a data section that is like `active_data`: (address, bytes) pairs.

    Raises:
        MalformedModule: if a segment is passive, of another memory, or at no constant address.
    """
    reader = Reader(body)
    for _ in range(reader.unsigned()):  # a hundred thousand of them, where an optimiser has left out zeros
        head = _SEGMENT.match(body, reader.at)
        if head is None:
            raise MalformedModule("a data segment is passive, of another memory, or at no constant address")
        reader.at = head.end()
        address, shift = 0, 0
        for byte in head[1]:
            address |= (byte & 0x7F) << shift
            shift += 7
        if byte & 0x40:
            address -= 1 << shift
        yield address & 0xFFFFFFFF, reader.take(reader.unsigned())


def _skip_limits(reader: Reader) -> None:
    if reader.byte() & 1:
        reader.unsigned()
    reader.unsigned()


def import_counts(body: bytes) -> list[int]:
    """Numbers of functions, tables, memories and globals in an import section.

    Raises:
        MalformedModule: if anything else is imported.
    """
    reader, counts = Reader(body), [0, 0, 0, 0]
    for _ in range(reader.unsigned()):
        reader.name()
        reader.name()
        kind = reader.byte()
        if kind == IMPORT_FUNCTION:
            reader.unsigned()
        elif kind == IMPORT_TABLE:
            reader.byte()
            _skip_limits(reader)
        elif kind == IMPORT_MEMORY:
            _skip_limits(reader)
        elif kind == IMPORT_GLOBAL:
            reader.take(2)
        else:
            raise MalformedModule(f"the module imports something of kind {kind}")
        counts[kind] += 1
    return counts
