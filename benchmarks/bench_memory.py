"""Memory: private bytes of a live idle guest, and what stays resident after a thousand runs. Linux only."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox.bench.contenders import child_environment

GUESTS = 32
RUNS = 1000

_PRELUDE = """
import gc, json, time
from wasm_sandbox.bench.contenders import run_raw, run_generated, tool_script
from wasm_sandbox.limits import Limits
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.engine.world.surroundings import LiveSurroundings

def kilobytes(*names):
    found = {}
    for line in open("/proc/self/smaps_rollup"):
        name, _, rest = line.partition(":")
        if rest.endswith("kB\\n"):
            found[name] = int(rest.split()[0])
    return sum(found[name] for name in names)

def private():
    return kilobytes("Private_Clean", "Private_Dirty")
"""

_IDLE = f"""{_PRELUDE}
script = tool_script()
def idle(text):
    '''Guests that have done something and now sleep.'''
    worlds = [LiveSurroundings() for _ in range({GUESTS})]
    engine = process_engine()
    before = private()
    futures = [engine.start(ExecutionRequest(text, {{}}, Limits()), world) for world in worlds]
    time.sleep(1.5)
    assert engine.running_guests == {GUESTS}
    after = private()
    for world in worlds:
        world.cancel()
    for future in futures:
        future.result()
    time.sleep(0.2)
    return (after - before) / {GUESTS}

idle("import time; time.sleep(60)")  # makes the threads
print(json.dumps({{
    "idle": idle("import time; time.sleep(60)"),
    "after a tool": idle(script.text + "\\nimport time; time.sleep(60)\\n"),
}}))
"""

_SEQUENCE = f"""{_PRELUDE}
script = tool_script()
resident = {{}}
for number in range(1, {RUNS} + 1):
    run_generated(script)
    if number in (50, 250, 500, {RUNS}):
        gc.collect()
        resident[number] = kilobytes("Rss")
print(json.dumps(resident))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps_rollup, which is Linux's")


def _child(program: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=child_environment()
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


def bench_private_memory_of_an_idle_guest(benchmark: BenchmarkFixture) -> None:
    """Private memory of the process with sleeping guests, per guest, in a process of its own."""
    found = benchmark.pedantic(_child, (_IDLE,), rounds=1)
    benchmark.extra_info |= found
    print()
    for what, size in found.items():
        print(f"{what}: {size / 1024:.2f} MB of private memory per live guest ({GUESTS} of them)")


def bench_resident_memory_over_many_runs(benchmark: BenchmarkFixture) -> None:
    """Resident memory after so many sequential runs, relative to where it was after 50."""
    found = benchmark.pedantic(_child, (_SEQUENCE,), rounds=1)
    benchmark.extra_info |= found
    print()
    for runs, size in found.items():
        print(f"after {runs} runs {size / 1024:.1f} MB resident ({size / found['50'] - 1:+.1%})")
