"""numpy and pandas: eleven programs in the image "science" and natively, and what a fresh run in that image takes.

The native Python is the running one, or that of ``WASM_SANDBOX_NATIVE_PYTHON``; it needs numpy and pandas.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from native import NATIVE_VARIABLE
from pytest_benchmark.fixture import BenchmarkFixture
from science_peers import SUM, TABLE

from wasm_sandbox import Limits, Tool, run_code, run_tool
from wasm_sandbox.bench.contenders import OURS
from wasm_sandbox.bench.harness import ForeignContender, ForeignContenders, HarnessError
from wasm_sandbox.bench.measure import Absent, LocalContender, side_by_side
from wasm_sandbox.cli.bench import PEERS_VARIABLE

ROUNDS = int(os.environ.get("WASM_SANDBOX_BENCH_ROUNDS", "5"))
CALLS = int(os.environ.get("WASM_SANDBOX_BENCH_CALLS", "300"))
NATIVE = os.environ.get(NATIVE_VARIABLE, sys.executable)
LIMITS = Limits(memory_bytes=1 << 30, timeout_seconds=300)

HEAD = "import io, time\nimport numpy as np, pandas as pd\nrandom = np.random.default_rng(0)\n"
PROGRAMS = {
    "sum of 1e7": ("a = random.random(10**7)", "a.sum()"),
    "matmul 300": ("a = random.random((300, 300))", "a @ a"),
    "solve 300": ("a = random.random((300, 300)); b = random.random(300)", "np.linalg.solve(a, b)"),
    "sort of 1e6": ("a = random.random(10**6)", "np.sort(a)"),
    "FFT of 2^18": ("a = random.random(2**18)", "np.fft.fft(a)"),
    "csv of 10 MB": (
        "t = pd.DataFrame({'a': range(300_000), 'b': random.random(300_000), 'c': 'text'}).to_csv(index=False)",
        "pd.read_csv(io.StringIO(t))",
    ),
    "groupby of 1e6": (
        "d = pd.DataFrame({'k': random.integers(0, 1000, 10**6), 'v': random.random(10**6)})",
        "d.groupby('k').v.agg(['sum', 'mean', 'max'])",
    ),
    "merge of 2e5": (
        "d = pd.DataFrame({'k': random.permutation(200_000), 'v': 1.5}); e = d.sample(frac=1, random_state=1)",
        "d.merge(e, on='k')",
    ),
    "rolling of 1e6": ("s = pd.Series(random.random(10**6))", "s.rolling(100).mean()"),
    "texts, 1e5": (
        "s = pd.Series(['item ' + str(n) for n in range(10**5)], dtype=object)",
        "s.str.upper().str.replace('ITEM', 'x').str.len().sum()",
    ),
    "dates, 1e5": (
        "s = pd.Series(pd.date_range('2000', periods=10**5, freq='h').astype(str))",
        "pd.to_datetime(s).dt.strftime('%d/%m/%Y')",
    ),
}
"""What is prepared, and what is timed."""


def _timed(name: str) -> str:
    prepared, work = PROGRAMS[name]
    return f"{HEAD}{prepared}\n{work}\nstarted = time.perf_counter()\n{work}\nseconds = time.perf_counter() - started\n"


def _in_guest(name: str) -> float:
    result = run_code(_timed(name) + "seconds", image="science", limits=LIMITS)
    assert isinstance(result.value, float), result.error
    return result.value


def _natively(name: str) -> float:
    script = _timed(name) + "print(seconds)"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # one processor for both
    done = subprocess.run([NATIVE, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


@cache
def _version() -> str:
    script = "import sys, numpy, pandas; print('native', sys.version.split()[0], numpy.__version__, pandas.__version__)"
    done = subprocess.run([NATIVE, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{NATIVE} has no numpy or no pandas: name another one in ${NATIVE_VARIABLE}")
    return done.stdout.strip()


def bench_programs_against_native(benchmark: BenchmarkFixture) -> None:
    """Each program in the guest and natively, in turns: medians, their ratios and the geometric mean."""
    version = _version()
    taken: dict[tuple[str, str], list[float]] = {}

    def measure() -> None:
        for number in range(ROUNDS):
            for name in PROGRAMS:
                places: list[tuple[str, Callable[[str], float]]] = [("guest", _in_guest), ("native", _natively)]
                for place, seconds in places if number % 2 else reversed(places):
                    taken.setdefault((name, place), []).append(seconds(name))

    benchmark.pedantic(measure, rounds=1)
    medians = {key: statistics.median(values) * 1000 for key, values in taken.items()}
    print(f"\nmedians of {ROUNDS} alternating rounds, beside {version}")
    print(f"{'':16}{'native ms':>11}{'guest ms':>11}{'ratio':>8}")
    for name in PROGRAMS:
        native, guest = medians[name, "native"], medians[name, "guest"]
        print(f"{name:16}{native:11.1f}{guest:11.1f}{guest / native:8.2f}")
    mean = statistics.geometric_mean(medians[name, "guest"] / medians[name, "native"] for name in PROGRAMS)
    print(f"{'geometric mean':38}{mean:8.2f}")
    benchmark.extra_info["geometric_mean"] = mean


FRESH = {
    "x + 1": "return x + 1",
    "solve 20x20": "import numpy as np\n    return float(np.linalg.solve(np.eye(20) + x, np.ones(20))[0])",
    "groupby of ten rows": "import pandas as pd\n    d = pd.DataFrame({'k': list('ab') * 5, 'v': range(10)})\n"
    "    return d.groupby('k').v.sum()",
}


def bench_fresh_runs(benchmark: BenchmarkFixture) -> None:
    """Whole tool calls, each in a fresh guest, in turns; ``x + 1`` in the default image, too."""
    kinds = [(name, "science") for name in FRESH] + [("x + 1", None)]
    tools = {name: Tool.from_source(f"def f(x: int):\n    {body}\n", "f") for name, body in FRESH.items()}
    taken: dict[tuple[str, str | None], list[float]] = {kind: [] for kind in kinds}

    def measure() -> None:
        for number in range(CALLS + 20):
            for name, image in kinds if number % 2 else reversed(kinds):
                started = time.perf_counter()
                result = run_tool(tools[name], {"x": 1}, image=image)
                seconds = time.perf_counter() - started
                assert result.status == "success", result.error
                if number >= 20:  # the first ones prepare the images and the tools' code
                    taken[name, image].append(seconds * 1000)

    benchmark.pedantic(measure, rounds=1)
    print(f"\n{CALLS} calls of each in turns, ms\n{'':32}{'least':>8}{'median':>8}")
    for (name, image), values in taken.items():
        print(f"{name + ', ' + (image or 'default image'):32}{min(values):8.2f}{statistics.median(values):8.2f}")


def bench_a_table_beside_others(benchmark: BenchmarkFixture) -> None:
    """Ten rows in two groups, each time in a fresh guest or process: ours, a subprocess, a peer that has pandas."""

    def ours() -> None:
        result = run_code(TABLE, image="science")
        assert result.stdout == [f"{SUM.decode()}\n"], result.error

    def by_subprocess() -> None:
        done = subprocess.run([NATIVE, "-c", TABLE], capture_output=True, check=True)
        assert done.stdout.strip() == SUM

    contenders: list[LocalContender | ForeignContender] = [
        LocalContender("table", OURS, ours),
        LocalContender("table", f"a subprocess, {_version()}", by_subprocess),
    ]
    absent: list[Absent] = []
    with ExitStack() as stack:
        if python := os.environ.get(PEERS_VARIABLE):
            try:
                foreign = ForeignContenders(Path(python), Path(__file__).with_name("science_peers.py"))
            except HarnessError as error:
                pytest.skip(str(error))
            stack.enter_context(foreign)
            contenders += foreign.contenders
            absent += foreign.absent
        series, failed = benchmark.pedantic(side_by_side, (contenders, 4 * ROUNDS), rounds=1)
    print(f"\n{4 * ROUNDS} of each in turns, ms\n{'':44}{'least':>10}{'median':>10}")
    for found in series:
        print(f"{found.contender:44}{found.minimum * 1e3:10.2f}{found.median * 1e3:10.2f}")
    for missing in (*absent, *failed):
        print(f"not measured: {missing.contender}: {missing.reason}")
