"""Directories of data and cache on this machine, and checks that they are the user's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from wasm_sandbox.errors import CacheError
from wasm_sandbox.sizes import read_size

DATA_VARIABLE = "WASM_SANDBOX_DATA_DIR"
CACHE_VARIABLE = "WASM_SANDBOX_CACHE_DIR"
CACHE_SIZE_VARIABLE = "WASM_SANDBOX_CACHE_SIZE"
DEFAULT_CACHE_BYTES = 2 << 30
"""Default ceiling of the cache of compiled images, past which the least recently used are removed (LRU)."""
STORE_NAME = "store.sqlite3"


def data_directory() -> Path:
    """Directory of the user's data: ``$WASM_SANDBOX_DATA_DIR``, else the user's data directory of this platform."""
    if configured := os.environ.get(DATA_VARIABLE):
        return Path(configured).expanduser()
    import platformdirs  # lazy: only where no variable names the directory

    return platformdirs.user_data_path("wasm-sandbox", appauthor=False)


def store_path() -> Path:
    """Path of the database of tools and variables, which exists once something has been stored."""
    return data_directory() / STORE_NAME


def cache_directory() -> Path:
    """Directory of compiled images: ``$WASM_SANDBOX_CACHE_DIR``, else the user's cache directory."""
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured).expanduser()
    import platformdirs  # lazy: only where no variable names the directory

    return platformdirs.user_cache_path("wasm-sandbox", appauthor=False)


def private_directory(path: Path, what: str, variable: str) -> Path:
    """Make a directory if need be, and check that nobody else can write it; its resolved path.

    Args:
        path: path of the directory.
        what: name of the directory in messages.
        variable: environment variable that names another one.

    Raises:
        CacheError: if it cannot be made, or others can write to it.
    """
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve(strict=True)
        why = writable_by_others(path)
    except OSError as error:
        raise CacheError(
            f"cannot use {what} {path}: {error.strerror or error}. Name a writable one in {variable}"
        ) from error
    if why is not None:
        raise CacheError(
            f"{what} {path} {why}: what guests are made of is only loaded from a directory that nobody else "
            f"can write. Make it yours alone (chmod 700), or name another one in {variable}"
        )
    return path


def writable_by_others(path: Path, *, of_root: bool = False) -> str | None:
    """Way in which another user could write to a directory or replace it, in words, or ``None``.

    POSIX only: elsewhere profiles are private.

    Args:
        path: the directory, resolved.
        of_root: whether it may belong to root, as parts of a system or of a container do.
    """
    if os.name != "posix":
        return None
    me = os.geteuid()
    status = path.stat()
    if status.st_uid != me and not (of_root and status.st_uid == 0):
        return f"belongs to user {status.st_uid}, not to you ({me})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    for parent in path.parents:
        status = parent.stat()
        if status.st_uid not in (me, 0):
            return f"lies in {parent}, which belongs to user {status.st_uid}"
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            return f"lies in {parent}, which everybody can write"
        if status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_ISVTX and _has_others(status.st_gid):
            return f"lies in {parent}, which its group can write"
    return None


def _has_others(group: int) -> bool:
    """Whether a group may have other members than this user: any but a group of the user's own name."""
    import grp  # lazy: POSIX has it
    import pwd  # lazy: POSIX has it

    try:
        name, entry = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return True
    return entry.gr_name != name or bool({*entry.gr_mem} - {name})


class FileIdentity(NamedTuple):
    """Size, times and inode of a file, which change when it is written to: cheap to check at every start."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        s = path.stat()
        return cls(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)


def cache_ceiling() -> int:
    """Ceiling of the cache in bytes: ``$WASM_SANDBOX_CACHE_SIZE``, else 2 GiB.

    Raises:
        CacheError: if the variable is no size.
    """
    configured = os.environ.get(CACHE_SIZE_VARIABLE)
    try:
        return read_size(configured) if configured else DEFAULT_CACHE_BYTES
    except ValueError as error:
        raise CacheError(f"{CACHE_SIZE_VARIABLE}: {error}") from None
