"""Requests of a guest besides calls: bundles of displays and progress, read as hostile."""

from __future__ import annotations

import math
import struct

from pydantic import TypeAdapter, ValidationError

MAX_NAME_BYTES = 256
MAX_ENTRIES = 64
"""Most MIME types of one bundle."""

MAX_PROGRESS_TEXT, MAX_PROGRESS_BYTES = 1000, 16 << 10

MAX_VALUES = 500_000
"""Most values in the arguments of a call. What does not fit costs a pydantic that looks at all of it 1 µs and 400 bytes
for each, and a list of empty lists takes 20 times its JSON."""

_HEAD = struct.Struct("<IBI")
_progress = TypeAdapter(tuple[float, float | None, str])


def has_few_values(arguments: bytes, cost_of_object: int = 1) -> bool:
    """Whether JSON holds no more than `MAX_VALUES`, as far as that is seen without reading it.

    Args:
        arguments: the JSON, hostile.
        cost_of_object: values that an object counts for.
    """
    if _values(arguments, cost_of_object) <= MAX_VALUES:
        return True
    # Perhaps it is the text in it that has so many commas: look at what is outside of its strings.
    plain = arguments.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * MAX_VALUES:
        return False
    return _values(b"".join(plain.split(b'"')[::2]), cost_of_object) <= MAX_VALUES


def _values(arguments: bytes, cost_of_object: int) -> int:
    return sum(map(arguments.count, (b",", b"["))) + arguments.count(b"{") * cost_of_object


def read_bundle(payload: bytes) -> dict[str, str | bytes] | None:
    """Read a display: MIME type -> text, or bytes where the guest says so; None if it is malformed."""
    bundle: dict[str, str | bytes] = {}
    at = 0
    while at < len(payload):
        if len(payload) - at < _HEAD.size or len(bundle) == MAX_ENTRIES:
            return None
        name_size, is_binary, size = _HEAD.unpack_from(payload, at)
        at += _HEAD.size
        if name_size > MAX_NAME_BYTES or size > len(payload) - at - name_size:
            return None
        name = payload[at : at + name_size].decode("utf-8", "replace")
        data = payload[at + name_size : at + name_size + size]
        bundle[name] = data if is_binary else data.decode("utf-8", "replace")
        at += name_size + size
    return bundle


def read_progress(payload: bytes) -> tuple[float, float | None, str]:
    """Read what a guest says of its progress; nothing done, if it is malformed."""
    if len(payload) > MAX_PROGRESS_BYTES:
        return 0.0, None, ""
    try:
        done, total, text = _progress.validate_json(payload)
    except ValidationError:
        return 0.0, None, ""
    finite = done if math.isfinite(done) else 0.0
    return finite, total if total is not None and math.isfinite(total) else None, text[:MAX_PROGRESS_TEXT]
