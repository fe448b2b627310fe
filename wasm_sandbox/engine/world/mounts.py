"""Mounts: directories of the host inside a guest. Loaded only for a run that has some.

Behind them is a file system of our own (`host_files`), and where the system lacks what that needs (Windows), wasmtime's
own WASI. The guest is never linked to that. A tiny module of ours is: it passes calls on, and holds the paths and bytes
on their way. So wasmtime sees paths and descriptors that we have looked at, and keeps them below the directory.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from typing import Protocol

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.world import host_files
from wasm_sandbox.engine.world.file_system import ZEROS
from wasm_sandbox.engine.world.preview1 import (
    APPEND,
    CREATE,
    DIRECTORY,
    EFBIG,
    EIO,
    ENOENT,
    ENOSPC,
    EPERM,
    EROFS,
    FOLLOW,
    KEPT_FLAGS,
    REGULAR_FILE,
    RIGHT_READ,
    RIGHT_WRITE,
    ROOT,
    SUCCESS,
    TRUNCATE,
    WASI_MODULE,
    Refusal,
)
from wasm_sandbox.errors import InvalidFiles
from wasm_sandbox.files import HostDir

BUFFER_BYTES = len(ZEROS)
_PATH, _OTHER_PATH, _VECTOR, _RESULT, _BUFFER = 0, 16384, 32768, 32784, 65536
_PAGES = (_BUFFER + BUFFER_BYTES) // 65536

_FUNCTIONS = {
    "fd_close": "i", "fd_fdstat_get": "ii", "fd_fdstat_set_flags": "ii", "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI", "fd_filestat_set_times": "iIIi", "fd_pread": "iiiIi", "fd_pwrite": "iiiIi",
    "fd_read": "iiii", "fd_readdir": "iiiIi", "fd_seek": "iIii", "fd_sync": "i", "fd_tell": "ii", "fd_write": "iiii",
    "path_create_directory": "iii", "path_filestat_get": "iiiii", "path_filestat_set_times": "iiiiIIi",
    "path_open": "iiiiiIIii", "path_readlink": "iiiiii", "path_remove_directory": "iii", "path_rename": "iiiiii",
    "path_unlink_file": "iii",
}  # fmt: skip
"""Functions of preview 1 in use, with parameters: i = i32, I = i64. No links, no sockets, no clocks."""


def _module_text() -> str:
    types = {"i": "i32", "I": "i64"}
    imports, exports = [], []
    for name, parameters in _FUNCTIONS.items():
        listed = " ".join(types[p] for p in parameters)
        imports.append(f'(import "{WASI_MODULE}" "{name}" (func ${name} (param {listed}) (result i32)))')
        gets = " ".join(f"local.get {i}" for i in range(len(parameters)))
        exports.append(f'(func (export "{name}") (param {listed}) (result i32) {gets} call ${name})')
    return f'(module {" ".join(imports)} (memory (export "memory") {_PAGES} {_PAGES}) {" ".join(exports)})'


def link_mounting(engine: wasmtime.Engine) -> wasmtime.InstancePre:
    """Compile the module and link it to wasmtime's WASI: some 15 ms, once per image."""
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    return linker.instantiate_pre(wasmtime.Module(engine, bytes(wasmtime.wat2wasm(_module_text()))))


class _Files(Protocol):
    """Functions of preview 1 over directories of the host, and a memory for their arguments and results."""

    def call(self, function: str, number: int, *arguments: int) -> int: ...
    def address(self, offset: int) -> int: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None: ...
    def close(self) -> None: ...


class _WasmtimesFiles:
    """An instance of the module, with a WASI context of wasmtime's.

    Raises:
        InvalidFiles: if a directory cannot be opened.
    """

    def __init__(
        self, engine: wasmtime.Engine, module: wasmtime.InstancePre, directories: Mapping[str, HostDir]
    ) -> None:
        configuration = wasmtime.WasiConfig()
        for guest_path, directory in directories.items():
            host_path = os.path.abspath(directory.path)
            try:
                configuration.preopen_dir(host_path, guest_path, not directory.read_only)
            except wasmtime.WasmtimeError:
                raise _not_opened(directory, guest_path) from None
        self._store = wasmtime.Store(engine)
        self._store.set_wasi(configuration)
        self._instance = capi.Instance(self._store, module)

    def close(self) -> None:
        self._store.close()

    def call(self, function: str, number: int, *arguments: int) -> int:
        try:
            return self._instance.call(function, number, *arguments) & 0xFFFF
        except capi.GuestStopped:
            return EIO  # wasmtime's WASI gave up

    def address(self, offset: int) -> int:
        return self._instance.memory()[0] + offset

    def read(self, offset: int, size: int) -> bytes:
        return self._instance.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self._instance.write(offset, data)


