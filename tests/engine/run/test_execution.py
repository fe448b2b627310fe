"""One run: how it ends, what it used, what it left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.usage import counted
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.memory.base import MemoryKind
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.files import GivenFiles, HostDir
from wasm_sandbox.limits import MIB, Limits
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest

RunScript = Callable[..., Outcome]


def ending(outcome: Outcome) -> str:
    return outcome.ending.name


# -- ends by itself -------------------------------------------------------------------------------


def test_a_script_that_ends_has_exit_code_0(run_script: RunScript) -> None:
    outcome = run_script("print('hello')")
    assert (ending(outcome), outcome.exit_code, outcome.stdout, outcome.stderr) == (
        "EXITED",
        0,
        b"hello\n",
        b"",
    )


@pytest.mark.parametrize(
    ("script", "code", "stderr"),
    [
        ("import sys; sys.exit(3)", 3, b""),
        ("import sys; sys.exit()", 0, b""),
        ("import sys; sys.exit('no luck')", 1, b"no luck\n"),
        ("import os; os._exit(4)", 4, b""),
        ("raise SystemExit(5)", 5, b""),
    ],
)
def test_the_exit_code_is_the_scripts(run_script: RunScript, script: str, code: int, stderr: bytes) -> None:
    outcome = run_script(script)
    assert (ending(outcome), outcome.exit_code, outcome.stderr, outcome.exception) == (
        "EXITED",
        code,
        stderr,
        None,
    )


def test_exit_functions_run(run_script: RunScript) -> None:
    assert run_script("import atexit; atexit.register(print, 'bye'); print('hi')").stdout == b"hi\nbye\n"


def test_an_uncaught_exception_is_reported_out_of_band_and_on_stderr(run_script: RunScript) -> None:
    outcome = run_script("def f(x):\n    return 1 / x\nprint('before')\nf(0)\n")
    assert outcome.exit_code == 1
    assert outcome.stdout == b"before\n"
    assert outcome.exception is not None
    assert (outcome.exception.name, outcome.exception.message) == ("ZeroDivisionError", "division by zero")
    assert outcome.exception.traceback.encode() == outcome.stderr
    assert 'File "script.py", line 2, in f\n    return 1 / x' in outcome.exception.traceback


@pytest.mark.parametrize(
    ("statement", "name", "message"),
    [
        ("raise ValueError", "ValueError", ""),
        ("raise ValueError('a\\nb\\nc\\nd')", "ValueError", "a\nb\nc\nd"),
        ("class Boom(Exception): pass\nraise Boom('b')", "Boom", "b"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise BaseExceptionGroup('g', [KeyError(1)])", "ExceptionGroup", "g (1 sub-exception)"),
        ("class E(Exception):\n  def __str__(self): 1 / 0\nraise E", "E", "<exception str() failed>"),
        ("raise ValueError('\\ud800')", "ValueError", "\\ud800"),
        ("e = ValueError('x'); e.__cause__ = e; raise e", "ValueError", "x"),
        ("import builtins, traceback, sys\ntraceback.TracebackException = None\nbuiltins.str = None\n1/0",
         "ZeroDivisionError", None),
    ],
)  # fmt: skip
def test_every_exception_is_described(run_script: RunScript, statement: str, name: str, message: str | None) -> None:
    outcome = run_script(statement)
    assert outcome.exception is not None
    assert outcome.exception.name == name
    assert message is None or outcome.exception.message == message


def test_a_scripts_own_excepthook_is_used(run_script: RunScript) -> None:
    outcome = run_script("import sys\nsys.excepthook = lambda kind, e, tb: print('hook', e)\nraise ValueError('v')")
    assert (outcome.stdout, outcome.stderr) == (b"hook v\n", b"")
    assert outcome.exception is not None


def test_a_script_that_does_not_compile_is_reported(run_script: RunScript) -> None:
    outcome = run_script("x = = 1")
    assert outcome.exception is not None
    assert outcome.exception.name == "SyntaxError"
    assert not outcome.exception.traceback.startswith("Traceback")
    assert run_script("x = 1\0").exception is not None


# -- a fresh instance -------------------------------------------------------------------------------


def test_nothing_of_one_run_is_there_in_the_next(run_script: RunScript) -> None:
    poison = (
        "import builtins, json, sys\nbuiltins.len = None\njson.dumps = None\nsys.modules['os'] = None\nsys.leak = 1"
    )
    assert run_script(poison).exit_code == 0
    check = "import json, os, sys\nprint(len('ab'), json.dumps(1), hasattr(sys, 'leak'), os.name)"
    assert run_script(check).stdout == b"2 1 False posix\n"


def test_the_environment_is_exactly_the_one_given(run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "s3cret")
    script = "import os, posix\nprint(sorted(os.environ.items()), len(posix.environ), os.getenv('B'))"
    assert run_script(script).stdout == b"[] 0 None\n"
    outcome = run_script(script, {"A": "1", "B": "ü = \n", "EMPTY": ""})
    assert outcome.stdout.decode() == "[('A', '1'), ('B', 'ü = \\n'), ('EMPTY', '')] 3 ü = \n\n"


def test_random_numbers_differ_and_clocks_move_between_runs(run_script: RunScript) -> None:
    script = (
        "import random, secrets, time, uuid; print(random.random(), secrets.token_hex(), uuid.uuid4(), time.time())"
    )
    first, second = (run_script(script).stdout.split() for _ in range(2))
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert abs(float(second[3]) - time.time()) < 60


def test_hashes_are_the_same_in_every_run(run_script: RunScript) -> None:
    assert run_script("print(hash('a'))").stdout == run_script("print(hash('a'))").stdout


# -- limits -----------------------------------------------------------------------------------------


def test_an_endless_loop_runs_out_of_fuel(run_script: RunScript) -> None:
    outcome = run_script("print('started')\nwhile True: pass", fuel=100_000_000)
    assert (ending(outcome), outcome.fuel, outcome.stdout) == ("OUT_OF_FUEL", 100_000_000, b"started\n")


@pytest.mark.parametrize(
    "script",
    [
        "while True: pass",
        "sum(range(10**12))",
        "import time; time.sleep(3600 * 24 * 365 * 290)",
        "import asyncio; asyncio.run(asyncio.sleep(1e9))",
        "import select, time\nwhile True: time.sleep(0)",
        "while True: print('x' * 1000)",
        "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')",
        "pow(3, 10**9)",
        "def f():\n  while True:\n    try: time.sleep(1)\n    except BaseException: pass\nimport time\nf()",
        "import os\nwhile True: os.urandom(1 << 20)",
        "import os; os.urandom(200_000_000); os.urandom(200_000_000); os.urandom(200_000_000)\nwhile True: pass",
    ],
)
def test_the_deadline_ends_whatever_the_guest_does(run_script: RunScript, script: str) -> None:
    outcome = run_script(
        f"import sys\nsys.stdout.write('started\\n')\n{script}", timeout_seconds=0.3, memory_bytes=1024 * MIB
    )
    assert ending(outcome) == "DEADLINE"
    assert outcome.stdout.startswith(b"started")
    assert 0.3 <= outcome.wall_seconds < 3  # not a measurement: it did end


class _StuckSurroundings(LiveSurroundings):
    """As if a guest got no turn on a processor: a host call of it does not come back."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = threading.Event()

    def entropy(self, size: int) -> bytes:
        if size == 7:
            self.turn.wait(30)
        return bytes(size)


