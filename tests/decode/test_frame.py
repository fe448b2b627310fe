"""The framed result: what the parser takes as the result, what it leaves as text, and what it refuses."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox.decode import frame
from wasm_sandbox.decode.frame import HEADER_BYTES, MARKER, FrameDamage, encode_frame, split_frames

LIMIT = 1000


def split(data: bytes) -> frame.FramedOutput:
    return split_frames(data, max_payload=LIMIT)


def test_marker_is_the_fixed_one() -> None:
    """Section 1."""
    assert uuid.uuid5(uuid.NAMESPACE_DNS, "local-sandbox-result-start-marker").bytes == MARKER


def test_frame_layout_is_marker_length_checksum_payload() -> None:
    """Section 8."""
    assert encode_frame(b"abc") == MARKER + b"\0\0\0\x03" + b"900150983cd24fb0d6963f7d28e17f72" + b"abc"
    assert len(encode_frame(b"")) == HEADER_BYTES == 52


def test_marker_of_another_length_is_a_caller_error() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        encode_frame(b"", marker=b"short")
    with pytest.raises(ValueError, match="16 bytes"):
        split_frames(b"", max_payload=1, marker=b"short")


class TestResultAndText:
    """Section 8, W4."""

    def test_output_without_marker_is_all_text(self) -> None:
        assert split(b"hello \xff") == frame.FramedOutput(None, b"hello \xff")
        assert split(b"") == frame.FramedOutput(None, b"")

    def test_text_around_the_frame_is_joined_in_order(self) -> None:
        assert split(b"before" + encode_frame(b"result") + b"after") == frame.FramedOutput(b"result", b"beforeafter")

    def test_empty_payload_is_a_result(self) -> None:
        assert split(b"x" + encode_frame(b"")) == frame.FramedOutput(b"", b"x")

    def test_last_valid_frame_wins_and_earlier_ones_stay_in_the_text(self) -> None:
        forged = encode_frame(b"forged")
        found = split(forged + b"text" + encode_frame(b"real"))
        assert found.payload == b"real"
        assert found.text == forged + b"text"

    def test_frame_inside_a_valid_payload_is_not_seen(self) -> None:
        nested = b"((" + encode_frame(b"inner") + b"))"
        assert split(encode_frame(nested)) == frame.FramedOutput(nested, b"")

    def test_frame_inside_a_damaged_frame_is_found(self) -> None:
        inner = encode_frame(b"inner")
        outer = bytearray(encode_frame(inner + b"tail"))
        outer[20] ^= 1
        found = split(bytes(outer))
        assert found.payload == b"inner"
        assert found.text == bytes(outer).replace(inner, b"")

    def test_partial_marker_before_the_frame_stays_in_the_text(self) -> None:
        assert split(MARKER[:9] + encode_frame(b"r")) == frame.FramedOutput(b"r", MARKER[:9])

    def test_marker_of_the_run_replaces_the_fixed_one(self) -> None:
        mine = b"m" * 16
        data = encode_frame(b"fixed") + encode_frame(b"mine", mine)
        found = split_frames(data, max_payload=LIMIT, marker=mine)
        assert found == frame.FramedOutput(b"mine", encode_frame(b"fixed"))

    @given(before=st.binary(max_size=80), payload=st.binary(max_size=80), after=st.binary(max_size=80))
    def test_any_payload_and_any_text_come_back(self, before: bytes, payload: bytes, after: bytes) -> None:
        found = split(before + encode_frame(payload) + after)
        assert (found.payload, found.text) == (payload, before + after)

    @given(
        st.lists(
            st.sampled_from([MARKER, MARKER[:7], encode_frame(b"a"), encode_frame(b""), b"x", b"\0" * 4]),
            max_size=12,
        )
    )
    def test_no_byte_of_the_output_is_lost(self, pieces: list[bytes]) -> None:
        data = b"".join(pieces)
        found = split(data)
        if found.payload is None:
            assert found.text == data
        else:
            assert len(found.text) + HEADER_BYTES + len(found.payload) == len(data)


class TestDamage:
    """Section 8, W27, W28."""

    @pytest.mark.parametrize("kept", range(16, HEADER_BYTES + 3))
    def test_cut_frame_is_no_result(self, kept: int) -> None:
        data = b"text" + encode_frame(b"abc")[:kept]
        found = split(data)
        assert found == frame.FramedOutput(None, data, FrameDamage.CUT, 3 if kept >= 20 else None)

    def test_longer_length_than_payload_is_cut_not_clamped(self) -> None:
        payload = b"abc"
        data = MARKER + b"\0\0\0\x09" + hashlib.md5(payload).hexdigest().encode() + payload
        assert split(data) == frame.FramedOutput(None, data, FrameDamage.CUT, 9)

    def test_wrong_checksum_is_refused(self) -> None:
        data = encode_frame(b"abc")[:-1] + b"d"
        assert split(data) == frame.FramedOutput(None, data, FrameDamage.CHECKSUM, 3)

    def test_upper_case_checksum_is_refused(self) -> None:
        good = encode_frame(b"abc")
        data = good[:20] + good[20:52].upper() + good[52:]
        assert split(data).damage is FrameDamage.CHECKSUM

    def test_length_at_the_limit_is_accepted_and_one_more_is_oversized(self) -> None:
        assert split(encode_frame(b"x" * LIMIT)).payload == b"x" * LIMIT
        data = encode_frame(b"x" * (LIMIT + 1))
        assert split(b"a" + data + b"b") == frame.FramedOutput(None, b"ab", FrameDamage.OVERSIZED, LIMIT + 1)

    def test_damage_is_that_of_the_last_marker_outside_valid_frames(self) -> None:
        wrong = encode_frame(b"abc")[:-1] + b"d"
        found = split(encode_frame(b"good") + wrong + MARKER)
        assert (found.payload, found.damage, found.declared_bytes) == (b"good", FrameDamage.CUT, None)
        assert found.text == wrong + MARKER


class TestFlood:
    """A guest writes marker after marker, each claiming megabytes: hashing all of them would be quadratic."""

    @pytest.fixture
    def hashed(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        sizes: list[int] = []

        def counting(payload: bytes, **options: Any) -> Any:
            sizes.append(len(payload))
            assert sum(sizes) < 1 << 28, "nobody wants to wait for this test to end"
            return hashlib.new("md5", payload, **options)

        monkeypatch.setattr(hashlib, "md5", counting)
        return sizes

    def test_overlapping_false_frames_exhaust_a_linear_budget(self, hashed: list[int]) -> None:
        false_frame = MARKER + (1 << 20).to_bytes(4, "big") + b"0" * 32
        data = false_frame * (3 * (1 << 20) // len(false_frame))
        found = split_frames(data, max_payload=16 << 20)
        assert found == frame.FramedOutput(None, data, FrameDamage.FLOOD, 1 << 20)
        assert sum(hashed) <= 4 * len(data) + (1 << 20)

    def test_checksum_that_is_not_hex_is_refused_without_hashing(self, hashed: list[int]) -> None:
        data = (MARKER + b"\0\0\x10\0" + b"G" * 32) * 20_000
        found = split_frames(data, max_payload=16 << 20)
        assert (found.payload, found.damage) == (None, FrameDamage.CUT)
        assert hashed == []

    def test_a_frame_before_a_flood_does_not_count_as_the_last_one(self) -> None:
        false_frame = MARKER + (1 << 20).to_bytes(4, "big") + b"0" * 32
        data = encode_frame(b"early") + false_frame * 30_000
        assert split_frames(data, max_payload=16 << 20).payload is None

    def test_honest_output_of_many_frames_stays_within_the_budget(self) -> None:
        data = encode_frame(b"x" * 500) * 4_000
        assert split(data + encode_frame(b"last")).payload == b"last"

    def test_more_markers_than_anyone_honest_writes_are_not_looked_at(self) -> None:
        data = MARKER * ((1 << 16) + 1)
        found = split(data + encode_frame(b"last"))
        assert (found.payload, found.damage) == (None, FrameDamage.FLOOD)
        assert split(data[16:-16] + encode_frame(b"last")).payload == b"last"
