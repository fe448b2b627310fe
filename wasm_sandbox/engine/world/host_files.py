"""File system of mounts, of our own, where the system can open from a directory on (POSIX): functions of preview 1.

The problem: wasmtime's WASI opens whatever has a name, and waits for ever if that is a FIFO. It opens directories and
what it sets the times of, too. A look before helps nothing: the name may be another's by then. So everything is opened
here, with ``O_NONBLOCK``, from the mount's directory on, name by name, following no link that was not read and checked
(`last_step`); then it is looked at, and what is neither a regular file nor a directory is closed again.

What remains: opening a device by a name that was a file's a moment ago has whatever effect opening that device has.
On other systems (Windows) wasmtime's WASI serves mounts (`mounts`); nothing in a directory can be waited for there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from wasm_sandbox.engine.world.preview1 import (
    ALL_RIGHTS,
    APPEND,
    CREATE,
    DIRECTORY,
    EBADF,
    EINVAL,
    EIO,
    EISDIR,
    ENOTDIR,
    ENOTSUP,
    EPERM,
    EXCLUSIVE,
    FOLLOW,
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
    SUCCESS,
    SYMBOLIC_LINK,
    TRUNCATE,
    UNKNOWN,
    Refusal,
)

IS_SUPPORTED = (
    {os.open, os.mkdir, os.readlink, os.rename, os.rmdir, os.stat, os.unlink, os.utime} <= os.supports_dir_fd
    and os.scandir in os.supports_fd
    and hasattr(os, "O_NONBLOCK")
)
"""Whether this system can open, look, make and remove from a directory on."""

MAX_LINKS = 40

_STEP = _FILE = 0
if IS_SUPPORTED:
    _STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", getattr(os, "O_SEARCH", os.O_RDONLY))
    _FILE = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC

_NUMBERS = {
    "EACCES": 2, "EAGAIN": 6, "EBADF": 8, "EBUSY": 10, "EDQUOT": 19, "EEXIST": 20, "EFBIG": 22, "EINTR": 27,
    "EINVAL": 28, "EIO": 29, "EISDIR": 31, "ELOOP": 32, "EMFILE": 33, "EMLINK": 34, "ENAMETOOLONG": 37, "ENFILE": 41,
    "ENOENT": 44, "ENOMEM": 48, "ENOSPC": 51, "ENOTDIR": 54, "ENOTEMPTY": 55, "ENOTSUP": 58, "ENXIO": EPERM,
    "EOVERFLOW": 61, "EPERM": 63, "EROFS": 69, "ESPIPE": 70, "ESTALE": 72, "ETXTBSY": 74, "EXDEV": 75,
}  # fmt: skip
"""Errnos in preview 1. The system says ENXIO of FIFOs and sockets that nobody listens to."""
_IN_PREVIEW_1 = {getattr(errno, name): number for name, number in _NUMBERS.items() if hasattr(errno, name)}


@contextmanager
def refusing() -> Iterator[None]:
    """Translate what the system says into a `Refusal`."""
    try:
        yield
    except (OverflowError, ValueError):
        raise Refusal(EINVAL) from None
    except OSError as error:
        raise Refusal(_IN_PREVIEW_1.get(error.errno or 0, EIO)) from None


@contextmanager
def last_step(base: int, path: str, follow: bool) -> Iterator[tuple[int, str]]:
    """Directory and name at which a path ends; the directory is closed afterwards.

    Args:
        base: descriptor of the directory that the path may not leave.
        path: relative path.
        follow: whether the last name may be that of a link; else a link is where the path ends.

    Raises:
        Refusal: if the path leads out of the directory, through too many links, or nowhere.
    """
    way: list[int] = []
    waiting, links = path.split("/")[::-1], 0
    try:
        with refusing():
            while waiting:
                here, name = way[-1] if way else base, waiting.pop()
                if name in ("", "."):
                    continue
                if name == "..":
                    if not way:
                        raise Refusal(EPERM)
                    os.close(way.pop())
                    continue
                target = _target(here, name) if waiting or follow else None
                if target is not None:
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, "too many links")
                    if target.startswith("/"):
                        raise Refusal(EPERM)
                    waiting += target.split("/")[::-1]
                elif waiting:
                    way.append(os.open(name, _STEP, dir_fd=here))
                else:
                    yield here, name
                    return
            yield way[-1] if way else base, "."
    finally:
        for descriptor in way:
            os.close(descriptor)


def _target(directory: int, name: str) -> str | None:
    """Target of a link; None of anything else."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _times(old: os.stat_result, accessed: int, modified: int, flags: int) -> tuple[int, int]:
    def chosen(given: int, is_given: int, is_now: int, before: int) -> int:
        if flags & is_given and flags & is_now:
            raise Refusal(EINVAL)
        return given if flags & is_given else time.time_ns() if flags & is_now else before

    return (
        chosen(accessed, SET_ATIME, SET_ATIME_NOW, old.st_atime_ns),
        chosen(modified, SET_MTIME, SET_MTIME_NOW, old.st_mtime_ns),
    )


