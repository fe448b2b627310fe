"""Capability of files: the WASI functions over a file system in memory and the mounts in it.

It is laid over the standard streams and serves the descriptors above theirs. Each function returns an errno or raises
`Refusal`; its arguments come from the guest, as unsigned integers.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from wasm_sandbox.engine.world.file_state import FileState, OpenState, restore_nodes, state_of
from wasm_sandbox.engine.world.file_system import (
    Directory,
    File,
    FileSystem,
    MountPoint,
    Node,
    NullDevice,
    Place,
    path_parts,
)
from wasm_sandbox.engine.world.mounts import Mount, Mounts
from wasm_sandbox.engine.world.pipe import memory_at
from wasm_sandbox.engine.world.preview1 import (
    ALL_RIGHTS,
    APPEND,
    CHARACTER_DEVICE,
    CREATE,
    DIRECTORY,
    EBADF,
    EEXIST,
    EINVAL,
    EISDIR,
    EMFILE,
    ENOENT,
    ENOTCAPABLE,
    ENOTDIR,
    EPERM,
    EXCLUSIVE,
    EXDEV,
    FROM_END,
    FROM_HERE,
    FROM_START,
    KEPT_FLAGS,
    MUST_BE_DIRECTORY,
    REGULAR_FILE,
    RIGHT_READ,
    RIGHT_WRITE,
    ROOT,
    SET_ATIME,
    SET_ATIME_NOW,
    SET_MTIME,
    SET_MTIME_NOW,
    STDERR,
    SUCCESS,
    TRUNCATE,
    GuestMemory,
    Imported,
    Refusal,
    vectors,
)
from wasm_sandbox.engine.world.streams import FILE_FUNCTIONS, Streams

MAX_DESCRIPTORS = 256
CHUNK_BYTES = 1 << 20
"""Most bytes that are moved between two looks at the deadline."""
LISTED_BYTES = 64 << 10
"""So much of a listing is put together before it is handed over."""
DEVICE = 1
DIRENT_BYTES = 24


@dataclass(eq=False)
class OpenFile:
    """Descriptor of a file in memory."""

    file: File
    reads: bool
    writes: bool
    flags: int
    position: int = 0


@dataclass(eq=False)
class OpenDirectory:
    """Descriptor of a directory in memory."""

    directory: Directory


@dataclass(eq=False)
class OpenMounted:
    """Descriptor of something in a mount, and its number there."""

    mount: Mount
    number: int


Open = OpenFile | OpenDirectory | OpenMounted


class _Beyond(NamedTuple):
    """Path that leads into a mount."""

    mount: Mount
    directory: int
    path: str
    means_directory: bool

    @classmethod
    def relative(cls, opened: OpenMounted, path: bytes) -> _Beyond:
        """Path from an open directory of a mount, which may not lead above that.

        Raises:
            Refusal: if it does, or is malformed.
        """
        parts = path_parts(path)
        names = [part for part in parts if part not in ("", ".")]
        depth = 0
        for name in names:
            depth += -1 if name == ".." else 1
            if depth < 0:
                raise Refusal(ENOTCAPABLE)
        return cls(opened.mount, opened.number, "/".join(names) or ".", parts[-1] in ("", ".", ".."))


class Descriptors:
    """Capability of files: the descriptors of one guest.

    Args:
        memory: memory of the guest.
        streams: standard streams, which serve the descriptors below.
        make_files: makes the file system in memory, when the guest first asks for a file.
        mounts: mounts behind the mount points, by number; closed with the capability.
    """

    functions: ClassVar[Mapping[str, Imported]]

    def __init__(
        self,
        memory: GuestMemory,
        streams: Streams,
        make_files: Callable[[], FileSystem],
        mounts: Mounts | None = None,
    ) -> None:
        self.memory, self.streams, self._make_files, self._host = memory, streams, make_files, mounts
        self._mounts = mounts.each if mounts else ()
        self._is_used = False

    @cached_property
    def files(self) -> FileSystem:
        """File system in memory, made at the first look: most runs touch no file."""
        self._is_used = True
        return self._make_files()

    @cached_property
    def _open(self) -> dict[int, Open]:
        """Open descriptors by number."""
        return {ROOT: OpenDirectory(self.files.root)}

    def changed_files(self) -> dict[str, bytes]:
        """Path -> content of every file that is not there as it was given."""
        return self.files.changed_files() if self._is_used else {}

    def is_open(self, fd: int) -> bool:
        """Whether a descriptor is open."""
        return self.streams.is_open(fd) or fd in self._open

    @property
    def has_mounts(self) -> bool:
        """Whether directories of the host are mounted."""
        return self._host is not None

    def close(self) -> None:
        """Close the mounts, with every file of the host that is still open."""
        if self._host is not None:
            self._host.close()

    # -- at rest ---------------------------------------------------------------------------------

    def state(self) -> FileState | None:
        """State of files and descriptors, between two calls of a guest without mounts; None if none was touched yet."""
        if not self._is_used:
            return None
        orphans = [o.file for o in self._open.values() if isinstance(o, OpenFile) and o.file.parent is None]
        nodes, indices = state_of(self.files, orphans)
        indices[self.files.null] = len(nodes)
        opened = []
        for number, entry in self._open.items():
            if isinstance(entry, OpenFile):
                index = indices[entry.file]
                opened.append(OpenState(number, index, entry.reads, entry.writes, entry.flags, entry.position))
            elif isinstance(entry, OpenDirectory) and entry.directory in indices:
                opened.append(OpenState(number, indices[entry.directory], False, False, 0, 0))
        return FileState(tuple(nodes), tuple(opened))

    def restore(self, state: FileState) -> None:
        """Make files and descriptors what they were; the state may come from hostile bytes.

        Raises:
            Refusal: if it does not fit the limits, or is no state that a guest can have.
        """
        if len(state.opened) > MAX_DESCRIPTORS:
            raise Refusal(EMFILE)
        self.files.clear()
        nodes = [*restore_nodes(self.files, state.nodes, self.memory.now()), self.files.null]
        self._open = {ROOT: OpenDirectory(self.files.root)}
        for opened in state.opened:
            if not (STDERR < opened.number < 1 << 31 and 0 <= opened.node < len(nodes)):
                raise Refusal(EINVAL)
            node = nodes[opened.node]
            if isinstance(node, Directory):
                self._open[opened.number] = OpenDirectory(node)
            elif isinstance(node, File) and 0 <= opened.position < 1 << 63:
                self.files.opened(node)
                flags = opened.flags & KEPT_FLAGS
                self._open[opened.number] = OpenFile(node, opened.reads, opened.writes, flags, opened.position)
            else:
                raise Refusal(EINVAL)
        for node, written in zip(nodes, state.nodes, strict=False):
            if isinstance(node, File) and not written.name:
                self.files.closed(node)

    # -- descriptors -----------------------------------------------------------------------------

    def fd_close(self, fd: int) -> int:
        opened = self._get(fd)
        del self._open[fd]
        if isinstance(opened, OpenFile):
            self.files.closed(opened.file)
        elif isinstance(opened, OpenMounted):
            return opened.mount.call("fd_close", opened.number)
        return SUCCESS

    def fd_renumber(self, fd: int, to: int) -> int:
        opened, _ = self._get(fd), self._get(to)
        if fd != to:
            self.fd_close(to)
            del self._open[fd]
            self._open[to] = opened
        return SUCCESS

    def fd_fdstat_get(self, fd: int, result: int) -> int:
        opened = self._get(fd)
        flags = 0
        if isinstance(opened, OpenMounted):
            kind, flags, rights = opened.mount.fdstat(opened.number)
        elif isinstance(opened, OpenFile):
            kind, flags = _filetype(opened.file), opened.flags
            rights = ALL_RIGHTS & ~(0 if opened.reads else RIGHT_READ) & ~(0 if opened.writes else RIGHT_WRITE)
        else:
            kind, rights = DIRECTORY, ALL_RIGHTS
        self.memory.store(result, struct.pack("<BxHxxxxQQ", kind, flags, rights, ALL_RIGHTS))
        return SUCCESS

    def fd_fdstat_set_flags(self, fd: int, flags: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return opened.mount.call("fd_fdstat_set_flags", opened.number, flags)
        if isinstance(opened, OpenFile):
            opened.flags = flags & KEPT_FLAGS
        return SUCCESS

    def fd_advise(self, fd: int, offset: int, size: int, advice: int) -> int:
        self._get(fd)
        return SUCCESS

    def fd_sync(self, fd: int) -> int:
        opened = self._get(fd)
        return opened.mount.call("fd_sync", opened.number) if isinstance(opened, OpenMounted) else SUCCESS

    def fd_datasync(self, fd: int) -> int:
        return self.fd_sync(fd)

    # -- reading and writing ---------------------------------------------------------------------

    def fd_read(self, fd: int, iovs: int, count: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return self._transfer_mounted("fd_read", opened, iovs, count, result)
        file = self._readable(opened)
        done = self._read(file.file, file.position, iovs, count)
        self._store_size(result, done)
        file.position += done
        return SUCCESS

    def fd_pread(self, fd: int, iovs: int, count: int, offset: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return self._transfer_mounted("fd_pread", opened, iovs, count, result, offset)
        self._store_size(result, self._read(self._readable(opened).file, offset, iovs, count))
        return SUCCESS

    def fd_write(self, fd: int, iovs: int, count: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return self._transfer_mounted("fd_write", opened, iovs, count, result)
        file = self._writable(opened)
        start = len(file.file.data) if file.flags & APPEND else file.position
        done = self._write(file.file, start, iovs, count)
        self._store_size(result, done)
        file.position = start + done
        return SUCCESS

    def fd_pwrite(self, fd: int, iovs: int, count: int, offset: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return self._transfer_mounted("fd_pwrite", opened, iovs, count, result, offset)
        self._store_size(result, self._write(self._writable(opened).file, offset, iovs, count))
        return SUCCESS

    def _read(self, file: File, position: int, iovs: int, count: int) -> int:
        spans = vectors(self.memory, iovs, count)
        done = 0
        for start, size in spans:
            end = done + min(size, max(0, len(file.data) - position - done))
            first = done
            while done < end:
                self.memory.check()
                piece = bytes(file.data[position + done : position + min(end, done + CHUNK_BYTES)])
                ctypes.memmove(start + done - first, piece, len(piece))
                done += len(piece)
        file.accessed = self.memory.now()
        return done

    def _write(self, file: File, position: int, iovs: int, count: int) -> int:
        spans = vectors(self.memory, iovs, count)
        total = sum(size for _, size in spans)
        if not total or isinstance(file, NullDevice):
            return total
        if position + total > len(file.data):
            self._resize(file, position + total)
        data = file.writable()
        at = position
        for start, size in spans:
            for begin in range(0, size, CHUNK_BYTES):
                self.memory.check()
                piece = memory_at(start + begin, min(CHUNK_BYTES, size - begin))
                data[at : at + len(piece)] = piece
                at += len(piece)
        file.modified = self.memory.now()
        return total

    def _resize(self, file: File, size: int) -> None:
        if isinstance(file, NullDevice):
            return
        for _ in self.files.resize(file, size):
            self.memory.check()

    def _transfer_mounted(
        self, function: str, opened: OpenMounted, iovs: int, count: int, result: int, offset: int | None = None
    ) -> int:
        """Read or write through a mount, in pieces that fit its own memory, until one is not filled."""
        self.memory.span(result, 4)
        spans = vectors(self.memory, iovs, count)
        done = 0
        for start, size in spans:
            for begin in range(0, size, CHUNK_BYTES):
                self.memory.check()
                wanted = min(CHUNK_BYTES, size - begin)
                place = None if offset is None else offset + done
                errno, moved = opened.mount.transfer(function, opened.number, start + begin, wanted, place)
                if errno and not done:
                    return errno
                done += moved
                if errno or moved < wanted:
                    self._store_size(result, done)
                    return SUCCESS
        self._store_size(result, done)
        return SUCCESS

    # -- position and size -----------------------------------------------------------------------

    def fd_seek(self, fd: int, offset: int, whence: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return self._position_mounted(opened, "fd_seek", result, offset, whence)
        file = self._file(opened)
        origins = {FROM_START: 0, FROM_HERE: file.position, FROM_END: len(file.file.data)}
        if whence not in origins:
            return EINVAL
        position = origins[whence] + _signed(offset)
        if not 0 <= position < 1 << 63:
            return EINVAL
        self.memory.store(result, struct.pack("<Q", position))
        file.position = position
        return SUCCESS

    def fd_tell(self, fd: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return self._position_mounted(opened, "fd_tell", result)
        self.memory.store(result, struct.pack("<Q", self._file(opened).position))
        return SUCCESS

    def _position_mounted(self, opened: OpenMounted, function: str, result: int, *arguments: int) -> int:
        self.memory.span(result, 8)
        errno, position = opened.mount.position(function, opened.number, *arguments)
        if not errno:
            self.memory.store(result, struct.pack("<Q", position))
        return errno

    def fd_filestat_get(self, fd: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            errno, status = opened.mount.filestat(opened.number)
            if errno:
                return errno
        else:
            status = _filestat(opened.file if isinstance(opened, OpenFile) else opened.directory)
        self.memory.store(result, status)
        return SUCCESS

    def fd_filestat_set_size(self, fd: int, size: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return opened.mount.set_size(opened.number, size)
        file = self._writable(opened).file
        self._resize(file, size)
        file.modified = self.memory.now()
        return SUCCESS

    def fd_allocate(self, fd: int, offset: int, size: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return EPERM  # its size would not be bounded
        file = self._writable(opened).file
        if offset + size > len(file.data):
            self._resize(file, offset + size)
        return SUCCESS

    def fd_filestat_set_times(self, fd: int, accessed: int, modified: int, flags: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            return opened.mount.set_times(opened.number, accessed, modified, flags)
        return self._set_times(
            opened.file if isinstance(opened, OpenFile) else opened.directory, accessed, modified, flags
        )

    def _set_times(self, node: Node, accessed: int, modified: int, flags: int) -> int:
        if any(flags & both == both for both in (SET_ATIME | SET_ATIME_NOW, SET_MTIME | SET_MTIME_NOW)):
            return EINVAL
        if flags & (SET_ATIME | SET_ATIME_NOW):
            node.accessed = accessed if flags & SET_ATIME else self.memory.now()
        if flags & (SET_MTIME | SET_MTIME_NOW):
            node.modified = modified if flags & SET_MTIME else self.memory.now()
        return SUCCESS

    def fd_readdir(self, fd: int, buffer: int, size: int, cookie: int, result: int) -> int:
        opened = self._get(fd)
        if isinstance(opened, OpenMounted):
            address = self.memory.span(buffer, size)
            self.memory.span(result, 4)
            errno, listed = opened.mount.read_directory(opened.number, address, size, cookie)
            if not errno:
                self._store_size(result, listed)
            return errno
        if not isinstance(opened, OpenDirectory):
            return ENOTDIR
        self.memory.span(buffer, size)
        done, packed = 0, bytearray()
        for number, name, node in opened.directory.listed(cookie):
            encoded = name.encode()
            packed += struct.pack("<QQIBxxx", number, node.inode, len(encoded), _filetype(node)) + encoded
            if len(packed) >= min(LISTED_BYTES, size - done):
                done += self._store_listed(buffer + done, packed, size - done)
                if done == size:
                    break
        done += self._store_listed(buffer + done, packed, size - done)
        self._store_size(result, done)
        return SUCCESS

    def _store_listed(self, address: int, packed: bytearray, room: int) -> int:
        """Hand over a part of a listing, cut to the room that there is: the number of bytes."""
        self.memory.check()
        part = bytes(packed[:room])
        packed.clear()
        self.memory.store(address, part)
        return len(part)

    # -- paths -----------------------------------------------------------------------------------

    def path_open(
        self,
        fd: int,
        lookup: int,
        path: int,
        path_size: int,
        oflags: int,
        rights: int,
        inheriting: int,
        flags: int,
        result: int,
    ) -> int:
        self.memory.span(result, 4)
        number = self._free_number()
        place = self._resolve_or_null(fd, path, path_size)
        opened: Open
        if isinstance(place, _Beyond):
            if oflags & CREATE and place.means_directory:
                return EISDIR  # as for a path in memory; the flags of both at once are no valid ones
            oflags |= MUST_BE_DIRECTORY if place.means_directory else 0
            there = place.mount.open(place.directory, place.path, lookup, oflags, rights, flags)
            opened = OpenMounted(place.mount, there)
        else:
            opened = self._open_here(place, oflags, rights, flags)
        self._open[number] = opened
        self._store_size(result, number)
        return SUCCESS

    def _open_here(self, place: Place, oflags: int, rights: int, flags: int) -> OpenFile | OpenDirectory:
        writes = bool(rights & RIGHT_WRITE)
        node = place.node
        if isinstance(node, Directory):
            if oflags & CREATE and oflags & EXCLUSIVE:
                raise Refusal(EEXIST)
            if oflags & (CREATE | TRUNCATE) or writes:
                raise Refusal(EISDIR)
            return OpenDirectory(node)
        if oflags & MUST_BE_DIRECTORY:
            raise Refusal(ENOENT if node is None else ENOTDIR)
        if node is None:
            if not oflags & CREATE:
                raise Refusal(ENOENT)
            node = self.files.create_file(place, self.memory.now())
        elif oflags & CREATE and oflags & EXCLUSIVE:
            raise Refusal(EEXIST)
        if not isinstance(node, File):
            raise Refusal(ENOENT)
        if oflags & TRUNCATE and node.data:
            self._resize(node, 0)
            node.modified = self.memory.now()
        self.files.opened(node)
        return OpenFile(node, bool(rights & RIGHT_READ), writes, flags & KEPT_FLAGS)

    def path_filestat_get(self, fd: int, lookup: int, path: int, path_size: int, result: int) -> int:
        place = self._resolve_or_null(fd, path, path_size)
        if isinstance(place, _Beyond):
            errno, status = place.mount.path_filestat(place.directory, lookup, place.path)
            if errno:
                return errno
            if place.means_directory and status[16] != DIRECTORY:
                return ENOTDIR
        else:
            status = _filestat(_existing(place))
        self.memory.store(result, status)
        return SUCCESS

    def path_filestat_set_times(
        self, fd: int, lookup: int, path: int, path_size: int, accessed: int, modified: int, flags: int
    ) -> int:
        place = self._resolve(fd, path, path_size)
        if isinstance(place, _Beyond):
            return place.mount.path_set_times(place.directory, lookup, place.path, accessed, modified, flags)
        return self._set_times(_existing(place), accessed, modified, flags)

    def path_create_directory(self, fd: int, path: int, path_size: int) -> int:
        place = self._resolve(fd, path, path_size)
        if isinstance(place, _Beyond):
            return place.mount.create_directory(place.directory, place.path)
        self.files.make_directory(place, self.memory.now())
        return SUCCESS

    def path_remove_directory(self, fd: int, path: int, path_size: int) -> int:
        place = self._resolve(fd, path, path_size)
        if isinstance(place, _Beyond):
            return place.mount.on_path("path_remove_directory", place.directory, place.path)
        self.files.remove_directory(place, self.memory.now())
        return SUCCESS

    def path_unlink_file(self, fd: int, path: int, path_size: int) -> int:
        place = self._resolve(fd, path, path_size)
        if isinstance(place, _Beyond):
            return (
                ENOTDIR
                if place.means_directory
                else place.mount.on_path("path_unlink_file", place.directory, place.path)
            )
        self.files.remove_file(place, self.memory.now())
        return SUCCESS

    def path_rename(self, fd: int, path: int, path_size: int, to_fd: int, to_path: int, to_size: int) -> int:
        old, new = self._resolve(fd, path, path_size), self._resolve(to_fd, to_path, to_size)
        if isinstance(old, _Beyond) and isinstance(new, _Beyond):
            if old.mount is not new.mount:
                return EXDEV
            return old.mount.rename(old.directory, old.path, new.directory, new.path)
        if isinstance(old, _Beyond) or isinstance(new, _Beyond):
            return EXDEV
        self.files.rename(old, new, self.memory.now())
        return SUCCESS

    def path_readlink(self, fd: int, path: int, path_size: int, buffer: int, size: int, result: int) -> int:
        place = self._resolve(fd, path, path_size)
        if isinstance(place, _Beyond):
            self.memory.span(result, 4)
            self.memory.span(buffer, size)
            errno, target = place.mount.read_link(place.directory, place.path, size)
            if not errno:
                self.memory.store(buffer, target)
                self._store_size(result, len(target))
            return errno
        _existing(place)
        return EINVAL  # there are no links here

    def path_link(self, fd: int, lookup: int, path: int, path_size: int, to_fd: int, to_path: int, to_size: int) -> int:
        self._get(fd), self._get(to_fd)
        return EPERM

    def path_symlink(self, target: int, target_size: int, fd: int, path: int, path_size: int) -> int:
        self._get(fd)
        return EPERM

    # -- helpers ---------------------------------------------------------------------------------

    def _get(self, fd: int) -> Open:
        opened = self._open.get(fd)
        if opened is None:
            raise Refusal(EBADF)
        return opened

    def _file(self, opened: Open) -> OpenFile:
        if not isinstance(opened, OpenFile):
            raise Refusal(EISDIR)
        return opened

    def _readable(self, opened: Open) -> OpenFile:
        file = self._file(opened)
        if not file.reads:
            raise Refusal(EBADF)
        return file

    def _writable(self, opened: Open) -> OpenFile:
        file = self._file(opened)
        if not file.writes:
            raise Refusal(EBADF)
        return file

    def _free_number(self) -> int:
        if len(self._open) >= MAX_DESCRIPTORS:
            raise Refusal(EMFILE)
        return next(number for number in range(ROOT, ROOT + MAX_DESCRIPTORS) if number not in self._open)

    def _store_size(self, result: int, size: int) -> None:
        self.memory.store(result, struct.pack("<I", size))

    def _resolve_or_null(self, fd: int, path: int, size: int) -> Place | _Beyond:
        """`_resolve` for what may also be done to the null device."""
        opened = self._get(fd)
        if isinstance(opened, OpenDirectory):
            null = self.files.null_at(opened.directory, self.memory.load(path, min(size, 1 << 16)))
            if null is not None:
                return Place(opened.directory, "null", null, False)
        return self._resolve(fd, path, size)

    def _resolve(self, fd: int, path: int, size: int) -> Place | _Beyond:
        opened = self._get(fd)
        if isinstance(opened, OpenFile):
            raise Refusal(ENOTDIR)
        text = self.memory.load(path, min(size, 1 << 16))  # one that is cut is too long
        if isinstance(opened, OpenMounted):
            return _Beyond.relative(opened, text)
        place = self.files.resolve(opened.directory, text)
        if isinstance(place.node, MountPoint):
            mount = self._mounts[place.node.number]
            return _Beyond(mount, mount.root, place.below or ".", place.means_directory)
        return place


def _existing(place: Place) -> Node:
    if place.node is None:
        raise Refusal(ENOENT)
    return place.node


def _filetype(node: Node) -> int:
    if isinstance(node, NullDevice):
        return CHARACTER_DEVICE
    return REGULAR_FILE if isinstance(node, File) else DIRECTORY


def _filestat(node: Node) -> bytes:
    size = len(node.data) if isinstance(node, File) else 0
    return struct.pack(
        "<QQBxxxxxxxQQQQQ", DEVICE, node.inode, _filetype(node), 1, size, node.accessed, node.modified, node.modified
    )


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _serving(name: str) -> Imported:
    on_stream = Streams.functions[name]
    on_file: Imported = getattr(Descriptors, name)
    takes_path = name.startswith("path_")

    def serve(descriptors: Descriptors, fd: int, *arguments: int) -> int:
        if fd <= STDERR and not takes_path:
            return on_stream(descriptors.streams, fd, *arguments)
        descriptors.memory.check()
        return on_file(descriptors, fd, *arguments)

    return serve


Descriptors.functions = {name: _serving(name) for name in FILE_FUNCTIONS}
