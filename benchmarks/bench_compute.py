"""Computing speed: programs in the guest, natively, and (WASM_SANDBOX_BENCH_METERING=1) with less metering."""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from native import PROGRAMS, native_python, seconds_in_guest, seconds_natively
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox.bench.harness import ForeignContenders
from wasm_sandbox.bench.measure import Contender, Series, side_by_side

ROUNDS = int(os.environ.get("WASM_SANDBOX_BENCH_ROUNDS", "9"))
GUEST = "fuel and deadline"
EQUAL = {"spare_slow": False}


@dataclass(frozen=True)
class Program:
    """One program at one place, timed by its own clock."""

    job: str
    name: str
    note: str = ""

    def run_once(self) -> float:
        return seconds_in_guest(self.job) if self.name == GUEST else seconds_natively(self.job)


@pytest.mark.parametrize("name", PROGRAMS)
def bench_program(benchmark: BenchmarkFixture, name: str) -> None:
    """One program in the guest, start included."""
    benchmark.extra_info["native"] = native_python()[1]
    benchmark.extra_info["native_seconds"] = seconds_natively(name)
    benchmark.pedantic(seconds_in_guest, (name,), rounds=3, warmup_rounds=1)


def bench_suite_against_native(benchmark: BenchmarkFixture) -> None:
    """All programs, guest and native in alternating order: their ratios and the geometric mean."""
    contenders: list[Contender] = [Program(name, place) for name in PROGRAMS for place in (native_python()[1], GUEST)]
    if os.environ.get("WASM_SANDBOX_BENCH_METERING"):
        with ForeignContenders(Path(sys.executable), Path(__file__).with_name("metering.py")) as variants:
            everyone = [*contenders, *variants.contenders]
            series, failed = benchmark.pedantic(side_by_side, (everyone, ROUNDS), EQUAL, rounds=1)
    else:
        series, failed = benchmark.pedantic(side_by_side, (contenders, ROUNDS), EQUAL, rounds=1)
    assert not failed, failed
    benchmark.extra_info |= _ratios(series)


def _ratios(series: list[Series]) -> dict[str, float]:
    native = {s.job: s.median for s in series if s.contender == native_python()[1]}
    places = list(dict.fromkeys(s.contender for s in series))
    found = {(s.job, s.contender): s.median / native[s.job] for s in series}
    print(f"\nratios to {native_python()[1]}, medians of {ROUNDS} alternating rounds")
    print(f"{'':16}{'native ms':>11}" + "".join(f"{place:>20}" for place in places[1:]))
    for job in PROGRAMS:
        cells = "".join(f"{found[job, place]:20.2f}" for place in places[1:])
        print(f"{job:16}{native[job] * 1000:11.1f}{cells}")
    means = {place: statistics.geometric_mean(found[job, place] for job in PROGRAMS) for place in places[1:]}
    print(f"{'geometric mean':27}" + "".join(f"{mean:20.2f}" for mean in means.values()))
    fastest = {(s.job, s.contender): s.minimum for s in series}
    minima = [
        statistics.geometric_mean(fastest[job, place] / fastest[job, places[0]] for job in PROGRAMS)
        for place in places[1:]
    ]
    print(f"{'the same of the minima':27}" + "".join(f"{mean:20.2f}" for mean in minima))
    return means
