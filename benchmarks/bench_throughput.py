"""Throughput: how many runs a second, with 1, 2, 8 and 64 at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

import pytest
from native import PROGRAMS
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox.bench.contenders import request_of, tool_script
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest

WORK = {
    "tool": (request_of(tool_script()), 640),
    "computing": (ExecutionRequest(PROGRAMS["richards"] + "\nmain()\n", {}, Limits()), 128),
}
CONCURRENCY = (1, 2, 8, 64)
ROUNDS = 5


def _start(request: ExecutionRequest) -> Future[Outcome]:
    return process_engine().start(request, LiveSurroundings())


def run_many(start: Callable[[], Future[Outcome]], runs: int, at_a_time: int) -> float:
    """Start ``runs`` runs, so many at a time; how many ended in a second."""
    done = SimpleQueue[Future[Outcome]]()  # `concurrent.futures.wait` looks at all that run, for each that ends
    began = time.perf_counter()
    for number in range(runs + at_a_time):
        if number >= at_a_time:
            assert done.get().result().ending is Ending.EXITED
        if number < runs:
            start().add_done_callback(done.put)
    return runs / (time.perf_counter() - began)


@pytest.mark.parametrize("work", WORK)
def bench_throughput(benchmark: BenchmarkFixture, work: str) -> None:
    """All concurrencies in alternating order; runs a second, and relative to one at a time."""
    request, runs = WORK[work]
    rates: dict[int, list[float]] = {at_a_time: [] for at_a_time in CONCURRENCY}

    def round_() -> None:
        for at_a_time in CONCURRENCY if len(rates[1]) % 2 else CONCURRENCY[::-1]:
            rates[at_a_time].append(run_many(lambda: _start(request), runs, at_a_time))

    benchmark.pedantic(round_, rounds=ROUNDS, warmup_rounds=1)
    medians = {at_a_time: sorted(found[1:])[ROUNDS // 2] for at_a_time, found in rates.items()}
    benchmark.extra_info["runs_per_second"] = medians
    print(f"\n{work}: runs a second, median of {ROUNDS} rounds")
    for at_a_time, rate in medians.items():
        print(f"  {at_a_time:3} at a time {rate:8.0f}  x{rate / medians[1]:.2f}")
