"""A host's own alarm is lost inside a guest call (wasmtime-py 126): a handler raised, and the run went on.

Whatever a signal handler of the caller's raises, of any class, reaches the caller and stops the guest.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import functools
import gc
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import AsyncSandbox, Limits, Sandbox, Tool, WasmToolSandbox, errors, run_tool
from wasm_sandbox.decode import interpret, pickle_decoder
from wasm_sandbox.engine import process_engine
from wasm_sandbox.engine.threads.guest_threads import INTERRUPT_SECONDS, GuestThreads
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.forks import DaemonThreads, daemon_loop, start_thread
from wasm_sandbox.sandbox.waiting import delivered
from wasm_sandbox.tool import parse_module
from wasm_sandbox.tool.own_stack import on_own_stack

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarms")

ENDLESS = Tool.from_source("def f():\n    while True: pass\n")
LIMITS = Limits(timeout_seconds=20, fuel=None)


class Own(BaseException):
    """What a handler of a program's own may raise."""


def made(kind: type[BaseException]) -> BaseException:
    """An exception of a class, as one that means something where the class has such."""
    if issubclass(kind, UnicodeDecodeError):
        return kind("utf-8", b"\xff", 0, 1, "the alarm")
    if issubclass(kind, UnicodeEncodeError):
        return kind("utf-8", "x", 0, 1, "the alarm")
    if issubclass(kind, UnicodeTranslateError):
        return kind("x", 0, 1, "the alarm")
    if issubclass(kind, BaseExceptionGroup):
        return kind("the alarm", [ValueError("the alarm")])
    return kind(24, "the alarm") if issubclass(kind, OSError) else kind("the alarm")


KINDS = [
    *(kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)),
    *(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SandboxError)),
    *(concurrent.futures.TimeoutError, concurrent.futures.CancelledError, asyncio.CancelledError, Own),
]


@contextmanager
def alarm(error: BaseException, seconds: float) -> Iterator[None]:
    """A timer whose handler raises an exception.

    No garbage is collected meanwhile: the interpreter drops what is raised in callbacks of weak references.
    """

    def ring(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, ring)
    gc.disable()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def stand_still() -> bool:
    """Whether all guests stop, before long."""
    deadline = time.monotonic() + 10
    while process_engine().running_guests and time.monotonic() < deadline:
        time.sleep(0.005)
    return not process_engine().running_guests


def in_a_session() -> None:
    with Sandbox(limits=LIMITS).session() as session:
        session.run_code("while True: pass")


WAYS: dict[str, Callable[[], object]] = {
    "run_tool": lambda: run_tool(ENDLESS, limits=LIMITS),
    "run_sync": lambda: WasmToolSandbox("f", {}, None, None, tool_object=ENDLESS, limits=LIMITS).run_sync(),
    "run_code": lambda: Sandbox(limits=LIMITS).run_code("while True: pass"),
    "session": in_a_session,
}
ASYNC_WAYS: dict[str, Callable[[], object]] = {
    "run": lambda: asyncio.run(WasmToolSandbox("f", {}, None, None, tool_object=ENDLESS, limits=LIMITS).run()),
    "run_code_async": lambda: asyncio.run(AsyncSandbox(limits=LIMITS).run_code("while True: pass")),
}
SWALLOWED_BY_SELECTORS = (InterruptedError,)
"""`selectors` takes it for an interrupted system call, whoever raises it: nothing that runs in the loop sees it."""


