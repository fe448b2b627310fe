"""Bytes of a session at rest: labelled, compressed, checked, and read as hostile.

    magic | size of the head | head (JSON) | body (zlib) | SHA-256 of all before | HMAC-SHA-256 of all before, if signed

The head says of which image it is, and where the parts of the body belong: ranges of memory, then contents of files.
A head that lies about its guest harms that guest alone: all that it names is checked against the guest's own bounds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wasm_sandbox.engine import Checkpoint, Elapsed, FileState, GuestMemory, NodeState, OpenState
from wasm_sandbox.errors import SnapshotError
from wasm_sandbox.limits import Limits

FORMAT = 1
MAGIC = b"wasm-sandbox session\0"
MAX_HEAD_BYTES = 16 << 20
MAX_RANGES = 1 << 20
_SIZE = struct.Struct("<I")
_HASH_BYTES = 32
_LEVEL = 1  # of zlib: a fifth of the time of the default, for a tenth more bytes
_PAGE_BYTES = 4096

_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 63)]


class Pending(BaseModel):
    """Call that a paused program waits for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Count
    name: Annotated[str, Field(max_length=1000)]
    arguments: Annotated[str, Field(max_length=MAX_HEAD_BYTES)]
    """JSON of the arguments, as the guest sent them."""


class _Node(NamedTuple):
    parent: Annotated[int, Field(strict=True, ge=-1, lt=1 << 31)]
    name: str
    size: _Count | None
    modified: Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 64)]
    accessed: Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 64)]
    cookie: _Count


class _Open(NamedTuple):
    number: _Count
    node: _Count
    reads: bool
    writes: bool
    flags: _Count
    position: _Count


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int
    is_signed: bool
    image: Annotated[str, Field(max_length=200)]
    calls: _Count
    cells: _Count
    elapsed: tuple[_Count, _Count]
    size: _Count
    globals: dict[str, Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 64)]]
    ranges: Annotated[list[tuple[_Count, _Count]], Field(max_length=MAX_RANGES)]
    nodes: list[_Node] | None
    opened: list[_Open]
    body_bytes: _Count
    pending: list[Pending]


class Loaded(NamedTuple):
    """Content of a snapshot."""

    point: Checkpoint
    cells: int
    pending: tuple[Pending, ...]


def dump(point: Checkpoint, cells: int, pending: Iterable[Pending], key: bytes | None) -> bytes:
    """Bytes of a session at rest.

    Args:
        point: checkpoint.
        cells: number of cells so far.
        pending: calls that a paused program waits for.
        key: key that the bytes are signed with; None not to sign them.
    """
    files = point.files
    contents = [node.content for node in files.nodes if node.content is not None] if files else []
    body = b"".join([*(data for _, data in point.memory.changed), *contents])
    head = _Head(
        format=FORMAT,
        is_signed=key is not None,
        image=point.image_id,
        calls=point.calls,
        cells=cells,
        elapsed=tuple(point.elapsed),
        size=point.memory.size,
        globals=point.memory.globals,
        ranges=[(offset, len(data)) for offset, data in point.memory.changed],
        nodes=[_node(node) for node in files.nodes] if files else None,
        opened=[_Open(*opened) for opened in files.opened] if files else [],
        body_bytes=len(body),
        pending=list(pending),
    )
    text = json.dumps(head.model_dump(mode="json"), separators=(",", ":")).encode()
    whole = b"".join([MAGIC, _SIZE.pack(len(text)), text, zlib.compress(body, _LEVEL)])
    whole += hashlib.sha256(whole).digest()
    return whole if key is None else whole + _signature(whole, key)


def _node(node: NodeState) -> _Node:
    size = None if node.content is None else len(node.content)
    return _Node(node.parent, node.name, size, node.modified, node.accessed, node.cookie)


def _signature(whole: bytes, key: bytes) -> bytes:
    return hmac.new(key, whole, hashlib.sha256).digest()


