"""What is slow to decode counts as many values, so that no result costs the host more than some seconds."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest

from tests.hostile.decoding import CASES, COLLIDING, Repeated, decode
from wasm_sandbox.decode.pickle_decoder import DecodeLimits, ForbiddenPickle, loads

ITEMS = 20_000
LIMITS = DecodeLimits(max_items=ITEMS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_takes_long_counts_as_many_values(case: Repeated) -> None:
    with pytest.raises(ForbiddenPickle, match=r"values|keys too large|copies"):
        loads(case.payload(1 << 24, 1 + ITEMS // case.cost), limits=LIMITS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_as_many_as_are_allowed_are_accepted_or_refused_by_name(case: Repeated) -> None:
    with suppress(ForbiddenPickle):  # nothing else is raised, and it is said what to do
        loads(case.payload(1 << 24, ITEMS // case.cost // 4), limits=LIMITS)


@pytest.mark.parametrize("name", COLLIDING)
def test_keys_that_collide_cost_no_minutes(name: str) -> None:
    seconds, _ = decode(pickle.dumps(COLLIDING[name](), 4))
    assert seconds < 20  # half a second, where nothing else runs


def test_millions_of_plain_values_are_accepted() -> None:
    for value in ([1] * 4_990_000, [[n, "x"] for n in range(620_000)]):
        assert loads(pickle.dumps(value, 4)) == value
