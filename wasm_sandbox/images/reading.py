"""Files of this host that go into an image: what a user named, and nothing that a link in it leads to elsewhere."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from wasm_sandbox.errors import PackageError

# A pipe is opened without waiting for who writes to it, and then refused.
_OPENING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def named(path: Path) -> Path:
    """The real path of what a user named.

    The directories on the way may be links. The last one of a checked-out project may be anybody's work.

    Raises:
        PackageError: if it is a link that leads out of the directory that it is in.
        OSError: if it is not there.
    """
    real = _resolved(path)
    if path.name not in ("", "..") and _resolved(path.parent) not in real.parents:
        raise PackageError(f"{path}: is a link to {real}, outside of its own directory: name that one itself")
    if not real.exists():
        raise FileNotFoundError(None, "No such file or directory", str(path))
    return real


def open_regular(path: Path, *, follow: bool = False) -> io.FileIO:
    """Open a regular file, and nothing else; its end may be a link if that is followed.

    Raises:
        OSError: if it is none, or cannot be opened.
    """
    return _regular(os.open(path, _OPENING | (0 if follow else _NO_LINK)), path)


def _regular(descriptor: int, path: Path) -> io.FileIO:
    file = io.FileIO(descriptor)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(None, "no regular file", str(path))
    return file


def read_file(path: Path, max_bytes: int) -> bytes:
    """Contents of a regular file, which ``path`` names without a link at its end.

    Raises:
        PackageError: if it takes more than ``max_bytes``.
        OSError: if it is no regular file, or cannot be read.
    """
    with open_regular(path) as file:
        return _contents(file, path, max_bytes)


def _contents(file: io.FileIO, path: Path, max_bytes: int) -> bytes:
    piece_bytes = max(os.fstat(file.fileno()).st_size, 1 << 16)
    pieces, left = [], max_bytes
    while piece := file.read(min(piece_bytes, left + 1)):
        left -= len(piece)
        if left < 0:
            raise PackageError(f"{path}: takes more than {max_bytes >> 20} MiB")
        pieces.append(piece)
    return b"".join(pieces)


def read_below(directory: Path, max_bytes: int, max_files: int) -> dict[str, bytes]:
    """The files below a directory, by their paths from there; what Python has compiled is left out.

    Args:
        directory: its real path.
        max_bytes: of all of them together.
        max_files: how many there may be.

    Raises:
        PackageError: if a link leads out of the directory or to a directory, a name is no text, or there is too much.
        OSError: if something cannot be read.
    """
    files: dict[str, bytes] = {}
    left = max_bytes
    for path, place in _regular_files(directory):
        name = path.relative_to(directory).as_posix()
        if not is_text(name):
            raise PackageError(f"{directory}: holds a file whose name is no UTF-8: {name!r}")
        if len(files) >= max_files:
            raise PackageError(f"{directory}: holds more than {max_files} files")
        with _open_inside(directory, place) as file:
            if os.fstat(file.fileno()).st_size > left:
                raise PackageError(f"{directory}: takes more than {max_bytes >> 20} MiB")
            files[name] = _contents(file, path, left)
        left -= len(files[name])
    return dict(sorted(files.items()))


def _open_inside(root: Path, place: Path) -> io.FileIO:
    """Open a file below a directory step by step: no name on the way may have become a link after it was looked at."""
    if os.open not in os.supports_dir_fd:
        return open_regular(place)
    *directories, name = place.relative_to(root).parts
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for directory in directories:
            above, at = at, os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | _NO_LINK, dir_fd=at)
            os.close(above)
        return _regular(os.open(name, _OPENING | _NO_LINK, dir_fd=at), place)
    finally:
        os.close(at)


def _regular_files(root: Path) -> Iterator[tuple[Path, Path]]:
    """Files by their names, each with its real place: a name may come to be a link after it was looked at."""
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.name == "__pycache__" or path.suffix == ".pyc":
                    continue
                if _is_link(entry):
                    place = _place_inside(path, root)
                    if place.is_file():  # else it leads nowhere, as the locks of some editors do
                        yield path, place
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif entry.is_file(follow_symlinks=False):
                    yield path, path


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Whether it is a symbolic link, or a junction of Windows, which `os.path.islink` does not know."""
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return entry.is_symlink() or (tag != 0 and tag == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None))


def _place_inside(link: Path, root: Path) -> Path:
    real = _resolved(link)
    if root not in real.parents:
        raise PackageError(f"{link}: is a link to {real}, outside of {root}: put a copy in its place")
    if real.is_dir():
        raise PackageError(f"{link}: is a link to a directory: put a copy in its place")
    return real


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # links in a circle, before CPython 3.13
        raise PackageError(f"{path}: is a link that leads to itself") from None


def is_text(name: str) -> bool:
    """Whether a name can be written in UTF-8: names of files need not be text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
