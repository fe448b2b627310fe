"""Files for a guest: content by path, and directories of the host. Checked here; nothing is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from wasm_sandbox.errors import InvalidFiles

if TYPE_CHECKING:
    from wasm_sandbox.limits import Limits

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
"""Longest path from the root. Bounds the depth too, and with the number of files the size of all listings."""


@dataclass(frozen=True)
class HostDir:
    """Directory of the host for a guest, which widens what the guest can reach (see ``THREAT_MODEL.md``).

    Args:
        path: path of the directory; it must exist when a run starts.
        read_only: whether the guest may only read in it. Otherwise it may change, create and delete whatever the
            process may, within ``Limits.files_bytes`` and ``Limits.file_count``.
    """

    path: str | os.PathLike[str]
    read_only: bool = True


class GivenFiles(NamedTuple):
    """Files and mounts of one guest, none in the way of another."""

    files: Mapping[str, bytes]
    mounts: Mapping[str, HostDir]


def check_files(
    files: Mapping[str, bytes] | None, mounts: Mapping[str, HostDir] | None, limits: Limits
) -> GivenFiles | None:
    """Check files and mounts of a caller.

    Args:
        files: absolute path -> content. An empty mapping asks for what the guest writes, and no more.
        mounts: absolute path -> directory of the host.
        limits: limits of the run.

    Returns:
        The files and mounts, or None if neither was given: the guest has scratch files alone then.

    Raises:
        InvalidFiles: if a path is not absolute and normalised, is too long or stands for two things; a content is
            not bytes; a directory is not there; or all of it is more than the limits allow.
    """
    if files is None and not mounts:
        return None
    files, mounts = files or {}, mounts or {}
    for name, given in (("files", files), ("mounts", mounts)):
        if not isinstance(given, Mapping):
            raise InvalidFiles(f"{name} must map paths in the guest to what is there, not be {_kind(given)}")
    for path, content in files.items():
        check_path("files", path)
        if not isinstance(content, bytes):
            raise InvalidFiles(f"files: the content of {path} must be bytes, not {_kind(content)}")
    for path, directory in mounts.items():
        check_path("mounts", path)
        _check_directory(path, directory)
    directories = _check_together(files, mounts)
    count = len(files) + len(mounts) + len(directories)
    if count > limits.file_count:
        raise InvalidFiles(
            f"files: {count} files and directories, at most {limits.file_count} are allowed (Limits.file_count)"
        )
    size = sum(map(len, files.values()))
    if size > limits.files_bytes:
        raise InvalidFiles(f"files: {size} bytes in all, at most {limits.files_bytes} are allowed (Limits.files_bytes)")
    return GivenFiles(files, mounts)


def joined(shared: GivenFiles, given: GivenFiles) -> GivenFiles:
    """Join the files and mounts of an image with those of a caller, which have precedence.

    Raises:
        InvalidFiles: if a path stands for two things.
    """
    both = GivenFiles({**shared.files, **given.files}, {**shared.mounts, **given.mounts})
    _check_together(both.files, both.mounts)
    return both


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def check_path(argument: str, path: Any) -> None:
    """Refuse a path that is not absolute and normalised, or too long; ``argument`` names its origin in messages.

    Raises:
        InvalidFiles: if it is one.
    """
    if not isinstance(path, str):
        raise InvalidFiles(f"{argument}: the path {path!r} must be a string, not {_kind(path)}")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise InvalidFiles(f"{argument}: the path {path!r} holds a lone surrogate") from None
    if not path.startswith("/"):
        raise InvalidFiles(f"{argument}: the path {path!r} must be absolute, as in '/{path}'")
    names = path[1:].split("/")
    if any(name in ("", ".", "..") for name in names):
        raise InvalidFiles(
            f"{argument}: the path {path!r} must be normalised: no '.', '..', '//' and no '/' at its end"
        )
    if "\0" in path:
        raise InvalidFiles(f"{argument}: the path {path!r} holds a NUL")
    if len(encoded) > MAX_PATH_BYTES or any(len(name.encode()) > MAX_NAME_BYTES for name in names):
        raise InvalidFiles(
            f"{argument}: the path {path[:80]!r}... is too long: at most {MAX_NAME_BYTES} bytes a name and "
            f"{MAX_PATH_BYTES} in all"
        )


def _check_directory(path: str, directory: Any) -> None:
    if not isinstance(directory, HostDir):
        raise InvalidFiles(f"mounts: {path} must be HostDir(path, read_only=True), not {_kind(directory)}")
    if not os.path.isdir(directory.path):
        raise InvalidFiles(f"mounts: {os.fspath(directory.path)!r} for {path} is no directory of this host")


def _check_together(files: Mapping[str, bytes], mounts: Mapping[str, HostDir]) -> set[str]:
    """Check that no path is in the way of another; the directories above all of them."""
    directories: set[str] = set()
    for path in [*files, *mounts]:
        above = path.rpartition("/")[0]
        while above and above not in directories:
            directories.add(above)
            above = above.rpartition("/")[0]
    for path in files:
        if path in directories:
            raise InvalidFiles(f"files: {path} cannot be a file: there are paths below it")
        if path in mounts:
            raise InvalidFiles(f"{path} is in files and in mounts; give it once")
    for path in mounts:
        if path in directories:
            raise InvalidFiles(f"mounts: nothing else can be below {path}: choose another place for one of the two")
    return directories
