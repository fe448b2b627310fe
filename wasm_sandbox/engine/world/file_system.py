"""File system in memory, strictly bounded: what a guest sees when its caller gives it files. Pure.

Names are as in POSIX; there are no links, owners or modes. What is not possible raises `Refusal` with the errno.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wasm_sandbox.engine.world.preview1 import (
    EEXIST,
    EILSEQ,
    EINVAL,
    EISDIR,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTCAPABLE,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
    EXDEV,
    Refusal,
)
from wasm_sandbox.files import MAX_NAME_BYTES, MAX_PATH_BYTES

SCRATCH = "tmp"
"""Name of a directory that is there where `max_nodes` allows it, because programs expect it."""

ZEROS = bytes(1 << 20)

_NULL = [b"dev", b"null"]
_NULL_INODE = (1 << 64) - 1

_MOST_STALE = 64
"""So many places of entries that are gone a directory keeps, besides as many as it has entries."""


@dataclass(eq=False)
class Node:
    """Entry of a directory."""

    inode: int
    parent: Directory | None
    """Directory of the entry; None for the root, and for a file that was removed."""
    modified: int
    """Nanoseconds since 1970."""
    accessed: int
    cookie: int = field(default=0, kw_only=True)
    """Number of its place in the listing of its directory; another one each time that it gets a name there."""


@dataclass(eq=False)
class File(Node):
    """File: its bytes, and the number of open descriptors."""

    data: bytes | bytearray = b""
    """Content, copied when it is first changed (copy-on-write)."""
    descriptors: int = 0

    def writable(self) -> bytearray:
        """Content to be changed."""
        if isinstance(self.data, bytes):
            self.data = bytearray(self.data)
        return self.data


@dataclass(eq=False)
class NullDevice(File):
    """What reads as empty, and keeps nothing of what is written: in no directory, and no part of what is counted."""

    def writable(self) -> bytearray:
        """Nothing, whatever is done to it."""
        return bytearray()


# A guest reads a listing in parts, and may change the directory between two of them. What has been there all the time
# must come exactly once. So there is no copy of the listing, which would be one for each descriptor, of names and
# files that are long gone; there is one order of cookies, which only grow, and reading goes on after the last one seen.
@dataclass(eq=False)
class Directory(Node):
    """Directory: its entries, and the length of its own path."""

    entries: dict[str, Node] = field(default_factory=dict)
    """Name -> entry; changed by `add` and `drop` only."""
    path_bytes: int = 0
    removed: bool = False
    order: list[tuple[int, str]] = field(default_factory=list)
    """Cookie and name of each entry, by cookie; some of them of entries that are gone."""
    last_cookie: int = 2
    """The first two are those of ``.`` and ``..``."""

    def add(self, name: str, node: Node) -> None:
        """Add an entry of a new name."""
        self.last_cookie += 1
        node.cookie = self.last_cookie
        self.entries[name] = node
        self.order.append((node.cookie, name))

    def drop(self, name: str) -> None:
        """Take an entry away."""
        del self.entries[name]
        if len(self.order) > 2 * len(self.entries) + _MOST_STALE:
            self.order = [(node.cookie, here) for here, node in self.entries.items()]

    def listed(self, after: int) -> Iterator[tuple[int, str, Node]]:
        """Cookie, name and node of all that come after a cookie; nothing may change meanwhile."""
        above = self if self.parent is None else self.parent
        yield from ((n, name, node) for n, name, node in ((1, ".", self), (2, "..", above)) if n > after)
        for number in range(bisect_right(self.order, after, key=_first), len(self.order)):
            cookie, name = self.order[number]
            node = self.entries.get(name)
            if node is not None and node.cookie == cookie:
                yield cookie, name, node


@dataclass(eq=False)
class MountPoint(Node):
    """Place where a mount begins."""

    number: int = 0
    """Number of the mount."""


class Place(NamedTuple):
    """End of a path."""

    directory: Directory
    """Last directory on the way."""
    name: str
    """Name in that directory; empty for a path that ends in no name, as ``.`` does."""
    node: Node | None
    """Entry of that name, if there is one."""
    means_directory: bool
    """Whether the path ends in a slash or a dot, so that only a directory will do."""
    below: str = ""
    """Rest of the path, if it leads into a mount."""


class FileSystem:
    """Tree of files and directories, under limits.

    Args:
        files: absolute, normalised path -> content, copied when it is first changed.
        mount_points: absolute, normalised paths of the mounts, in the order of their numbers.
        max_bytes: maximum size of all files together.
        max_nodes: maximum number of files and directories, the root not counted.
        now: time of all files, in nanoseconds since 1970.

    Raises:
        Refusal: if the files do not fit the limits, or their names do not go together.
    """

    def __init__(
        self, files: Mapping[str, bytes], mount_points: tuple[str, ...], max_bytes: int, max_nodes: int, now: int
    ) -> None:
        self._max_bytes, self._max_nodes = max_bytes, max_nodes
        self._bytes = self._nodes = self._last_inode = 0
        self._given = files
        self.root = Directory(self._inode(), None, now, now)
        self.null = NullDevice(_NULL_INODE, self.root, now, now)
        for number, path in enumerate(mount_points):
            place = self._with_parents(path, now)
            self._link(place, MountPoint(self._inode(), place.directory, now, now, number))
        for path, content in files.items():
            file = self.create_file(self._with_parents(path, now), now)
            self._charge(len(content))
            file.data = content
        scratch = self.resolve(self.root, SCRATCH.encode())
        if scratch.node is None and self._nodes < max_nodes:
            self.make_directory(scratch, now)

    # -- finding ---------------------------------------------------------------------------------

    def resolve(self, start: Directory, path: bytes) -> Place:
        """Follow a relative path; ``..`` of the root is the root.

        The last name need not exist; everything before it must.
        """
        parts = path_parts(path)
        directory, name, node = start, "", start
        found: Node | None = node
        below: list[str] = []
        depth = 0  # inside a mount
        for part in parts:
            if part == "" or (part == "." and isinstance(found, MountPoint)):
                continue
            if isinstance(found, MountPoint) and (part != ".." or depth):
                depth += -1 if part == ".." else 1
                below.append(part)
                continue
            if part == ".":  # of what there is, and is a directory
                directory, name = _directory(_present(found)), ""
                continue
            if part == "..":
                # Of a mount point, whatever was walked below it: back to where it stands.
                if not isinstance(found, MountPoint) and _directory(_present(found)).removed:
                    raise Refusal(ENOENT)  # what was above is not kept
                found = directory = _present(found).parent or self.root
                name, below = "", []
                continue
            directory, name = _directory(_present(found)), part
            found = directory.entries.get(part)
        means_directory = parts[-1] in ("", ".", "..")
        if means_directory and isinstance(found, File):
            raise Refusal(ENOTDIR)
        return Place(directory, name, found, means_directory, "/".join(below))

    def null_at(self, start: Directory, path: bytes) -> NullDevice | None:
        """Null device, for its path where nobody put anything else."""
        if start is not self.root or [part for part in path.split(b"/") if part not in (b"", b".")] != _NULL:
            return None
        above = self.root.entries.get("dev")
        if isinstance(above, MountPoint) or (isinstance(above, Directory) and "null" in above.entries):
            return None
        if not path.endswith(_NULL[-1]):
            raise Refusal(ENOTDIR)
        return self.null

    def _with_parents(self, path: str, now: int) -> Place:
        at = self.root
        for part in path.strip("/").split("/")[:-1]:
            place = self.resolve(at, part.encode())
            at = self.make_directory(place, now) if place.node is None else _directory(place.node)
        return self.resolve(at, path.rpartition("/")[2].encode())

    # -- names -----------------------------------------------------------------------------------

    def create_file(self, place: Place, now: int) -> File:
        """Create an empty file at a place where nothing is."""
        if place.means_directory:
            raise Refusal(EISDIR)
        file = File(self._inode(), place.directory, now, now)
        self._link(place, file)
        place.directory.modified = now
        return file

    def make_directory(self, place: Place, now: int) -> Directory:
        """Create an empty directory at a place where nothing is."""
        if place.node is not None:
            raise Refusal(EEXIST)
        size = place.directory.path_bytes + 1 + len(place.name.encode())
        directory = Directory(self._inode(), place.directory, now, now, {}, size)
        self._link(place, directory)
        place.directory.modified = now
        return directory

    def remove_file(self, place: Place, now: int) -> None:
        """Remove a file; its content goes with the last descriptor."""
        file = _present(place.node)
        if not isinstance(file, File):
            raise Refusal(EISDIR if isinstance(file, Directory) else EPERM)
        place.directory.drop(place.name)
        place.directory.modified = now
        file.parent = None
        self._forget_unused(file)

    def remove_directory(self, place: Place, now: int) -> None:
        """Remove an empty directory."""
        node = _present(place.node)
        if isinstance(node, MountPoint):
            raise Refusal(EPERM)
        directory = _directory(node)
        if directory.entries:
            raise Refusal(ENOTEMPTY)
        if not place.name:
            raise Refusal(EINVAL)
        place.directory.drop(place.name)
        place.directory.modified = now
        directory.removed = True
        directory.parent = None  # else one descriptor would keep all that was above, and is not counted any more
        directory.order.clear()
        self._nodes -= 1

    def rename(self, old: Place, new: Place, now: int) -> None:
        """Give a file or a directory another name; what has that name is replaced, if it is of the same kind."""
        node = _present(old.node)
        if isinstance(node, MountPoint) or isinstance(new.node, MountPoint):
            raise Refusal(EXDEV)
        if not old.name or not new.name:
            raise Refusal(EINVAL)
        if node is new.node:
            return
        self._check_name(new)
        if isinstance(node, Directory):
            self._check_new_home(node, new)
            if isinstance(new.node, File):
                raise Refusal(ENOTDIR)
            if new.node is not None:
                self.remove_directory(new, now)
        else:
            if new.means_directory:
                raise Refusal(ENOTDIR)
            if new.node is not None:
                self.remove_file(new, now)
        old.directory.drop(old.name)
        new.directory.add(new.name, node)
        old.directory.modified = new.directory.modified = now
        node.parent = new.directory
        if isinstance(node, Directory):
            longer = new.directory.path_bytes + 1 + len(new.name.encode()) - node.path_bytes
            for directory in _directories(node):
                directory.path_bytes += longer

    def _check_new_home(self, moved: Directory, new: Place) -> None:
        """Refuse to move a directory into itself, or so deep that a path below it becomes too long."""
        above: Directory | None = new.directory
        while above is not None:
            if above is moved:
                raise Refusal(EINVAL)
            above = above.parent
        longer = new.directory.path_bytes + 1 + len(new.name.encode()) - moved.path_bytes
        for directory in _directories(moved):
            longest = max((len(entry.encode()) + 1 for entry in directory.entries), default=0)
            if directory.path_bytes + longest + longer > MAX_PATH_BYTES:
                raise Refusal(ENAMETOOLONG)

    def _link(self, place: Place, node: Node) -> None:
        self._check_name(place)
        if place.node is not None:
            raise Refusal(EEXIST)
        if self._nodes >= self._max_nodes:
            raise Refusal(ENOSPC)
        self._nodes += 1
        place.directory.add(place.name, node)

    def _check_name(self, place: Place) -> None:
        if place.directory.removed or not place.name:
            raise Refusal(ENOENT)
        size = len(place.name.encode())
        if size > MAX_NAME_BYTES or place.directory.path_bytes + 1 + size > MAX_PATH_BYTES:
            raise Refusal(ENAMETOOLONG)

    # -- content ---------------------------------------------------------------------------------

    def opened(self, file: File) -> None:
        """Count one more open descriptor of a file."""
        file.descriptors += 1

    def closed(self, file: File) -> None:
        """Count one less open descriptor of a file."""
        file.descriptors -= 1
        self._forget_unused(file)

    def fill(self, file: File, content: bytes) -> None:
        """Give an empty file its content."""
        self._charge(len(content))
        file.data = content

    def clear(self) -> None:
        """Remove everything, whoever has it open."""
        self._bytes = self._nodes = 0
        self.root = Directory(self.root.inode, None, self.root.modified, self.root.accessed)

    def resize(self, file: File, size: int) -> Iterator[None]:
        """Cut a file, or fill it with zeros, piece by piece: to be iterated to its end."""
        self._charge(size - len(file.data))
        data = file.writable()
        del data[size:]
        while len(data) < size:
            data += ZEROS[: size - len(data)]
            yield

    def _charge(self, size: int) -> None:
        if self._bytes + size > self._max_bytes:
            raise Refusal(ENOSPC)
        self._bytes += size

    def _forget_unused(self, file: File) -> None:
        if file.parent is None and not file.descriptors:
            self._bytes -= len(file.data)
            self._nodes -= 1
            file.data = b""

    # -- afterwards ------------------------------------------------------------------------------

    def changed_files(self) -> dict[str, bytes]:
        """Path -> content of every file that is not there as it was given."""
        changed = {}
        waiting: list[tuple[str, Directory]] = [("", self.root)]
        while waiting:
            path, directory = waiting.pop()
            for name, node in directory.entries.items():
                if isinstance(node, Directory):
                    waiting.append((f"{path}/{name}", node))
                elif isinstance(node, File):
                    given = self._given.get(f"{path}/{name}")
                    if node.data is not given and node.data != given:
                        changed[f"{path}/{name}"] = bytes(node.data)
        return dict(sorted(changed.items()))

    def _inode(self) -> int:
        self._last_inode += 1
        return self._last_inode


def path_parts(path: bytes) -> list[str]:
    """Names in a relative path of a guest.

    Raises:
        Refusal: if the path is empty, absolute, too long, no UTF-8 or holds a NUL.
    """
    if len(path) > 4 * MAX_PATH_BYTES:
        raise Refusal(ENAMETOOLONG)
    if not path:
        raise Refusal(ENOENT)
    try:
        text = path.decode()
    except UnicodeDecodeError:
        raise Refusal(EILSEQ) from None
    if text[0] == "/":
        raise Refusal(ENOTCAPABLE)
    if "\0" in text:
        raise Refusal(EINVAL)
    return text.split("/")


def _first(pair: tuple[int, str]) -> int:
    return pair[0]


def _present(node: Node | None) -> Node:
    if node is None:
        raise Refusal(ENOENT)
    return node


def _directory(node: Node) -> Directory:
    if not isinstance(node, Directory):
        raise Refusal(ENOTDIR)
    return node


def _directories(top: Directory) -> list[Directory]:
    """Directory, and all directories below it."""
    found = [top]
    for directory in found:
        found.extend(node for node in directory.entries.values() if isinstance(node, Directory))
    return found
