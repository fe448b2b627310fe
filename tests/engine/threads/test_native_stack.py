"""Native stacks: a guest's thread has one that is large enough, whatever others make of the process's setting."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from wasm_sandbox.engine.compiled import preparation
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.loaded import ImageLoader, LoadedImage
from wasm_sandbox.engine.engine import GuestEngine
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.engine.threads.guest_threads import GuestThreads, on_guest_thread
from wasm_sandbox.engine.threads.native_stack import NATIVE_STACK_BYTES, has_stack, stack_bytes
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.errors import HostError
from wasm_sandbox.forks import start_thread

T = TypeVar("T")

SMALL = 256 << 10
LARGE_ENOUGH = NATIVE_STACK_BYTES - (1 << 20)

tells = pytest.mark.skipif(stack_bytes() is None, reason="this system does not tell how large a stack is")


def on_a_stack_of(size: int, work: Callable[[], T]) -> T:
    """Result of work on a thread with a native stack of this size."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    start_thread(thread, size)
    thread.join()
    return found[0]


def stack_of_a_guest_thread() -> int | None:
    def work(deliver: Callable[[int | None], None]) -> None:
        deliver(stack_bytes())

    threads = GuestThreads(Watchdog(), 1)
    try:
        return threads.submit(work).result(30)
    finally:
        threads.close(time.monotonic() + 5)


@tells
@pytest.mark.parametrize("size", [SMALL, 1 << 20, NATIVE_STACK_BYTES, 32 << 20])
def test_a_thread_can_see_the_size_of_its_stack(size: int) -> None:
    found = on_a_stack_of(size, stack_bytes)
    assert isinstance(found, int)
    assert size * 3 // 4 <= found <= size * 5 // 4
    assert on_a_stack_of(size, lambda: has_stack(size)) is True
    assert on_a_stack_of(size, lambda: has_stack(4 * size)) is False


def test_the_setting_of_the_process_is_what_it_was() -> None:
    before = threading.stack_size(1 << 20)
    try:
        assert (stack_of_a_guest_thread() or LARGE_ENOUGH) >= LARGE_ENOUGH
        assert threading.stack_size() == 1 << 20
    finally:
        threading.stack_size(before)


@contextmanager
def someone_sets_it(monkeypatch: pytest.MonkeyPatch, times: int) -> Iterator[list[str]]:
    """Somebody sets the size right before a thread of ours starts, so many times."""
    start, starts, before = threading.Thread.start, [], threading.stack_size()

    def late(thread: threading.Thread) -> None:
        if thread.name.startswith("wasm-sandbox-guest"):
            starts.append(thread.name)
            if len(starts) <= times:
                threading.stack_size(SMALL)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    try:
        yield starts
    finally:
        monkeypatch.undo()
        threading.stack_size(before)


@tells
@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_thread_that_got_a_small_stack_serves_no_guest(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with someone_sets_it(monkeypatch, times) as starts:
        assert (stack_of_a_guest_thread() or 0) >= LARGE_ENOUGH
    assert len(starts) == times + 1


@tells
def test_where_no_thread_gets_a_stack_it_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with someone_sets_it(monkeypatch, 10**6), pytest.raises(HostError, match=r"threading\.stack_size"):
        stack_of_a_guest_thread()


@tells
def test_what_somebody_sets_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with someone_sets_it(monkeypatch, 1):
        stack_of_a_guest_thread()
        assert threading.stack_size() == SMALL


@tells
def test_among_threads_that_set_it_all_the_time_every_guest_has_its_stack() -> None:
    before, over = threading.stack_size(), threading.Event()

    def restless() -> None:
        while not over.is_set():
            threading.stack_size(SMALL)
            threading.stack_size(2 * SMALL)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    others = [threading.Thread(target=restless) for _ in range(2)]
    for other in others:
        other.start()
    try:
        found = [stack_of_a_guest_thread() or 0 for _ in range(50)]
    finally:
        over.set()
        sys.setswitchinterval(interval)
        for other in others:
            other.join()
        threading.stack_size(before)
    assert min(found) >= LARGE_ENOUGH


@tells
def test_work_for_a_guest_is_done_on_a_thread_for_guests_whatever_the_callers_stack_is() -> None:
    def nested() -> tuple[int | None, bool]:
        own = threading.current_thread()
        return stack_bytes(), on_guest_thread(threading.current_thread) is own

    size, stays = on_a_stack_of(SMALL, lambda: on_guest_thread(nested))
    assert isinstance(size, int)
    assert size >= LARGE_ENOUGH
    assert stays
    with pytest.raises(ZeroDivisionError):
        on_guest_thread(lambda: 1 // 0)


def test_that_thread_ends_with_its_work() -> None:
    thread = on_guest_thread(threading.current_thread)
    thread.join(10)
    assert not thread.is_alive()


class Source:
    """Source of an image, which is none: what stack is it loaded on?"""

    id, start, distributions, address = "none", StartKind.REACTOR, dict[str, str](), ("none",)

    def load(self, loader: ImageLoader) -> LoadedImage:
        raise HostError(str(stack_bytes()))


@tells
def test_an_image_is_loaded_from_a_thread_with_a_small_stack_and_its_guest_has_a_large_one() -> None:
    def load() -> int:
        with GuestEngine() as guests, pytest.raises(HostError) as told:
            guests.image(Source())
        return int(str(told.value))

    assert on_a_stack_of(SMALL, load) >= LARGE_ENOUGH


@tells
def test_so_is_a_snapshot_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "pre_initialise", lambda *_, **__: stack_bytes())
    found = on_a_stack_of(SMALL, lambda: preparation.prepare_snapshot(find_artifact(), lambda step: None))
    assert isinstance(found, int)
    assert found >= LARGE_ENOUGH
