"""Other sandboxes beside this one, in one run and in alternating order; their environment: README.md."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console

from wasm_sandbox.bench.contenders import local_contenders
from wasm_sandbox.bench.harness import ForeignContenders, HarnessError
from wasm_sandbox.bench.measure import machine, side_by_side, versions
from wasm_sandbox.bench.report import Report
from wasm_sandbox.cli.bench import PEERS_VARIABLE

ROUNDS = int(os.environ.get("WASM_SANDBOX_BENCH_ROUNDS", "60"))


def bench_peers(benchmark: BenchmarkFixture) -> None:
    """Every contender once in each round; what is absent is named with the reason."""
    python = os.environ.get(PEERS_VARIABLE)
    if not python:
        pytest.skip(f"{PEERS_VARIABLE} names no Python that has the peers (benchmarks/README.md)")
    try:
        foreign = ForeignContenders(Path(python), Path(__file__).with_name("peers.py"))
    except HarnessError as error:
        pytest.skip(str(error))
    with foreign:
        everyone = [*(c for c in local_contenders() if c.job not in ("import", "cold")), *foreign.contenders]
        series, failed = benchmark.pedantic(side_by_side, (everyone, ROUNDS), rounds=1)
        report = Report(ROUNDS, machine(), versions() | foreign.versions, series, [*failed, *foreign.absent])
    report.print_to(Console(width=110))
    benchmark.extra_info["report"] = report.document()
