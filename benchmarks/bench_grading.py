"""Calls and problems a second on all cores: `SandboxExecutor` beside one core in-process, `subprocess`, and `exec`.

Run it with ``python -m pytest benchmarks/bench_grading.py -s``. Each figure is the median of rounds in which all
contenders take turns; ratios are of one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from statistics import median

from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox import Limits, Tool, run_tool
from wasm_sandbox.parallel import SandboxExecutor

CORES = 2
ROUNDS = 5
CALLS = 1500
PROBLEMS = 120

ADD = Tool.from_source("def add(a: int, b: int) -> int:\n    return a + b")
GRADE = Tool.from_source("def grade(program: str) -> bool:\n    exec(program, {})\n    return True")
LIMITS = Limits(fuel=5_000_000_000, deterministic=True)

PROGRAM = '''
def has_close_elements(numbers, threshold):
    """Whether two of the numbers are closer to each other than the threshold."""
    ordered = sorted(numbers)
    return any(b - a < threshold for a, b in zip(ordered, ordered[1:]))

def check(candidate):
    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True
    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05) == False
    assert candidate([1.0, 2.0, 5.9, 4.0, 5.0], 0.95) == True

check(has_close_elements)
# {}
'''


def in_a_subprocess(program: str) -> bool:
    return subprocess.run([sys.executable, "-I", "-c", program], check=False, timeout=60).returncode == 0


def by_exec(program: str) -> bool:
    exec(program, {})
    return True


def rate(count: int, run: Callable[[], object]) -> float:
    """What one run of so many comes to in a second."""
    began = time.perf_counter()
    run()
    return count / (time.perf_counter() - began)


def alternating(contenders: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median rate of each, measured in turns, the first round left out."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name in contenders if number % 2 else reversed(contenders):
            rates[name].append(contenders[name]())
    return {name: median(found[1:]) for name, found in rates.items()}


def show(title: str, rates: dict[str, float], base: str) -> None:
    print(f"\n{title}: a second, median of {ROUNDS} rounds")
    for name, found in rates.items():
        print(f"  {name:32} {found:8.0f}  x{found / rates[base]:.2f}")


def on_one_core(rows: list[dict[str, int]]) -> None:
    """Run the rows one after the other in this process, all of whose threads share one core."""
    before = os.sched_getaffinity(0)
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    try:
        for thread in threads:
            os.sched_setaffinity(thread, {min(before)})
        for row in rows:
            run_tool(ADD, row)
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, before)


def bench_short_calls(benchmark: BenchmarkFixture) -> None:
    """`SandboxExecutor.map` beside the rate of one core in-process, and that of one caller whose engine has both."""
    rows = [{"a": number, "b": 1} for number in range(CALLS)]
    with SandboxExecutor(CORES) as executor:
        contenders: dict[str, Callable[[], float]] = {
            "in-process, one core": lambda: rate(CALLS, lambda: on_one_core(rows)),
            "in-process, one caller": lambda: rate(CALLS, lambda: [run_tool(ADD, row) for row in rows]),
            f"SandboxExecutor({CORES}).map": lambda: rate(CALLS, lambda: list(executor.map(ADD, rows))),
        }
        rates = benchmark.pedantic(lambda: alternating(contenders), rounds=1)
    benchmark.extra_info["per_second"] = rates
    show("short calls", rates, "in-process, one core")


def bench_grading(benchmark: BenchmarkFixture) -> None:
    """Problems of HumanEval's size, each of another text."""
    programs = [PROGRAM.replace("{}", str(number)) for number in range(PROBLEMS)]
    rows = [{"program": program} for program in programs]
    with (
        SandboxExecutor(CORES, limits=LIMITS) as executor,
        ThreadPoolExecutor(CORES) as threads,
        ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as processes,
    ):
        contenders: dict[str, Callable[[], float]] = {
            "subprocess, one a problem": lambda: rate(PROBLEMS, lambda: list(threads.map(in_a_subprocess, programs))),
            f"SandboxExecutor({CORES}).map": lambda: rate(PROBLEMS, lambda: list(executor.map(GRADE, rows))),
            "ProcessPoolExecutor, exec": lambda: rate(PROBLEMS, lambda: list(processes.map(by_exec, programs))),
        }
        assert all(result.func_return is True for result in executor.map(GRADE, rows))
        rates = benchmark.pedantic(lambda: alternating(contenders), rounds=1)
    benchmark.extra_info["per_second"] = rates
    show("grading", rates, "subprocess, one a problem")