@pytest.mark.parametrize("mounted", [False, True])
def test_nobody_waits_at_the_deadline_until_the_guest_gets_a_turn_unless_it_may_change_a_mount(
    mounted: bool, tmp_path: Path
) -> None:
    if process_engine().image().memory.kind is not MemoryKind.KEPT and not mounted:
        pytest.skip("the guest's memory is wasmtime's: its outcome is known when it has stopped")
    surroundings = _StuckSurroundings()
    request = ExecutionRequest(
        "import os\nprint('before', flush=True)\nos.urandom(7)\nprint('after', flush=True)",
        {},
        Limits(timeout_seconds=0.3),
        given=GivenFiles({}, {"/d": HostDir(tmp_path)}) if mounted else None,
    )
    future = process_engine().start(request, surroundings)
    try:
        time.sleep(1)
        assert future.done() is not mounted
    finally:
        surroundings.turn.set()
    outcome = future.result(timeout=10)
    assert (ending(outcome), outcome.stdout) == ("DEADLINE", b"before\n")
    assert outcome.fuel
    assert outcome.memory_bytes


def test_memory_stops_at_its_ceiling_and_the_guest_can_cope(run_script: RunScript) -> None:
    script = """
held = []
try:
    while True:
        held.append(bytearray(1 << 20))
except MemoryError:
    count = len(held)
    held = None
print(count < 128, "alive")
"""
    outcome = run_script(script, memory_bytes=128 * MIB)
    assert outcome.stdout == b"True alive\n"
    assert 100 * MIB < outcome.memory_bytes <= 128 * MIB


