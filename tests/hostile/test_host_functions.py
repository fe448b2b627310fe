"""Random sequences of raw calls to the host: each answers an errno, and nothing of the host is touched or held."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guest.test_wasi import HOSTILE, PAGE, PREVIEW1, Probe

NUMBERS = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(0, 64),
    st.integers(0, 2**32 - 1),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1]),
)
CALLS = st.lists(
    st.tuples(st.sampled_from(sorted(set(PREVIEW1) - {"proc_exit"})), st.lists(NUMBERS, min_size=9, max_size=9)),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(CALLS, st.binary(max_size=400))
def test_any_sequence_of_calls_answers_errnos(calls: list[tuple[str, list[int]]], planted: bytes) -> None:
    probe = Probe()
    try:
        probe.instance.write(0, planted)  # what vectors and subscriptions are read from
        for name, numbers in calls:
            widths = [32 if parameter == "i" else 64 for parameter in PREVIEW1[name]]
            arguments = [number % (1 << width) for number, width in zip(numbers, widths, strict=False)]
            assert 0 <= probe.call(name, *arguments) <= 76, (name, arguments)
        assert probe.world.host_failure is None
        assert probe.instance.memory()[1] == PAGE
    finally:
        probe.close()


@pytest.mark.skipif(sys.platform != "linux", reason="counts from /proc")
def test_calls_leave_no_descriptor_of_the_host_open() -> None:
    probe = Probe()
    try:
        before = set(os.listdir("/proc/self/fd"))
        for name in sorted(set(PREVIEW1) - {"proc_exit"}):
            for hostile in HOSTILE:
                probe.call(name, *[hostile] * len(PREVIEW1[name]))
        assert set(os.listdir("/proc/self/fd")) == before
    finally:
        probe.close()
