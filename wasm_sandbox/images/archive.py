"""Zip archives: any that nobody trusts is read within bounds, and an image's own are written to the same bytes."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from wasm_sandbox.images.reading import open_regular
from wasm_sandbox.images.recipe import Contents

MAX_IMAGE_BYTES = 512 << 20
"""Of all packages of one image together, and of all its files."""
MAX_IMAGE_FILES = 200_000

_PACKAGES, _FILES = "packages/", "files/"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
_PIECE_BYTES = 64 << 10
_DIRECTORY_BYTES_EACH = 128
"""Of an archive's directory for each member that it may have: the directory is read whole, and each entry of it takes
ten times as much memory."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_ENCRYPTED = 0x1

# All that zipfile raises, and lets through from what it stands on, for archives that are none.
_DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error,
    EOFError, IndexError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip


class ArchiveError(Exception):
    """An archive is damaged, means harm, or is too large; the message says which, as a sentence about ``it``."""


class _BoundedReader(io.BufferedReader):
    """A file that is never read in longer pieces than an archive's directory may be: zipfile reads that whole."""

    def __init__(self, file: io.RawIOBase, longest: int) -> None:
        super().__init__(file)
        self._longest = longest

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self._longest:
            raise ArchiveError("its directory is too long")
        return super().read(wanted)


def read_members(path: Path, *, max_bytes: int, max_members: int) -> dict[str, bytes]:
    """Read the files of a zip archive that nobody trusts.

    What it says of its sizes is not believed: members are unpacked in pieces, and no further than to the bound.

    Args:
        path: of the archive; links are followed.
        max_bytes: of the archive, and of all its members together, unpacked.
        max_members: how many it may have.

    Returns:
        name -> contents; names are as they stand there, and differ from each other.

    Raises:
        ArchiveError: if it is damaged or too large, or holds what no archive of packages needs: links and devices,
            members that are encrypted, that overlap, that have the same name, or that are compressed otherwise than
            by deflate.
        OSError: if it is no regular file, or cannot be opened.
    """
    with open_regular(path, follow=True) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise ArchiveError(f"it takes more than {_mib(max_bytes)}")
        reader = _BoundedReader(file, max(max_members * _DIRECTORY_BYTES_EACH, 2 * _PIECE_BYTES))
        try:
            with zipfile.ZipFile(reader) as archive:
                members = archive.infolist()
                if len(members) > max_members:
                    raise ArchiveError(f"it holds more than {max_members} files")
                if sum(member.file_size for member in members) > max_bytes:
                    raise ArchiveError(f"it takes more than {_mib(max_bytes)} unpacked")
                _check_members(members)
                _check_places(reader, members, archive.start_dir)
                return _unpacked(archive, members, max_bytes)
        except _DAMAGE as error:
            raise ArchiveError(f"it is damaged: {error or type(error).__name__}") from None
        except OSError as error:  # a place before the file's beginning, for one
            raise ArchiveError(f"it cannot be read: {error.strerror or error}") from None


def _check_members(members: Sequence[zipfile.ZipInfo]) -> None:
    names: set[str] = set()
    for member in members:
        name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        if name in names:
            raise ArchiveError(f"it holds {name!r} twice")
        names.add(name)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"it holds {name!r}, which is a link or a device")
        if member.flag_bits & _IS_ENCRYPTED:
            raise ArchiveError(f"it holds {name!r}, which is encrypted")
        if member.compress_type not in _METHODS:
            raise ArchiveError(f"it holds {name!r}, which is compressed by another method than deflate")
    check_names(name for name in names if not name.endswith("/"))


def check_names(names: Iterable[str]) -> None:
    """Refuse a file that is a directory of another one, too.

    Raises:
        ArchiveError: if there is one.
    """
    files = set(names)
    for name in files:
        for parent in PurePosixPath(name).parents:
            if str(parent) in files:
                raise ArchiveError(f"it holds {str(parent)!r} as a file and as a directory")


def _check_places(file: io.BufferedReader, members: Sequence[zipfile.ZipInfo], directory: int) -> None:
    """Members that share bytes unpack to much more than a compressed file can (and newer zipfiles refuse them)."""
    places = []
    for member in members:
        file.seek(member.header_offset)
        magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if magic != b"PK\3\4":
            raise ArchiveError(f"it is damaged: {member.orig_filename!r} is not where it should be")
        end = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + member.compress_size
        places.append((member.header_offset, end))
    for (_, end), (start, _) in pairwise([*sorted(places), (directory, directory)]):
        if end > start:
            raise ArchiveError("it holds members that overlap")


def _unpacked(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], max_bytes: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = max_bytes
    for member in members:
        if member.orig_filename.endswith("/"):
            continue
        pieces = []
        with archive.open(member) as opened:
            while piece := opened.read(_PIECE_BYTES):
                left -= len(piece)
                if left < 0:
                    raise ArchiveError(f"it takes more than {_mib(max_bytes)} unpacked")
                pieces.append(piece)
        data = b"".join(pieces)
        if len(data) != member.file_size:
            raise ArchiveError(f"it is damaged: {member.orig_filename!r} is not as long as it should be")
        files[member.orig_filename] = data
    return files


def _mib(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"


def write_archive(file: BinaryIO, contents: Contents) -> None:
    """Write an archive to an open file."""
    with zipfile.ZipFile(file, "w") as archive:
        for prefix, files in ((_PACKAGES, contents.packages), (_FILES, contents.files)):
            for name, data in sorted(files.items()):
                info = zipfile.ZipInfo(prefix + name.removeprefix("/"), _TIMESTAMP)
                archive.writestr(info, data, zipfile.ZIP_DEFLATED)


def read_archive(path: Path) -> Contents:
    """Read an archive.

    Raises:
        ArchiveError: if it is damaged, or larger than an image's can be.
        OSError: if it cannot be opened.
    """
    packages, files = {}, {}
    for name, data in read_members(path, max_bytes=2 * MAX_IMAGE_BYTES, max_members=MAX_IMAGE_FILES).items():
        if name.startswith(_PACKAGES):
            packages[name.removeprefix(_PACKAGES)] = data
        elif name.startswith(_FILES):
            files["/" + name.removeprefix(_FILES)] = data
    return Contents(packages, files)
