"""Short calls of a session: on the caller's thread, without a checkpoint after each, and taken back all the same."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, Limits, Sandbox
from wasm_sandbox.engine.run.kept import MOST_SHORT_CALLS, KeptGuest
from wasm_sandbox.engine.run.point import GuestMemory
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.sandbox.session import Session
from wasm_sandbox.switches import engine_is_plain

if TYPE_CHECKING:
    from wasm_sandbox.sandbox.keepers import OnThreads

pytestmark = pytest.mark.skipif(sys.platform != "linux" or engine_is_plain(), reason="every call is made on a thread")


class Submitted:
    """Listener that counts the calls that went to a thread for guests, and the checkpoints."""

    def __init__(self) -> None:
        self.calls = self.checkpoints = 0

    def began(self, mark: Mark) -> None:
        """Count it."""
        self.calls += mark.name == "submit"
        self.checkpoints += mark.name == "checkpoint"

    def ended(self, mark: Mark) -> None:
        """Nothing to note."""


@pytest.fixture
def untended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody take checkpoints between calls, as if the next call always came first."""
    leave_untended(monkeypatch)


def leave_untended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KeptGuest, "wants_tending", lambda _: False)
    patch.setattr(KeptGuest, "pack", lambda *_: 0)


@pytest.fixture
def session() -> Iterator[Session]:
    with Sandbox(files={}).session() as made:
        begin(made)
        yield made


def begin(session: Session) -> None:
    """Make calls until the next one is expected to be short: the first has much to do."""
    for _ in range(2):
        assert session.run_code("n = 0").error is None


def threads_taken(session: Session, code: str) -> int:
    heard = Submitted()
    with listening(heard):
        assert session.run_code(code).error is None
    return heard.calls


# --- Which calls are short ------------------------------------------------------------------------------------------


def test_a_short_call_after_a_short_one_is_made_on_the_callers_thread(session: Session) -> None:
    heard = Submitted()
    with listening(heard):
        values = [session.run_code("n += 1\nn").value for _ in range(5)]
    assert (values, heard.calls) == ([1, 2, 3, 4, 5], 0)


@pytest.mark.parametrize(
    "code",
    [
        "n += 1\nsum(range(1_000_000))\nn",
        "n += 1\nimport time; time.sleep(0.01)\nn",
        "n += 1\ncall()\nn",
        "n += 1\nimport asyncio\nasync def later():\n    await asyncio.sleep(0.01)\nawait later()\nn",
        "n += 1\nimport os\nos.urandom(200_000)\nn",
        "n += 1\nimport time\ntime.time()\nn",
        "n += 1\nprint(n)\nn",
        "n += 1\nopen('/tmp/x', 'w').write('x')\nn",
        "n += 1\nkept = [bytes(1 << 20) for _ in range(20)]\nn",
        "n += 1\nnested = []\nfor _ in range(1500): nested = [nested]\nlen(repr(nested))\nn",
        "n += 1\ndisplay(n)\nn",
        "n += 1\nprogress(1, 2)\nn",
    ],
)
def test_what_turns_out_to_take_longer_or_to_reach_outside_is_made_once_all_the_same(code: str) -> None:
    called = list[int]()
    with Sandbox(functions=[noting(called)]).session() as session:
        begin(session)
        assert threads_taken(session, "n") == 0
        heard = Submitted()
        with listening(heard):
            result = session.run_code(code)
        assert (result.value, result.rolled_back, heard.calls) == (1, False, 1)
        assert len(called) == code.count("call()")
        assert [session.get("n") for _ in range(3)] == [1, 1, 1]
        assert threads_taken(session, "n") == 0, "short ones were made on a thread since"


def noting(called: list[int]) -> Any:
    def call() -> None:
        called.append(1)

    return call


def test_after_a_long_call_the_next_one_goes_to_a_thread_at_once(session: Session) -> None:
    long = "n += 1\nfor _ in range(100_000): pass"
    assert threads_taken(session, long) == 1
    heard = Submitted()
    with listening(heard):
        session.run_code(long)
    assert (heard.calls, session.get("n")) == (1, 2)


@pytest.mark.parametrize(
    "options",
    [{"limits": Limits(fuel=None)}, {"limits": Limits(deterministic=True)}, {"limits": Limits(timeout_seconds=0.05)}],
    ids=["no fuel", "deterministic", "a deadline that is near"],
)
def test_what_nothing_would_end_or_would_not_be_the_same_goes_to_a_thread(options: dict[str, Any]) -> None:
    with Sandbox(**options).session() as session:
        begin(session)
        assert threads_taken(session, "n") == 1


def test_events_are_told_by_calls_on_a_thread(session: Session) -> None:
    events: list[Any] = []
    heard = Submitted()
    with listening(heard):
        session.run_code("n", on_event=events.append)
    assert ([event.kind for event in events], heard.calls) == (["result"], 1)


