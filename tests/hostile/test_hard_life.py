"""The host's side of a hard life: crowds, cancelling, closed loops, signals, replaced handlers, no threads left."""

from __future__ import annotations

import ast
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.conftest import RunBody
from tests.support.processes import python as interpreter
from wasm_sandbox import ErrorKind, Limits, Tool, ToolExecutionResult, WasmToolSandbox, run_tool
from wasm_sandbox.engine.binding.interpreter import check_interpreter
from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.threads.native_stack import NATIVE_STACK_BYTES
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.errors import HostError, ToolSourceError
from wasm_sandbox.outcome import Ending
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.tool import source as tool_source

pytestmark = pytest.mark.long

OVERFLOW = "t = ()\n    for _ in range(600_000): t = (t,)\n    hash(t)"
KINDS: dict[str, tuple[str, ErrorKind | None]] = {
    "value": ("return n", None),
    "exception": ("raise ValueError(n)", ErrorKind.TOOL_EXCEPTION),
    "exit": ("import os; print(n); os._exit(n % 100 + 1)", ErrorKind.NO_RESULT),
    "deadline": ("while True: pass", ErrorKind.TIMEOUT),
    "asleep": ("import time; time.sleep(600)", ErrorKind.TIMEOUT),
    "trap": (OVERFLOW, ErrorKind.STACK_OVERFLOW),
    "fuel": ("while True: pass", ErrorKind.OUT_OF_FUEL),
    "memory": ("bytearray(1 << 30)", ErrorKind.OUT_OF_MEMORY),
}


def sandbox(kind: str, n: int) -> WasmToolSandbox:
    limits = {"deadline": Limits(timeout_seconds=0.2, fuel=2**62), "asleep": Limits(timeout_seconds=0.2)}
    tool = Tool.from_source(f"def f(n: int):\n    print('run', n)\n    {KINDS[kind][0]}\n")
    limit = limits.get(kind, Limits(timeout_seconds=110, fuel=100_000_000 if kind == "fuel" else 10**11))
    return WasmToolSandbox("f", {"n": n}, None, "tool-1", tool_object=tool, limits=limit)


def check(kind: str, n: int, result: ToolExecutionResult) -> None:
    """The result is the right one, and the run's own."""
    assert (result.error and result.error.kind) == KINDS[kind][1], (kind, n, result)
    if kind not in ("deadline", "asleep"):  # these may be over before they could print
        assert result.stdout
        assert result.stdout[0].startswith(f"run {n}\n")
    if kind == "value":
        assert result.func_return == n
    if kind == "exception":
        assert result.error is not None
        assert result.error.message == str(n)
    if kind == "exit":
        assert result.error is not None
        assert str(n % 100 + 1) in result.error.message


def no_guest_is_left() -> bool:
    for _ in range(2000):
        if not process_engine().running_guests:
            return True
        time.sleep(0.005)
    return False


async def test_200_tasks_and_64_threads_at_once_each_get_their_own_result() -> None:
    """Values, exceptions, exits, traps and limits all mixed, and a third of the tasks cancelled at any time."""
    chance = random.Random(5)
    kinds = [*KINDS]

    async def task(n: int) -> str:
        kind = kinds[n % len(kinds)]
        run = asyncio.create_task(sandbox(kind, n).run())
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.5)
            run.cancel()
        try:
            check(kind, n, await run)
        except asyncio.CancelledError:
            return "cancelled"
        return "ended"

    def thread(n: int) -> str:
        kind = kinds[n % len(kinds)]
        check(kind, n, sandbox(kind, n).run_sync())
        return "ended"

    with ThreadPoolExecutor(64) as pool:
        loop = asyncio.get_running_loop()
        threads = [loop.run_in_executor(pool, thread, 1000 + n) for n in range(128)]
        ends = await asyncio.gather(*map(task, range(200)), *threads)
    assert {"ended", "cancelled"} == set(ends)
    assert set(ends[200:]) == {"ended"}
    assert no_guest_is_left()


# -- when all threads are taken ----------------------------------------------------------------------------


@pytest.fixture
def new_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[GuestEngine]:
    """An engine with one thread for guests, none of which has been started, in the place of the process's own."""
    engine = GuestEngine(most_threads=1)
    monkeypatch.setattr("wasm_sandbox.engine.process_engine", lambda: engine)
    yield engine
    engine.close()


