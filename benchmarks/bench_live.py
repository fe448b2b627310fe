"""Calls of host functions, and sessions: round trips, many at once, cells, checkpoints, forks, bytes, memory."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from live_peers import CALLS, SMALL, TOGETHER, add, add_later, one_cell, one_fork, one_of
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox import AsyncSandbox, Sandbox, Session
from wasm_sandbox.bench.contenders import OURS
from wasm_sandbox.bench.harness import ForeignContenders, HarnessError
from wasm_sandbox.bench.measure import Absent, LocalContender, Series, TimedContender, side_by_side
from wasm_sandbox.cli.bench import PEERS_VARIABLE
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.sandbox.session import PACK_SECONDS, REST_SECONDS

ROUNDS = int(os.environ.get("WASM_SANDBOX_BENCH_ROUNDS", "60"))

SESSIONS = 200
"""Live sessions whose memory is measured."""

FUNCTIONS = [add, add_later]
LARGE = "rows = [str(n) * 3 for n in range(150_000)]; raw = bytes(2 << 20)"
LOOP = f"for n in range({CALLS}): add(1, 2)"
GATHER = f"import asyncio\nawait asyncio.gather(*(add_later(n, 2) for n in range({TOGETHER})))"


def run_in(box: Sandbox) -> Callable[[str], None]:
    """Run a program in a box, and see that it succeeds."""

    def run(code: str) -> None:
        result = box.run_code(code)
        assert result.error is None, result.error

    return run


def bench_live(benchmark: BenchmarkFixture) -> None:
    """Each job by everyone in turns; the peers are those of live_peers.py."""
    run = run_in(Sandbox(functions=FUNCTIONS))
    apart = run_in(Sandbox(functions=FUNCTIONS, isolation="process"))
    session, large = (Sandbox(functions=FUNCTIONS).session() for _ in range(2))
    session.run_code(SMALL)
    large.run_code(f"{SMALL}\n{LARGE}")
    contenders: list[LocalContender | TimedContender] = [
        TimedContender("call", OURS, lambda: one_of(run, LOOP, "1", CALLS)),
        TimedContender("call", f"{OURS}, in a worker process", lambda: one_of(apart, LOOP, "1", CALLS)),
        TimedContender("gather", OURS, lambda: one_of(run, GATHER, "import asyncio", TOGETHER)),
        TimedContender("cell", OURS, lambda: one_cell(session.run_code)),
        LocalContender("cell", f"{OURS}, one after a rest", lambda: session.run_code("x + 1")),
        TimedContender("checkpoint", OURS, lambda: one_checkpoint(session)),
        TimedContender("fork", OURS, lambda: a_fork(session)),
        TimedContender("fork", f"{OURS}, with 10 MB in it", lambda: a_fork(large)),
        LocalContender("dump", OURS, session.dump, f"{len(session.dump()):,} bytes"),
    ]
    absent: list[Absent] = []
    with session, large:
        series = _measured(benchmark, contenders, absent)
    print()
    for found in series:
        took = f"{found.median * 1e6:9.1f} µs, at least {found.minimum * 1e6:.1f}"
        print(f"{found.job:10} {found.contender:36} {took} {found.note}")
    for missing in absent:
        print(f"not measured: {missing.contender}: {missing.reason}")


class _Checkpoints:
    """Listener to checkpoints, which are taken after a cell's result was handed over."""

    seconds = 0.0

    def began(self, mark: Mark) -> None:
        """Nothing to note."""

    def ended(self, mark: Mark) -> None:
        """Keep how long a checkpoint took."""
        if mark.name == "checkpoint":
            self.seconds = (mark.ended_ns - mark.began_ns) / 1e9


def one_checkpoint(session: Session) -> float:
    """Seconds of the checkpoint after a cell."""
    heard = _Checkpoints()
    with listening(heard):
        session.run_code("x + 1")
        session.checkpoint()  # waits for it
    return heard.seconds


def a_fork(session: Session) -> float:
    """Seconds of a fork and its first cell."""
    return one_fork(session.fork, lambda twin: twin.run_code("x"), Session.close)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is asked of /proc")
def bench_memory_of_sessions(benchmark: BenchmarkFixture) -> None:
    """Private memory of live sessions that have run a small program, with their checkpoints."""
    box = Sandbox()

    def private() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) << 10

    def measure() -> dict[str, float]:
        before, sessions = private(), [box.session() for _ in range(SESSIONS)]
        for session in sessions:
            session.run_code(SMALL)
        called = private()
        time.sleep(PACK_SECONDS + 2)
        live = private()
        time.sleep(REST_SECONDS)
        at_rest = private()
        for session in sessions:
            session.close()
        states = {"called just now": called, "live": live, "at rest": at_rest}
        return {state: (found - before) / SESSIONS for state, found in states.items()}

    print()
    for state, each in benchmark.pedantic(measure, rounds=1).items():
        print(f"a session that is {state}: {each / 1024:.0f} KiB, {(1 << 30) / each:.0f} per GiB")


def _measured(
    benchmark: BenchmarkFixture, contenders: list[LocalContender | TimedContender], absent: list[Absent]
) -> list[Series]:
    python = os.environ.get(PEERS_VARIABLE)
    if not python:
        absent.append(Absent("the peers", f"{PEERS_VARIABLE} names no Python that has them (benchmarks/README.md)"))
        return _of(benchmark.pedantic(side_by_side, (contenders, ROUNDS), rounds=1), absent)
    try:
        foreign = ForeignContenders(Path(python), Path(__file__).with_name("live_peers.py"))
    except HarnessError as error:
        pytest.skip(str(error))
    with foreign:
        absent += foreign.absent
        return _of(benchmark.pedantic(side_by_side, ([*contenders, *foreign.contenders], ROUNDS), rounds=1), absent)


def _of(found: tuple[list[Series], list[Absent]], absent: list[Absent]) -> list[Series]:
    series, failed = found
    absent += failed
    return sorted(series, key=lambda one: one.job)


def bench_a_run_that_could_call(benchmark: BenchmarkFixture) -> None:
    """A run with functions that it does not call, beside one without any."""
    with_functions, without = run_in(Sandbox(functions=FUNCTIONS)), run_in(Sandbox())
    contenders = [
        LocalContender("run", "could call", lambda: with_functions("1")),
        LocalContender("run", "could not", lambda: without("1")),
    ]
    series, _ = benchmark.pedantic(side_by_side, (contenders, 5 * ROUNDS), rounds=1)
    could, could_not = (one.median for one in series)
    more = 100 * (could / could_not - 1)
    print(f"\na run that could call: {could * 1e3:.3f} ms, {more:+.1f} % of one that could not")


def bench_async(benchmark: BenchmarkFixture) -> None:
    """Many at once, on the caller's own event loop."""
    box = AsyncSandbox(functions=FUNCTIONS)

    def run(code: str) -> None:
        result = asyncio.run(box.run_code(code))
        assert result.error is None, result.error

    contenders = [TimedContender("gather", OURS, lambda: one_of(run, GATHER, "import asyncio", TOGETHER))]
    series, _ = benchmark.pedantic(side_by_side, (contenders, ROUNDS), rounds=1)
    print(f"\ngather on the caller's loop: {series[0].median * 1e6:.1f} µs each")
