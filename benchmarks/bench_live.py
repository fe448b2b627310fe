"""Calls of host functions and cells of sessions: a round trip, many at once, a run that could call and does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from live_peers import CALLS, TOGETHER, add, add_later, one_cell, one_of
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox import AsyncSandbox, Sandbox
from wasm_sandbox.bench.contenders import OURS
from wasm_sandbox.bench.harness import ForeignContenders, HarnessError
from wasm_sandbox.bench.measure import Absent, LocalContender, Series, TimedContender, side_by_side
from wasm_sandbox.cli.bench import PEERS_VARIABLE

ROUNDS = int(os.environ.get("WASM_SANDBOX_BENCH_ROUNDS", "60"))

FUNCTIONS = [add, add_later]
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
    session = Sandbox(functions=FUNCTIONS).session()
    session.run_code("x = 1")
    contenders: list[LocalContender | TimedContender] = [
        TimedContender("call", OURS, lambda: one_of(run, LOOP, "1", CALLS)),
        TimedContender("call", f"{OURS}, in a worker process", lambda: one_of(apart, LOOP, "1", CALLS)),
        TimedContender("gather", OURS, lambda: one_of(run, GATHER, "import asyncio", TOGETHER)),
        TimedContender("cell", OURS, lambda: one_cell(session.run_code)),
    ]
    absent: list[Absent] = []
    with session:
        series = _measured(benchmark, contenders, absent)
    print()
    for found in series:
        took = f"{found.median * 1e6:9.1f} µs, at least {found.minimum * 1e6:.1f}"
        print(f"{found.job:8} {found.contender:32} {took} {found.note}")
    for missing in absent:
        print(f"not measured: {missing.contender}: {missing.reason}")


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