def _our_files(directories: Mapping[str, HostDir]) -> host_files.HostFiles:
    for guest_path, directory in directories.items():
        if not os.path.isdir(directory.path):
            raise _not_opened(directory, guest_path)
    try:
        return host_files.HostFiles([os.path.abspath(each.path) for each in directories.values()], _PAGES * 65536)
    except OSError as error:
        raise InvalidFiles(f"mounts: {error.filename} cannot be opened as a directory ({error.strerror})") from None


def _not_opened(directory: HostDir, guest_path: str) -> InvalidFiles:
    return InvalidFiles(f"mounts: {os.path.abspath(directory.path)} for {guest_path} cannot be opened as a directory")


class Mounts:
    """Mounts of one guest.

    Args:
        engine: engine of the module.
        module: function that gives the result of `link_mounting`, where it is needed.
        directories: path in the guest -> directory of the host.
        max_bytes: most bytes that the guest may write, or make the host's files grow by.
        max_created: most files and directories that the guest may create.

    Raises:
        InvalidFiles: if a directory cannot be opened.
    """

    def __init__(
        self,
        engine: wasmtime.Engine,
        module: Callable[[], wasmtime.InstancePre],
        directories: Mapping[str, HostDir],
        max_bytes: int,
        max_created: int,
    ) -> None:
        self._files: _Files
        if host_files.IS_SUPPORTED:
            self._files = _our_files(directories)
        else:
            self._files = _WasmtimesFiles(engine, module(), directories)
        self.call, self.address = self._files.call, self._files.address
        self.read, self.write = self._files.read, self._files.write
        self._bytes_left, self._creations_left = max_bytes, max_created
        self.each = tuple(
            Mount(self, ROOT + number, directory.read_only) for number, directory in enumerate(directories.values())
        )

    def close(self) -> None:
        """Close every file that is still open."""
        self._files.close()

    def charge(self, size: int) -> None:
        """Charge growth of the host's files.

        Raises:
            Refusal: if it is more than the guest may write.
        """
        if size > self._bytes_left:
            raise Refusal(ENOSPC)
        self._bytes_left -= max(0, size)

    def charge_creation(self) -> None:
        """Charge a new file or directory.

        Raises:
            Refusal: if it is one more than the guest may create.
        """
        if not self._creations_left:
            raise Refusal(ENOSPC)
        self._creations_left -= 1


