"""The short version of `soak.py`, and that it sees what grows."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hostile import soak as script
from tests.hostile.soak import MIB, Counts, growth, plot, soak

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="counts from /proc")]


def test_five_hundred_runs_leave_nothing_behind() -> None:
    assert growth(soak(500, samples=1)) == []


def leave_a_descriptor(held: list[object]) -> None:
    held.append(os.open("/dev/null", os.O_RDONLY))


def leave_a_file(held: list[object]) -> None:
    os.close(tempfile.mkstemp()[0])


def leave_a_thread(held: list[object]) -> None:
    end = threading.Event()
    threading.Thread(target=end.wait, daemon=True).start()
    held.append(end)


@pytest.fixture
def held() -> Iterator[list[object]]:
    things: list[object] = []
    yield things
    for thing in things:
        if isinstance(thing, int):
            os.close(thing)
        elif isinstance(thing, threading.Event):
            thing.set()


@pytest.mark.parametrize(
    ("leave", "said"),
    [(leave_a_descriptor, "descriptors"), (leave_a_file, "temporary files"), (leave_a_thread, "threads")],
)
def test_runs_that_leave_something_behind_are_noticed(
    leave: object, said: str, held: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(leave)
    monkeypatch.setattr(script, "run_one", lambda number: leave(held))
    assert any(line.startswith(said) for line in growth(soak(20, samples=1, warm_up=2)))


def test_memory_and_mappings_that_grow_are_noticed() -> None:
    first = Counts.now(0, 0.0)
    last = replace(first, resident_bytes=first.resident_bytes + 4096 * MIB, mappings=first.mappings * 3)
    assert [line.split()[0] for line in growth([first, last])] == ["memory", "mappings"]


def test_it_can_be_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = Counts.now(0, 0.0)
    plot([first, replace(first, runs=100)], str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
