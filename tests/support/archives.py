"""Zip archives put together field by field, so that any of them can lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14


@dataclass(frozen=True)
class Member:
    """One member; what is ``None`` is as it should be."""

    name: str
    data: bytes = b""
    """Unpacked."""
    method: int = STORED
    packed: bytes | None = None
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    flags: int = 0
    mode: int = 0
    """Of Unix: type and permissions."""
    offset: int | None = None
    """Where its directory entry says that it is."""
    is_there: bool = True
    """Whether there is more of it than its directory entry."""
    directory_name: str | None = None
    """Its name in the directory, if that is another one."""


def deflated(data: bytes) -> bytes:
    """Raw deflate, as it is in archives."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def archive(
    members: Sequence[Member], *, entries: int | None = None, comment: bytes = b"", before: bytes = b""
) -> bytes:
    """The bytes of an archive; ``entries`` is how many it says that it has."""
    body, directory = bytearray(before), bytearray()
    for member in members:
        name, own_name = member.name.encode(), (member.directory_name or member.name).encode()
        packed = member.packed
        if packed is None:
            packed = deflated(member.data) if member.method == DEFLATED else member.data
        sizes = (
            zlib.crc32(member.data) if member.crc is None else member.crc,
            len(packed) if member.packed_size is None else member.packed_size,
            len(member.data) if member.size is None else member.size,
        )
        offset = len(body) if member.offset is None else member.offset
        flags = member.flags | 0x800
        if member.is_there:
            body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, member.method, 0, 0x21, *sizes, len(name), 0)
            body += name + packed
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, flags, member.method, 0, 0x21, *sizes, len(own_name),
            0, 0, 0, 0, member.mode << 16, offset,
        )  # fmt: skip
        directory += own_name
    count = len(members) if entries is None else entries
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), len(comment))
    return bytes(body + directory) + end + comment


def wheel(*more: Member, name: str = "a", version: str = "1", metadata: str = "", **options: int | bytes) -> bytes:
    """The bytes of a wheel with these members besides its own; its record names no hashes."""
    text = metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    about = Member(f"{name}-{version}.dist-info/METADATA", text.encode(), DEFLATED)
    kind = Member(
        f"{name}-{version}.dist-info/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    members = [Member(f"{name}.py", b"VALUE = 1\n"), *more, about, kind]
    record = "".join(f"{member.name},,\n" for member in members)
    members.append(Member(f"{name}-{version}.dist-info/RECORD", record.encode()))
    return archive(members, **options)  # type: ignore[arg-type]