def _kind(mode: int) -> int:
    """Filetype of preview 1."""
    kinds = {stat.S_IFREG: REGULAR_FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMBOLIC_LINK}
    return kinds.get(stat.S_IFMT(mode), UNKNOWN)


def _entry_kind(entry: os.DirEntry[str]) -> int:
    with suppress(OSError):
        if entry.is_symlink():
            return SYMBOLIC_LINK
        if entry.is_dir(follow_symlinks=False):
            return DIRECTORY
        if entry.is_file(follow_symlinks=False):
            return REGULAR_FILE
    return UNKNOWN


class HostFiles:
    """Descriptors of one guest's mounts, and a memory for arguments and results of the functions.

    Args:
        directories: paths of the mounts; the first one is descriptor `ROOT`.
        memory_bytes: size of the memory.

    Raises:
        OSError: if a directory cannot be opened.
    """

    def __init__(self, directories: Sequence[str], memory_bytes: int) -> None:
        self._memory = ctypes.create_string_buffer(memory_bytes)
        self._devices: dict[int, int] = {}
        self._open: dict[int, _Opened] = {}
        self._last = ROOT - 1
        try:
            for path in directories:
                self._add(_HostDirectory(self, os.open(path, _STEP & ~os.O_NOFOLLOW)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close whatever is open."""
        while self._open:
            self._open.popitem()[1].close()

    def address(self, offset: int) -> int:
        """Address in this process of a byte of the memory."""
        return ctypes.addressof(self._memory) + offset

    def read(self, offset: int, size: int) -> bytes:
        """Copy of a part of the memory."""
        return ctypes.string_at(self.address(offset), size)

    def write(self, offset: int, data: bytes) -> None:
        """Write to the memory."""
        ctypes.memmove(self.address(offset), data, len(data))

    def call(self, function: str, number: int, *arguments: int) -> int:
        """Call a function of preview 1; its errno."""
        opened = self._open.get(number)
        if opened is None:
            return EBADF
        serve: Callable[..., None] | None = getattr(opened, function, None)
        if serve is None:
            return ENOTDIR if isinstance(opened, _HostFile) else EISDIR
        try:
            with refusing():
                serve(*arguments)
        except Refusal as refusal:
            return refusal.errno
        if function == "fd_close":
            del self._open[number]
        return SUCCESS

    def status(self, found: os.stat_result) -> bytes:
        """Status of preview 1. Devices are numbered as they are met, after that of the files in memory."""
        device = self._devices.setdefault(found.st_dev, 2 + len(self._devices))
        times = (max(0, ns) for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns))
        return struct.pack(
            "<QQBxxxxxxxQQQQQ", device, found.st_ino, _kind(found.st_mode), found.st_nlink, found.st_size, *times
        )

    def path(self, pointer: int, size: int) -> str:
        """A path, as it was put into the memory."""
        return self.read(pointer, size).decode()

    def directory(self, number: int) -> int:
        """The system's descriptor of a directory.

        Raises:
            Refusal: if it is none.
        """
        opened = self._open.get(number)
        if not isinstance(opened, _HostDirectory):
            raise Refusal(ENOTDIR)
        return opened.fd

    def open(self, base: int, path: str, follow: bool, oflags: int, rights: int, flags: int) -> int:
        """Open a file or a directory, without waiting for anything; its number.

        Raises:
            Refusal: if it is anything else.
            OSError: if the system refuses.
        """
        writes = bool(rights & RIGHT_WRITE or oflags & TRUNCATE)
        access = (os.O_RDWR if rights & RIGHT_READ else os.O_WRONLY) if writes else os.O_RDONLY
        if oflags & MUST_BE_DIRECTORY:
            if oflags & CREATE:
                raise Refusal(EINVAL)
            access |= os.O_DIRECTORY
        creation = (os.O_CREAT if oflags & CREATE else 0) | (os.O_EXCL if oflags & EXCLUSIVE else 0)
        with last_step(base, path, follow) as (here, name):
            fd = os.open(name, _FILE | access | creation | (os.O_APPEND if flags & APPEND else 0), 0o666, dir_fd=here)
        try:
            kind = _kind(os.fstat(fd).st_mode)
            if kind not in (REGULAR_FILE, DIRECTORY):
                raise Refusal(EPERM)
            if kind == REGULAR_FILE and oflags & TRUNCATE:
                os.ftruncate(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        return self._add(_HostDirectory(self, fd) if kind == DIRECTORY else _HostFile(self, fd, rights, flags))

    def _add(self, opened: _Opened) -> int:
        self._last += 1
        self._open[self._last] = opened
        return self._last


class _Opened:
    """Open file or directory of the host, and the functions of preview 1 that both have."""

    rights = ALL_RIGHTS

    def __init__(self, files: HostFiles, fd: int, flags: int = 0) -> None:
        self.files, self.fd, self.flags = files, fd, flags & KEPT_FLAGS

    def close(self) -> None:
        """Close it; it may be called again."""
        descriptor, self.fd = self.fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def fd_close(self) -> None:
        self.close()

    def fd_fdstat_get(self, result: int) -> None:
        kind = DIRECTORY if isinstance(self, _HostDirectory) else REGULAR_FILE
        self.files.write(result, struct.pack("<BxHxxxxQQ", kind, self.flags, self.rights, self.rights))

    def fd_filestat_get(self, result: int) -> None:
        self.files.write(result, self.files.status(os.fstat(self.fd)))

    def fd_filestat_set_times(self, accessed: int, modified: int, flags: int) -> None:
        os.utime(self.fd, ns=_times(os.fstat(self.fd), accessed, modified, flags))


class _HostFile(_Opened):
    """Open regular file of the host. It keeps its own position, which may be anywhere."""

    def __init__(self, files: HostFiles, fd: int, rights: int, flags: int) -> None:
        super().__init__(files, fd, flags)
        self._reads, self._writes, self._at = bool(rights & RIGHT_READ), bool(rights & RIGHT_WRITE), 0
        self.rights = ALL_RIGHTS & ~(0 if self._reads else RIGHT_READ) & ~(0 if self._writes else RIGHT_WRITE)

    def fd_fdstat_set_flags(self, flags: int) -> None:
        import fcntl  # lazy: POSIX has it

        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_NONBLOCK | (os.O_APPEND if flags & APPEND else 0))
        self.flags = flags & KEPT_FLAGS

    def fd_filestat_set_size(self, size: int) -> None:
        os.ftruncate(self._writable(), size)

    def fd_sync(self) -> None:
        os.fsync(self.fd)

    def fd_seek(self, offset: int, whence: int, result: int) -> None:
        if whence not in (FROM_START, FROM_HERE, FROM_END):
            raise Refusal(EINVAL)
        origin = 0 if whence == FROM_START else self._at if whence == FROM_HERE else os.fstat(self.fd).st_size
        at = origin + (offset - (1 << 64) if offset >> 63 else offset)
        if not 0 <= at < 1 << 63:
            raise Refusal(EINVAL)
        self._at = at
        self.fd_tell(result)

    def fd_tell(self, result: int) -> None:
        self.files.write(result, struct.pack("<Q", self._at))

    def fd_read(self, vector: int, count: int, result: int) -> None:
        self._at += self._read(vector, self._at, result)

    def fd_pread(self, vector: int, count: int, offset: int, result: int) -> None:
        self._read(vector, offset, result)

    def _read(self, vector: int, at: int, result: int) -> int:
        if not self._reads:
            raise Refusal(EBADF)
        place, size = self._vector(vector)
        data = os.pread(self.fd, size, at)
        self.files.write(place, data)
        self.files.write(result, struct.pack("<I", len(data)))
        return len(data)

    def fd_write(self, vector: int, count: int, result: int) -> None:
        if not self.flags & APPEND:
            self._at += self._write(vector, self._at, result)
            return
        done = os.write(self._writable(), self.files.read(*self._vector(vector)))
        self._at = os.lseek(self.fd, 0, os.SEEK_CUR)
        self.files.write(result, struct.pack("<I", done))

    def fd_pwrite(self, vector: int, count: int, offset: int, result: int) -> None:
        self._write(vector, offset, result)

    def _write(self, vector: int, at: int, result: int) -> int:
        done = os.pwrite(self._writable(), self.files.read(*self._vector(vector)), at)
        self.files.write(result, struct.pack("<I", done))
        return done

    def _vector(self, vector: int) -> tuple[int, int]:
        """Place and size of the one vector."""
        place, size = struct.unpack("<II", self.files.read(vector, 8))
        return place, size

    def _writable(self) -> int:
        if not self._writes:
            raise Refusal(EBADF)
        return self.fd


class _HostDirectory(_Opened):
    """Open directory of the host, from which paths start, and its listing as far as it has been read.

    Of the listing only what was handed over last is kept: however many entries there are, it takes no more memory.
    """

    def __init__(self, files: HostFiles, fd: int) -> None:
        super().__init__(files, fd)
        self._entries: Iterator[os.DirEntry[str]] | None = None
        self._next = 0
        self._window: list[tuple[int, bytes]] = []

    def close(self) -> None:
        self._end_listing()
        super().close()

    def fd_fdstat_set_flags(self, flags: int) -> None:
        pass

    def fd_sync(self) -> None:
        raise Refusal(ENOTSUP)

    def fd_filestat_set_times(self, accessed: int, modified: int, flags: int) -> None:
        os.utime(".", ns=_times(os.fstat(self.fd), accessed, modified, flags), dir_fd=self.fd, follow_symlinks=False)

    # -- listing ---------------------------------------------------------------------------------

    def fd_readdir(self, buffer: int, size: int, cookie: int, result: int) -> None:
        packed, window = bytearray(), []
        for number, record in self._records(cookie):
            window.append((number, record))
            packed += record
            if len(packed) >= size:
                break
        self._window = window
        data = bytes(packed[:size])
        self.files.write(buffer, data)
        self.files.write(result, struct.pack("<I", len(data)))

    def _records(self, cookie: int) -> Iterator[tuple[int, bytes]]:
        """Number and record of each entry from a cookie on, which is the number of the first one."""
        kept = [(number, record) for number, record in self._window if number >= cookie]
        if kept and kept[0][0] == cookie and cookie:
            yield from kept
        elif self._entries is None or cookie != self._next:
            self._begin_listing(cookie)
        while True:
            record = self._record(self._next)
            if record is None:
                return
            self._next += 1
            yield self._next - 1, record

    def _begin_listing(self, cookie: int) -> None:
        self._end_listing()
        reading = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self.fd)
        try:
            self._entries = os.scandir(reading)  # it has a descriptor of its own
        finally:
            os.close(reading)
        while self._next < cookie and self._record(self._next) is not None:
            self._next += 1

    def _end_listing(self) -> None:
        entries, self._entries, self._next, self._window = self._entries, None, 0, []
        if entries is not None:
            entries.close()  # type: ignore[attr-defined]  # scandir's has it

    def _record(self, number: int) -> bytes | None:
        """Record of the next entry; None after the last one."""
        if number < 2:
            here = os.fstat(self.fd)
            name, inode, kind = (b".", b"..")[number], here.st_ino, DIRECTORY  # nothing is said of what is above
        else:
            assert self._entries is not None
            entry = next(self._entries, None)
            if entry is None:
                return None
            name, inode, kind = os.fsencode(entry.name), entry.inode(), _entry_kind(entry)
        return struct.pack("<QQIBxxx", number + 1, inode, len(name), kind) + name

    # -- paths -----------------------------------------------------------------------------------

    def path_open(
        self, lookup: int, path: int, size: int, oflags: int, rights: int, _: int, flags: int, result: int
    ) -> None:
        follow = bool(lookup & FOLLOW)
        number = self.files.open(self.fd, self.files.path(path, size), follow, oflags, rights, flags)
        self.files.write(result, struct.pack("<I", number))

    def path_filestat_get(self, lookup: int, path: int, size: int, result: int) -> None:
        with last_step(self.fd, self.files.path(path, size), bool(lookup & FOLLOW)) as (here, name):
            self.files.write(result, self.files.status(os.stat(name, dir_fd=here, follow_symlinks=False)))

    def path_filestat_set_times(
        self, lookup: int, path: int, size: int, accessed: int, modified: int, flags: int
    ) -> None:
        with last_step(self.fd, self.files.path(path, size), bool(lookup & FOLLOW)) as (here, name):
            old = os.stat(name, dir_fd=here, follow_symlinks=False)
            os.utime(name, ns=_times(old, accessed, modified, flags), dir_fd=here, follow_symlinks=False)

    def path_create_directory(self, path: int, size: int) -> None:
        with last_step(self.fd, self.files.path(path, size), False) as (here, name):
            os.mkdir(name, dir_fd=here)

    def path_remove_directory(self, path: int, size: int) -> None:
        with last_step(self.fd, self.files.path(path, size), False) as (here, name):
            os.rmdir(name, dir_fd=here)

    def path_unlink_file(self, path: int, size: int) -> None:
        with last_step(self.fd, self.files.path(path, size), False) as (here, name):
            os.unlink(name, dir_fd=here)

    def path_rename(self, path: int, size: int, to: int, to_path: int, to_size: int) -> None:
        with (
            last_step(self.fd, self.files.path(path, size), False) as (here, name),
            last_step(self.files.directory(to), self.files.path(to_path, to_size), False) as (there, new),
        ):
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)

    def path_readlink(self, path: int, size: int, buffer: int, room: int, result: int) -> None:
        with last_step(self.fd, self.files.path(path, size), False) as (here, name):
            target = os.readlink(name, dir_fd=here)
        if target.startswith("/"):
            raise Refusal(EPERM)  # a place of the host
        data = os.fsencode(target)[:room]
        self.files.write(buffer, data)
        self.files.write(result, struct.pack("<I", len(data)))
