"""Sessions: what a call leaves the next one finds; forks, points, bytes, and programs that pause."""

from __future__ import annotations

import datetime
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import wait_until
from wasm_sandbox import (
    Call,
    CodeResult,
    Deny,
    ErrorKind,
    Event,
    HostDir,
    HostFunction,
    Limits,
    Sandbox,
    SessionError,
    SnapshotError,
    Tool,
    UnsupportedIsolation,
    host_function,
)
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.sandbox import registry
from wasm_sandbox.sandbox.session import Paused, Session
from wasm_sandbox.workers.pool import process_pool

ROOT = Path(__file__).parents[2]
APPROVE = HostFunction.deferred("approve", question=str, returns=bool, doc="Ask somebody.")


def add(a: int, b: int = 2) -> int:
    return a + b


@pytest.fixture(scope="module", params=["thread", "process"])
def box(request: pytest.FixtureRequest) -> Sandbox:
    return Sandbox(functions=[add, APPROVE], files={}, isolation=request.param)


@pytest.fixture
def session(box: Sandbox) -> Iterator[Session]:
    with box.session() as made:
        yield made


def said(result: CodeResult) -> str:
    assert result.error is not None
    return f"{result.error.exception_name}: {result.error.message}"


def paused(found: CodeResult | Paused) -> Paused:
    assert isinstance(found, Paused), found
    return found


def ended(found: CodeResult | Paused) -> CodeResult:
    assert isinstance(found, CodeResult), found
    assert found.error is None, found.error
    return found


# --- State ----------------------------------------------------------------------------------------------


LEFT: list[tuple[str, str, Any]] = [
    ("x = 41", "x + 1", 42),
    ("def f(n):\n    return n * 2", "f(4)", 8),
    ("class A:\n    n = 3\na = A()", "a.n", 3),
    ("import json as j", "j.dumps([1])", "[1]"),
    ("5", "_ + 1", 6),
    ("f = open('/a', 'w'); f.write('x')", "f.write('y'); f.close(); open('/a').read()", "xy"),
    ("import os; os.environ['K'] = 'v'", "os.environ['K']", "v"),
    ("import os; os.environ['K'] = 'v'", "del os.environ['K']", None),
    ("import asyncio\nq = asyncio.Queue()\nawait q.put(1)", "await q.get()", 1),
    ("import asyncio\nt = asyncio.create_task(asyncio.sleep(0, 7)) if 0 else None", "t", None),
    ("from __future__ import annotations", "def f(x: Nowhere): ...\nf.__annotations__", {"x": "Nowhere"}),
    ("import random; random.seed(1); a = random.random()", "random.seed(1); random.random() == a", True),
    ("x = 1\n1 / 0", "x", 1),
    ("raise SystemExit(3)", "'still here'", "still here"),
    ("def g():\n    yield 1\n    yield 2\nit = g(); next(it)", "next(it)", 2),
]


@pytest.mark.parametrize(("first", "second", "value"), LEFT)
def test_what_a_cell_leaves_the_next_one_finds(first: str, second: str, value: Any, session: Session) -> None:
    session.run_code(first)
    result = session.run_code(second)
    assert result.error is None
    assert result.value == value
    assert not result.rolled_back


def test_background_tasks_go_on_when_a_later_cell_awaits(session: Session) -> None:
    task = "async def main():\n    global t\n    t = asyncio.create_task(asyncio.sleep(0, 7))"
    session.run_code(f"import asyncio\n{task}\nawait main()")
    assert session.run_code("await t").value == 7


def test_random_numbers_go_on_and_a_seed_lasts(session: Session) -> None:
    session.run_code("import random\nrandom.seed(5)")
    twin = session.run_code("a = random.Random(5); (a.random(), a.random())").value
    assert (session.run_code("random.random()").value, session.run_code("random.random()").value) == twin


def test_a_traceback_names_the_cell(session: Session) -> None:
    session.run_code("def f():\n    return 1 / 0")
    result = session.run_code("f()")
    assert result.error is not None
    assert 'File "<cell 2>", line 1, in <module>\n    f()' in (result.error.traceback or "")
    assert 'File "<cell 1>", line 2, in f\n    return 1 / 0' in (result.error.traceback or "")


def test_variables_are_set_and_got(session: Session) -> None:
    session.set(x=datetime.date(2024, 1, 2), y=[1])
    assert session.get("x") == datetime.date(2024, 1, 2)
    assert session.run_code("y + [2]").value == [1, 2]
    with pytest.raises(KeyError):
        session.get("nothing")
    with pytest.raises(KeyError):
        session.get("x; 1")
    session.run_code("f = lambda: 0")
    with pytest.raises(TypeError, match="f is no plain data: <function"):
        session.get("f")
    with pytest.raises(ValueError, match="no name of a variable"):
        session.set(**{"a b": 1})


