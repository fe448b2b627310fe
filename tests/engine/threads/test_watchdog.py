"""The watchdog: looks in time, looks again, and never at a guest that is gone."""

from __future__ import annotations

import threading
import time

import pytest

from wasm_sandbox.engine.threads.watchdog import STALE_ENTRIES, Watchdog
from wasm_sandbox.errors import HostError


def test_it_looks_when_the_time_has_come_and_again_when_told_so() -> None:
    watchdog, looks, done = Watchdog(), [0.0], threading.Event()

    def look() -> float | None:
        looks.append(time.monotonic())
        if len(looks) == 4:
            done.set()
            return None
        return time.monotonic() + 0.01

    with watchdog.watch(time.monotonic() + 0.02, look):
        assert done.wait(10)
        time.sleep(0.05)
    assert len(looks) == 4
    watchdog.close()


def test_a_later_watch_with_an_earlier_time_is_not_missed() -> None:
    watchdog, done = Watchdog(), threading.Event()
    with watchdog.watch(time.monotonic() + 1000, lambda: None), watchdog.watch(time.monotonic() + 0.01, done.set):
        assert done.wait(10)
    watchdog.close()


def test_it_does_not_look_at_what_is_gone() -> None:
    watchdog, looks = Watchdog(), list[int]()
    with watchdog.watch(time.monotonic() + 0.05, lambda: looks.append(1)):
        pass
    time.sleep(0.15)
    assert looks == []
    watchdog.close()


def test_many_short_watches_leave_nothing_behind() -> None:
    watchdog = Watchdog()
    for _ in range(50 * STALE_ENTRIES):
        with watchdog.watch(time.monotonic() + 1000, lambda: None):
            assert watchdog.watched == 1
    assert watchdog.watched == 0
    assert watchdog.entries <= STALE_ENTRIES + 1
    watchdog.close()


def test_a_look_that_fails_is_logged_and_the_others_are_still_made(caplog: pytest.LogCaptureFixture) -> None:
    watchdog, done = Watchdog(), threading.Event()
    with watchdog.watch(0.0, lambda: 1 / 0), watchdog.watch(time.monotonic() + 0.05, done.set):
        assert done.wait(10)
    assert "a guest cannot be stopped" in caplog.text
    watchdog.close()


def test_without_a_thread_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(HostError, match="watch over guests"), Watchdog().watch(0.0, lambda: None):
            pass


def test_a_look_that_is_held_up_holds_up_no_other() -> None:
    """Whoever has the interpreter lock can make the looks that are due."""
    watchdog, looks, begun, go_on = Watchdog(), list[str](), threading.Event(), threading.Event()

    def held_up() -> None:
        begun.set()
        looks.append("let go" if go_on.wait(10) else "not let go")

    with (
        watchdog.watch(0.0, held_up),
        watchdog.watch(time.monotonic() + 1000, lambda: looks.append("not due")),
    ):
        assert begun.wait(10)  # on the watchdog's own thread
        with watchdog.watch(0.0, lambda: looks.append("due")):
            assert watchdog.due == 0.0
            watchdog.catch_up()
            assert looks == ["due"]
            assert watchdog.due > time.monotonic()
        go_on.set()
    assert looks == ["due", "let go"]
    watchdog.close()
