"""The engine of the process: its threads, and what they leave behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.threads.guest_threads import GuestThreads
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.errors import HostError
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending
from wasm_sandbox.request import ExecutionRequest

T = TypeVar("T")


def delivering(function: Callable[[], T]) -> Callable[[Callable[[T], None]], None]:
    """Work whose result is what the function returns."""
    return lambda deliver: deliver(function())


def test_workers_are_reused_and_grow_with_demand() -> None:
    workers = GuestThreads(Watchdog())
    for _ in range(5):
        workers.submit(delivering(lambda: None)).result()
        time.sleep(0.02)
    assert workers.threads == 1
    release = threading.Event()
    futures = [workers.submit(delivering(release.wait)) for _ in range(4)]
    assert workers.threads == 4
    release.set()
    assert [f.result() for f in futures] == [True] * 4
    workers.close(time.monotonic() + 5)


def test_a_worker_survives_what_its_work_raises() -> None:
    workers = GuestThreads(Watchdog())
    with pytest.raises(ZeroDivisionError):
        workers.submit(delivering(lambda: 1 / 0)).result()
    assert workers.submit(delivering(lambda: 1)).result() == 1
    workers.close(time.monotonic() + 5)


def test_a_closed_pool_refuses_work_in_words() -> None:
    workers = GuestThreads(Watchdog())
    workers.close(time.monotonic())
    with pytest.raises(RuntimeError, match="interpreter is exiting"):
        workers.submit(delivering(lambda: 1))


def test_nobody_waits_for_what_a_worker_does_after_it_has_delivered() -> None:
    workers, release, tidied = GuestThreads(Watchdog()), threading.Event(), threading.Event()

    def work(deliver: Callable[[int], None]) -> None:
        deliver(1)
        release.wait()
        tidied.set()

    assert workers.submit(work).result(timeout=5) == 1
    assert not tidied.is_set()
    release.set()
    assert tidied.wait(5)
    workers.close(time.monotonic() + 5)


@pytest.mark.long
def test_hundreds_of_runs_leave_nothing_behind() -> None:
    """Stores, instances and threads are given back; a leak of a store would be 2 MB a run."""

    def runs(count: int) -> None:
        for n in range(count):
            script = ["pass", "raise ValueError", "import os; os._exit(1)", "while True: pass"][n % 4]
            request = ExecutionRequest(script, {}, Limits(fuel=20_000_000))
            process_engine().start(request, LiveSurroundings()).result()

    def resident_pages() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc here")
    runs(60)
    threads, before = threading.active_count(), resident_pages()
    descriptors = len(os.listdir("/proc/self/fd"))
    runs(400)
    assert threading.active_count() <= threads + 4  # one worker tidies up while the next runs
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    grown = (resident_pages() - before) * os.sysconf("SC_PAGE_SIZE")
    assert grown < 16 << 20


def test_a_run_that_waits_for_a_thread_is_not_begun_once_the_engine_is_closed() -> None:
    script = "import time; time.sleep(600)"
    with GuestEngine(most_threads=1) as engine:
        asleep = engine.start(ExecutionRequest(script, {}, Limits()), LiveSurroundings())
        waiting = engine.start(ExecutionRequest(script, {}, Limits()), LiveSurroundings())
        while not engine.running_guests:
            time.sleep(0.01)
    assert asleep.result(30).ending is Ending.CANCELLED
    with pytest.raises(HostError, match="exiting"):
        waiting.result(30)
