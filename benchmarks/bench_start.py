"""Start time: a fresh guest, a whole tool call, a new process."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox.bench.contenders import JOBS, local_contenders
from wasm_sandbox.bench.measure import Contender

CONTENDERS = {f"{c.job}: {c.name}": c for c in local_contenders()}


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=CONTENDERS)
def bench_start(benchmark: BenchmarkFixture, contender: Contender) -> None:
    """One contender at one job; `wasm-sandbox bench` measures all of them side by side."""
    slow = contender.job in ("import", "cold") or contender.name == "subprocess"
    benchmark.group = JOBS[contender.job]
    benchmark.pedantic(contender.run_once, rounds=7 if slow else 100, warmup_rounds=1 if slow else 10)
