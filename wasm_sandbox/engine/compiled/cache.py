"""Cache of compiled images: native code, so in a directory that nobody else can write."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from wasm_sandbox.directories import CACHE_VARIABLE, FileIdentity, cache_directory, private_directory
from wasm_sandbox.errors import CacheError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # None says that there is none

WRITING_PREFIX = ".writing-"
ABANDONED_SECONDS = 600.0


class _Record(NamedTuple):
    """Record beside a compiled image, written after that is complete."""

    key: str
    sha256: str
    identity: FileIdentity

    @classmethod
    def read(cls, path: Path) -> _Record | None:
        """Record in a file; None if it is missing or damaged."""
        try:
            content = json.loads(path.read_bytes())
            identity = content["identity"]
            record = cls(content["key"], content["sha256"], FileIdentity(*(identity[n] for n in FileIdentity._fields)))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return record

    def encoded(self) -> bytes:
        """Content of the file."""
        fields = {**self._asdict(), "identity": self.identity._asdict()}
        return json.dumps(fields, separators=(",", ":")).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Hold:
    """Shared lock on the file of a compiled image, which keeps every process from pruning it until it is closed."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        if fcntl is not None:  # elsewhere the system itself removes no file that is mapped
            with suppress(OSError):
                self._descriptor = os.open(path, os.O_RDONLY)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let the image be pruned."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _is_held(path: Path) -> bool:
    if fcntl is None:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class CachedImage(NamedTuple):
    """Entry of the cache."""

    key: str
    path: Path
    size_bytes: int
    used_at: float
    """Time of the last load, in seconds since 1970."""


# Guarantees, among all threads and processes that use the directory:
# - a reader sees an entry whole or not at all: files are written under another name and renamed, the record last;
# - whoever holds `lock` of a key is the only one that prepares or removes that image;
# - an entry with a `Hold`, or with its `lock` held, is never removed, where the system has flock(2).
# Locks, in this order: the file ``KEY.lock``, held while an image is prepared, which takes seconds; flock(2) of the
# image itself, shared by every `Hold` and only tried by whoever removes.
class ImageCache:
    """Compiled images by key, in a private directory.

    Args:
        directory: the directory; by default `cache_directory`.

    Raises:
        CacheError: if the directory cannot be made, or others can write to it.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = private_directory(directory or cache_directory(), "the cache directory", CACHE_VARIABLE)

    def path(self, key: str) -> Path:
        """Path of the compiled image of a key, whether it is there or not."""
        return self.directory / f"{key}.cwasm"

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of an image that is prepared; ``on_wait`` is called if another process holds it.

        Raises:
            CacheError: if nothing can be written to the directory.
        """
        import filelock  # lazy: only where an image is prepared or removed

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
                f"Name a writable one in {CACHE_VARIABLE}"
            ) from error
        try:
            yield
        finally:
            held.release()

    def sweep(self) -> None:
        """Remove the unfinished files of processes that were killed."""
        before = time.time() - ABANDONED_SECONDS
        for path in self.directory.glob(f"{WRITING_PREFIX}*"):
            with suppress(OSError):  # another process may be quicker
                if path.stat().st_mtime < before:
                    path.unlink()

    def entries(self) -> list[CachedImage]:
        """Entries of the cache, the least recently used first."""
        found = []
        for path in self.directory.glob("*.cwasm"):
            record = self._record_path(path.stem)
            with suppress(OSError):  # another process may be quicker
                status = path.stat()
                used_at = record.stat().st_mtime if record.exists() else status.st_mtime
                found.append(CachedImage(path.stem, path, status.st_size, used_at))
        return sorted(found, key=lambda one: one.used_at)

    def remove(self, key: str) -> bool:
        """Remove an entry; false if it is in use, being prepared or cannot be removed."""
        import filelock  # lazy: only where an image is prepared or removed

        lock = filelock.FileLock(self.directory / f"{key}.lock")
        try:
            with lock.acquire(blocking=False):
                if _is_held(self.path(key)):
                    return False
                self.path(key).unlink()
                self._record_path(key).unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        except (filelock.Timeout, OSError):
            return False
        return True

    def prune(
        self, max_bytes: int, *, unused_seconds: float | None = None, keep: str | None = None
    ) -> list[CachedImage]:
        """Remove the least recently used entries until the rest take at most ``max_bytes`` (LRU).

        Args:
            max_bytes: maximum size of the rest.
            unused_seconds: age from which entries are removed in any case.
            keep: key of an entry to leave alone.

        Returns:
            The removed entries. An entry that is in use, or being prepared, is left alone.
        """
        removed = []
        entries = [entry for entry in self.entries() if entry.key != keep]
        total = sum(entry.size_bytes for entry in self.entries())
        before = time.time() - unused_seconds if unused_seconds is not None else None
        for entry in entries:
            is_old = before is not None and entry.used_at < before
            if (is_old or total > max_bytes) and self.remove(entry.key):
                removed.append(entry)
                total -= entry.size_bytes
        return removed

    def find(self, key: str, *, full_check: bool = False) -> Path | None:
        """Path of a complete, undamaged entry, or None.

        The recorded SHA-256 is compared only when the file's identity (size, times, inode) is not the
        recorded one, as after a copy of the directory, or when ``full_check`` asks for it.
        """
        path = self.path(key)
        record = _Record.read(self._record_path(key))
        try:
            status = path.lstat()
        except OSError:
            return None
        if record is None or record.key != key or not stat.S_ISREG(status.st_mode):
            return None
        if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return None
        identity = FileIdentity.of(path)
        if full_check or identity != record.identity:
            if _sha256(path) != record.sha256:
                return None
            with suppress(OSError):  # a read-only cache is compared each time
                self._write_record(key, record.sha256)
        return path

    def note_use(self, key: str) -> None:
        """Record the use of an entry, for the LRU order; nothing happens in a read-only directory."""
        with suppress(OSError):
            os.utime(self._record_path(key))

    def add(self, key: str, compiled: bytes) -> Path:
        """Store a compiled image.

        Raises:
            CacheError: if it cannot be written, for example for lack of space.
        """
        try:
            path = self._write(self.path(key), compiled)
            self._write_record(key, hashlib.sha256(compiled).hexdigest())
        except OSError as error:
            raise CacheError(
                f"cannot write {len(compiled) >> 20} MiB to the cache directory {self.directory}: "
                f"{error.strerror or error}. Free some space, or name another one in {CACHE_VARIABLE}"
            ) from error
        return path

    def _record_path(self, key: str) -> Path:
        return self.directory / f"{key}.json"

    def _write_record(self, key: str, sha256: str) -> None:
        self._write(self._record_path(key), _Record(key, sha256, FileIdentity.of(self.path(key))).encoded())

    def _write(self, path: Path, data: bytes) -> Path:
        import tempfile  # lazy: only where something is written

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