@pytest.mark.parametrize(
    "script",
    [
        "bytearray(10**9)",
        "[0] * 10**9",
        "x = []\nwhile True: x.append(bytearray(1 << 16))",
        "x = []\nwhile True: x.append(object())",
        "x = {}\nwhile True: x[len(x)] = str(len(x))",
        "'a' * 10**9",
    ],
)
def test_memory_that_is_not_there_is_a_memory_error(run_script: RunScript, script: str) -> None:
    outcome = run_script(script, memory_bytes=96 * MIB)
    assert outcome.exception is not None
    assert outcome.exception.name == "MemoryError"
    assert outcome.memory_bytes <= 96 * MIB


def test_output_past_the_cap_is_dropped_and_counted(run_script: RunScript) -> None:
    outcome = run_script(
        "import sys\nfor _ in range(50): sys.stdout.write('x' * 1_000_000); sys.stderr.write('y' * 1_000_000)",
        output_bytes=10_000,
        result_bytes=1_000,
    )
    assert ending(outcome) == "EXITED"
    assert len(outcome.stdout) + outcome.stdout_dropped_bytes == 50_000_000
    assert (len(outcome.stderr), outcome.stderr_dropped_bytes) == (10_000, 49_990_000)
    assert len(outcome.stdout) < 100_000


def test_usage_counts_fuel_and_memory(run_script: RunScript) -> None:
    small, large = run_script("pass"), run_script("x = bytearray(50_000_000)\nfor _ in range(100_000): pass")
    assert 0 < counted(small.fuel) < counted(large.fuel)
    assert large.memory_bytes - small.memory_bytes >= 45_000_000


# -- recursion ----------------------------------------------------------------------------------------

NESTED_LIST = "l = []\nfor _ in range(100_000): l = [l]\n"

COUNTED_RECURSION = {
    "python": "def f(n): return f(n + 1)\nf(0)",
    "python, limit raised": "import sys; sys.setrecursionlimit(10**6)\ndef f(n): return f(n + 1)\nf(0)",
    "__getattr__": "class A:\n  def __getattr__(s, n): return getattr(s, n + 'x')\nA().q",
    "__getattr__, limit raised": "import sys; sys.setrecursionlimit(10**6)\n"
    "class A:\n  def __getattr__(s, n): return getattr(s, n)\nA().q",
    "sorted key, limit raised": "import sys; sys.setrecursionlimit(10**6)\n"
    "def s(): return sorted([1, 2], key=lambda x: s())\ns()",
    "repr": NESTED_LIST + "repr(l)",
    "json.dumps": NESTED_LIST + "import json; json.dumps(l)",
    "json.loads": "import json; json.loads('[' * 100_000)",
    "pickle": NESTED_LIST + "import pickle; pickle.dumps(l)",
    "compile": "compile('-' * 100_000 + '1', 'f', 'eval')",
    "compile, parentheses": "compile('(' * 3000 + '1' + ')' * 3000, 'f', 'eval')",
    "compile, attributes": "compile('x' + '.a' * 50_000, 'f', 'eval')",
    "regular expression": "import re; re.compile('(' * 6000 + ')' * 6000)",
    "__eq__": "class B:\n  def __eq__(s, o): return s == o\nB() == 1",
    "__repr__": "class B:\n  def __repr__(s): return repr(s) + 'x'\nrepr(B())",
    "format": "class B:\n  def __format__(s, f): return format(s, f)\nformat(B())",
    "map": "def m(): return list(map(lambda x: m(), [1]))\nm()",
    "pydantic": "from pydantic import BaseModel\nclass N(BaseModel):\n  c: 'N | None' = None\n"
    "n = N()\nfor _ in range(3000): n = N.model_construct(c=n)\nrepr(n)",
    "deallocation": NESTED_LIST + "del l\nt = ()\nfor _ in range(300_000): t = (t,)\ndel t",
    "exception chain": "def f(n):\n  try: raise ValueError(n)\n  except ValueError: f(n + 1)\nf(0)",
}