def test_tools_run_in_it_with_its_files_and_host_functions(session: Session) -> None:
    session.run_code("open('/note', 'w').write('from a cell')")
    tool = Tool.from_source("def read(path: str) -> str:\n    return open(path).read() + str(add(1))")
    result = session.run_tool(tool, {"path": "/note"})
    assert (result.func_return, result.rolled_back) == ("from a cell3", False)
    assert result.files == {"/note": b"from a cell"}
    assert session.run_tool(tool, {"path": "/none"}).error is not None
    assert session.run_code("'read' in globals()").value is False
    state = Tool.from_source("def keep(agent_state):\n    agent_state['n'] += 1\n    return agent_state['n']")
    assert session.run_tool(state, agent_state={"n": 1}).agent_state == {"n": 2}
    assert session.run_tool(tool, {"path": {1, object()}}).error is not None


@pytest.mark.long
def test_many_calls_of_tools_and_cells_keep_their_memory_level(session: Session) -> None:
    tool = Tool.from_source("def f(text: str) -> int:\n    return len(text)\n" + "# long\n" * 2000)
    session.run_tool(tool, {"text": "x" * 50})
    before = session.run_code("1").usage
    for _ in range(300):
        session.run_tool(tool, {"text": "x" * 50})
        session.run_code("y = 1  # " + "long " * 2000)
    after = session.run_code("1").usage
    assert before is not None
    assert after is not None
    assert after.peak_memory_bytes - before.peak_memory_bytes <= 8 << 20


def test_what_a_call_does_is_told_while_it_runs(session: Session) -> None:
    heard: list[Event] = []
    session.run_code("print('a'); add(1)", on_event=heard.append)
    assert [event.kind for event in heard] == ["stdout", "call", "call", "result"]
    heard.clear()
    session.run_tool(Tool.from_source("def f():\n    print('b')"), on_event=heard.append)
    assert [event.kind for event in heard] == ["stdout", "result"]

    def fail(event: Event) -> None:
        raise ZeroDivisionError

    session.set(x=1)
    with pytest.raises(ZeroDivisionError):
        session.run_code("x = 2\nprint('c')\nwhile True: pass", on_event=fail)
    assert session.get("x") == 1


# --- Errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "limits", "kind"),
    [
        ("while True: pass", {"timeout_seconds": 0.3}, ErrorKind.TIMEOUT),
        ("while True: pass", {"fuel": 5_000_000}, ErrorKind.OUT_OF_FUEL),
        ("import os; os._exit(0)", {}, ErrorKind.NO_RESULT),
        ("import time; time.sleep(60)", {"timeout_seconds": 0.3}, ErrorKind.TIMEOUT),
    ],
)
def test_what_ends_the_guest_takes_the_session_back(
    code: str, limits: dict[str, Any], kind: ErrorKind, session: Session
) -> None:
    session.run_code("x = [1]\nopen('/a', 'w').write('before')")
    result = session.run_code(f"x.append(2)\nopen('/a', 'w').write('after')\n{code}", limits=limits)
    assert result.error is not None
    assert (result.error.kind, result.rolled_back) == (kind, True)
    assert session.run_code("(x, open('/a').read())").value == ([1], "before")


def test_an_ordinary_memory_error_keeps_the_session(session: Session) -> None:
    result = session.run_code("x = 5\ny = bytearray(1 << 30)")
    assert result.error is not None
    assert (result.error.kind, result.rolled_back) == (ErrorKind.OUT_OF_MEMORY, False)
    assert session.get("x") == 5


def test_a_cancelled_call_takes_the_session_back(box: Sandbox) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise KeyboardInterrupt

    with box.session() as session:
        session.set(x=1)
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), __import__("signal").SIGUSR1))
        import signal

        def handler(*_: object) -> None:
            raise Stop

        before = signal.signal(signal.SIGUSR1, handler)
        timer.start()
        try:
            with pytest.raises(Stop):
                session.run_code("x = 2\nwhile True: pass")
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert session.get("x") == 1


def test_a_session_that_is_over_says_why(box: Sandbox) -> None:
    session = box.session()
    session.close()
    session.close()
    for call in (lambda: session.run_code("1"), session.fork, session.dump, session.checkpoint):
        with pytest.raises(SessionError, match="it was closed"):
            call()
    idle = box.session(idle_seconds=0.2)
    old = box.session(lifetime_seconds=0.2)
    time.sleep(0.25)
    with pytest.raises(SessionError, match=r"it was not used for 0.2 seconds \(idle_seconds\)"):
        idle.run_code("1")
    deadline = time.monotonic() + 20
    while not old.is_closed and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(SessionError, match=r"its 0.2 seconds \(lifetime_seconds\) are over"):
        old.run_code("1")


SOON, LATER = 1.0, 3600.0
"""Times after the last call: of a session whose checkpoint is packed, and of one that is at rest."""


def test_a_session_that_nobody_calls_keeps_its_checkpoint_alone_and_goes_on(box: Sandbox) -> None:
    heard = Marks()
    is_here = box.options["isolation"] == "thread"
    with box.session() as session:
        session.run_code("import time, random; started = time.monotonic(); random.seed(5)")
        session.checkpoint()
        with listening(heard):
            heard.beside(lambda: session.rest_if_unused(time.monotonic()))  # it was called just now
            assert heard.names == []
            for _ in range(2):
                heard.beside(lambda: session.rest_if_unused(time.monotonic() + LATER))
                assert heard.names == ["replace"] * is_here
        result = session.run_code(
            "a = random.random(); random.seed(5); (a == random.random(), time.monotonic() > started)"
        )
        assert (result.value, result.rolled_back) == ((True, True), False)
        session.rest_if_unused(time.monotonic() + LATER)
        assert session.run_code("while True: pass", limits={"timeout_seconds": 0.1}).rolled_back
        session.rest_if_unused(time.monotonic() + LATER)
        with session.fork() as twin:
            assert twin.run_code("a").value == session.get("a")
    session.rest_if_unused(time.monotonic() + LATER)


