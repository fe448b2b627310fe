"""The directory of compiled images: native code, so only ever one that nobody else can write."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ValidationError

from wasm_sandbox.errors import CacheError

DIRECTORY_VARIABLE = "WASM_SANDBOX_CACHE_DIR"
WRITING_PREFIX = ".writing-"
ABANDONED_SECONDS = 600.0


@dataclass(frozen=True)
class FileIdentity:
    """What changes when a file is written to: cheap to check at every start."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        s = path.stat()
        return cls(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)


class _Record(BaseModel):
    """Written beside a compiled image, after it is complete."""

    key: str
    sha256: str
    identity: dict[str, int]


def cache_directory() -> Path:
    """Where compiled images are kept: ``$WASM_SANDBOX_CACHE_DIR``, else the user's cache directory."""
    if configured := os.environ.get(DIRECTORY_VARIABLE):
        return Path(configured).expanduser()
    return platformdirs.user_cache_path("wasm-sandbox", appauthor=False)


def _refuse(path: Path, why: str) -> CacheError:
    return CacheError(
        f"the cache directory {path} {why}: compiled code is only loaded from a directory that nobody else "
        f"can write. Make it yours alone (chmod 700), or name another one in {DIRECTORY_VARIABLE}"
    )


def _check_private(path: Path) -> None:
    """Refuse a directory that another user could write to or swap. POSIX only: elsewhere profiles are private."""
    if os.name != "posix":
        return
    me = os.geteuid()
    status = path.stat()
    if status.st_uid != me:
        raise _refuse(path, f"belongs to user {status.st_uid}, not to you ({me})")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _refuse(path, f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})")
    for parent in path.parents:
        status = parent.stat()
        if status.st_uid not in (me, 0):
            raise _refuse(path, f"lies in {parent}, which belongs to user {status.st_uid}")
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise _refuse(path, f"lies in {parent}, which everybody can write")
        if status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_ISVTX and _has_others(status.st_gid):
            raise _refuse(path, f"lies in {parent}, which its group can write")


def _has_others(group: int) -> bool:
    """Whether a group may have other members than this user: any but a group of the user's own name."""
    import grp
    import pwd

    try:
        name, entry = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return True
    return entry.gr_name != name or bool({*entry.gr_mem} - {name})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ImageCache:
    """Compiled images by key, in a private directory.

    Raises:
        CacheError: the directory cannot be made, or others can write to it.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = (directory or cache_directory()).absolute()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory = self.directory.resolve(strict=True)
        except OSError as error:
            raise CacheError(
                f"cannot use the cache directory {self.directory}: {error.strerror or error}. "
                f"Name a writable one in {DIRECTORY_VARIABLE}"
            ) from error
        _check_private(self.directory)

    def path(self, key: str) -> Path:
        """Where the compiled image of a key is, or would be."""
        return self.directory / f"{key}.cwasm"

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Held by the one process that prepares an image; ``on_wait`` is called if another one holds it.

        Raises:
            CacheError: nothing can be written here.
        """
        import filelock

        held = filelock.FileLock(self.directory / f"{key}.lock")
        try:
            try:
                held.acquire(blocking=False)
            except filelock.Timeout:
                on_wait()
                held.acquire()
        except OSError as error:
            raise CacheError(
                f"cannot write to the cache directory {self.directory}: {error.strerror or error}. "
                f"Name a writable one in {DIRECTORY_VARIABLE}"
            ) from error
        try:
            yield
        finally:
            held.release()

    def sweep(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        before = time.time() - ABANDONED_SECONDS
        for path in self.directory.glob(f"{WRITING_PREFIX}*"):
            with suppress(OSError):  # another process may be quicker
                if path.stat().st_mtime < before:
                    path.unlink()

    def find(self, key: str, *, full_check: bool = False) -> Path | None:
        """The file of a complete, undamaged entry, or None.

        The recorded SHA-256 is compared only when the file's identity (size, times, inode) is not the
        recorded one, as after a copy of the directory, or when ``full_check`` asks for it.
        """
        path = self.path(key)
        try:
            record = _Record.model_validate_json(self._record_path(key).read_bytes())
            status = path.lstat()
        except (OSError, ValidationError):
            return None
        if record.key != key or not stat.S_ISREG(status.st_mode):
            return None
        if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return None
        identity = asdict(FileIdentity.of(path))
        if full_check or identity != record.identity:
            if _sha256(path) != record.sha256:
                return None
            with suppress(OSError):  # a read-only cache is compared each time
                self._write_record(key, record.sha256)
        return path

    def add(self, key: str, compiled: bytes) -> Path:
        """Store a compiled image. A reader sees all of it or nothing.

        Raises:
            CacheError: it cannot be written, for example for lack of space.
        """
        try:
            path = self._write(self.path(key), compiled)
            self._write_record(key, hashlib.sha256(compiled).hexdigest())
        except OSError as error:
            raise CacheError(
                f"cannot write {len(compiled) >> 20} MiB to the cache directory {self.directory}: "
                f"{error.strerror or error}. Free some space, or name another one in {DIRECTORY_VARIABLE}"
            ) from error
        return path

    def _record_path(self, key: str) -> Path:
        return self.directory / f"{key}.json"

    def _write_record(self, key: str, sha256: str) -> None:
        record = _Record(key=key, sha256=sha256, identity=asdict(FileIdentity.of(self.path(key))))
        self._write(self._record_path(key), record.model_dump_json().encode())

    def _write(self, path: Path, data: bytes) -> Path:
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=WRITING_PREFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path
