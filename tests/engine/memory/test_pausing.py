"""Pausing guests: they stand still and go on, end while they stand still, and nothing else is kept from ending."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.waiting import wait_until
from wasm_sandbox import Limits
from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.memory import pausing
from wasm_sandbox.engine.memory.poll_page import PollPage
from wasm_sandbox.engine.run.guest import Guest
from wasm_sandbox.engine.world.surroundings import FixedSurroundings, LiveSurroundings
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest

PATIENCE_SECONDS = 60.0  # longer than any of these tests takes
ENDLESS = "while True: pass"
COUNT = "n = 0\nfor i in range(1_000_000): n += i\nprint(n)"
COUNTED = b"499999500000\n"

needs_pausing = pytest.mark.skipif(not pausing.is_supported(), reason="guests cannot be paused on this system")


def start(
    script: str,
    surroundings: LiveSurroundings | FixedSurroundings | None = None,
    timeout_seconds: float = 600,
    fuel: int | None = 2**62,
    engine: GuestEngine | None = None,
) -> Future[Outcome]:
    limits = Limits(timeout_seconds=timeout_seconds, fuel=fuel)
    return (engine or process_engine()).start(ExecutionRequest(script, {}, limits), surroundings or LiveSurroundings())


class Guests:
    """An engine whose guests have turns that never end, and those of them that can be paused, in order."""

    def __init__(self, at_once: int = 1000, quantum: float = PATIENCE_SECONDS) -> None:
        self.engine = GuestEngine(at_once=at_once, quantum=quantum)
        self.heard: list[Guest] = []
        self._pages: list[PollPage] = []

    def began(self, mark: Mark) -> None:
        if mark.name == "call":
            self.heard.append(mark.subject)

    def ended(self, mark: Mark) -> None:
        pass

    def start(self, script: str, surroundings: LiveSurroundings | None = None, **limits: Any) -> Future[Outcome]:
        return start(script, surroundings, engine=self.engine, **limits)

    def pages(self) -> list[PollPage]:
        """Of the guests that could be paused at one of these calls."""
        found = [guest.page for guest in self.heard if guest.page.can_pause]
        self._pages += [page for page in found if page not in self._pages]
        return self._pages

    def forget(self) -> None:
        self.heard, self._pages = [], []

    def fuel_of(self, surroundings: LiveSurroundings) -> int:
        """What a guest has left; as much as there can be before it has begun."""
        found = [guest for guest in self.heard if guest.world.surroundings is surroundings and guest.has_instance]
        return found[0].fuel_left() if found else 2**62


@contextmanager
def guests_of(at_once: int = 1000, quantum: float = PATIENCE_SECONDS) -> Iterator[Guests]:
    made = Guests(at_once, quantum)
    try:
        with listening(made):
            yield made
    finally:
        made.engine.close()


@pytest.fixture
def guests() -> Iterator[Guests]:
    with guests_of() as made:
        yield made


@needs_pausing
def test_a_paused_guest_stands_still_until_it_is_resumed(guests: Guests) -> None:
    surroundings = LiveSurroundings()
    run = guests.start(ENDLESS, surroundings)
    wait_until(lambda: len(guests.pages()) == 1 and guests.fuel_of(surroundings) < 2**62 - 10_000_000, PATIENCE_SECONDS)
    guests.pages()[0].pause()
    time.sleep(0.05)  # for its next charge
    still = guests.fuel_of(surroundings)
    time.sleep(0.1)
    assert guests.fuel_of(surroundings) == still
    guests.pages()[0].resume()
    wait_until(lambda: guests.fuel_of(surroundings) < still - 10_000_000, PATIENCE_SECONDS)
    surroundings.cancel()
    assert run.result(PATIENCE_SECONDS).ending is Ending.CANCELLED


@needs_pausing
@pytest.mark.parametrize("fuel", [2**62, None], ids=["with fuel", "without fuel"])
def test_a_guest_that_was_paused_many_times_has_the_right_result(guests: Guests, fuel: int | None) -> None:
    run = guests.start(COUNT, fuel=fuel)
    wait_until(lambda: len(guests.pages()) == 1, PATIENCE_SECONDS)
    pauses = 0
    while not run.done():
        guests.pages()[0].pause()
        time.sleep(0.0002)
        guests.pages()[0].resume()
        time.sleep(0.0005)
        pauses += 1
    outcome = run.result()
    assert (outcome.ending, outcome.stdout) == (Ending.EXITED, COUNTED)
    assert pauses > 10


@needs_pausing
def test_pausing_costs_no_fuel(guests: Guests) -> None:
    def fuel(paused: bool) -> int | None:
        limits = Limits(timeout_seconds=600, deterministic=True)
        guests.forget()
        run = guests.engine.start(ExecutionRequest(COUNT, {}, limits), FixedSurroundings())
        while not run.done():
            time.sleep(0.0005)
            if paused and guests.pages():
                guests.pages()[0].pause()
                guests.pages()[0].resume()
        return run.result().fuel

    assert fuel(True) == fuel(False)


@needs_pausing
def test_a_paused_guest_ends_at_its_deadline_and_when_it_is_cancelled(guests: Guests) -> None:
    cancelled = LiveSurroundings()
    runs = [guests.start(ENDLESS, timeout_seconds=0.5), guests.start(ENDLESS, cancelled)]
    wait_until(lambda: len(guests.pages()) == 2, PATIENCE_SECONDS)
    for page in guests.pages():
        page.pause()
    outcome = runs[0].result(PATIENCE_SECONDS)
    assert outcome.ending is Ending.DEADLINE
    assert outcome.wall_seconds < PATIENCE_SECONDS / 2
    cancelled.cancel()
    assert runs[1].result(PATIENCE_SECONDS).ending is Ending.CANCELLED
    wait_until(lambda: guests.engine.running_guests == 0, PATIENCE_SECONDS)


@needs_pausing
def test_a_page_that_is_let_go_of_is_not_touched_any_more(guests: Guests) -> None:
    assert guests.start("print(1)").result(PATIENCE_SECONDS).ending is Ending.EXITED
    wait_until(lambda: guests.engine.running_guests == 0, PATIENCE_SECONDS)
    assert not guests.heard[0].page.can_pause
    guests.heard[0].page.pause()
    guests.heard[0].page.resume()
    for _ in range(20):  # among them the instance with the memory that the first one had
        assert guests.start("print(1)").result(PATIENCE_SECONDS).stdout == b"1\n"


@needs_pausing
@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("def f(): f()\nimport sys; sys.setrecursionlimit(10**4); f()", {Ending.STACK_OVERFLOW, Ending.EXITED}),
        ("x = [0]\nwhile True: x = x * 2", {Ending.EXITED}),
        ("import os; os._exit(3)", {Ending.EXITED}),
        ("import os; os.abort()", {Ending.TRAPPED}),
    ],
    ids=["deep recursion", "no memory", "exit", "abort"],
)
def test_a_guest_that_is_paused_now_and_then_ends_as_any_other(
    guests: Guests, script: str, ending: set[Ending]
) -> None:
    run = guests.start(script)
    while not run.done():
        for page in list(guests.pages()):
            page.pause()
            page.resume()
        time.sleep(0.02)
    assert run.result().ending in ending


@needs_pausing
def test_guests_that_compute_stand_still_in_turns_and_all_get_on() -> None:
    surroundings = [LiveSurroundings() for _ in range(8)]
    with guests_of(at_once=1, quantum=0.01) as guests:
        runs = [guests.start(ENDLESS, each) for each in surroundings]
        try:
            wait_until(
                lambda: all(guests.fuel_of(each) < 2**62 - 10_000_000 for each in surroundings), PATIENCE_SECONDS
            )
            before = [guests.fuel_of(each) for each in surroundings]
            assert guests.engine.running_guests == 8
            wait_until(
                lambda: all(guests.fuel_of(e) < left for e, left in zip(surroundings, before, strict=True)),
                PATIENCE_SECONDS,
            )
        finally:
            for each in surroundings:
                each.cancel()
        assert {run.result(PATIENCE_SECONDS).ending for run in runs} == {Ending.CANCELLED}


@needs_pausing
def test_a_guest_that_slept_asks_for_a_turn_again() -> None:
    holder = LiveSurroundings()
    with guests_of(at_once=1) as guests:
        sleeper = guests.start("import time; time.sleep(0.3); print('awake')")
        computing = guests.start(ENDLESS, holder)  # takes the turn of the one that sleeps, and keeps it
        with pytest.raises(TimeoutError):
            sleeper.result(1)
        holder.cancel()
        assert computing.result(PATIENCE_SECONDS).ending is Ending.CANCELLED
        assert sleeper.result(PATIENCE_SECONDS).stdout == b"awake\n"


def test_where_guests_cannot_be_paused_they_go_on_after_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "is_supported", lambda: False)
    with GuestEngine(at_once=1, quantum=0.001) as engine:
        assert engine.mechanisms["pausing"] == "no"
        limits = Limits(timeout_seconds=PATIENCE_SECONDS)
        runs = [engine.start(ExecutionRequest(COUNT, {}, limits), LiveSurroundings()) for _ in range(4)]
        assert {run.result(PATIENCE_SECONDS).stdout for run in runs} == {COUNTED}


@needs_pausing
def test_a_system_that_allows_no_code_of_ours_is_told_about_and_goes_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "not allowed")

    monkeypatch.setattr(pausing.PauseHandler, "__init__", refuse)
    with caplog.at_level("INFO"):
        engine = GuestEngine()
    with engine:
        assert "guests cannot be paused" in caplog.text
        outcome = engine.start(ExecutionRequest("print(1)", {}, Limits()), LiveSurroundings()).result(PATIENCE_SECONDS)
        assert outcome.stdout == b"1\n"


CRASH = """
import ctypes
from wasm_sandbox import Limits
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.engine.world.world import LiveSurroundings
process_engine().start(ExecutionRequest("pass", {{}}, Limits()), LiveSurroundings()).result()
{how}
"""


@needs_pausing
@pytest.mark.parametrize(
    "how",
    [
        "ctypes.string_at(0)",
        "ctypes.string_at(0x1000)",
        "import mmap; m = mmap.mmap(-1, 1 << 20); a = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
        "p = ctypes.PyDLL(None).mprotect; p.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
        "assert p(a, 4096, 0) == 0; ctypes.string_at(a, 1)",
    ],
    ids=["null", "unmapped", "page with readable memory after it"],
)
def test_a_fault_of_the_host_itself_ends_it_as_ever(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH.format(how=how)], capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == -11, done.stderr


@needs_pausing
def test_a_child_of_a_process_with_paused_guests_runs_its_own(guests: Guests) -> None:
    surroundings = LiveSurroundings()
    run = guests.start(ENDLESS, surroundings)
    wait_until(lambda: len(guests.pages()) == 1, PATIENCE_SECONDS)
    guests.pages()[0].pause()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            outcome = start("print(1)").result(PATIENCE_SECONDS)
            status = 0 if outcome.stdout == b"1\n" else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    surroundings.cancel()
    assert run.result(PATIENCE_SECONDS).ending is Ending.CANCELLED


@needs_pausing
def test_pausing_from_many_threads_at_once_leaves_no_guest_behind(guests: Guests) -> None:
    runs = [guests.start(COUNT) for _ in range(4)]
    wait_until(lambda: len(guests.pages()) == 4, PATIENCE_SECONDS)
    over = threading.Event()

    def disturb() -> None:
        while not over.is_set():
            for page in guests.pages():
                page.pause()
                page.resume()

    threads = [threading.Thread(target=disturb) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert {run.result(PATIENCE_SECONDS).stdout for run in runs} == {COUNTED}
    finally:
        over.set()
        for thread in threads:
            thread.join()