class Marks:
    """Listener to marks: names of those of an instance that is taken, or given back on its thread.

    What an earlier run used is given back after its end, on a thread of guests.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._thread = threading.get_ident()

    def beside(self, work: Callable[[], object]) -> None:
        """Do work on another thread, as what looks after sessions does, and listen to that."""

        def do() -> None:
            self._thread = threading.get_ident()
            work()

        thread = threading.Thread(target=do)
        thread.start()
        thread.join()

    def began(self, mark: Mark) -> None:
        if mark.name == "take" or (mark.name == "replace" and threading.get_ident() == self._thread):
            self.names.append(mark.name)

    def ended(self, mark: Mark) -> None:
        pass


@pytest.mark.parametrize("unused", [SOON, LATER])
@pytest.mark.parametrize(("first", "second", "value"), LEFT)
def test_what_is_at_rest_is_as_it_was(first: str, second: str, value: Any, unused: float, session: Session) -> None:
    session.run_code(first)
    session.checkpoint()  # waits for what follows a call
    session.run_code("pass")
    session.rest_if_unused(time.monotonic() + unused)
    result = session.run_code(second)
    assert (result.value, result.error) == (value, None)


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("unused", [SOON, LATER])
def test_a_packed_checkpoint_is_what_a_limit_takes_a_session_back_to(isolation: str, unused: float) -> None:
    with Sandbox(isolation=cast(Any, isolation)).session() as session:
        session.run_code("x = [1, 2, 3]; text = 'a' * 100_000; open('/f', 'w').write('kept')")
        point = session.checkpoint()
        session.run_code("x.append(4)")
        for _ in range(2):
            wait_until(lambda: session.rest_if_unused(time.monotonic() + unused) or isolation == "process")
            spoilt = "x.clear(); text = ''; open('/f', 'w').close()\nwhile True: pass"
            assert session.run_code(spoilt, limits={"timeout_seconds": 0.1}).rolled_back
            assert session.run_code("(x, len(text), open('/f').read())").value == ([1, 2, 3, 4], 100_000, "kept")
        wait_until(lambda: session.rest_if_unused(time.monotonic() + unused) or isolation == "process")
        with session.fork() as twin:
            assert twin.get("x") == [1, 2, 3, 4]
        session.rollback(point)
        assert session.get("x") == [1, 2, 3]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_deterministic_session_is_the_same_whether_it_was_at_rest_or_not(isolation: str) -> None:
    def cells(unused: float) -> list[tuple[Any, int | None]]:
        found = []
        limits = Limits(deterministic=True)
        with Sandbox(isolation=cast(Any, isolation), limits=limits, env={"A": "1"}).session() as session:
            for code in ("import os, random, time; x = 1", "x + 1", "os.urandom(4), random.random(), time.time()", "x"):
                result = session.run_code(code)
                assert result.usage is not None
                found.append((result.value, result.usage.fuel))
                session.checkpoint()
                session.rest_if_unused(time.monotonic() + unused)
        return found

    assert cells(0.0) == cells(SOON) == cells(LATER)


def test_the_environment_of_a_call_is_given_anew_when_it_is_another_one_and_kept_when_it_was_changed() -> None:
    show = "import os; (os.environ.get('A'), os.environ.get('B'))"
    tool = Tool.from_source("import os\ndef f(): return os.environ.get('A')")
    with Sandbox(env={"A": "1"}).session() as session:
        assert session.run_code(show).value == ("1", None)
        assert session.run_code(show, env={"A": "2", "B": "3"}).value == ("2", "3")
        assert session.run_code(show).value == ("1", None)
        assert session.run_tool(tool, env={"A": "4"}).func_return == "4"
        assert session.run_code(show).value == ("1", None)
        session.run_code("os.environ['B'] = 'kept'; del os.environ['A']")
        for env in ({}, {"env": {"A": "5"}}, {}):
            assert session.run_code(show, **cast(Any, env)).value == (None, "kept")
        session.checkpoint()
        session.rest_if_unused(time.monotonic() + LATER)
        assert session.run_code(show).value == (None, "kept")


def test_a_checkpoint_takes_little_while_nobody_calls_its_session_unless_others_hold_it() -> None:
    with Sandbox().session() as session:
        session.run_code("import json; x = 1")
        point = session.checkpoint()
        assert session.rest_if_unused(time.monotonic() + SOON) == 0
        session.run_code("x = 2")
        wait_until(lambda: session.rest_if_unused(time.monotonic() + SOON) > 0.8 * point.nbytes)
        assert session.rest_if_unused(time.monotonic() + SOON) == 0
        assert session.get("x") == 2
        session.rollback(point)
        assert session.get("x") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="memory is asked of /proc, and given back by glibc")
def test_the_memory_of_packed_checkpoints_goes_back_to_the_system() -> None:
    sessions = [Sandbox().session() for _ in range(20)]
    for session in sessions:
        session.run_code("x = 1")
    before = _private_bytes()
    wait_until(lambda: before - _private_bytes() > 20 * (200 << 10))
    for session in sessions:
        assert session.get("x") == 1
        session.close()


def _private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) << 10


def test_a_paused_program_can_be_at_rest(session: Session) -> None:
    waiting = paused(
        session.start("import asyncio\nf = open('/f', 'w'); f.write('a')\nok = await approve('?')\nf.close()\nok")
    )
    session.rest_if_unused(time.monotonic() + LATER)
    assert ended(waiting.resume({waiting.calls[0].id: True})).value is True
    assert session.run_code("open('/f').read()").value == "a"


def test_a_session_that_is_called_and_one_with_much_in_it_are_not_put_to_rest(session: Session) -> None:
    heard, running = Marks(), threading.Event()
    session.run_code("big = [str(n) for n in range(100_000)]")
    session.checkpoint()

    def call() -> None:
        session.run_code("import time; print('on'); time.sleep(0.3); y = 1", on_event=lambda _: running.set())

    with listening(heard):
        session.rest_if_unused(time.monotonic() + LATER)
        thread = threading.Thread(target=call)
        thread.start()
        assert running.wait(20)
        session.rest_if_unused(time.monotonic() + LATER)
        thread.join()
        assert session.get("y") == 1
    assert heard.names == []  # what was put to rest takes an instance for the next call


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), "1", True])
def test_odd_times_are_refused(seconds: Any, box: Sandbox) -> None:
    with pytest.raises(ValueError, match="idle_seconds must be seconds"):
        box.session(idle_seconds=seconds)


def test_there_is_a_ceiling(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setenv("WASM_SANDBOX_MAX_SESSIONS", str(len(registry._sessions) + 1))
    with box.session(), pytest.raises(SessionError, match="as many as there may be"):
        box.session()
    with box.session() as session:
        assert session.run_code("1").value == 1


def test_what_a_session_cannot_have_is_refused(tmp_path: Path, session: Session) -> None:
    with pytest.raises(UnsupportedIsolation, match="no mounts"):
        Sandbox(mounts={"/m": HostDir(tmp_path)}).session()
    with pytest.raises(TypeError, match="files: an option of the whole session"):
        session.run_code("1", files={})


def test_a_host_function_cannot_call_its_own_session(box: Sandbox) -> None:
    with box.session() as mine, box.session() as other:

        def inner() -> Any:
            return mine.run_code("1").value

        def elsewhere() -> Any:
            return other.run_code("7").value

        assert said(mine.run_code("inner()", functions=[inner])).startswith("HostFunctionError: inner failed")
        call = mine.run_code("inner()", functions=[inner]).calls[0]
        assert "cannot call the session that called it" in str(call.cause)
        assert mine.run_code("elsewhere()", functions=[elsewhere]).value == 7


def test_a_host_function_that_blocks_holds_up_no_later_call(box: Sandbox) -> None:
    let_go = threading.Event()

    def block() -> None:
        let_go.wait(60)

    session = box.session()
    session.set(x=1)
    began = time.monotonic()
    try:
        result = session.run_code("x = 2\nblock()", functions=[block], limits={"timeout_seconds": 0.5})
        assert result.error is not None
        assert (result.error.kind, result.rolled_back) == (ErrorKind.TIMEOUT, True)
        assert session.get("x") == 1
        session.set(x=3)
        with session.fork() as twin:
            assert twin.get("x") == 3
        assert session.run_code("block()", functions=[block], limits={"timeout_seconds": 0.5}).rolled_back
        session.close()
        assert time.monotonic() - began < 30
    finally:
        let_go.set()


def test_two_threads_take_turns(session: Session) -> None:
    session.set(n=0)
    threads = [threading.Thread(target=lambda: [session.run_code("n += 1") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.get("n") == 80


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_is_told_that_it_is_not_its_session(box: Sandbox) -> None:
    script = """
