"""Signal handlers that raise, and cancelled calls: a session is what it was before what was interrupted, or after it.

An alarm that fell between the freeing of an instance and the note of that had it freed twice; one right after a call
took that back, too, as its checkpoint was not taken yet.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wasm_sandbox import AsyncPaused, AsyncSandbox, HostFunction
from wasm_sandbox.engine.run.guest import Guest
from wasm_sandbox.engine.run.kept import KeptGuest
from wasm_sandbox.events import Mark, listening

ROOT = Path(__file__).parents[2]

has_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarms")


def sleep(seconds: float) -> None:
    time.sleep(seconds)


@has_alarms
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 25))])
def test_an_alarm_at_any_moment_leaves_each_session_before_or_after_what_it_interrupted(seed: int) -> None:
    program = [sys.executable, "-X", "faulthandler", "-m", "tests.sandbox.interrupted_sessions", str(seed)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_a_call_that_is_cancelled_takes_nothing_back_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    take = KeptGuest._take

    def slowly(kept: KeptGuest, guest: Guest) -> None:
        time.sleep(0.3)
        take(kept, guest)

    async def body() -> None:
        async with AsyncSandbox().session() as session:
            await session.run_code("n = 0")
            monkeypatch.setattr(KeptGuest, "_take", slowly)
            await session.run_code("n += 1")  # answered before its checkpoint is taken
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.run_code("n += 1000"), 0.02)
            assert await session.get("n") == 1

    asyncio.run(body())


def test_what_is_cancelled_before_its_turn_does_not_happen_later() -> None:
    """A thread that waits for the session cannot be stopped: it sees that nobody waits for it any more."""

    async def body() -> None:
        async with AsyncSandbox(functions=[sleep]).session() as session:
            await session.run_code("n = 0")
            point = await session.checkpoint()
            call = asyncio.ensure_future(session.run_code("sleep(0.3)\nn += 1"))
            await asyncio.sleep(0.05)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.rollback(point), 0.05)
            await call
            assert await session.get("n") == 1
            await asyncio.sleep(0.1)
            assert await session.get("n") == 1

    asyncio.run(body())


class _SlowDecoding:
    """Listener that cancels a task when its large result begins to be read, on a thread, and holds that up."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        self._loop, self._task = asyncio.get_running_loop(), task

    def began(self, mark: Mark) -> None:
        """Cancel the task."""
        if mark.name == "decode":
            self._loop.call_soon_threadsafe(self._task.cancel)
            time.sleep(0.3)

    def ended(self, mark: Mark) -> None:
        """Nothing to note."""


@pytest.mark.parametrize("last", ["'x' * 50_000", "print('x' * 50_000)\nawait approve()"])
def test_a_call_that_is_cancelled_while_its_result_is_read_changes_nothing_later(last: str) -> None:
    async def body() -> None:
        approve = HostFunction.deferred("approve", returns=bool)
        async with AsyncSandbox(functions=[approve]).session() as session:
            await session.run_code("n = 0")
            task = asyncio.ensure_future(session.start(f"n += 1\n{last}"))
            with listening(_SlowDecoding(task)), pytest.raises(asyncio.CancelledError):
                await task
            assert await session.get("n") == 1
            await asyncio.sleep(0.5)
            assert await session.get("n") == 1
            paused = await session.start("await approve()")
            assert isinstance(paused, AsyncPaused)
            (call,) = paused.calls
            assert call.id is not None
            result = await paused.resume({call.id: True})
            assert not isinstance(result, AsyncPaused)
            assert result.value is True

    asyncio.run(body())
