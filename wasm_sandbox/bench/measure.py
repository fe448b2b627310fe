"""Measuring contenders side by side: rounds in alternating order, and what the machine is."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import wasm_sandbox
from wasm_sandbox import engine

WARM_UP_ROUNDS = 2
SLOW_SECONDS = 0.05
"""A contender that takes longer than this takes part only in every `SLOW_EVERY`-th round."""
SLOW_EVERY = 5
MIN_ROUNDS = 3
PAUSE_SECONDS = 0.002
"""Between two contenders: what one of them does after its reply (teardown, say) must not disturb the next."""


class Contender(Protocol):
    """Something that does a job, and says how long each time took."""

    @property
    def job(self) -> str:
        """The job's key in `contenders.JOBS`."""
        ...

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str:
        """What a reader must know about how it does the job; empty if nothing."""
        ...

    def run_once(self) -> float:
        """Do the job once; the seconds it took."""
        ...


@dataclass(frozen=True)
class LocalContender:
    """A contender that is a function of this process."""

    job: str
    name: str
    action: Callable[[], object]
    note: str = ""

    def run_once(self) -> float:
        """Do the job once; the seconds it took."""
        started = time.perf_counter()
        self.action()
        return time.perf_counter() - started


@dataclass(frozen=True)
class TimedContender:
    """A contender that takes its own time, without what is around the job."""

    job: str
    name: str
    timed: Callable[[], float]
    note: str = ""

    def run_once(self) -> float:
        """Do the job once; the seconds it took."""
        return self.timed()


class ContenderFailed(Exception):
    """A contender cannot do its job; the message says why."""


@dataclass
class Series:
    """How long one contender took for one job, in seconds, one number a round."""

    job: str
    contender: str
    note: str = ""
    seconds: list[float] = field(default_factory=list)

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        return percentile(self.seconds, 95)


@dataclass(frozen=True)
class Absent:
    """A contender that was not measured."""

    contender: str
    reason: str


def percentile(values: Sequence[float], percent: float) -> float:
    """The value at a percentile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent * 100) // 10_000) - 1)]


def side_by_side(
    contenders: Sequence[Contender],
    rounds: int,
    progress: Callable[[str], None] = lambda words: None,
    *,
    spare_slow: bool = True,
) -> tuple[list[Series], list[Absent]]:
    """Measure contenders in rounds: in each round every one once, the order turned round each time.

    So whatever disturbs the machine disturbs all alike. A contender that fails is left out from then on.

    Args:
        contenders: who takes part.
        rounds: how many rounds; of these, slow contenders take part in every fifth, and in three at least.
        progress: told what is going on.
        spare_slow: whether a slow contender takes part only in some of the rounds.

    Returns:
        One series for each contender that did its job, in their order, and those that did not.
    """

    def measured(contender: Contender) -> float:
        time.sleep(PAUSE_SECONDS)
        return contender.run_once()

    series = {id(c): Series(c.job, c.name, c.note) for c in contenders}
    failed: dict[int, Absent] = {}
    slow = set()
    for contender in contenders:
        progress(f"warming up: {contender.name}, {contender.job}")
        try:
            if min(measured(contender) for _ in range(WARM_UP_ROUNDS)) > SLOW_SECONDS:
                slow.add(id(contender))
        except ContenderFailed as error:
            failed[id(contender)] = Absent(f"{contender.name} ({contender.job})", str(error))
    every = min(SLOW_EVERY, max(1, rounds // MIN_ROUNDS)) if spare_slow else 1
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for contender in contenders if number % 2 else reversed(contenders):
            if id(contender) in failed or (id(contender) in slow and number % every):
                continue
            try:
                series[id(contender)].seconds.append(measured(contender))
            except ContenderFailed as error:
                failed[id(contender)] = Absent(f"{contender.name} ({contender.job})", str(error))
        gc.collect()  # between rounds, so that no contender pays for another's garbage
    finished = [series[id(c)] for c in contenders if id(c) not in failed and series[id(c)].seconds]
    return finished, list(failed.values())


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    found = {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": str(_cores()),
        "memory": _memory(),
    }
    with suppress(OSError, AttributeError):
        found["load"] = f"{os.getloadavg()[0]:.1f}"
    return {name: value for name, value in found.items() if value}


def versions(*packages: str) -> dict[str, str]:
    """The versions of this library, of this Python, of the guest and of packages."""
    found = {"wasm-sandbox": wasm_sandbox.__version__, "python": platform.python_version()}
    for package in ("wasmtime", "pydantic", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found |= {f"guest {name}": value for name, value in engine.find_artifact().versions.items()}
    return found


def _cores() -> int:
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@cache
def _processor() -> str:
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model"):
                    return value.strip()
    return platform.processor()


def _memory() -> str:
    with suppress(AttributeError, OSError, ValueError):
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.1f} GiB"
    return ""
