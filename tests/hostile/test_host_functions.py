"""Random sequences of raw calls to the host: each answers an errno, and nothing of the host is touched or held."""

from __future__ import annotations

import gc
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.test_wasi import HOSTILE, PAGE, PREVIEW1, Probe
from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.start.reactor import read_report
from wasm_sandbox.engine.world.preview1 import ROOT

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


@settings(max_examples=150)
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
@pytest.mark.parametrize("with_files", [False, True], ids=["without files", "with files and a mount"])
def test_calls_leave_no_descriptor_of_the_host_open(with_files: bool, tmp_path: Path) -> None:
    if with_files:  # wasmtime's WASI has a few descriptors of its own from its first call on
        first = Probe()
        first.give_files(tmp_path)
        first.close()
    gc.collect()  # what earlier tests have left is not closed meanwhile
    before = set(os.listdir("/proc/self/fd"))
    probe = Probe()
    if with_files:
        probe.give_files(tmp_path)
    try:
        for name in sorted(set(PREVIEW1) - {"proc_exit"}):
            for hostile in HOSTILE:
                probe.call(name, *[hostile] * len(PREVIEW1[name]))
        if with_files:
            for _ in range(1000):  # of a file in the mount, until there are no more descriptors
                probe.instance.write(1024, b"m/x")
                probe.call("path_open", ROOT, 0, 1024, 3, 1, 1 << 1 | 1 << 6, 0, 0, 2048)
            assert len(os.listdir("/proc/self/fd")) < len(before) + 300
    finally:
        probe.close()
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def reporting() -> Iterator[capi.Instance]:
    """A guest of 100 MiB whose report of an exception is at address 64: the test writes it."""
    engine = wasmtime.Engine()
    text = '(module (memory (export "memory") 1600) (func (export "sandbox_report") (result i32) (i32.const 64)))'
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    yield capi.Instance(store, linker.instantiate_pre(wasmtime.Module(engine, text)))
    store.close()


@pytest.mark.parametrize("claimed", [0, 5, 40 << 20])
def test_a_forged_report_of_an_exception_is_bounded(reporting: capi.Instance, claimed: int) -> None:
    reporting.write(64, struct.pack("<I", claimed))
    found = read_report(reporting)
    assert found is not None
    assert len(found.name) == min(claimed, 1 << 20)
    assert len(found.name) + len(found.message) + len(found.traceback) <= 1 << 20


def test_a_forged_report_is_not_followed_out_of_the_guests_memory(reporting: capi.Instance) -> None:
    reporting.write(64, struct.pack("<I", 2**32 - 1))
    with pytest.raises(capi.GuestStopped, match="outside the guest's memory"):
        read_report(reporting)
