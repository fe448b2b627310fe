"""Waiting for a run: for its result, for what it raises, or for a signal."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future
from types import FrameType

import pytest

from wasm_sandbox.engine.threads.guest_threads import INTERRUPT_SECONDS, wait_for

LONG = 5 * INTERRUPT_SECONDS


def later(act: object, *arguments: object) -> None:
    threading.Timer(LONG, act, arguments).start()  # type: ignore[arg-type]  # any call


@pytest.mark.parametrize("seconds", [0.0, LONG], ids=["a short wait", "a long wait"])
def test_it_is_the_result_of_the_future(seconds: float) -> None:
    future: Future[int] = Future()
    threading.Timer(seconds, future.set_result, (5,)).start()
    assert wait_for(future) == 5


@pytest.mark.parametrize("error", [ValueError("wrong"), TimeoutError("its own")], ids=["an error", "a time-out"])
@pytest.mark.parametrize("seconds", [0.0, LONG], ids=["a short wait", "a long wait"])
def test_what_the_future_raises_is_raised(seconds: float, error: Exception) -> None:
    future: Future[int] = Future()
    threading.Timer(seconds, future.set_exception, (error,)).start()
    with pytest.raises(type(error), match=str(error)):
        wait_for(future)


class Rung(Exception):
    """What a signal handler of a caller's own raises."""


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_what_a_signal_handler_raises_ends_a_long_wait() -> None:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise Rung

    before = signal.signal(signal.SIGUSR1, ring)
    try:
        later(os.kill, os.getpid(), signal.SIGUSR1)
        began = time.monotonic()
        with pytest.raises(Rung):
            wait_for(Future[int]())
        assert time.monotonic() - began < 100 * LONG
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_many_threads_wait_at_once() -> None:
    futures = [Future[int]() for _ in range(50)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda future=future: found.append(wait_for(future))) for future in futures]
    for thread in threads:
        thread.start()
    time.sleep(LONG)
    for number, future in enumerate(futures):
        future.set_result(number)
    for thread in threads:
        thread.join(60)
    assert sorted(found) == list(range(50))
