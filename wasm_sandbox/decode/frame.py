"""Find, check and cut out the framed result that a guest writes on its standard output.

A frame is marker (16 bytes) + payload length (4 bytes, unsigned big-endian) + MD5 of the payload (32
lower-case hex digits, ASCII) + payload. The checksum tells a whole frame from a damaged one; it
authenticates nothing. A guest can write any frame it likes, so a payload is as hostile as the guest.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import NamedTuple

# uuid5(NAMESPACE_DNS, "local-sandbox-result-start-marker").bytes; spelled out, so that no uuid is imported.
MARKER = bytes.fromhex("92c8e49843d35fb3919da69eb3e5c5c6")

MARKER_BYTES = 16
LENGTH_BYTES = 4
CHECKSUM_BYTES = 32
HEADER_BYTES = MARKER_BYTES + LENGTH_BYTES + CHECKSUM_BYTES

_HEX_DIGITS = b"0123456789abcdef"

# Valid frames do not overlap, so an honest output is hashed at most once. Refused candidates may overlap:
# a flood of markers that each claim megabytes would otherwise be hashed over and over, quadratically.
_HASHED_PER_BYTE = 4
_HASHED_AT_LEAST = 1 << 20
_MOST_MARKERS = 1 << 16  # a marker costs a microsecond or two, even one that begins nothing


class FrameDamage(StrEnum):
    """Why a marker does not begin a valid frame."""

    CUT = "cut"
    """The output ends inside the header or the payload."""
    CHECKSUM = "checksum"
    """The checksum is not 32 lower-case hex digits, or not the payload's."""
    OVERSIZED = "oversized"
    """The declared length is above the limit."""
    FLOOD = "flood"
    """So many false frames that the rest of the output was not looked at."""


class FramedOutput(NamedTuple):
    """What a guest's output holds: at most one result, and text."""

    payload: bytes | None
    """Payload of the last valid frame, ``None`` if there is none."""
    text: bytes
    """The output without the frame of ``payload``; every other byte stays, in order."""
    damage: FrameDamage | None = None
    """Why the last marker outside valid frames was refused; ``None`` if there is no such marker."""
    declared_bytes: int | None = None
    """Payload length, in bytes, that this marker declares; ``None`` if the output ends before it."""


def encode_frame(payload: bytes, marker: bytes = MARKER) -> bytes:
    """Frame a payload, as the guest does.

    Args:
        payload: at most 2**32 - 1 bytes.
        marker: 16 bytes that the reader looks for.

    Raises:
        ValueError: if the marker is not 16 bytes long or the payload is too long for the length field.
    """
    _check_marker(marker)
    if len(payload) >= 1 << 8 * LENGTH_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes does not fit a frame")
    return marker + len(payload).to_bytes(LENGTH_BYTES, "big") + _checksum(payload) + payload


def split_frames(data: bytes, *, max_payload: int, marker: bytes = MARKER) -> FramedOutput:
    """Cut the last valid frame out of a guest's output.

    The scan goes forward and skips a valid frame whole, so a frame inside a valid payload is not seen.
    Frames that do not win, and markers that begin no valid frame, stay in the text as they are.

    Never hashes more than four times ``len(data)`` plus 1 MiB, whatever the guest wrote. Past that the
    output has no result (damage ``flood``), not even an earlier valid frame: it may not be the last one.
    The same goes for an output with more than 65,536 markers.

    Args:
        data: the guest's whole standard output.
        max_payload: longest accepted payload, in bytes; checked before anything is sliced or hashed.
        marker: 16 bytes that begin a frame.

    Raises:
        ValueError: if the marker is not 16 bytes long.
    """
    _check_marker(marker)
    budget = _HASHED_PER_BYTE * len(data) + _HASHED_AT_LEAST
    payload: bytes | None = None
    frame_start = frame_end = 0
    damage: FrameDamage | None = None
    declared: int | None = None
    markers = 0

    start = data.find(marker)
    while start >= 0:
        markers += 1
        if markers > _MOST_MARKERS:
            return FramedOutput(None, data, FrameDamage.FLOOD)
        body = start + HEADER_BYTES
        refused, length = _inspect_header(data, start, max_payload)
        if refused is None and length is not None:
            budget -= length
            if budget < 0:
                return FramedOutput(None, data, FrameDamage.FLOOD, length)
            candidate = data[body : body + length]
            if _checksum(candidate) == data[body - CHECKSUM_BYTES : body]:
                payload, frame_start, frame_end = candidate, start, body + length
                start = data.find(marker, frame_end)
                continue
            refused = FrameDamage.CHECKSUM
        damage, declared = refused, length
        start = data.find(marker, start + 1)

    text = data if payload is None else data[:frame_start] + data[frame_end:]
    return FramedOutput(payload, text, damage, declared)


def could_be_frame(header: bytes, max_payload: int) -> bool:
    """Whether a header, marker included, could begin a valid frame.

    Args:
        header: its `HEADER_BYTES` bytes.
        max_payload: longest accepted payload, in bytes.
    """
    refused, _ = _inspect_header(header, 0, max_payload)
    return refused in (None, FrameDamage.CUT) and _is_hex(header[MARKER_BYTES + LENGTH_BYTES :])


def _inspect_header(data: bytes, start: int, max_payload: int) -> tuple[FrameDamage | None, int | None]:
    """What the header alone tells about the frame at ``start``: damage, and the declared length if known."""
    length_start = start + MARKER_BYTES
    checksum_start = length_start + LENGTH_BYTES
    body = start + HEADER_BYTES
    if len(data) < checksum_start:
        return FrameDamage.CUT, None
    length = int.from_bytes(data[length_start:checksum_start], "big")
    if length > max_payload:
        return FrameDamage.OVERSIZED, length
    if len(data) < body + length:
        return FrameDamage.CUT, length
    if not _is_hex(data[checksum_start:body]):
        return FrameDamage.CHECKSUM, length
    return None, length


def _is_hex(checksum: bytes) -> bool:
    return not checksum.strip(_HEX_DIGITS)


def _checksum(payload: bytes) -> bytes:
    return hashlib.md5(payload, usedforsecurity=False).hexdigest().encode("ascii")


def _check_marker(marker: bytes) -> None:
    if len(marker) != MARKER_BYTES:
        raise ValueError(f"a marker has {MARKER_BYTES} bytes, not {len(marker)}")