@pytest.fixture
def full_house(new_engine: GuestEngine) -> Iterator[LiveSurroundings]:
    """No thread is free for another guest until these surroundings, of the one that has it, are cancelled."""
    surroundings = LiveSurroundings()
    new_engine.image()
    occupant = new_engine.start(ExecutionRequest("while True: pass", {}, Limits(timeout_seconds=60)), surroundings)
    yield surroundings
    surroundings.cancel()
    occupant.result(timeout=30)


async def test_a_run_that_waits_for_a_thread_can_be_cancelled(full_house: LiveSurroundings) -> None:
    queued = asyncio.create_task(sandbox("value", 1).run())
    patient = asyncio.create_task(sandbox("value", 2).run())
    await asyncio.sleep(0.1)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(queued, 5)
    full_house.cancel()
    check("value", 2, await patient)


@pytest.mark.usefixtures("full_house")
async def test_a_caller_can_bound_the_wait_for_a_thread() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(sandbox("value", 1).run(), 0.2)


def test_without_any_thread_a_run_says_so_and_the_next_one_works(
    new_engine: GuestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert new_engine.threads == 0
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(HostError, match="no thread can be started"):
            sandbox("value", 1).run_sync()
    check("value", 1, sandbox("value", 1).run_sync())


@pytest.mark.usefixtures("new_engine")
def test_a_deadline_holds_after_its_watch_could_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse_watchdog(self: threading.Thread) -> None:
        if "watchdog" in self.name:
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_watchdog)
        with pytest.raises(HostError, match="watch over guests"):
            sandbox("value", 1).run_sync()
    check("deadline", 1, sandbox("deadline", 1).run_sync())


# -- one process each ---------------------------------------------------------------------------------------

SETUP = """
import asyncio, gc, sys, threading, time
from wasm_sandbox import Limits, Tool, WasmToolSandbox, run_tool
from wasm_sandbox.engine.engine import process_engine
def tool(body):
    return Tool(name="f", source_code="def f():\\n    " + body.replace("\\n", "\\n    "))
def sandbox(body):
    return WasmToolSandbox("f", {}, None, "tool-1", tool_object=tool(body), limits=Limits(timeout_seconds=100))
one, overflow = tool("return 1"), tool("t = ()\\nfor _ in range(600_000): t = (t,)\\nhash(t)")
def ended():
    for _ in range(1000):
        if not process_engine().running_guests: return True
        time.sleep(0.01)
"""