class Mount:
    """Mounted directory of the host. Paths are relative and checked."""

    def __init__(self, mounts: Mounts, root: int, read_only: bool) -> None:
        self._mounts, self.root, self._read_only = mounts, root, read_only

    def call(self, function: str, number: int, *arguments: int) -> int:
        """Call a function of a descriptor and numbers, and return its errno."""
        return self._mounts.call(function, number, *arguments)

    def _refuse_if_read_only(self) -> None:
        if self._read_only:
            raise Refusal(EROFS)

    def _put(self, path: str, offset: int = _PATH) -> tuple[int, int]:
        encoded = path.encode()
        self._mounts.write(offset, encoded)
        return offset, len(encoded)

    # -- descriptors -----------------------------------------------------------------------------

    def open(self, directory: int, path: str, lookup: int, oflags: int, rights: int, flags: int) -> int:
        """Open a file or a directory, and return its number.

        Raises:
            Refusal: if the system refuses, the mount is read-only, or it is anything else, which could block.
        """
        if oflags & (CREATE | TRUNCATE) or rights & RIGHT_WRITE:
            self._refuse_if_read_only()
        errno, status = self.path_filestat(directory, FOLLOW, path)
        if errno == ENOENT and oflags & CREATE:
            self._mounts.charge_creation()
        elif errno:
            raise Refusal(errno)
        elif status[16] not in (REGULAR_FILE, DIRECTORY):
            raise Refusal(EPERM)
        wanted = rights & (RIGHT_READ | RIGHT_WRITE)
        errno = self.call(
            "path_open", directory, lookup, *self._put(path), oflags, wanted, wanted, flags & KEPT_FLAGS, _RESULT
        )
        if errno:
            raise Refusal(errno)
        (number,) = struct.unpack("<I", self._mounts.read(_RESULT, 4))
        return int(number)

    def fdstat(self, number: int) -> tuple[int, int, int]:
        """Type, flags and rights of a descriptor."""
        errno = self.call("fd_fdstat_get", number, _RESULT)
        if errno:
            raise Refusal(errno)
        kind, flags, rights = struct.unpack_from("<BxHxxxxQ", self._mounts.read(_RESULT, 24))
        return kind, flags, rights

    def filestat(self, number: int) -> tuple[int, bytes]:
        """Errno, and the 64 bytes of a status if that is 0."""
        return self.call("fd_filestat_get", number, _RESULT), self._mounts.read(_RESULT, 64)

    def position(self, function: str, number: int, *arguments: int) -> tuple[int, int]:
        """Call ``fd_seek`` or ``fd_tell``: errno and position."""
        errno = self.call(function, number, *arguments, _RESULT)
        (position,) = struct.unpack("<Q", self._mounts.read(_RESULT, 8))
        return errno, position

    def set_size(self, number: int, size: int) -> int:
        """Cut a file or fill it with zeros."""
        self._refuse_if_read_only()
        if size >= 1 << 63:
            return EFBIG
        self._mounts.charge(size - self._size(number))
        return self.call("fd_filestat_set_size", number, size)

    def set_times(self, number: int, accessed: int, modified: int, flags: int) -> int:
        """Set the times of an open file."""
        self._refuse_if_read_only()
        return self.call("fd_filestat_set_times", number, accessed, modified, flags)

    def _size(self, number: int) -> int:
        errno, status = self.filestat(number)
        if errno:
            raise Refusal(errno)
        (size,) = struct.unpack_from("<Q", status, 32)
        return int(size)

    def transfer(self, function: str, number: int, address: int, size: int, offset: int | None) -> tuple[int, int]:
        """Read into, or write from, this process's memory, at most `BUFFER_BYTES`.

        Returns:
            Errno and number of bytes.
        """
        writes = function in ("fd_write", "fd_pwrite")
        mounts = self._mounts
        if writes:
            self._charge_write(number, size, offset)
            ctypes.memmove(mounts.address(_BUFFER), address, size)
        mounts.write(_VECTOR, struct.pack("<II", _BUFFER, size))
        place = () if offset is None else (offset,)
        errno = self.call(function, number, _VECTOR, 1, *place, _RESULT)
        if errno:
            return errno, 0
        (moved,) = struct.unpack("<I", mounts.read(_RESULT, 4))
        moved = min(int(moved), size)
        if not writes:
            ctypes.memmove(address, mounts.address(_BUFFER), moved)
        return SUCCESS, moved

    def _charge_write(self, number: int, size: int, offset: int | None) -> None:
        """Charge what is written, or the whole growth of the file if that is more."""
        self._refuse_if_read_only()
        _, flags, _ = self.fdstat(number)
        if flags & APPEND:
            return self._mounts.charge(size)
        if offset is None:
            errno, offset = self.position("fd_tell", number)
            if errno:
                raise Refusal(errno)
        return self._mounts.charge(max(size, offset + size - self._size(number)))

    def read_directory(self, number: int, address: int, size: int, cookie: int) -> tuple[int, int]:
        """Read a part of a listing into this process's memory: errno and number of bytes."""
        size = min(size, BUFFER_BYTES)
        errno = self.call("fd_readdir", number, _BUFFER, size, cookie, _RESULT)
        if errno:
            return errno, 0
        (listed,) = struct.unpack("<I", self._mounts.read(_RESULT, 4))
        listed = min(int(listed), size)
        ctypes.memmove(address, self._mounts.address(_BUFFER), listed)
        return SUCCESS, listed

    # -- paths -----------------------------------------------------------------------------------

    def path_filestat(self, directory: int, lookup: int, path: str) -> tuple[int, bytes]:
        """Errno, and the 64 bytes of a status if that is 0."""
        errno = self.call("path_filestat_get", directory, lookup & FOLLOW, *self._put(path), _RESULT)
        return errno, self._mounts.read(_RESULT, 64)

    def path_set_times(self, directory: int, lookup: int, path: str, accessed: int, modified: int, flags: int) -> int:
        """Set the times of a file."""
        self._refuse_if_read_only()
        arguments = (lookup & FOLLOW, *self._put(path), accessed, modified, flags)
        return self.call("path_filestat_set_times", directory, *arguments)

    def create_directory(self, directory: int, path: str) -> int:
        """Make a directory."""
        self._refuse_if_read_only()
        self._mounts.charge_creation()
        return self.call("path_create_directory", directory, *self._put(path))

    def on_path(self, function: str, directory: int, path: str) -> int:
        """Call a function that removes a path, and return its errno."""
        self._refuse_if_read_only()
        return EPERM if path == "." else self.call(function, directory, *self._put(path))

    def rename(self, directory: int, path: str, to_directory: int, to_path: str) -> int:
        """Rename within the mount."""
        self._refuse_if_read_only()
        if "." in (path, to_path):
            return EPERM
        return self.call("path_rename", directory, *self._put(path), to_directory, *self._put(to_path, _OTHER_PATH))

    def read_link(self, directory: int, path: str, size: int) -> tuple[int, bytes]:
        """Read a symbolic link: errno, and at most ``size`` bytes of the target."""
        size = min(size, BUFFER_BYTES)
        errno = self.call("path_readlink", directory, *self._put(path), _BUFFER, size, _RESULT)
        if errno:
            return errno, b""
        (length,) = struct.unpack("<I", self._mounts.read(_RESULT, 4))
        return SUCCESS, self._mounts.read(_BUFFER, min(int(length), size))
