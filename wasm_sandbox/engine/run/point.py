"""State of a guest between two calls: plain data, and the same as a head and parts, which may come from hostile hands.

A head says where the parts belong: ranges of memory, then contents of files. One that lies about its guest harms that
guest alone: all that it names is checked here against its own bounds, and against the guest's when it is restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from wasm_sandbox.engine.memory.frozen import Shared
from wasm_sandbox.engine.world.file_state import FileState, NodeState, OpenState
from wasm_sandbox.engine.world.surroundings import Elapsed
from wasm_sandbox.errors import SnapshotError
from wasm_sandbox.limits import Limits

MAX_RANGES = 1 << 20
_PAGE_BYTES = 4096

Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 63)]


@dataclass(frozen=True)
class GuestMemory:
    """State of an instance at rest, as what differs from a fresh one of its image."""

    size: int
    """Size of the linear memory in bytes."""
    changed: tuple[tuple[int, bytes], ...]
    """Offset and bytes of each range that differs, in order."""
    globals: dict[str, int]
    """Export name -> value of each mutable global, without the one that counts fuel."""
    shared: Shared = field(default_factory=Shared, compare=False, repr=False)
    """What guests that begin there share."""

    @property
    def nbytes(self) -> int:
        """Size of what differs."""
        return sum(len(data) for _, data in self.changed)


@dataclass(frozen=True)
class Checkpoint:
    """State of a guest between two calls: all that is needed to go on from there, in a guest of the same image."""

    image_id: str
    memory: GuestMemory
    files: FileState | None
    """Files and descriptors; None if it has no files."""
    elapsed: Elapsed
    """Clocks of the guest."""
    calls: int
    """Number of calls that led to it."""

    @property
    def nbytes(self) -> int:
        """Size in bytes, about."""
        return self.memory.nbytes + (self.files.nbytes if self.files else 0)

    @property
    def parts(self) -> list[bytes]:
        """Bytes of all ranges, then of all files."""
        files = self.files.nodes if self.files else ()
        return [
            *(data for _, data in self.memory.changed),
            *(node.content for node in files if node.content is not None),
        ]


class Rest(NamedTuple):
    """Guest at rest, as an engine takes it for one call that does not keep it."""

    point: Checkpoint | None
    """Checkpoint to begin at; None for the image as it is."""
    elapsed: Elapsed
    """Clocks of the guest, which may be later than those of the checkpoint."""
    calls: int
    """Number of calls so far, those that were taken back too."""
    limits: Limits
    """Limits of what the guest may create and write, as `GuestEngine.keep` takes them."""


class _Node(NamedTuple):
    parent: Annotated[int, Field(strict=True, ge=-1, lt=1 << 31)]
    name: str
    size: Count | None
    modified: Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 64)]
    accessed: Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 64)]
    cookie: Count


class _Open(NamedTuple):
    number: Count
    node: Count
    reads: bool
    writes: bool
    flags: Count
    position: Count


class PointHead(BaseModel):
    """What a checkpoint consists of, without its parts."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    image: Annotated[str, Field(max_length=200)]
    calls: Count
    elapsed: tuple[Count, Count]
    size: Count
    globals: dict[str, Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 64)]]
    ranges: Annotated[list[tuple[Count, Count]], Field(max_length=MAX_RANGES)]
    nodes: list[_Node] | None
    opened: list[_Open]

    @property
    def sizes(self) -> list[int]:
        """Size of each part."""
        return [*(size for _, size in self.ranges), *self._file_sizes]

    @property
    def _file_sizes(self) -> list[int]:
        return [node.size for node in self.nodes or () if node.size is not None]

    def check(self, limits: Limits) -> None:
        """See that it is one of a guest with these limits, before a part is read.

        Raises:
            SnapshotError: if it is none.
        """
        if self.size > limits.memory_bytes:
            raise SnapshotError(
                f"the snapshot has {self.size} bytes of memory, the limit is {limits.memory_bytes} "
                "(Limits.memory_bytes)"
            )
        if sum(size for _, size in self.ranges) > self.size or sum(self._file_sizes) > limits.files_bytes:
            raise SnapshotError("the snapshot holds more than its session may have (Limits.files_bytes)")
        end = 0
        for offset, size in self.ranges:
            if offset < end or offset % _PAGE_BYTES or offset + size > self.size:
                raise damaged()
            end = offset + size
        if self.size % (64 << 10):
            raise damaged()

    def point(self, parts: Sequence[bytes]) -> Checkpoint:
        """Checkpoint of these parts, of the `sizes` that it names; after `check`."""
        changed = tuple((offset, part) for (offset, _), part in zip(self.ranges, parts, strict=False))
        memory = GuestMemory(self.size, changed, self.globals)
        files = self._files(iter(parts[len(changed) :]))
        return Checkpoint(self.image, memory, files, Elapsed(*self.elapsed), self.calls)

    def _files(self, contents: Iterator[bytes]) -> FileState | None:
        if self.nodes is None:
            return None
        nodes = tuple(
            NodeState(
                node.parent,
                node.name,
                None if node.size is None else next(contents),
                node.modified,
                node.accessed,
                node.cookie,
            )
            for node in self.nodes
        )
        return FileState(nodes, tuple(OpenState(*opened) for opened in self.opened))


def head_of(point: Checkpoint) -> PointHead:
    """Head of a checkpoint."""
    files = point.files
    return PointHead(
        image=point.image_id,
        calls=point.calls,
        elapsed=(point.elapsed.monotonic_ns, point.elapsed.cpu_ns),
        size=point.memory.size,
        globals=point.memory.globals,
        ranges=[(offset, len(data)) for offset, data in point.memory.changed],
        nodes=[_node(node) for node in files.nodes] if files else None,
        opened=[_Open(*opened) for opened in files.opened] if files else [],
    )


def _node(node: NodeState) -> _Node:
    size = None if node.content is None else len(node.content)
    return _Node(node.parent, node.name, size, node.modified, node.accessed, node.cookie)


def cut(body: bytes | bytearray | memoryview, sizes: Sequence[int]) -> list[bytes]:
    """Parts of these sizes, which are all of the body."""
    parts, at = [], 0
    for size in sizes:
        parts.append(bytes(body[at : at + size]))
        at += size
    return parts


def damaged() -> SnapshotError:
    """Refusal of what no honest guest gives."""
    return SnapshotError("the snapshot is damaged, or none of a session")
