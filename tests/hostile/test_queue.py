"""Runs that wait for a thread: as long as they may take, and no longer."""

from __future__ import annotations

import time
from concurrent.futures import Future

import pytest

from wasm_sandbox import ErrorKind, Limits, Tool, run_tool
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.run.execution import Ending, Outcome
from wasm_sandbox.engine.threads import guest_threads as workers_module
from wasm_sandbox.engine.threads.guest_threads import MAX_WORKERS, Workers
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.request import ExecutionRequest


def start(script: str, timeout_seconds: float) -> tuple[Future[Outcome], LiveSurroundings]:
    surroundings = LiveSurroundings()
    request = ExecutionRequest(script, {}, Limits(timeout_seconds=timeout_seconds))
    return process_engine().start(request, surroundings), surroundings


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of two threads, of the process's own engine."""
    process_engine().image()
    monkeypatch.setattr(workers_module, "MAX_WORKERS", 2)
    monkeypatch.setattr(process_engine(), "_workers", Workers())


def test_behind_256_sleeping_guests_a_run_waits_no_longer_than_it_may_take() -> None:
    process_engine().image()
    sleepers = [start("import time; time.sleep(600)", 100) for _ in range(MAX_WORKERS)]
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


@pytest.mark.usefixtures("few_threads")
def test_a_run_that_gets_its_thread_in_time_has_all_of_its_own_time() -> None:
    occupants = [start("import time; time.sleep(0.4)", 100)[0] for _ in range(2)]
    late, _ = start("import time; time.sleep(0.4); print('done')", 0.6)  # 0.4 of waiting, then 0.4 of its own
    assert late.result(timeout=30).stdout == b"done\n"
    assert [occupant.result().ending for occupant in occupants] == [Ending.EXITED] * 2


@pytest.mark.usefixtures("few_threads")
def test_each_of_a_queue_gives_up_at_its_own_time_and_the_others_run() -> None:
    occupants = [start("import time; time.sleep(1.5)", 100)[0] for _ in range(2)]
    waiting = [start("print('ran')", 0.1 if n % 2 else 100)[0] for n in range(40)]
    ended = [future.result(timeout=60) for future in waiting]
    assert [outcome.stdout for outcome in ended] == [b"" if n % 2 else b"ran\n" for n in range(40)]
    assert {outcome.ending for outcome in ended[1::2]} == {Ending.DEADLINE}
    assert all(outcome.wall_seconds < 1.4 for outcome in ended[1::2])
    assert all(occupant.result().ending is Ending.EXITED for occupant in occupants)


@pytest.mark.usefixtures("few_threads")
def test_nobody_watches_over_an_empty_queue() -> None:
    import threading

    occupants = [start("import time; time.sleep(0.3)", 100)[0] for _ in range(2)]
    start("pass", 100)[0].result(timeout=30)
    for occupant in occupants:
        occupant.result()
    for _ in range(500):
        if not any(thread.name == "wasm-sandbox-queue" for thread in threading.enumerate()):
            return
        time.sleep(0.01)
    pytest.fail("the watching thread is still there")