import os, sys
from wasm_sandbox import Sandbox, SessionError
session = Sandbox().session()
session.set(x=1)
blob = session.dump()
pid = os.fork()
if not pid:
    try:
        session.run_code("x")
    except SessionError as error:
        loaded = Sandbox().load_session(blob)
        print("the process that this one was forked from" in str(error), loaded.get("x"), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(session.get("x"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("True 1\n1\n", "")


# --- In workers -----------------------------------------------------------------------------------------


APART = Sandbox(isolation="process", functions=[add], files={})


def test_a_worker_that_is_killed_in_a_call_takes_the_session_back() -> None:
    with APART.session() as session:
        session.run_code("x = [1]\nopen('/a', 'w').write('before')")

        def die() -> None:
            for worker in process_pool().workers:
                worker.kill()

        result = session.run_code("x.append(2)\nopen('/a', 'w').write('after')\ndie()\nx", functions=[die])
        assert result.error is not None
        assert result.rolled_back
        assert session.run_code("(x, open('/a').read())").value == ([1], "before")


def test_a_session_goes_on_whichever_worker_it_comes_to() -> None:
    with APART.session() as session:
        for number in range(3):
            assert session.run_code(f"x = {number} + globals().get('x', 0)\nx").value == sum(range(number + 1))
            for worker in process_pool().idle_workers:
                worker.kill()


def test_a_call_may_have_less_memory_than_the_session_has_taken() -> None:
    with APART.session() as session:
        session.run_code("data = bytes(60 << 20)", limits={"memory_bytes": 160 << 20})
        assert session.run_code("len(data)", limits={"memory_bytes": 64 << 20}).value == 60 << 20
        assert session.run_code("len(data)").value == 60 << 20


def test_bytes_of_a_session_go_from_threads_to_workers_and_back() -> None:
    with Sandbox(files={}).session() as session:
        session.run_code("x = 1\nopen('/a', 'w').write('text')")
        blob = session.dump()
    with APART.load_session(blob) as apart:
        apart.run_code("x += 1")
        blob = apart.dump()
    with Sandbox(files={}).load_session(blob) as back:
        assert back.run_code("(x, open('/a').read())").value == (2, "text")


def test_clocks_and_random_numbers_of_a_session_in_workers_go_on_after_it_was_taken_back() -> None:
    box = Sandbox(isolation="process", limits={"deterministic": True})
    with box.session() as session:
        ask = "import os, time\n(time.monotonic_ns(), os.urandom(8))"
        point = session.checkpoint()
        times, numbers = [], set()
        for _ in range(3):
            now, number = session.run_code(ask).value
            times.append(now)
            numbers.add(number)
            session.rollback(point)
        assert times == sorted(times)
        assert len(numbers) == 3


# --- Points and forks -----------------------------------------------------------------------------------


def test_points_are_gone_back_to_as_often_as_wanted(session: Session) -> None:
    start = session.checkpoint()
    session.run_code("x = [1]")
    point = session.checkpoint()
    for n in range(2):
        session.run_code(f"x.append({n})\nopen('/f', 'w').write('{n}')")
        session.rollback(point)
        assert session.run_code("import os\n(x, os.listdir('/'))").value == ([1], ["tmp"])
    session.rollback(start)
    assert said(session.run_code("x")).startswith("NameError")
    assert point.nbytes > start.nbytes


def test_a_fork_goes_its_own_way(session: Session) -> None:
    session.run_code("x = [1]; f = open('/f', 'w+'); f.write('ab'); import random")
    with session.fork() as twin:
        twin.run_code("x.append('twin'); f.write('T')")
        session.run_code("x.append('first')")
        assert twin.run_code("f.seek(0); (x, f.read())").value == ([1, "twin"], "abT")
        assert session.run_code("f.seek(0); (x, f.read())").value == ([1, "first"], "ab")
        assert twin.run_code("random.random()").value != session.run_code("random.random()").value
        with session.fork() as again:
            assert again.run_code("import os\nos.urandom(8)").value != twin.run_code("import os\nos.urandom(8)").value
        session.rollback(twin.checkpoint())
        assert session.get("x") == [1, "twin"]


def test_a_point_of_another_session_is_refused(box: Sandbox, session: Session) -> None:
    with box.session() as other, pytest.raises(SessionError, match="of another session"):
        session.rollback(other.checkpoint())
    with pytest.raises(SessionError, match="of another session"):
        session.rollback(5)  # type: ignore[arg-type]


def test_clocks_never_run_backwards(session: Session) -> None:
    code = "import time\n(time.monotonic(), time.process_time(), time.perf_counter())"
    before = session.run_code(code).value
    point = session.checkpoint()
    with session.fork() as twin:
        later = session.run_code(code).value
        assert all(a <= b for a, b in zip(before, later, strict=True))
        assert all(a <= b for a, b in zip(before, twin.run_code(code).value, strict=True))
    session.rollback(point)
    assert all(a <= b for a, b in zip(later, session.run_code(code).value, strict=True))


def test_deterministic_sessions_do_the_same_every_time() -> None:
    box = Sandbox(limits={"deterministic": True})
    cells = [
        "import random, time, uuid",
        "(random.random(), time.time(), str(uuid.uuid4()))",
        "time.sleep(5); time.time()",
    ]

    def values() -> list[Any]:
        with box.session() as session:
            return [session.run_code(cell).value for cell in cells]

    first = values()
    assert first == values()
    assert len({*map(str, first)}) == 3


def test_a_session_with_much_in_it(session: Session) -> None:
    session.run_code("big = ['%032d' % n for n in range(50_000)]; raw = bytes(range(256)) * 8192")
    with session.fork() as twin, session.fork() as other:
        twin.run_code("big[0] = 'changed'")
        check = "(big[0], big[-1][-5:], len(raw), raw[-1])"
        assert twin.run_code(check).value == ("changed", "49999", 2 << 20, 255)
        assert other.run_code(check).value == ("0" * 32, "49999", 2 << 20, 255)
    blob = session.dump()
    assert len(blob) < 4 << 20


# --- Host functions of other calls ----------------------------------------------------------------------


def ask(question: str) -> str:
    return f"asked {question}"


def delete(question: str) -> str:
    raise AssertionError(question)


@pytest.mark.parametrize("functions", [[ask, delete], [delete, ask], [add, delete, ask, APPROVE]])
def test_a_function_that_a_session_kept_is_the_one_of_its_name_or_none(functions: list[Any], box: Sandbox) -> None:
    first = box.options["isolation"]
    with Sandbox(functions=[add, ask], isolation=first).session() as session:
        session.run_code("from tools import ask as kept\ndef helper(): return ask('x')\nhelper()")
        assert session.run_code("gone(1)", functions=[host_function(name="gone")(lambda n: n)]).value == 1
        blob = session.dump()
    with Sandbox(functions=functions, isolation=first).load_session(blob) as loaded:
        assert loaded.run_code("(helper(), kept('y'))").value == ("asked x", "asked y")
        error = "HostFunctionError: there is no such host function in this run"
        assert said(loaded.run_code("gone(1)")) == error
        assert said(loaded.run_code("kept('z')", functions=[delete])) == error
        assert said(loaded.run_code("kept('z')", functions={"other": [ask]})) == error


# --- Bytes ----------------------------------------------------------------------------------------------


def test_a_session_goes_on_in_another_process(box: Sandbox, session: Session, tmp_path: Path) -> None:
    session.run_code(
        "class A:\n    n = 5\na = A(); f = open('/f', 'w'); f.write('ab'); f.flush(); import os; os.environ['E'] = 'x'"
    )
    (tmp_path / "blob").write_bytes(session.dump())
    script = f"""
from wasm_sandbox import Sandbox
session = Sandbox(files={{}}).load_session(open({str(tmp_path / "blob")!r}, "rb").read())
print(session.run_code("f.write('c'); f.close(); import os; (a.n, open('/f').read(), os.environ['E'])").value)
print(session.run_code("1 / 0").error.traceback.splitlines()[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("(5, 'abc', 'x')\n  File \"<cell 3>\", line 1, in <module>\n", "")
    with box.load_session(session.dump()) as twin:
        assert twin.run_code("a.n").value == 5


def test_a_session_that_ran_nothing_is_dumped_too(box: Sandbox) -> None:
    with box.session() as session:
        blob = session.dump()
    with box.load_session(blob) as loaded:
        assert loaded.run_code("1 + 1").value == 2


def test_signed_bytes_need_their_key(box: Sandbox, session: Session) -> None:
    session.set(x=1)
    signed, plain = session.dump(key=b"secret"), session.dump()
    with box.load_session(signed, key=b"secret") as loaded:
        assert loaded.get("x") == 1
    for blob, key, words in (
        (signed, None, "is signed: give the key"),
        (signed, b"other", "not signed with this key"),
        (plain, b"secret", "is not signed"),
    ):
        with pytest.raises(SnapshotError, match=words):
            box.load_session(blob, key=key)


def test_a_key_has_bytes(box: Sandbox, session: Session) -> None:
    for key in (b"", "text"):
        with pytest.raises(ValueError, match="a key is bytes, one at least"):
            session.dump(key=key)  # type: ignore[arg-type]
    signed = session.dump(key=b"k")
    with pytest.raises(ValueError, match="a key is bytes, one at least"):
        box.load_session(signed, key=b"")


def test_bytes_of_another_image_limit_or_kind_are_refused(box: Sandbox, session: Session) -> None:
    session.run_code("big = bytearray(100 << 20)")
    blob = session.dump()
    with pytest.raises(SnapshotError, match=r"the limit is 67108864 \(Limits.memory_bytes\)"):
        Sandbox(limits={"memory_bytes": 64 << 20}).load_session(blob)
    with pytest.raises(SnapshotError, match="and no paused program"):
        box.load_paused(blob)
    for odd in (b"", b"x", blob[:-1], blob[:100], blob + b"x", "text"):
        with pytest.raises(SnapshotError):
            box.load_session(odd)  # type: ignore[arg-type]


# --- Pausing --------------------------------------------------------------------------------------------


def test_a_program_pauses_for_an_answer_and_goes_on(session: Session) -> None:
    found = paused(session.start("print('asking')\nanswer = await approve('pay?')\nprint('got', answer)\nanswer"))
    (call,) = found.calls
    assert (call.name, call.kwargs, call.outcome) == ("approve", {"question": "pay?"}, "pending")
    assert found.stdout == ["asking\n"]
    with pytest.raises(SessionError, match="is paused"):
        session.run_code("1")
    result = ended(found.resume({call.id: True}))
    assert (result.value, result.stdout) == (True, ["got True\n"])
    assert session.get("answer") is True
    with pytest.raises(SessionError, match="does not wait any more"):
        found.resume({call.id: True})


def test_a_program_that_ended_waits_for_nothing(session: Session) -> None:
    waiting = paused(session.start("await approve('?')"))
    answers = {waiting.calls[0].id: True}
    with pytest.raises(SessionError, match="the session is paused: resume it, or roll it back"):
        session.run_code("1")
    waiting.resume(answers)
    for again in (lambda: waiting.resume(answers), waiting.dump):
        with pytest.raises(SessionError, match="the program does not wait any more: it was resumed or given up"):
            again()
    point = session.checkpoint()
    given_up = paused(session.start("await approve('?')"))
    session.rollback(point)
    with pytest.raises(SessionError, match="does not wait any more"):
        given_up.resume({given_up.calls[0].id: True})


def test_a_program_pauses_as_often_as_it_has_to(session: Session) -> None:
    first = "await asyncio.gather(*(approve(str(n)) for n in range(3)))"
    found = paused(session.start(f"import asyncio\nfirst = {first}\n(first, await approve('last'))"))
    assert [call.kwargs["question"] for call in found.calls] == ["0", "1", "2"]
    ids = [call.id for call in found.calls]
    found = paused(found.resume({ids[1]: True}))
    assert [call.id for call in found.calls] == [ids[0], ids[2]]
    found = paused(found.resume({ids[0]: False, ids[2]: True}))
    assert ended(found.resume({found.calls[0].id: False})).value == ([False, True, True], False)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no"), "ValueError: no"),
        (TimeoutError("late"), "TimeoutError: late"),
        (Exception("e"), "Exception: e"),
        (MemoryError("m"), "HostFunctionError: MemoryError: m"),
    ],
)
def test_an_answer_may_be_an_exception(error: Exception, words: str, session: Session) -> None:
    found = paused(
        session.start("try:\n    await approve('x')\nexcept Exception as e:\n    s = f'{type(e).__name__}: {e}'\ns")
    )
    assert ended(found.resume({found.calls[0].id: error})).value == words


def test_wrong_answers_are_refused_and_the_program_still_waits(session: Session) -> None:
    found = paused(session.start("await approve('x')"))
    ident = found.calls[0].id
    with pytest.raises(ValueError, match="waits for no call 99"):
        found.resume({99: True})
    with pytest.raises(ValueError, match=r"the answer to approve \(call"):
        found.resume({ident: "perhaps"})
    with pytest.raises(ValueError, match="no answer"):
        found.resume({})
    assert ended(found.resume({ident: True})).value is True


PROGRAM = """
import asyncio
log = []
lock, queue = asyncio.Lock(), asyncio.Queue()
note = open('/note', 'w+')
async def numbers():
    for n in range(3):
        yield n
async def worker(name):
    while (item := await queue.get()) is not None:
        async with lock:
            ok = await approve(f"{name}{item}")
            log.append((item, ok))
            note.write(f"{item}{ok};")
async def main():
    workers = [asyncio.create_task(worker(f"w{k}")) for k in range(2)]
    async for n in numbers():
        await queue.put(n)
    for _ in workers:
        await queue.put(None)
    await asyncio.gather(*workers)
    await asyncio.sleep(0.01)
    note.seek(0)
    return sorted(log), note.read().count(";")
await main()
"""


@pytest.mark.parametrize("how", ["here", "loaded", "loaded each time"])
def test_tasks_locks_queues_generators_and_files_live_through_pauses(how: str, box: Sandbox, session: Session) -> None:
    found: CodeResult | Paused = session.start(PROGRAM)
    pauses = 0
    while isinstance(found, Paused):
        if how == "loaded each time" or (how == "loaded" and not pauses):
            found = box.load_paused(found.dump())
        pauses += 1
        found = found.resume({call.id: call.kwargs["question"][-1] != "1" for call in found.calls})
    assert ended(found).value == ([(0, True), (1, False), (2, True)], 3)
    assert pauses == 3


def test_from_the_same_bytes_a_program_goes_on_in_other_ways(box: Sandbox, session: Session) -> None:
    blob = paused(session.start("x = 1\n[await approve('a'), await approve('b')]")).dump()
    results = []
    for first in (True, False):
        found = paused(box.load_paused(blob).resume({1: first}))
        again = found.dump()
        for second in (True, False):
            last = box.load_paused(again)
            results.append(ended(last.resume({last.calls[0].id: second})).value)
            assert last.session.get("x") == 1
    assert results == [[True, True], [True, False], [False, True], [False, False]]


def test_a_paused_program_is_forked_into_all_that_could_become_of_it(session: Session) -> None:
    code = "import asyncio\nseen = []\nfor n in range(2):\n    seen.append(await approve(f'{n}: {seen}'))\nseen"
    ends: list[Any] = []

    def follow(waiting: Paused) -> None:
        for answer in True, False:
            twin = waiting.fork()
            assert [(call.id, call.kwargs) for call in twin.calls] == [(call.id, call.kwargs) for call in waiting.calls]
            found = twin.resume({twin.calls[0].id: answer})
            if isinstance(found, Paused):
                follow(found)
            else:
                ends.append(ended(found).value)
            twin.session.close()

    waiting = paused(session.start(code))
    follow(waiting)
    assert ends == [[True, True], [True, False], [False, True], [False, False]]
    last = paused(waiting.resume({waiting.calls[0].id: False}))
    assert ended(last.resume({last.calls[0].id: False})).value == [False, False]
    with pytest.raises(SessionError, match="does not wait any more"):
        waiting.fork()


def test_a_program_that_paused_here_ends_in_another_process(session: Session, tmp_path: Path) -> None:
    found = paused(session.start("name = 'pay'\nanswer = await approve(name)\n(name, answer)"))
    (tmp_path / "blob").write_bytes(found.dump(key=b"k"))
    script = f"""
from wasm_sandbox import HostFunction, Sandbox
box = Sandbox(functions=[HostFunction.deferred("approve", question=str, returns=bool)], files={{}})
for answer in True, False:
    waiting = box.load_paused(open({str(tmp_path / "blob")!r}, "rb").read(), key=b"k")
    print(waiting.calls[0].kwargs, waiting.resume({{waiting.calls[0].id: answer}}).value)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout == "{'question': 'pay'} ('pay', True)\n{'question': 'pay'} ('pay', False)\n"


def test_timers_run_out_before_a_program_pauses(session: Session) -> None:
    code = """
import asyncio
async def main():
    timer = asyncio.ensure_future(asyncio.sleep(0.05))
    ok = await approve('x')
    return ok, timer.done(), add(1)
await main()
"""
    found = paused(session.start(code))
    assert ended(found.resume({found.calls[0].id: True})).value == (True, True, 3)
    late = "import asyncio\ntry:\n    await asyncio.wait_for(approve('x'), 0.05)\nexcept TimeoutError:\n    r = 5\nr"
    assert ended(session.start(late)).value == 5


def test_a_deferred_function_is_for_programs_that_can_wait(box: Sandbox, session: Session) -> None:
    assert "approve is answered later: await it" in said(session.run_code("approve('x')"))
    assert "for programs that can be paused" in said(session.run_code("await approve('x')"))
    assert "for programs that can be paused" in said(box.run_code("await approve('x')"))
    assert "HostArgumentsError: approve: question" in said(ended_or_error(session.start("await approve(5)")))
    assert "unexpected keyword" in said(ended_or_error(session.start("await approve(other=5)")))


def ended_or_error(found: CodeResult | Paused) -> CodeResult:
    assert isinstance(found, CodeResult)
    return found


@pytest.mark.parametrize("is_async", [False, True])
def test_a_gate_is_asked_before_a_program_pauses(is_async: bool, session: Session) -> None:
    def gate(call: Call) -> Deny | None:
        return Deny("not today") if call.kwargs["question"] == "no" else None

    async def awaited(call: Call) -> Deny | None:
        return gate(call)

    chosen = awaited if is_async else gate
    assert "not today" in said(ended_or_error(session.start("await approve('no')", gate=chosen)))
    found = paused(session.start("await approve('yes')", gate=chosen))
    assert ended(found.resume({found.calls[0].id: True})).value is True


def test_a_paused_program_is_given_up_by_going_back(session: Session) -> None:
    session.set(x=1)
    point = session.checkpoint()
    paused(session.start("x = 2\nawait approve('x')"))
    session.rollback(point)
    assert session.get("x") == 1


def test_limits_hold_after_a_pause(session: Session) -> None:
    found = paused(session.start("await approve('x')\nwhile True: pass", limits={"timeout_seconds": 0.4}))
    result = found.resume({found.calls[0].id: True})
    assert isinstance(result, CodeResult)
    assert result.error is not None
    assert (result.error.kind, result.rolled_back) == (ErrorKind.TIMEOUT, True)


def test_bytes_need_the_declaration_of_what_they_wait_for(box: Sandbox, session: Session) -> None:
    blob = paused(session.start("await approve('x')")).dump(key=b"k")
    with pytest.raises(SnapshotError, match="'approve': declare it"):
        Sandbox(files={}).load_paused(blob, key=b"k")
    other = HostFunction.deferred("approve", question=int, returns=bool)
    with pytest.raises(SnapshotError, match="do not fit its declaration"):
        Sandbox(functions=[other], files={}).load_paused(blob, key=b"k")
    with pytest.raises(SnapshotError, match="of a paused program"):
        box.load_session(blob, key=b"k")


@given(st.lists(st.sampled_from(["await", "gather", "task", "call", "sleep", "generator"]), max_size=5), st.data())
@settings(max_examples=15)
def test_any_program_of_these_parts_ends_the_same_with_and_without_bytes(
    box: Sandbox, parts: list[str], data: st.DataObject
) -> None:
    lines = {
        "await": "out.append(await approve('a'))",
        "gather": "out.extend(await asyncio.gather(approve('b'), approve('c')))",
        "task": "t = asyncio.create_task(approve('d')); await asyncio.sleep(0); out.append(await t)",
        "call": "out.append(add(len(out)))",
        "sleep": "await asyncio.sleep(0.001)",
        "generator": "out.extend([x async for x in gen()])",
    }
    body = "".join(f"    {lines[part]}\n" for part in parts)
    gen = "async def gen():\n    yield 1\n    yield await approve('e')\n"
    program = f"import asyncio\nout = []\n{gen}async def main():\n{body}    return out\nawait main()"
    answers = iter(data.draw(st.lists(st.booleans(), min_size=40, max_size=40)))
    drawn: list[bool] = []

    def run(dumps: bool, given: Iterator[bool]) -> Any:
        with box.session() as session:
            found: CodeResult | Paused = session.start(program)
            while isinstance(found, Paused):
                waiting = box.load_paused(found.dump()) if dumps else found
                chosen = {}
                for call in waiting.calls:
                    value = next(given)
                    drawn.append(value)
                    chosen[call.id] = value
                found = waiting.resume(chosen)
            return ended(found).value

    plain = run(False, answers)
    assert run(True, iter(list(drawn))) == plain
