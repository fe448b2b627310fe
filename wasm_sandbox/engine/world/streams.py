"""Capability of the standard streams: an empty input, two pipes for output, and no descriptor above them.

A guest without files sees one directory, preopened and empty: libc looks for it once, and its answer is part of an
image's snapshot. So every world has it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from typing import ClassVar

from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.preview1 import (
    EBADF,
    ENAMETOOLONG,
    ENOENT,
    ENOTCAPABLE,
    ESPIPE,
    ROOT,
    STDERR,
    STDIN,
    STDOUT,
    SUCCESS,
    GuestMemory,
    Imported,
    vectors,
)

ROOT_PATH = b"/"

STREAM_FUNCTIONS = frozenset(
    {"fd_close", "fd_fdstat_get", "fd_filestat_get", "fd_read", "fd_seek", "fd_tell", "fd_write"}
)
"""Imports that standard streams serve."""

FILE_FUNCTIONS = STREAM_FUNCTIONS | {
    "fd_advise", "fd_allocate", "fd_datasync", "fd_fdstat_set_flags", "fd_filestat_set_size", "fd_filestat_set_times",
    "fd_pread", "fd_pwrite", "fd_readdir", "fd_renumber", "fd_sync", "path_create_directory", "path_filestat_get",
    "path_filestat_set_times", "path_link", "path_open", "path_readlink", "path_remove_directory", "path_rename",
    "path_symlink", "path_unlink_file",
}  # fmt: skip
"""Imports that files serve; without files, no path exists and no descriptor above the streams'."""


PIECE_BYTES = 64 << 10
"""Most bytes of a write that are handed to a tap at a time: a write may name gigabytes."""


class Streams:
    """Capability of standard input, output and error.

    Args:
        memory: memory of the guest.
        stdout: pipe of standard output.
        stderr: pipe of standard error.
    """

    functions: ClassVar[Mapping[str, Imported]]

    def __init__(self, memory: GuestMemory, stdout: OutputPipe, stderr: OutputPipe) -> None:
        self._memory, self.stdout, self.stderr = memory, stdout, stderr
        self.tap: Callable[[int, bytes], None] | None = None
        """Listener to what is written; it ends the guest if that is to end."""
        self.stdin = b""
        """Rest of standard input: empty, except while an image is prepared."""

    def is_open(self, fd: int) -> bool:
        """Whether a descriptor is open."""
        return fd <= STDERR

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def fd_write(self, fd: int, iovs: int, count: int, written: int) -> int:
        if fd == STDIN:
            return EBADF
        pipe = self.stdout if fd == STDOUT else self.stderr
        spans = vectors(self._memory, iovs, count)
        total = sum(size for _, size in spans)
        self._memory.store(written, struct.pack("<I", total))
        pipe.write_all(spans, total)
        if self.tap is not None:
            for address, size in spans:
                for at in range(0, size, PIECE_BYTES):
                    self.tap(fd, ctypes.string_at(address + at, min(PIECE_BYTES, size - at)))
        return SUCCESS

    def fd_read(self, fd: int, iovs: int, count: int, read: int) -> int:
        if fd != STDIN:
            return EBADF
        if not self.stdin:
            self._memory.store(read, struct.pack("<I", 0))  # at its end
            return SUCCESS
        total = 0
        for address, size in vectors(self._memory, iovs, count):
            data = self.stdin[:size]
            ctypes.memmove(address, data, len(data))
            self.stdin, total = self.stdin[size:], total + len(data)
        self._memory.store(read, struct.pack("<I", total))
        return SUCCESS

    def fd_close(self, fd: int) -> int:
        return SUCCESS

    def fd_seek(self, fd: int, offset: int, whence: int, result: int) -> int:
        return ESPIPE

    def fd_tell(self, fd: int, result: int) -> int:
        return ESPIPE

    def fd_fdstat_get(self, fd: int, result: int) -> int:
        # An unknown file type, no flags: neither a terminal nor a file. Rights: read, write, poll.
        rights = (1 << 1) | (1 << 6) | (1 << 27)
        self._memory.store(result, struct.pack("<BxHxxxxQQ", 0, 0, rights, 0))
        return SUCCESS

    def fd_filestat_get(self, fd: int, result: int) -> int:
        self._memory.store(result, bytes(64))
        return SUCCESS

    def fd_prestat_get(self, fd: int, result: int) -> int:
        if fd != ROOT:
            return EBADF
        self._memory.store(result, struct.pack("<BxxxI", 0, len(ROOT_PATH)))
        return SUCCESS

    def fd_prestat_dir_name(self, fd: int, path: int, size: int) -> int:
        if fd != ROOT:
            return EBADF
        if size < len(ROOT_PATH):
            return ENAMETOOLONG
        self._memory.store(path, ROOT_PATH)
        return SUCCESS


def _serving(name: str) -> Imported:
    if name.startswith("path_"):
        return _no_such_file
    if name not in STREAM_FUNCTIONS:
        return _on_no_file
    on_stream: Imported = getattr(Streams, name)
    # libc asks for the status of the root before it opens anything below: no file is what it is to tell.
    root = ENOENT if name == "fd_fdstat_get" else EBADF

    def serve(streams: Streams, fd: int, *arguments: int) -> int:
        if fd <= STDERR:
            return on_stream(streams, fd, *arguments)
        return root if fd == ROOT else EBADF

    return serve


def _no_such_file(_streams: Streams, *_arguments: int) -> int:
    return ENOENT


def _on_no_file(_streams: Streams, fd: int, *_arguments: int) -> int:
    return ENOTCAPABLE if fd <= STDERR else EBADF


Streams.functions = {
    **{name: _serving(name) for name in FILE_FUNCTIONS},
    "fd_prestat_get": Streams.fd_prestat_get,
    "fd_prestat_dir_name": Streams.fd_prestat_dir_name,
}