def load(blob: bytes, limits: Limits, key: bytes | None) -> Loaded:
    """Read the bytes of a session; they are hostile.

    Args:
        blob: the bytes.
        limits: limits of the session, which bound what is read.
        key: key that they must be signed with; None if they must not be signed.

    Raises:
        SnapshotError: if they are damaged, not signed with the key, of another format, or beyond the limits.
    """
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise SnapshotError(f"a snapshot is bytes, not {type(blob).__name__}")
    blob = bytes(blob)
    head, end = _head(blob)
    if head.format != FORMAT:
        raise SnapshotError(f"the snapshot has format {head.format}, and this version of wasm-sandbox reads {FORMAT}")
    whole = _checked(blob, head, key)
    if head.size > limits.memory_bytes:
        raise SnapshotError(
            f"the snapshot has {head.size} bytes of memory, the limit is {limits.memory_bytes} (Limits.memory_bytes)"
        )
    sizes = [size for _, size in head.ranges]
    file_sizes = [node.size for node in head.nodes or () if node.size is not None]
    if sum(sizes) > head.size or sum(file_sizes) > limits.files_bytes:
        raise SnapshotError("the snapshot holds more than its session may have (Limits.files_bytes)")
    if sum(sizes) + sum(file_sizes) != head.body_bytes:
        raise _damaged()
    body = _body(whole[end:], head.body_bytes)
    parts = _cut(body, [*sizes, *file_sizes])
    changed = _ranges(head, parts[: len(sizes)])
    memory = GuestMemory(head.size, changed, head.globals)
    point = Checkpoint(head.image, memory, _files(head, iter(parts[len(sizes) :])), Elapsed(*head.elapsed), head.calls)
    return Loaded(point, head.cells, tuple(head.pending))


def _damaged() -> SnapshotError:
    return SnapshotError("the snapshot is damaged, or none of a session")


def _head(blob: bytes) -> tuple[_Head, int]:
    start = len(MAGIC) + _SIZE.size
    if len(blob) < start + _HASH_BYTES or not blob.startswith(MAGIC):
        raise _damaged()
    (size,) = _SIZE.unpack_from(blob, len(MAGIC))
    if size > min(MAX_HEAD_BYTES, len(blob) - start):
        raise _damaged()
    try:
        return _Head.model_validate_json(blob[start : start + size]), start + size
    except (ValidationError, ValueError):
        raise _damaged() from None


def _checked(blob: bytes, head: _Head, key: bytes | None) -> bytes:
    """What is before the checksum, if that and the signature are right."""
    if head.is_signed != (key is not None):
        said = "is signed: give the key" if head.is_signed else "is not signed, and a key was given"
        raise SnapshotError(f"the snapshot {said}")
    if key is not None:
        blob, signature = blob[:-_HASH_BYTES], blob[-_HASH_BYTES:]
        if not hmac.compare_digest(_signature(blob, key), signature):
            raise SnapshotError("the snapshot is not signed with this key, or was changed")
    whole, checksum = blob[:-_HASH_BYTES], blob[-_HASH_BYTES:]
    if hashlib.sha256(whole).digest() != checksum:
        raise _damaged()
    return whole


def _body(packed: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(packed, size + 1)
    except zlib.error:
        raise _damaged() from None
    if len(body) != size or not unpacker.eof or unpacker.unused_data:
        raise _damaged()
    return body


def _cut(body: bytes, sizes: list[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(body[at : at + size])
        at += size
    return parts


def _ranges(head: _Head, parts: list[bytes]) -> tuple[tuple[int, bytes], ...]:
    end = 0
    for offset, size in head.ranges:
        if offset < end or offset % _PAGE_BYTES or offset + size > head.size:
            raise _damaged()
        end = offset + size
    if head.size % (64 << 10):
        raise _damaged()
    return tuple((offset, part) for (offset, _), part in zip(head.ranges, parts, strict=True))


def _files(head: _Head, contents: Any) -> FileState | None:
    if head.nodes is None:
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
        for node in head.nodes
    )
    return FileState(nodes, tuple(OpenState(*opened) for opened in head.opened))