def test_what_a_short_call_raises_is_told_as_ever(session: Session) -> None:
    """Its traceback goes to standard error, which is the host's: so the call is made once more, on a thread."""
    result = session.run_code("n += 1\n1 / 0")
    assert result.error is not None
    assert (result.error.exception_name, result.rolled_back, session.get("n")) == ("ZeroDivisionError", False, 1)
    assert result.stderr is not None
    assert result.stderr[-1].endswith("ZeroDivisionError: division by zero\n")


def test_those_that_are_tried_in_vain_become_rare(session: Session) -> None:
    """Every other call prints: it is tried again after twice as many short ones each time."""
    heard = Submitted()
    with listening(heard):
        for _ in range(40):
            session.run_code("print(n)")
            session.run_code("n += 1")
    assert heard.calls >= 78
    assert session.get("n") == 40


def test_the_limits_of_a_short_call_hold(session: Session) -> None:
    poor = session.run_code("n = 7", limits=Limits(fuel=1000))
    assert (poor.error and poor.error.kind, poor.rolled_back, session.get("n")) == (ErrorKind.OUT_OF_FUEL, True, 0)
    session.run_code("n")
    small = session.run_code("n = bytes(200 << 20)", limits=Limits(memory_bytes=64 << 20))
    assert small.error is not None
    begin(session)
    with pytest.raises(ValueError, match="memory_bytes"):
        session.run_code("n = 8", limits=Limits(memory_bytes=32 << 20))
    assert session.get("n") == 0
    assert session.run_code("n").usage is not None


# --- Taken back -----------------------------------------------------------------------------------------------------

CELLS = [
    "n += 1",
    "n = n * 3 % 1_000_003",
    "import random; seen.append(random.random())",
    "seen.append(hash(str(n)))",
    "import json; seen.append(json.dumps(seen[-3:], default=repr))",
    "seen.append({n: [n, str(n)], 'x': (n,)})",
    "seen.append(bytes(30_000))",
    "def f(k, d=n): return k + d\nseen.append(f(1))",
    "class A:\n    def __init__(self): self.n = n\nseen.append(A())",
    "seen.append(id(object()) + len(seen))",
    "seen[:] = sorted(map(str, seen))[:6]",
    "del seen[:-5]",
    "import gc; seen.append(gc.get_count())",
    "it = iter(range(n % 50)); seen.append(sum(it))",
    "n",
    "",
]
ENDS = {
    "out of fuel": "n = -1\nwhile True: pass",
    "exit": "n = -1\nimport os\nos._exit(3)",
    "out of memory": "n = -1\nseen = bytearray(1 << 40)\nkept = [bytearray(32 << 20) for _ in range(20)]",
    "stack overflow": "n = -1\nimport os\nos.abort()",
}


@pytest.mark.parametrize("count", [1, 5, MOST_SHORT_CALLS, 2 * MOST_SHORT_CALLS + 3])
@pytest.mark.usefixtures("untended")
def test_calls_that_are_made_anew_leave_the_same_memory_and_files_to_the_byte(session: Session, count: int) -> None:
    """What a guest is after calls that were made once more, against the guest that made them first."""
    session.run_code("seen = ['']")
    for number in range(count):
        session.run_code(CELLS[number % len(CELLS)])
    assert_same_when_made_anew(session)


def assert_same_when_made_anew(session: Session) -> None:
    """Compare what the guest is after short calls with what another one is that makes them once more."""
    kept = cast("OnThreads", session._kept)._kept
    with kept._lock:
        live = kept._guest
        assert live is not None
        assert live.files is not None
        again = kept._made_anew(kept._since) if kept._since else None
        if again is None:
            return
        try:
            assert differing(live.snapshot(), again.snapshot()) == []
            assert again.files is not None
            assert live.files.state() == again.files.state()
        finally:
            again.close()