@pytest.mark.parametrize("script", COUNTED_RECURSION.values(), ids=COUNTED_RECURSION.keys())
def test_deep_recursion_raises_inside_the_guest(run_script: RunScript, script: str) -> None:
    """CPython's own counters are set for the stack that the engine gives: nothing here may trap."""
    body = script.replace("\n", "\n    ")
    outcome = run_script(
        f"try:\n    {body}\nexcept (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:\n"
        "    print(type(error).__name__)\nelse:\n    print('fine')"
    )
    assert ending(outcome) == "EXITED", outcome.detail
    assert outcome.exit_code == 0, outcome.stderr.decode()


@pytest.mark.parametrize(
    "script",
    [
        "t = ()\nfor _ in range(600_000): t = (t,)\nhash(t)",
        "g = iter([1])\nfor _ in range(200_000): g = map(int, g)\nlist(g)",
        "import itertools\ng = iter([1])\nfor _ in range(200_000): g = itertools.chain(g)\nlist(g)",
    ],
)
def test_recursion_that_cpython_does_not_count_is_a_contained_stack_overflow(
    run_script: RunScript, script: str
) -> None:
    assert ending(run_script(script)) == "STACK_OVERFLOW"
    assert run_script("print('next')").stdout == b"next\n"


# -- cancelling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["while True: pass", "import time; time.sleep(3600)"])
def test_a_cancelled_guest_ends(script: str) -> None:
    surroundings = LiveSurroundings()
    future = process_engine().start(ExecutionRequest(script, {}, Limits(timeout_seconds=60)), surroundings)
    time.sleep(0.1)
    surroundings.cancel()
    assert future.result(timeout=10).ending.name == "CANCELLED"


def test_a_guest_cancelled_before_it_starts_never_runs() -> None:
    surroundings = LiveSurroundings()
    surroundings.cancel()
    outcome = process_engine().start(ExecutionRequest("print(1)", {}, Limits()), surroundings).result()
    assert (outcome.ending.name, outcome.stdout) == ("CANCELLED", b"")


# -- many at once -----------------------------------------------------------------------------------------


def test_concurrent_guests_each_get_their_own_end() -> None:
    """Every way to end at once, several times over: none may take another's outcome."""
    kinds = {
        "print({n})": "EXITED",
        "raise ValueError({n})": "EXITED",
        "import os; print({n}); os._exit({n})": "EXITED",
        "while True: pass  # {n}": "DEADLINE",
        "import time; time.sleep(60)  # {n}": "DEADLINE",
        "t = ()  # {n}\nfor _ in range(600_000): t = (t,)\nhash(t)": "STACK_OVERFLOW",
    }
    limits = Limits(timeout_seconds=3)
    runs = [
        (
            n,
            script,
            expected,
            process_engine().start(ExecutionRequest(script.format(n=n), {}, limits), LiveSurroundings()),
        )
        for n, (script, expected) in enumerate(list(kinds.items()) * 8)
    ]
    for n, script, expected, future in runs:
        outcome = future.result(timeout=60)
        assert (ending(outcome) == expected) or (ending(outcome) == "DEADLINE"), (script, outcome)
        if script == "print({n})":
            assert outcome.stdout == f"{n}\n".encode()
        if script.startswith("raise"):
            assert outcome.exception is not None
            assert outcome.exception.message == str(n)
        if "_exit" in script:
            assert outcome.exit_code == n
