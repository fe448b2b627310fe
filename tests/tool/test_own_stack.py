"""Work on a thread of our own that is ended when it takes too long."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from wasm_sandbox.tool.own_stack import TooSlow, on_own_stack


class Member:
    """What a set of weak references may hold, and what is slow to go."""

    def __del__(self) -> None:
        sum(range(2000))


def weak_set() -> None:
    members = [Member() for _ in range(200)]
    weakref.WeakSet(members)
    kept = weakref.WeakSet(members)
    del members
    len(kept)


def cycles() -> None:
    for _ in range(200):
        first, second = Member(), Member()
        first.other, second.other = second, first  # type: ignore[attr-defined]
    gc.collect()


def collector() -> None:
    gc.collect(0)


def slow_callback(*_: Any) -> None:
    sum(range(5_000))


@pytest.mark.parametrize("work", [weak_set, cycles, collector])
def test_what_ends_it_is_raised_where_the_interpreter_does_not_drop_it(work: Callable[[], None]) -> None:
    def for_ever() -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            work()
            for _ in range(10_000):
                sum(range(100))

    gc.callbacks.append(slow_callback)
    try:
        for _ in range(3):
            with pytest.raises(TooSlow):
                on_own_stack(for_ever, 0.05)
    finally:
        with suppress(ValueError):
            gc.callbacks.remove(slow_callback)
