"""Saving what a tool wrote: below a directory, under names that are mere names on every system.

Paths and contents are a stranger's. So all names are checked before anything is written; no link is followed on the way
and none at its end; a file that is there is not written to, but another one takes its name: not its mode, and not the
content that it shares with other names.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from wasm_sandbox.errors import InvalidFiles

MAX_NAME_UNITS = 255
"""Longest name, in bytes of UTF-8 or units of UTF-16, whichever are more."""

_UNSAFE_CHARACTERS = frozenset('/\\:*?"<>|')
"""Parts of paths, of streams (``a:b``), or of nothing, on some systems."""

_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.I)
"""What Windows takes for a device, whatever follows the first dot."""
_SHORT_NAME = re.compile(r"[^.]{1,6}~[0-9]{1,6}(\.[^.]{0,3})?")
"""What may be another name of a file on Windows: ``GIT~1`` is ``.git``."""

HAS_DIR_FD = {os.open, os.mkdir, os.stat, os.rename, os.unlink} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_REPARSE_POINT = 0x400  # a link or a junction of Windows

_Here = int | Path
"""A directory: by its descriptor, or where the system cannot do that, by its path."""


def check_names(paths: Iterable[str]) -> dict[str, list[str]]:
    """Names in each path of a guest.

    Raises:
        InvalidFiles: if one is more than a name, or something else, on some system; or if two are one there.
    """
    found, spelled = {}, dict[tuple[str, ...], tuple[str, ...]]()
    for path in paths:
        names = path.strip("/").split("/")
        for name in names:
            if reason := _unsafe(name):
                raise InvalidFiles(f"--output-dir: {path!r} is not saved: {name!r} {reason}")
        for end in range(1, len(names) + 1):
            here = tuple(names[:end])
            if spelled.setdefault(tuple(map(_folded, here)), here) != here:
                raise InvalidFiles(
                    f"--output-dir: {path!r} is not saved: another path differs from it only in case or accents, "
                    "and would be the same on some systems"
                )
        found[path] = names
    return found


def _unsafe(name: str) -> str:
    """Reason why a name is not safe on every system; empty if it is."""
    if name in ("", ".", "..") or not name.isprintable() or _UNSAFE_CHARACTERS & set(name) or name[-1] in " .":
        return "is no safe name on every system"
    if name[0] == ".":
        return "begins with a dot, and such files steer other programs; take it from the result (--json)"
    if _DEVICE.fullmatch(name):
        return "is a device on Windows"
    if _SHORT_NAME.fullmatch(name):
        return "may be another file's short name on Windows"
    try:
        units = max(len(name.encode()), len(name.encode("utf-16-le")) // 2)
    except UnicodeEncodeError:
        return "is no text"
    return "is too long" if units > MAX_NAME_UNITS else ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())


def save_below(directory: str, files: Mapping[str, bytes]) -> None:
    """Write files below a directory, which is made if it is not there.

    Raises:
        InvalidFiles: if a name is not safe, then nothing is written; or if one cannot be written, or something else
            than a file is there: those before it are saved.
    """
    names = check_names(files)
    with _naming(directory):
        os.makedirs(directory, exist_ok=True)
    for path, content in files.items():
        target = os.path.join(directory, *names[path])
        with _naming(target), _parent(directory, names[path][:-1]) as here:
            _put(here, names[path][-1], content)


@contextlib.contextmanager
def _naming(target: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidFiles(f"--output-dir: {target}: cannot be written: {reason}") from None


@contextlib.contextmanager
def _parent(directory: str, names: list[str]) -> Iterator[_Here]:
    """The directory of a file, made where it is not there; no link leads to it."""
    if not HAS_DIR_FD:
        here = Path(directory)
        for name in names:
            here /= name
            here.mkdir(exist_ok=True)
            if _is_link(here) or not here.is_dir():
                raise NotADirectoryError(f"{name} is a link, or no directory")
        yield here
        return
    way = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=way[-1])
            try:
                way.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=way[-1]))
            except NotADirectoryError:
                raise NotADirectoryError(f"{name} is a link, or no directory") from None
        yield way[-1]
    finally:
        for descriptor in way:
            os.close(descriptor)


def _is_link(path: Path) -> bool:
    found = os.lstat(path)
    return stat.S_ISLNK(found.st_mode) or bool(getattr(found, "st_file_attributes", 0) & _REPARSE_POINT)


def _put(here: _Here, name: str, content: bytes) -> None:
    """Make a file of its own, and give it the name."""
    at, fd = (str, here) if isinstance(here, int) else (here.joinpath, None)
    with contextlib.suppress(FileNotFoundError):
        there = os.stat(at(name), dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISREG(there.st_mode) or (fd is None and _is_link(Path(at(name)))):
            raise FileExistsError("something else than a file is there")
    made = f".{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(at(made), flags, 0o666, dir_fd=fd)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(at(made), at(name), src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(at(made), dir_fd=fd)
        raise