@pytest.fixture(scope="module", autouse=True)
def _ready() -> None:
    run_tool(Tool.from_source("def f(): return 1"), limits=LIMITS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_an_alarm_of_any_class_reaches_the_caller_and_stops_the_guest(kind: type[BaseException]) -> None:
    error = made(kind)
    chance = random.Random(kind.__qualname__)
    ways = {**WAYS, **({} if kind in SWALLOWED_BY_SELECTORS else ASYNC_WAYS)}
    way = chance.choice(sorted(ways))
    with pytest.raises(kind) as caught, alarm(error, chance.uniform(0.02, 2 * INTERRUPT_SECONDS)):
        ways[way]()
    assert caught.value is error, way
    assert stand_still()


@pytest.mark.parametrize("seconds", [INTERRUPT_SECONDS / 2, 2 * INTERRUPT_SECONDS], ids=["a short wait", "a long one"])
@pytest.mark.parametrize("way", [*WAYS, *ASYNC_WAYS])
def test_a_timeout_of_the_callers_own_ends_every_kind_of_call(way: str, seconds: float) -> None:
    error = TimeoutError("the alarm")
    with pytest.raises(TimeoutError) as caught, alarm(error, seconds):
        {**WAYS, **ASYNC_WAYS}[way]()
    assert caught.value is error
    assert stand_still()


class Handlers:
    """Kinds of handlers; each raises the exception that it was made with."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def method(self, _number: int, _frame: object) -> None:
        raise self.error

    __call__ = method

    def function(self) -> Callable[[int, object], None]:
        def deeper() -> None:
            raise self.error

        def ring(*_: object) -> None:
            deeper()

        return ring


HANDLERS: dict[str, Callable[[BaseException], Callable[[int, object], None]]] = {
    "a method": lambda error: Handlers(error).method,
    "an object": Handlers,
    "a function": lambda error: Handlers(error).function(),
    "a partial": lambda error: functools.partial(Handlers.method, Handlers(error)),
}


@pytest.mark.parametrize("handler", HANDLERS)
@given(kind=st.sampled_from([SyntaxError, ValueError, RecursionError, MemoryError, OSError, errors.BadArguments, Own]))
@settings(max_examples=30)
def test_what_a_handler_raises_is_told_from_what_goes_wrong_by_itself(handler: str, kind: type[BaseException]) -> None:
    error = made(kind)
    before = signal.signal(signal.SIGALRM, HANDLERS[handler](error))
    try:
        with pytest.raises(kind) as caught:
            raise_by_signal()
        assert caught.value is error
    finally:
        signal.signal(signal.SIGALRM, before)
    errors.pass_on(kind_raised_plainly(kind))


def raise_by_signal() -> None:
    with errors.naming_exhaustion():
        try:
            signal.raise_signal(signal.SIGALRM)
        except BaseException as found:
            errors.pass_on(found)
            raise AssertionError("it was not known for a handler's") from found


def kind_raised_plainly(kind: type[BaseException]) -> BaseException:
    try:
        raise made(kind)
    except BaseException as error:
        return error


@pytest.mark.parametrize("kind", [SyntaxError, ValueError, RecursionError, MemoryError, TimeoutError, Own])
def test_an_alarm_is_not_taken_for_a_fault_of_what_is_being_read(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever moment of reading a source it comes: while it is counted, while a thread starts, or parses."""
    source = f"def f(): return {'[' * 60}{']' * 60}\n" * 60
    monkeypatch.setattr("wasm_sandbox.tool.parsing._parse_pieces", lambda _: time.sleep(0.3))
    chance = random.Random(kind.__qualname__)
    for read in (Tool.from_source, parse_module, lambda text: run_tool(Tool(name="f", source_code=text))):
        error = made(kind)
        with pytest.raises(kind) as caught, alarm(error, chance.uniform(0.001, 0.1)):
            read(source)
        assert caught.value is error


def test_an_alarm_is_not_taken_for_a_fault_of_a_long_result() -> None:
    tool = Tool.from_source("def f():\n    return [{(i, str(i)): [i]} for i in range(40_000)]")
    for kind in (ValueError, IndexError, MemoryError, TimeoutError):
        error = made(kind)
        with pytest.raises(kind) as caught, alarm_while_decoding(error):
            run_tool(tool, limits=LIMITS)
        assert caught.value is error


@contextmanager
def alarm_while_decoding(error: BaseException) -> Iterator[None]:
    """An alarm that comes while a result is decoded."""
    with alarm(error, 0):
        original = pickle_decoder.decode_envelope

        def decode(*args: object, **options: object) -> object:
            if not options:  # the one that takes longer
                signal.setitimer(signal.ITIMER_REAL, 0.01)
            return original(*args, **options)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpret, "decode_envelope", decode)
            yield


@pytest.mark.parametrize("kind", [ValueError, StopIteration, Own, asyncio.CancelledError])
async def test_a_handler_that_raises_while_an_outcome_is_handed_on_leaves_nobody_waiting(
    kind: type[BaseException],
) -> None:
    class Interrupted(concurrent.futures.Future[object]):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            raise kind("the alarm")

    future = Interrupted()
    waiter = delivered(future)  # type: ignore[arg-type]
    future.set_result(None)
    with pytest.raises(BaseException, match="the alarm") as caught:
        await asyncio.wait_for(asyncio.ensure_future(waiter), 10)
    assert isinstance(caught.value, RuntimeError if kind is StopIteration else kind)


def submit_to_a_pool_for_guests() -> None:
    def work(deliver: Callable[[None], None]) -> None:
        deliver(None)

    GuestThreads(Watchdog(), 1).submit(work)


STARTS: dict[str, Callable[[], object]] = {
    "to read a source on": lambda: on_own_stack(int),
    "with a stack": lambda: start_thread(threading.Thread(target=int), 16 << 20),
    "of a pool": lambda: DaemonThreads(1, "pool").submit(int),
    "of a pool for guests": submit_to_a_pool_for_guests,
    "of a watchdog": lambda: Watchdog().look_at(time.monotonic() + 60, lambda: None),
    "of an event loop": lambda: daemon_loop("loop"),
}


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, Own])
@pytest.mark.parametrize("start", STARTS)
def test_an_alarm_while_a_thread_starts_is_not_taken_for_a_lack_of_threads(
    start: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = made(kind)
    start_new = threading._start_new_thread  # type: ignore[attr-defined]

    def interrupted(*args: Any) -> Any:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        return start_new(*args)

    monkeypatch.setattr(threading, "_start_new_thread", interrupted)
    with pytest.raises(kind) as caught, alarm(error, 0):
        STARTS[start]()
    assert caught.value is error


ALARMS = """
import threading, time
from tests.public_reports.test_signal_handlers import STARTS
from tests.support.alarms import Alarms

alarms = Alarms()
alarms.start()
for number in range(200):
    alarms.within(0.00001 + 0.000003 * (number % 60), STARTS[{start!r}])
alarms.stop()
time.sleep(0.1)
print(alarms.interrupted > 20, threading.stack_size(), len(threading._limbo))
print([thread.name for thread in threading.enumerate() if thread.native_id is None])
"""


@pytest.mark.parametrize("start", STARTS)
def test_an_alarm_at_any_moment_leaves_no_thread_half_started(start: str) -> None:
    """`Thread.start` takes it for a failure of its own, and the thread ends with a `KeyError` on standard error.

    What falls into a callback of a weak reference is told there, too.
    """
    program = ALARMS.format(start=start)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.split("\n"), done.returncode) == (["True 0 0", "[]", ""], 0), done.stderr
    assert "_bootstrap" not in done.stderr