@pytest.mark.long
@given(cells=st.lists(st.sampled_from(CELLS), min_size=1, max_size=12))
@settings(max_examples=30)
def test_any_calls_leave_the_same_when_they_are_made_anew(cells: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, Sandbox(files={}).session() as session:
        leave_untended(patch)
        begin(session)
        session.run_code("n, seen = 1, []")
        for cell in cells:
            assert not session.run_code(cell).rolled_back
        assert_same_when_made_anew(session)


def differing(first: GuestMemory, second: GuestMemory) -> list[int]:
    """Offsets of the pages at which two states of one image differ, of those that either may have changed."""
    assert (first.size, first.globals) == (second.size, second.globals)
    here, there = pages_of(first), pages_of(second)
    return sorted(at for at in here.keys() & there.keys() if here[at] != there[at])


def pages_of(memory: GuestMemory) -> dict[int, bytes]:
    return {offset + at: data[at : at + 4096] for offset, data in memory.changed for at in range(0, len(data), 4096)}


@pytest.mark.parametrize("end", sorted(ENDS))
@pytest.mark.usefixtures("untended")
def test_what_ends_the_guest_takes_back_its_own_call_alone(session: Session, end: str) -> None:
    for _ in range(7):
        session.run_code("n += 1")
    drawn = session.run_code("import random\ndrawn = random.random()\ndrawn").value
    ended = session.run_code(ENDS[end], limits=Limits(fuel=20_000_000))
    assert ended.error is not None
    assert session.run_code("(n, drawn)").value in ((7, drawn), (-1, drawn))
    assert (session.get("n") == 7) == ended.rolled_back


@pytest.mark.usefixtures("untended")
def test_a_fork_a_point_and_bytes_have_the_short_calls_too(session: Session) -> None:
    for _ in range(3):
        session.run_code("n += 1")
    point = session.checkpoint()
    session.run_code("n += 1")
    with session.fork() as twin:
        session.run_code("n += 1")
        assert (twin.get("n"), session.get("n")) == (4, 5)
    blob = session.dump()
    session.rollback(point)
    assert session.get("n") == 3
    with Sandbox(files={}).load_session(blob) as loaded:
        assert loaded.get("n") == 5


def test_a_checkpoint_is_taken_in_a_moment_when_nobody_calls(session: Session) -> None:
    heard = Submitted()
    with listening(heard):
        session.run_code("n += 1")
        until = time.monotonic() + 10
        while not heard.checkpoints and time.monotonic() < until:
            time.sleep(0.005)
    assert heard.checkpoints == 1


def test_many_short_calls_have_one_checkpoint_for_many(session: Session) -> None:
    heard = Submitted()
    with listening(heard):
        for _ in range(MOST_SHORT_CALLS):
            session.run_code("n += 1")
    assert heard.checkpoints < MOST_SHORT_CALLS / 2


# --- On the caller's thread -----------------------------------------------------------------------------------------


def test_calls_of_many_threads_follow_one_another(session: Session) -> None:
    def count() -> None:
        for _ in range(50):
            assert session.run_code("n += 1").error is None

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.get("n") == 300


def test_sessions_of_many_threads_go_on_beside_each_other() -> None:
    found = []

    def count() -> None:
        with Sandbox().session() as own:
            begin(own)
            for _ in range(40):
                own.run_code("n += 1")
            found.append(own.get("n"))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [40] * 8


def test_a_guest_that_recurses_needs_nothing_of_a_small_stack() -> None:
    program = """
        import threading
        from wasm_sandbox import Sandbox
        with Sandbox().session() as session:
            session.run_code("import json")
            session.run_code("nested = []\\nfor _ in range(1500): nested = [nested]")
            session.run_code("n = 0")
            session.run_code("n = 0")
            found = []
            def deep():
                found.append(len(session.run_code("n += 1\\nrepr(nested)").value))
                found.append(session.run_code("import json\\njson.loads('[' * 900 + ']' * 900)[:0]").value)
                found.append(session.run_code("def f(k): return k and f(k - 1)\\nf(900)").value)
            threading.stack_size(64 << 10)
            thread = threading.Thread(target=deep)
            thread.start()
            thread.join()
            print(found, session.get("n"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[3002, [], 0] 1", 0), done.stderr


ALARMS = """
from tests.support.alarms import Alarms
from wasm_sandbox import Sandbox

alarms = Alarms()
with Sandbox(files={}).session() as session:
    for _ in range(2):
        session.run_code("n = 0")
    answered = 0
    alarms.start()
    for number in range(150):
        seconds = 0.00002 + 0.000011 * (number % 40)
        answered += alarms.within(seconds, lambda: session.run_code("n += 1")) is not None
    alarms.stop()
    print(answered, alarms.interrupted, session.get("n"), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms")
def test_an_alarm_at_any_moment_leaves_a_session_that_counts_right() -> None:
    """Each call that was interrupted has happened or not, and no other one is lost or made twice.

    In a process of its own: an alarm may fall into the start of a thread, or a finalizer, which Python tells of later.
    """
    done = subprocess.run([sys.executable, "-c", ALARMS], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    answered, interrupted, count = map(int, done.stdout.split())
    assert answered <= count <= answered + interrupted
    assert interrupted


def test_a_session_is_called_from_a_host_function_of_another(session: Session) -> None:
    def inner() -> int:
        return int(session.run_code("n += 1\nn").value)

    with Sandbox(functions=[inner]).session() as outer:
        assert [outer.run_code("inner()").value for _ in range(3)] == [1, 2, 3]


# --- Code that is kept ----------------------------------------------------------------------------------------------


def test_the_same_source_again_is_told_under_its_own_name(session: Session) -> None:
    found = [session.run_code("n / 0").error for _ in range(3)]
    names = [re.findall("<cell [0-9]+>", error.traceback or "") for error in found if error]
    assert [len(name) for name in names] == [1, 1, 1]
    assert len({name for found in names for name in found}) == 3


def test_the_same_source_means_what_its_futures_say(session: Session) -> None:
    assert session.run_code("a: int = 1\n__annotations__['a']").value is None
    session.run_code("from __future__ import annotations")
    assert session.run_code("a: int = 1\n__annotations__['a']").value == "int"


def test_more_sources_than_are_kept_give_their_values(session: Session) -> None:
    for _ in range(2):
        assert [session.run_code(f"{number} + n").value for number in range(70)] == [*range(70)]
