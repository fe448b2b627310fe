"""Requests of a guest besides calls: bundles of displays and progress, read as hostile."""

from __future__ import annotations

import math
import struct

from pydantic import TypeAdapter, ValidationError

MAX_NAME_BYTES = 256
MAX_ENTRIES = 64
"""Most MIME types of one bundle."""

MAX_PROGRESS_TEXT = 1000

_HEAD = struct.Struct("<IBI")
_progress = TypeAdapter(tuple[float, float | None, str])


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
    try:
        done, total, text = _progress.validate_json(payload)
    except ValidationError:
        return 0.0, None, ""
    finite = done if math.isfinite(done) else 0.0
    return finite, total if total is not None and math.isfinite(total) else None, text[:MAX_PROGRESS_TEXT]
