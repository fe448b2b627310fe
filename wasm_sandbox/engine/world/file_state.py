"""State of a guest's files at rest: plain data, from which the same files are made again, also out of hostile bytes."""

from __future__ import annotations

from typing import NamedTuple

from wasm_sandbox.engine.world.file_system import Directory, File, FileSystem, MountPoint, Node, Place
from wasm_sandbox.engine.world.preview1 import EINVAL, ENOSPC, Refusal


class NodeState(NamedTuple):
    """File or directory."""

    parent: int
    """Index of its directory among the nodes, which comes before it; -1 for the root, and for a removed file."""
    name: str
    """Its name; empty for the root, and for a removed file that is still open."""
    content: bytes | None
    """Content of a file; None for a directory."""
    modified: int
    accessed: int
    cookie: int
    """Number of its place in the listing of its directory."""


class OpenState(NamedTuple):
    """Open descriptor."""

    number: int
    node: int
    """Index of its node; one past the last of them for the null device."""
    reads: bool
    writes: bool
    flags: int
    position: int


class FileState(NamedTuple):
    """Files and open descriptors of a guest."""

    nodes: tuple[NodeState, ...]
    """The root first, then each node after its directory."""
    opened: tuple[OpenState, ...]

    @property
    def nbytes(self) -> int:
        """Size of all files."""
        return sum(len(node.content) for node in self.nodes if node.content is not None)


def state_of(system: FileSystem, orphans: list[File]) -> tuple[list[NodeState], dict[Node, int]]:
    """States of all nodes, and the index of each.

    Args:
        system: file system, without mounts.
        orphans: files that were removed and are still open.
    """
    nodes: list[NodeState] = []
    indices: dict[Node, int] = {}

    def add(node: Node, parent: int, name: str) -> None:
        content = None
        if isinstance(node, File):
            content = bytes(node.data)
            node.data = content  # whoever writes next makes a copy
        indices[node] = len(nodes)
        nodes.append(NodeState(parent, name, content, node.modified, node.accessed, node.cookie))

    add(system.root, -1, "")
    waiting: list[Directory] = [system.root]
    for directory in waiting:
        for _, name, node in directory.listed(2):
            if isinstance(node, MountPoint):
                continue
            add(node, indices[directory], name)
            if isinstance(node, Directory):
                waiting.append(node)
    for file in orphans:
        if file not in indices:
            add(file, -1, "")
    return nodes, indices


def restore_nodes(system: FileSystem, states: tuple[NodeState, ...], now: int) -> list[Node]:
    """Make nodes in an empty file system, by what a guest could do itself: so its limits hold.

    Args:
        system: the file system.
        states: nodes, as `state_of` gave them; they may come from hostile bytes.
        now: time of what is made on the way, in nanoseconds since 1970.

    Returns:
        Node of each state. Removed files are without a name, and have one open descriptor that is to be closed.

    Raises:
        Refusal: if they do not fit the limits, or are no tree.
    """
    nodes: list[Node] = []
    for number, state in enumerate(states):
        if number == 0:
            nodes.append(system.root)
            continue
        if not state.name:
            nodes.append(_orphan(system, state, number, now))
            continue
        if not 0 <= state.parent < number or {"/", "\0"} & {*state.name} or state.name in (".", ".."):
            raise Refusal(EINVAL)
        directory = nodes[state.parent]
        if not isinstance(directory, Directory) or state.name in directory.entries:
            raise Refusal(EINVAL)
        if not directory.last_cookie < state.cookie < 1 << 62:
            raise Refusal(EINVAL)
        directory.last_cookie = state.cookie - 1
        nodes.append(_made(system, Place(directory, state.name, None, False), state, now))
    for node, state in zip(nodes, states, strict=True):
        node.modified, node.accessed = state.modified & ~(1 << 63), state.accessed & ~(1 << 63)
    return nodes


def _made(system: FileSystem, place: Place, state: NodeState, now: int) -> Node:
    try:
        if state.content is None:
            return system.make_directory(place, now)
        file = system.create_file(place, now)
    except UnicodeEncodeError:
        raise Refusal(EINVAL) from None
    system.fill(file, state.content)
    return file


def _orphan(system: FileSystem, state: NodeState, number: int, now: int) -> File:
    """File that has no name any more."""
    if state.content is None:
        raise Refusal(ENOSPC)
    place = Place(system.root, f"\1removed-{number}", None, False)
    file = _made(system, place, state, now)
    assert isinstance(file, File)
    system.opened(file)
    system.remove_file(place._replace(node=file), now)
    return file
