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
    """Payload of the last valid frame, ``None`` if there is none or the last one is not accepted."""
    text: bytes
    """The output without that frame, accepted or not; every other byte stays, in order."""
    damage: FrameDamage | None = None
    """Why the last marker outside valid frames was refused; ``None`` if there is no such marker."""
    declared_bytes: int | None = None
    """Payload length, in bytes, that this marker declares; ``None`` if the output ends before it."""
    frame_dropped_bytes: int = 0
    """How many of the bytes that were dropped are those of a frame that is not accepted."""


class Gap(NamedTuple):
    """Where bytes of an output were dropped."""

    at: int
    """Number of bytes kept before it."""
    size: int
    """Number of bytes dropped."""

    def place(self, offset: int) -> int:
        """Where the byte at an offset of the output as it was written is kept, or would be."""
        return offset if offset <= self.at else max(self.at, offset - self.size)


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


def head_bytes(output_bytes: int, result_bytes: int) -> int:
    """How much of the begin of an output is kept: what may be shown, and a framed result after it."""
    return output_bytes + result_bytes + HEADER_BYTES


def split_frames(data: bytes, *, max_payload: int, marker: bytes = MARKER, gap: Gap | None = None) -> FramedOutput:
    """Cut the last valid frame out of a guest's output.

    The scan goes forward and skips a valid frame whole, so a frame inside a valid payload is not seen.
    Frames that do not win, and markers that begin no valid frame, stay in the text as they are. A frame that wins
    and is not accepted, because it is oversized or a part of it was dropped, is cut out, too: it is no text. One that
    reaches over the gap has no checksum that could be checked: it counts if the output ends with it, or no valid
    frame comes after its marker.

    Never hashes more than four times ``len(data)`` plus 1 MiB, whatever the guest wrote. Past that the
    output has no result (damage ``flood``), not even an earlier valid frame: it may not be the last one.
    The same goes for an output with more than 65,536 markers.

    Args:
        data: the guest's standard output, as far as it was kept.
        max_payload: longest accepted payload, in bytes.
        marker: 16 bytes that begin a frame.
        gap: where bytes of it were dropped, if any were.

    Raises:
        ValueError: if the marker is not 16 bytes long.
    """
    _check_marker(marker)
    gap = gap or Gap(len(data), 0)
    budget = _HASHED_PER_BYTE * len(data) + _HASHED_AT_LEAST
    found: _Found | None = None
    unproven: _Found | None = None
    damage: FrameDamage | None = None
    declared: int | None = None
    markers = 0

    start = data.find(marker)
    while start >= 0:
        markers += 1
        if markers > _MOST_MARKERS:
            return FramedOutput(None, data, FrameDamage.FLOOD)
        frame, damage_here, length = _inspect_header(data, start, max_payload, gap)
        if frame is not None and frame.dropped:
            unproven = unproven or frame
            if frame.end == len(data):
                found, unproven = frame, None
                break
        elif frame is not None:
            budget -= frame.length
            if budget < 0:
                return FramedOutput(None, data, FrameDamage.FLOOD, length)
            body = start + HEADER_BYTES
            if _checksum(memoryview(data)[body : frame.end]) == data[body - CHECKSUM_BYTES : body]:
                found, unproven = frame, None
                start = data.find(marker, frame.end)
                continue
            damage_here = FrameDamage.CHECKSUM
        damage, declared = damage_here, length
        start = data.find(marker, start + 1)

    found = unproven or found
    if found is None:
        return FramedOutput(None, data, damage, declared)
    text = data[: found.start] + data[found.end :]
    if found.damage is not None:
        return FramedOutput(None, text, found.damage, found.length, found.dropped)
    return FramedOutput(data[found.start + HEADER_BYTES : found.end], text, damage, declared)


def could_be_frame(header: bytes) -> bool:
    """Whether a header, marker included, could begin a frame, accepted or not.

    Args:
        header: its `HEADER_BYTES` bytes.
    """
    return _is_hex(header[MARKER_BYTES + LENGTH_BYTES :])


class _Found(NamedTuple):
    """A frame by its header: where it is in the output that was kept."""

    start: int
    end: int
    length: int
    damage: FrameDamage | None
    """Why its payload is not accepted, whatever the checksum."""
    dropped: int
    """How many bytes of it were dropped."""


def _inspect_header(
    data: bytes, start: int, max_payload: int, gap: Gap
) -> tuple[_Found | None, FrameDamage, int | None]:
    """What the header alone tells about the frame at ``start``: its place, or the damage; and the declared length."""
    length_start = start + MARKER_BYTES
    checksum_start = length_start + LENGTH_BYTES
    body = start + HEADER_BYTES
    if len(data) < checksum_start:
        return None, FrameDamage.CUT, None
    length = int.from_bytes(data[length_start:checksum_start], "big")
    end = gap.place(body + length) if start < gap.at else body + length
    dropped = body + length - end
    damage = FrameDamage.OVERSIZED if length > max_payload else FrameDamage.CUT
    if len(data) < end or (dropped and body > gap.at):
        return None, damage, length
    if not _is_hex(data[checksum_start:body]):
        return None, FrameDamage.CHECKSUM, length
    return _Found(start, end, length, damage if dropped or length > max_payload else None, dropped), damage, length


def _is_hex(checksum: bytes) -> bool:
    return not checksum.strip(_HEX_DIGITS)


def _checksum(payload: bytes | memoryview) -> bytes:
    return hashlib.md5(payload, usedforsecurity=False).hexdigest().encode("ascii")


def _check_marker(marker: bytes) -> None:
    if len(marker) != MARKER_BYTES:
        raise ValueError(f"a marker has {MARKER_BYTES} bytes, not {len(marker)}")
