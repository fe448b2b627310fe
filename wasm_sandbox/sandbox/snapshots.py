"""Bytes of a session at rest: labelled, compressed, checked, and read as hostile.

    magic | size of the head | head (JSON) | body (zlib) | SHA-256 of all before | HMAC-SHA-256 of all before, if signed

The head says of which image it is, and where the parts of the body belong (`PointHead`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wasm_sandbox.engine import Checkpoint, Count, PointHead, cut, damaged, head_of
from wasm_sandbox.errors import SnapshotError
from wasm_sandbox.limits import Limits

FORMAT = 1
MAGIC = b"wasm-sandbox session\0"
MAX_HEAD_BYTES = 16 << 20
_SIZE = struct.Struct("<I")
_HASH_BYTES = 32
_LEVEL = 1  # of zlib: a fifth of the time of the default, for a tenth more bytes


class Pending(BaseModel):
    """Call that a paused program waits for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Count
    name: Annotated[str, Field(max_length=1000)]
    arguments: Annotated[str, Field(max_length=MAX_HEAD_BYTES)]
    """JSON of the arguments, as the guest sent them."""


class _Head(PointHead):
    format: int
    is_signed: bool
    cells: Count
    body_bytes: Count
    pending: list[Pending]
    placeholders: Annotated[dict[str, str], Field(default_factory=dict, max_length=1000)]


class Loaded(NamedTuple):
    """Content of a snapshot."""

    point: Checkpoint
    cells: int
    pending: tuple[Pending, ...]
    placeholders: Mapping[str, str]
    """Name of a secret -> what the guest has in its place."""


def dump(content: Loaded, key: bytes | None) -> bytes:
    """Bytes of a session at rest.

    Args:
        content: what there is.
        key: key that the bytes are signed with; None not to sign them.
    """
    body = b"".join(content.point.parts)
    head = _Head(
        **head_of(content.point).model_dump(),
        format=FORMAT,
        is_signed=key is not None,
        cells=content.cells,
        body_bytes=len(body),
        pending=list(content.pending),
        placeholders=dict(content.placeholders),
    )
    text = json.dumps(head.model_dump(mode="json"), separators=(",", ":")).encode()
    whole = b"".join([MAGIC, _SIZE.pack(len(text)), text, zlib.compress(body, _LEVEL)])
    whole += hashlib.sha256(whole).digest()
    return whole if key is None else whole + _signature(whole, key)


def _signature(whole: bytes, key: bytes) -> bytes:
    if not isinstance(key, bytes | bytearray) or not key:
        raise ValueError("a key is bytes, one at least: take some from a place that is secret")
    return hmac.new(key, whole, hashlib.sha256).digest()


def load(blob: bytes, limits: Limits, key: bytes | None) -> Loaded:
    """Read the bytes of a session; they are hostile.

    Args:
        blob: the bytes.
        limits: limits of the session, which bound what is read.
        key: key that they must be signed with; None if they must not be signed.

    Raises:
        SnapshotError: if they are damaged, not signed with the key, of another format, or beyond the limits.
        ValueError: if the key is none.
    """
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise SnapshotError(f"a snapshot is bytes, not {type(blob).__name__}")
    blob = bytes(blob)
    head, end = _head(blob)
    if head.format != FORMAT:
        raise SnapshotError(f"the snapshot has format {head.format}, and this version of wasm-sandbox reads {FORMAT}")
    whole = _checked(blob, head, key)
    head.check(limits)
    if sum(head.sizes) != head.body_bytes:
        raise damaged()
    point = head.point(cut(_body(whole[end:], head.body_bytes), head.sizes))
    return Loaded(point, head.cells, tuple(head.pending), head.placeholders)


def _head(blob: bytes) -> tuple[_Head, int]:
    start = len(MAGIC) + _SIZE.size
    if len(blob) < start + _HASH_BYTES or not blob.startswith(MAGIC):
        raise damaged()
    (size,) = _SIZE.unpack_from(blob, len(MAGIC))
    if size > min(MAX_HEAD_BYTES, len(blob) - start):
        raise damaged()
    try:
        return _Head.model_validate_json(blob[start : start + size]), start + size
    except (ValidationError, ValueError):
        raise damaged() from None


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
        raise damaged()
    return whole


def _body(packed: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(packed, size + 1)
    except zlib.error:
        raise damaged() from None
    if len(body) != size or not unpacker.eof or unpacker.unused_data:
        raise damaged()
    return body
