"""Native threads after monkey patching (gevent 1812, 786; foundationdb 228): no deadline, and the process stood still.

With green threads in the place of native ones guests are refused, in words that say how; with native ones deadlines
hold, and the other greenlets go on while a call waits. With both libraries (dependency group ``green``).
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

LIBRARIES = {
    "gevent": (
        "from gevent import monkey; monkey.patch_all({options})",
        "import gevent; spawn, pause, join = gevent.spawn, gevent.sleep, lambda one: one.get()",
    ),
    "eventlet": (
        "import eventlet; eventlet.monkey_patch({options})",
        "import eventlet; spawn, pause, join = eventlet.spawn, eventlet.sleep, lambda one: one.wait()",
    ),
}
TOOLS = """
import threading, time
from wasm_sandbox import HostError, Limits, Sandbox, Tool, run_code, run_tool
endless = Tool.from_source("def f():\\n    while True: pass\\n")
short = Limits(timeout_seconds=0.5, fuel=None)
"""
REFUSED = """
for call in (lambda: run_tool(endless, limits=short), lambda: run_code("1"), lambda: Sandbox().session().run_code("1"),
             lambda: run_tool(endless, limits=short, isolation="process")):
    try:
        call()
    except HostError as error:
        assert "thread=False" in str(error), error
    else:
        raise SystemExit("it was not refused")
print("refused")
"""
GOES_ON = """
run_tool(Tool.from_source("def f(): return 1"))
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        pause(0.01)
ticking = spawn(tick)
pause(0)
for call in (lambda: run_tool(endless, limits=short), lambda: run_code("while True: pass", limits=short),
             lambda: Sandbox(limits=short).session().run_code("while True: pass"),
             lambda: run_tool(endless, limits=short, isolation="process")):
    before = len(ticks)
    calls = [spawn(call) for _ in range(2)]
    results = [join(one) for one in calls]
    assert {str(result.error.kind.value) for result in results} == {"timeout"}, results
    assert len(ticks) - before > 5, len(ticks) - before
print("went on")
"""
FILTER = "import warnings; warnings.simplefilter('ignore')\n"


def run(library: str, options: str, program: str) -> str:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install --group green")
    patch, names = LIBRARIES[library]
    text = FILTER + "\n".join([patch.format(options=options), names, TOOLS, program])
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("library", LIBRARIES)
def test_green_threads_in_the_place_of_native_ones_are_refused_at_once(library: str) -> None:
    assert run(library, "", REFUSED) == "refused\n"


@pytest.mark.parametrize("library", LIBRARIES)
def test_beside_native_threads_deadlines_hold_and_other_greenlets_go_on(library: str) -> None:
    options = "thread=False, subprocess=False" if library == "gevent" else "thread=False"
    assert run(library, options, GOES_ON) == "went on\n"


def test_a_worker_that_only_green_threads_can_start_is_refused() -> None:
    program = """
try:
    run_tool(endless, limits=short, isolation="process")
except HostError as error:
    print("subprocess=False" in str(error))
print(run_tool(endless, limits=short).error.kind.value)
"""
    assert run("gevent", "thread=False", program) == "True\ntimeout\n"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_only_imported_changes_nothing(library: str) -> None:
    module = LIBRARIES[library]
    program = TOOLS + "print(run_tool(endless, limits=short).error.kind.value)"
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install --group green")
    text = f"{FILTER}{module[1]}\n{program}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "timeout\n"), done.stderr
