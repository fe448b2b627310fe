"""Turns: how many short runs go on at once, and that nobody waits long for those that are not short."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from wasm_sandbox import Limits
from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.threads.turns import AT_ONCE, Turns
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Ending
from wasm_sandbox.request import ExecutionRequest

LONG_SECONDS = 60.0  # longer than any of these tests takes


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def test_of_many_that_are_short_a_few_go_on_at_once(threads: ThreadPoolExecutor, watchdog: Watchdog) -> None:
    turns = Turns(watchdog, at_once=3, quantum=LONG_SECONDS)
    inside, most, lock = 0, 0, threading.Lock()

    def short() -> None:
        nonlocal inside, most
        with turns.turn(LONG_SECONDS):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.002)
            with lock:
                inside -= 1

    for run in [threads.submit(short) for _ in range(100)]:
        run.result(timeout=LONG_SECONDS)
    assert most == 3


def test_turns_come_in_the_order_of_asking(threads: ThreadPoolExecutor, watchdog: Watchdog) -> None:
    turns = Turns(watchdog, at_once=1, quantum=LONG_SECONDS)
    came: list[int] = []

    def ask(number: int) -> None:
        with turns.turn(LONG_SECONDS):
            came.append(number)

    with turns.turn(LONG_SECONDS):
        asking = []
        for number in range(10):
            asking.append(threads.submit(ask, number))
            while turns.waiting <= number:
                time.sleep(0.001)
    wait(asking, timeout=LONG_SECONDS)
    assert came == list(range(10))


def test_nobody_waits_longer_than_a_quantum_for_one_that_takes_long(
    threads: ThreadPoolExecutor, watchdog: Watchdog
) -> None:
    turns = Turns(watchdog, at_once=1, quantum=0.01)
    stop = threading.Event()

    def long() -> None:
        with turns.turn(LONG_SECONDS):
            assert stop.wait(LONG_SECONDS)

    running = [threads.submit(long) for _ in range(20)]
    with turns.turn(LONG_SECONDS):
        assert not any(run.done() for run in running)
        stop.set()
    for run in running:
        run.result(timeout=LONG_SECONDS)


def test_a_turn_that_is_ended_early_is_the_next_ones(threads: ThreadPoolExecutor, watchdog: Watchdog) -> None:
    turns = Turns(watchdog, at_once=1, quantum=LONG_SECONDS)
    with turns.turn(LONG_SECONDS) as turn:
        turn.give_up()
        turn.give_up()  # twice is once
        with turns.turn(LONG_SECONDS):
            waiting = threads.submit(lambda: turns.turn(0.05).__enter__())
            waiting.result(timeout=LONG_SECONDS)  # without a turn: its patience is over


def test_whoever_has_no_patience_goes_on_and_leaves_nothing_behind(watchdog: Watchdog) -> None:
    turns = Turns(watchdog, at_once=1, quantum=LONG_SECONDS)
    with turns.turn(LONG_SECONDS):
        began = time.monotonic()
        with turns.turn(5e-324), turns.turn(0.02):
            assert time.monotonic() - began < LONG_SECONDS / 2
    assert turns.waiting == 0
    assert turns.under_way == 0


class Guest:
    """Guest that says whether it is paused."""

    is_paused = False

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


def test_a_guest_whose_turn_is_over_is_not_left_paused(threads: ThreadPoolExecutor, watchdog: Watchdog) -> None:
    turns = Turns(watchdog, at_once=1, quantum=0.5)
    guest, leave = Guest(), threading.Event()

    def hold() -> None:
        with turns.turn(LONG_SECONDS):
            leave.wait(LONG_SECONDS)

    with turns.turn(LONG_SECONDS) as turn:
        turn.can_be_paused(guest)
        other = threads.submit(hold)
        deadline = time.monotonic() + LONG_SECONDS
        while not guest.is_paused and time.monotonic() < deadline:
            time.sleep(0.001)
        assert guest.is_paused
    assert not guest.is_paused
    leave.set()
    other.result(timeout=LONG_SECONDS)
    assert (turns.waiting, turns.under_way) == (0, 0)


def test_an_exception_ends_a_turn(watchdog: Watchdog) -> None:
    turns = Turns(watchdog, at_once=1, quantum=LONG_SECONDS)
    with pytest.raises(ValueError, match="inside"), turns.turn(LONG_SECONDS):
        raise ValueError("inside")
    with turns.turn(LONG_SECONDS):
        pass


@pytest.mark.parametrize("script", ["import time; time.sleep(100)", "while True: pass"], ids=["sleep", "computing"])
def test_guests_that_take_long_hold_up_no_short_run(script: str) -> None:
    engine = process_engine()
    limits = Limits(timeout_seconds=600, fuel=2**62)
    held = [LiveSurroundings() for _ in range(4 * AT_ONCE)]
    running = [engine.start(ExecutionRequest(script, {}, limits), surroundings) for surroundings in held]
    try:
        outcome = engine.start(ExecutionRequest("print(1)", {}, Limits()), LiveSurroundings()).result(LONG_SECONDS)
        assert outcome.ending is Ending.EXITED
        assert not any(run.done() for run in running)
    finally:
        for surroundings in held:
            surroundings.cancel()
    assert {run.result(LONG_SECONDS).ending for run in running} == {Ending.CANCELLED}


def test_a_guest_that_sleeps_gives_its_turn_away_at_once() -> None:
    engine = GuestEngine(at_once=1, quantum=LONG_SECONDS)
    asleep = LiveSurroundings()
    sleeper = engine.start(ExecutionRequest("import time; time.sleep(600)", {}, Limits(timeout_seconds=600)), asleep)
    try:
        outcome = engine.start(ExecutionRequest("print(1)", {}, Limits()), LiveSurroundings()).result(LONG_SECONDS / 2)
        assert outcome.ending is Ending.EXITED
    finally:
        asleep.cancel()
    assert sleeper.result(LONG_SECONDS).ending is Ending.CANCELLED
    engine.close()
