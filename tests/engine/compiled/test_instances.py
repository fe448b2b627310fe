"""Instances made ahead: each is used once, so many wait and no more, and nothing of them outlives the engine."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from wasmtime import _ffi

from tests.support.engines import ENGINES, engine, run, settled
from wasm_sandbox import Limits
from wasm_sandbox.engine.compiled.instances import MAX_IDLE
from wasm_sandbox.engine.engine import GuestEngine
from wasm_sandbox.engine.module.metering import Metering
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest


@pytest.mark.parametrize("kind", ENGINES)
def test_a_run_leaves_a_fresh_instance_behind_and_the_next_one_takes_it(kind: str) -> None:
    guests = engine(kind)
    run(guests)
    waiting = settled(guests).idle
    assert waiting
    run(guests)
    after = settled(guests).idle
    assert waiting[-1] not in after  # used, and thrown away
    assert len(after) == len(waiting)


@pytest.mark.parametrize("kind", ENGINES)
def test_no_more_than_a_few_wait(kind: str) -> None:
    guests = engine(kind)
    request = ExecutionRequest("import time; time.sleep(0.2)", {}, Limits())
    for future in [guests.start(request, LiveSurroundings()) for _ in range(2 * MAX_IDLE + 5)]:
        assert future.result().ending is Ending.EXITED
    assert 0 < len(settled(guests).idle) <= MAX_IDLE


def test_an_instance_that_waited_has_the_limits_of_its_run() -> None:
    guests = engine(ENGINES[0])
    run(guests, memory_bytes=1 << 30)
    settled(guests)
    for _ in range(2):
        outcome = run(guests, "x = bytearray(200 << 20)", memory_bytes=128 << 20)
        assert outcome.exception is not None
        assert outcome.exception.name == "MemoryError"
        assert run(guests, "while True: pass", fuel=100_000).ending is Ending.OUT_OF_FUEL


def test_nothing_is_made_ahead_once_the_pool_is_closed() -> None:
    with GuestEngine() as guests:
        run(guests)
        pool = settled(guests)
        assert pool.idle
        pool.close()
        assert pool.idle == []
        run(guests)
        assert settled(guests).idle == []


def test_an_interpreter_that_ends_with_instances_waiting_ends_well() -> None:
    code = (
        "from wasm_sandbox import Tool, run_tool\n"
        "tool = Tool.from_source('def f() -> int:\\n    return 1\\n')\n"
        "for _ in range(5): print(run_tool(tool).func_return)\n"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n" * 5, "")


# -- without fuel -----------------------------------------------------------------------------------

WITHOUT_FUEL: list[tuple[str, Callable[[Outcome], bool]]] = [
    ("print(sum(range(10**6)))", lambda outcome: outcome.stdout == b"499999500000\n"),
    ("while True: pass", lambda outcome: outcome.ending is Ending.DEADLINE),
    ("sum(range(10**12))", lambda outcome: outcome.ending is Ending.DEADLINE),
    ("x = bytearray(20 << 20)\nwhile True: x[:]", lambda outcome: outcome.ending is Ending.DEADLINE),
    ("import re; re.match(r'(a+)+$', 'a' * 40 + 'b')", lambda outcome: outcome.ending is Ending.DEADLINE),
    ("def f(): f()\nf()", lambda outcome: outcome.exception is not None and outcome.exception.name == "RecursionError"),
]


@pytest.mark.parametrize(("script", "is_right"), WITHOUT_FUEL, ids=[script[:20] for script, _ in WITHOUT_FUEL])
def test_without_fuel_the_deadline_still_ends_a_run(script: str, is_right: Callable[[Outcome], bool]) -> None:
    guests = engine(ENGINES[0])
    outcome = run(guests, script, fuel=None, timeout_seconds=3 if "print" in script or "f()" in script else 0.3)
    assert is_right(outcome), outcome
    assert outcome.fuel is None
    assert outcome.wall_seconds < 5


def test_runs_with_and_without_fuel_have_images_of_their_own() -> None:
    guests = engine(ENGINES[0])
    counting, not_counting = guests.image(), guests.image(metering=Metering.DEADLINE)
    assert counting.id == not_counting.id
    assert counting.path != not_counting.path
    assert run(guests, "pass").fuel


@pytest.mark.parametrize("kind", ENGINES)
def test_an_instance_is_freed_once_though_a_signal_handler_raises_right_then(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wasmtime-py would free it again when the interpreter lets go of it, and the process would crash."""

    class Alarm(BaseException):
        pass

    free, freed = _ffi.wasmtime_store_delete, list[Any]()

    def interrupted(store: Any) -> None:
        freed.append(store)
        if len(freed) == 1:
            free(store)
            raise Alarm

    fresh = engine(kind).image().instances.fresh()
    monkeypatch.setattr(_ffi, "wasmtime_store_delete", interrupted)
    with pytest.raises(Alarm):
        fresh.close()
    fresh.close()
    del fresh
    gc.collect()
    assert sum(store is freed[0] for store in freed) == 1  # others may be freed beside it
