"""A guest: one live instance that its owner calls once, or keeps and calls again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from wasm_sandbox import Limits
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.run.guest import Guest
from wasm_sandbox.engine.threads.guest_threads import on_guest_thread
from wasm_sandbox.engine.world.surroundings import FixedSurroundings, LiveSurroundings, Surroundings
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.outcome import Ending
from wasm_sandbox.request import ExecutionRequest

LONG_SECONDS = 60.0


class Kept:
    """A guest that is kept, and what its last call printed."""

    def __init__(self, surroundings: Surroundings | None = None, given: GivenFiles | None = None) -> None:
        self.surroundings = surroundings or LiveSurroundings()
        engine = process_engine()
        self.guest = Guest(
            engine.image(), engine.watch, self.surroundings, time.monotonic() + LONG_SECONDS, is_kept=True
        )
        self.guest.equip(given, Limits())

    def call(self, script: str, environ: dict[str, str] | None = None, seconds: float = LONG_SECONDS) -> Ending:
        request = ExecutionRequest(script, environ or {}, Limits(fuel=2**40))
        return on_guest_thread(lambda: self.guest.call(request, time.monotonic() + seconds))

    def printed(self, script: str, environ: dict[str, str] | None = None) -> str:
        assert self.call(script, environ) is Ending.EXITED
        assert self.guest.ended.exception is None, self.guest.ended.exception
        return self.guest.streams.stdout.contents().decode()


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.guest.close()


def test_what_a_call_leaves_in_its_instance_the_next_one_finds(kept: Kept) -> None:
    assert kept.printed("import json\njson.kept = 41\nprint('first')") == "first\n"
    assert kept.printed("import json\nprint(json.kept + 1)") == "42\n"


def test_a_call_has_output_environment_and_fuel_of_its_own(kept: Kept) -> None:
    assert kept.printed("import os; print(os.environ)", {"A": "1"}) != kept.printed("print(2)")
    assert kept.guest.streams.stdout.contents() == b"2\n"
    before = kept.guest.fuel_left()
    kept.printed("for _ in range(100_000): pass")
    assert kept.guest.fuel_left() < before
    kept.printed("print(2)")
    assert abs(kept.guest.fuel_left() - before) < 1_000_000  # it was given the whole budget again


def test_an_exception_ends_a_call_and_not_the_guest(kept: Kept) -> None:
    assert kept.call("1 / 0") is Ending.EXITED
    assert kept.guest.ended.exit_code == 1
    assert kept.guest.ended.exception is not None
    assert kept.guest.ended.exception.name == "ZeroDivisionError"
    assert kept.printed("print('still here')") == "still here\n"


@pytest.mark.parametrize(
    ("script", "seconds", "ending"),
    [
        ("while True: pass", 0.2, Ending.DEADLINE),
        ("import time; time.sleep(100)", 0.2, Ending.DEADLINE),
        ("import os; os._exit(3)", LONG_SECONDS, Ending.EXITED),
        ("t = ()\nfor _ in range(600_000): t = (t,)\nhash(t)", LONG_SECONDS, Ending.STACK_OVERFLOW),
    ],
)
def test_a_guest_that_was_stopped_or_exited_is_never_called_again(
    kept: Kept, script: str, seconds: float, ending: Ending
) -> None:
    kept.printed("print(1)")
    assert kept.call(script, seconds=seconds) is ending
    with pytest.raises(RuntimeError, match="has ended"):
        kept.call("print(1)")
    with pytest.raises(RuntimeError, match="between two calls"):
        kept.guest.snapshot()


def test_a_guest_is_cancelled_from_another_thread(kept: Kept) -> None:
    threading.Timer(0.1, kept.surroundings.cancel).start()
    assert kept.call("while True: pass") is Ending.CANCELLED


def test_a_snapshot_is_the_whole_state_and_changes_with_it() -> None:
    def after(*scripts: str) -> object:
        made = Kept(FixedSurroundings())
        for script in scripts:
            made.printed(script)
        snapshot = made.guest.snapshot()
        assert snapshot.size == made.guest.memory_bytes()
        made.guest.close()
        return snapshot

    assert after("x = 1") == after("x = 1")
    assert after("x = 1") != after("x = 2")
    assert after("x = 1", "x = 2") == after("x = 1", "x = 2")


def test_a_snapshot_names_the_globals_of_the_module(kept: Kept) -> None:
    kept.printed("print(1)")
    assert "__stack_pointer" in kept.guest.snapshot().globals


def test_there_is_no_snapshot_before_the_first_call(kept: Kept) -> None:
    with pytest.raises(RuntimeError, match="between two calls"):
        kept.guest.snapshot()


def test_files_stay_from_call_to_call() -> None:
    made = Kept(given=GivenFiles({"/in": b"content"}, {}))
    made.printed("open('/out', 'w').write(open('/in').read() * 2)")
    assert made.printed("print(open('/out').read())") == "contentcontent\n"
    made.guest.close()


def test_an_instance_of_a_kept_guest_is_given_to_nobody_else(kept: Kept) -> None:
    kept.printed("import json; json.secret = 1")
    pool = process_engine().image().instances
    others = [pool.take() for _ in range(5)]
    instance = kept.guest.world.instance
    assert instance is not None
    assert all(other.instance is not instance for other in others)
    for other in others:
        pool.replace(other)


def test_closing_twice_is_closing_once(kept: Kept) -> None:
    kept.printed("print(1)")
    kept.guest.close()
    kept.guest.close()
    assert not kept.guest.has_instance