def python(body: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    script = SETUP + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("body", ["while True: pass", "import time; time.sleep(600)"])
def test_a_loop_closed_in_the_middle_of_a_run_stops_the_guest_in_silence(body: str) -> None:
    done = python(
        f"""
        run_tool(one)
        loop = asyncio.new_event_loop()
        task = loop.create_task(sandbox({body!r}).run())
        loop.call_later(0.3, loop.stop)
        loop.run_forever()
        assert process_engine().running_guests == 1
        loop.close()
        began = time.monotonic()
        assert ended() and time.monotonic() - began < 5
        task._log_destroy_pending = False  # the warning about that is asyncio's own, and the caller's fault
        print(run_tool(one).func_return, process_engine().threads)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 ")


def test_a_guest_that_ends_after_its_loop_was_closed_prints_nothing() -> None:
    done = python(
        """
        run_tool(one)
        loop = asyncio.new_event_loop()
        task = loop.create_task(sandbox("import time; time.sleep(0.6)").run())
        loop.call_later(0.3, loop.stop)
        loop.run_forever()
        loop.close()
        time.sleep(1)
        assert ended()
        print(run_tool(one).func_return)
        task._log_destroy_pending = False
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.parametrize(
    ("before", "after", "warns"),
    [
        ("faulthandler.enable()", "pass", False),
        ("pass", "faulthandler.enable()", True),
        ("faulthandler.enable()", "faulthandler.disable()", True),
        ("pass", "faulthandler.enable(); faulthandler.disable()", False),
        ("pass", "import signal; signal.signal(signal.SIGILL, lambda *a: None)", True),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="traps are not signals everywhere")
def test_a_guests_trap_never_ends_the_process_whoever_takes_its_signals(before: str, after: str, warns: bool) -> None:
    done = python(
        f"""
        import faulthandler
        {before}
        assert run_tool(one).func_return == 1
        assert run_tool(overflow).error.kind == "stack_overflow"
        {after}
        for _ in range(3):
            assert run_tool(overflow).error.kind == "stack_overflow"
        print("alive")
        """
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    assert done.stderr.count("were replaced after the first run") == warns


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_under_asyncio_stops_the_guest() -> None:
    script = SETUP + textwrap.dedent(
        """
        run_tool(one)
        print("ready", flush=True)
        try:
            asyncio.run(sandbox("while True: pass").run())
        except KeyboardInterrupt:
            print("interrupted", ended())
        """
    )
    with interpreter("-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("interrupted True\n", "")


def test_the_interpreter_exits_while_300_guests_run_or_wait() -> None:
    done = python(
        """
        run_tool(one)
        from wasm_sandbox.errors import HostError
        def nap():
            try:
                run_tool(tool("import time; time.sleep(600)"))
            except HostError as error:  # those that come too late: no guest, or no thread, can be started any more
                assert "interpreter is exiting" in str(error) or "at interpreter shutdown" in str(error)
        for _ in range(300):
            threading.Thread(target=nap, daemon=True).start()
        while process_engine().running_guests < 100: time.sleep(0.01)
        import atexit
        atexit.register(lambda: print("leaving"))
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_an_interpreter_without_its_lock_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(HostError, match="PYTHON_GIL=1"):
        check_interpreter()


@pytest.mark.parametrize(("lock", "isolation"), [("0", "thread"), ("0", "process"), ("1", "thread"), ("1", "process")])
def test_a_free_threaded_python_is_refused_unless_it_keeps_its_lock(lock: str, isolation: str) -> None:
    """For real, where ``FREE_THREADED_PYTHON`` names one that has what this library needs."""
    interpreter = os.environ.get("FREE_THREADED_PYTHON")
    if interpreter is None:
        pytest.skip("FREE_THREADED_PYTHON names no interpreter")
    script = SETUP + textwrap.dedent(
        f"""
        from wasm_sandbox.errors import HostError
        try:
            print(run_tool(one, isolation={isolation!r}).func_return)
        except HostError as error:
            print(error)
        """
    )
    root = str(Path(__file__).parents[2])
    environ = {**os.environ, "PYTHONPATH": root, "PYTHON_GIL": lock}
    done = subprocess.run(
        [interpreter, "-c", script], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    expected = "1\n" if lock == "1" else "this Python runs without its global interpreter lock"
    assert done.stdout.startswith(expected), done.stderr


def test_a_subinterpreter_is_refused_in_words() -> None:
    done = python(
        """
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        run = getattr(interpreters, "exec", None) or interpreters.run_string
        path = [p for p in sys.path]
        error = run(interpreters.create(), f'''
        import sys
        sys.path[:] = {path!r}
        from wasm_sandbox.errors import HostError
        from wasm_sandbox.engine.binding.interpreter import check_interpreter
        try:
            check_interpreter()
        except HostError as error:
            print(error, flush=True)
        try:
            from wasm_sandbox import Tool, run_tool
            run_tool(Tool.from_source("def f(): return 1"))
            print("a guest ran")
        except (HostError, ImportError) as error:  # pydantic, too, may refuse to be there
            print("refused:", error, flush=True)
        '''.replace("\\n        ", "\\n"))
        assert error is None, error
        print(run_tool(one).func_return)
        """
    )
    assert "only in the main interpreter" in done.stdout, done.stderr
    assert "refused: " in done.stdout, done.stderr
    assert done.stdout.endswith("\n1\n"), done.stderr


# -- whatever is thrown at it -------------------------------------------------------------------------------

BOMBS: dict[str, Callable[[], str]] = {
    "minus signs": lambda: "def f():\n    return " + "-" * 100_000 + "1",
    "parentheses": lambda: "def f():\n    return " + "(" * 50_000 + "1" + ")" * 50_000,
    "attributes": lambda: "def f():\n    return f" + ".a" * 50_000,
    "calls": lambda: "def f():\n    return f" + "()" * 50_000,
    "sums": lambda: "def f():\n    return 1" + "+1" * 50_000,
    "elif": lambda: "def f():\n    if 0: pass\n" + "    elif 0: pass\n" * 5_000,
    "lambdas": lambda: "def f():\n    return " + "lambda:" * 3_000 + "1",
    "not": lambda: "def f():\n    return " + "not " * 5_000 + "1",
    "blocks": lambda: "def f():\n" + "".join(" " * n + "if 1:\n" for n in range(1, 500)),
    "statements": lambda: "def f():\n    return 1\n" + "a=1;" * 1_000_000,
    "digits": lambda: "def f():\n    return " + "9" * 500_000,
    "a NUL": lambda: "def f():\n    return 1\0",
    "a surrogate": lambda: "def f():\n    return '\ud800'",
    "nothing": lambda: "",
    "a byte order mark": lambda: "\ufeff",
    "a form feed": lambda: "\x0cdef f():\n    return 1",
    "an odd coding": lambda: "# coding: utf-7\ndef f():\n    return 1",
    "carriage returns": lambda: "def f():\r    return 1\r" * 1000,
    "decorators": lambda: "@f\n" * 20_000 + "def f(): pass",
    "an invalid escape": lambda: "def f():\n    return '\\d'",
}


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS.keys())
def test_no_source_makes_a_run_raise_or_costs_the_host_minutes(source: Callable[[], str]) -> None:
    began = time.monotonic()
    result = run_tool(Tool(name="f", source_code=source()), limits=Limits(timeout_seconds=10))
    assert result.status in ("success", "error")
    assert (result.error is None) == (result.status == "success")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("longer", [0, 1], ids=["as long as it may be", "one character longer"])
def test_the_host_does_not_look_into_a_source_that_is_too_long(longer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs all the same: parsing megabytes is the guest's affair, under its limits."""
    parsed: list[int] = []

    def parse_module(source: str, cost: object) -> ast.Module:
        parsed.append(len(source))
        return ast.parse(source)

    monkeypatch.setattr(tool_source, "parse_module", parse_module)
    head = "def f():\n    return 'ran'\n#"
    source = head + "x" * ((256 << 10) + longer - len(head))
    assert run_tool(Tool(name="f", source_code=source)).func_return == "ran"
    assert bool(parsed) is not bool(longer)
    assert not parsed or max(parsed) <= 256 << 10


def test_no_schema_is_read_from_a_source_that_is_too_long() -> None:
    with pytest.raises(ToolSourceError, match="at most 262,144 are looked into"):
        Tool.from_source("def f(): pass\n" + "a=1;" * (64 << 10))


def test_a_million_wrong_values_in_an_agent_state_are_told_in_a_line() -> None:
    from pydantic import BaseModel

    class State(BaseModel):
        tags: list[str] = []

    source = "def f(agent_state):\n    agent_state['tags'] = [0] * 300_000\n    return 1"
    result = run_tool(Tool(name="f", source_code=source), agent_state=State())
    assert result.error is not None
    assert result.error.kind is ErrorKind.FORBIDDEN_RESULT
    assert len(result.error.message) < 2000


def test_what_a_callers_validator_raises_is_no_exception_of_the_run() -> None:
    from pydantic import BaseModel, field_validator

    class State(BaseModel):
        name: Any = "x"

        @field_validator("name")
        @classmethod
        def shorten(cls, value: Any) -> Any:
            return value.strip()

    source = "def f(agent_state):\n    agent_state['name'] = 7\n    return 1"
    result = run_tool(Tool(name="f", source_code=source), agent_state=State())
    assert result.error is not None
    assert result.error.kind is ErrorKind.FORBIDDEN_RESULT
    assert "AttributeError" in result.error.message


def test_a_huge_exception_is_reported_within_bounds(run_body: RunBody) -> None:
    body = "raise type('E' * 2_000_000, (Exception,), {})('m' * 5_000_000)"
    result = run_body(body)
    assert result.error is not None
    assert len(result.error.model_dump_json()) < 3 << 20
    assert type(result.func_return) is str
    assert len(result.func_return) <= 1000


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells what a stack takes")
def test_a_guest_that_recurses_deeply_leaves_no_memory_in_the_stack_of_its_thread(new_engine: GuestEngine) -> None:
    request = ExecutionRequest(f"def f():\n    {OVERFLOW}\nf()", {}, Limits(timeout_seconds=60))
    for _ in range(3):
        assert new_engine.start(request, LiveSurroundings()).result(60).ending is Ending.STACK_OVERFLOW
    until = time.monotonic() + 10
    while (taken := resident_in_stacks()) > 2 << 20 and time.monotonic() < until:
        time.sleep(0.05)
    assert taken <= 2 << 20


def resident_in_stacks() -> int:
    """Bytes of memory in the largest of the mappings that have the size of a guest thread's stack and its guard below.

    Arenas of the interpreter, which lie side by side, may come to the same size, and have none.
    """
    largest, is_stack, guard_end = 0, False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line):
            start, end = int(found[1], 16), int(found[2], 16)
            is_stack = found[3] == "rw-p" and end - start == NATIVE_STACK_BYTES and start == guard_end
            guard_end = end if found[3] == "---p" else 0
        elif is_stack and line.startswith("Rss:"):
            largest = max(largest, int(line.split()[1]) << 10)
    return largest
