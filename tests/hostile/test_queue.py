"""Runs that wait for a thread: as long as they may take, and no longer."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from wasm_sandbox import ErrorKind, Limits, Tool, run_tool
from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.threads.guest_threads import MAX_THREADS, GuestThreads
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Ending, Outcome, Patience
from wasm_sandbox.request import ExecutionRequest

Start = Callable[[str, float], Future[Outcome]]


def start_in(engine: GuestEngine, script: str, timeout_seconds: float) -> tuple[Future[Outcome], LiveSurroundings]:
    surroundings = LiveSurroundings()
    request = ExecutionRequest(script, {}, Limits(timeout_seconds=timeout_seconds))
    return engine.start(request, surroundings), surroundings


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(script, timeout_seconds)`` in an engine with two threads."""
    engine = GuestEngine(most_threads=2)
    engine.image()
    yield lambda script, timeout_seconds: start_in(engine, script, timeout_seconds)[0]
    engine.close()


def test_behind_256_sleeping_guests_a_run_waits_no_longer_than_it_may_take() -> None:
    process_engine().image()
    sleepers = [start_in(process_engine(), "import time; time.sleep(600)", 100) for _ in range(MAX_THREADS)]
    try:
        began = time.monotonic()
        result = run_tool(Tool(name="f", source_code="def f(): return 1"), limits=Limits(timeout_seconds=0.5))
        waited = time.monotonic() - began
    finally:
        for _, surroundings in sleepers:
            surroundings.cancel()
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT
    assert "it was not begun" in result.error.message
    assert result.func_return == result.error.message
    assert result.func_return.startswith("Executing tool f timed out after 0.5 seconds: ")
    assert 0.5 <= waited < 20
    assert {future.result(timeout=30).ending for future, _ in sleepers} == {Ending.CANCELLED}


def test_a_run_that_gets_its_thread_in_time_has_all_of_its_own_time(start: Start) -> None:
    occupants = [start("import time; time.sleep(0.4)", 100) for _ in range(2)]
    late = start("import time; time.sleep(0.4); print('done')", 0.6)  # 0.4 of waiting, then 0.4 of its own
    assert late.result(timeout=30).stdout == b"done\n"
    assert [occupant.result().ending for occupant in occupants] == [Ending.EXITED] * 2


def test_each_of_a_queue_gives_up_at_its_own_time_and_the_others_run(start: Start) -> None:
    occupants = [start("import time; time.sleep(1.5)", 100) for _ in range(2)]
    waiting = [start("print('ran')", 0.1 if n % 2 else 100) for n in range(40)]
    ended = [future.result(timeout=60) for future in waiting]
    assert [outcome.stdout for outcome in ended] == [b"" if n % 2 else b"ran\n" for n in range(40)]
    assert {outcome.ending for outcome in ended[1::2]} == {Ending.DEADLINE}
    assert all(outcome.wall_seconds < 1.4 for outcome in ended[1::2])
    assert all(occupant.result().ending is Ending.EXITED for occupant in occupants)


def test_nobody_watches_over_an_empty_queue(start: Start) -> None:
    """Whoever did would keep the outcomes of runs that waited, until these might have waited no longer."""
    occupants = [start("import time; time.sleep(0.3)", 100) for _ in range(2)]
    future = start("pass", 100)
    future.result(timeout=30)
    kept = weakref.ref(future)  # which has the outcome
    del future
    for occupant in occupants:
        occupant.result()
    for _ in range(500):
        gc.collect()
        if kept() is None:
            return
        time.sleep(0.01)
    pytest.fail("the outcome is still kept")


def test_what_waited_is_let_go_when_it_has_its_thread_or_is_given_up() -> None:
    watchdog, go_on = Watchdog(), threading.Event()
    threads = GuestThreads(watchdog, 1)

    def occupy(deliver: Callable[[Outcome], None]) -> None:
        go_on.wait(30)
        deliver(Outcome(Ending.EXITED))

    try:
        occupant = threads.submit(occupy, Patience(100, lambda: 0.0))
        begun, given_up = (threads.submit(occupy, Patience(seconds, lambda: 0.0)) for seconds in (100, 0.05))
        assert given_up.result(timeout=30).ending is Ending.DEADLINE
        assert watchdog.due < math.inf  # one still waits
        go_on.set()
        assert {occupant.result(timeout=30).ending, begun.result(timeout=30).ending} == {Ending.EXITED}
        watchdog.catch_up()
        assert watchdog.due == math.inf
    finally:
        threads.close(time.monotonic() + 5)
        watchdog.close()
