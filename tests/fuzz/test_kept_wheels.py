"""Every wheel that fuzzing kept still holds, and so does any other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_wheel
from tests.support.archives import DEFLATED, Member, wheel

GOOD = wheel(Member("b.py", b"VALUE = 2\n" * 10, DEFLATED), Member("b/c.py", b"x"))


def test_every_kept_input_holds() -> None:
    assert fuzz_wheel.replay() > 40


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_any_bytes_hold(data: bytes) -> None:
    fuzz_wheel.check(data)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_wheel_with_bytes_changed_holds(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    fuzz_wheel.check(bytes(data))


@settings(max_examples=30)
@given(st.integers(0, len(GOOD)))
def test_a_wheel_that_was_cut_holds(length: int) -> None:
    fuzz_wheel.check(GOOD[:length])
