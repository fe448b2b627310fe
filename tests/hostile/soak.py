"""Fifty thousand runs of every kind, and what they leave behind: memory, descriptors, threads, temporary files.

    python tests/hostile/soak.py [RUNS] [PLOT.png]

Prints a line of counts for every hundredth of the runs and fails if any of them has grown. The plot needs
matplotlib. On Linux only: the counts come from /proc.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from wasm_sandbox import Limits, Tool, run_tool
from wasm_sandbox.engine.binding.configuration import WASM_STACK_BYTES
from wasm_sandbox.engine.engine import process_engine

MIB = 1 << 20
ALLOWED_GROWTH_BYTES = 24 * MIB  # what the allocators of host and engine may still settle by after the warm-up

BODIES = [
    "return {'n': list(range(100))}",
    "raise ValueError('x' * 1000)",
    "import os; os._exit(3)",
    "while True: pass",
    "t = ()\n    for _ in range(600_000): t = (t,)\n    hash(t)",
    "import sys; sys.stdout.write('x' * 200_000); return 1",
    "import time; time.sleep(60)",
    "x = bytearray(20 << 20); return len(x)",
    "return object()",
    "import json; return json.loads('[1, 2]')",
]


@dataclass(frozen=True)
class Counts:
    """What a process holds."""

    runs: int
    seconds: float
    resident_bytes: int
    descriptors: int
    threads: int
    mappings: int
    temporary_files: int

    @classmethod
    def now(cls, runs: int, began: float) -> Counts:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            runs,
            time.monotonic() - began,
            pages * os.sysconf("SC_PAGE_SIZE"),
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            Path("/proc/self/maps").read_text().count("\n"),
            len(os.listdir(tempfile.gettempdir())),
        )


def run_one(number: int) -> None:
    body = BODIES[number % len(BODIES)]
    sleeps = "sleep" in body
    limits = Limits(fuel=30_000_000, timeout_seconds=0.02 if sleeps else 60)
    run_tool(Tool(name="f", source_code=f"def f():\n    {body}\n"), limits=limits)


def soak(runs: int, samples: int = 100, warm_up: int = 200) -> list[Counts]:
    """Run so many tools; the counts after the warm-up, and after each sample's share of the runs."""
    began = time.monotonic()
    step = max(1, runs // samples)
    with own_temporary_directory():
        for number in range(warm_up):
            run_one(number)
        found = [Counts.now(0, began)]
        for number in range(1, runs + 1):
            run_one(number)
            if number % step == 0:
                found.append(Counts.now(number, began))
    return found


@contextmanager
def own_temporary_directory() -> Iterator[None]:
    """What this process calls so meanwhile is a new directory: other processes make files in theirs."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory() as directory:
        tempfile.tempdir = os.environ["TMPDIR"] = directory
        try:
            yield
        finally:
            tempfile.tempdir = before
            if variable is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = variable


def growth(found: list[Counts]) -> list[str]:
    """In words, what has grown between the first count and the last."""
    first, last = found[0], found[-1]
    grown = []
    # Each guest thread keeps the stack that the first deep recursion on it has touched.
    allowed = ALLOWED_GROWTH_BYTES + process_engine().threads * WASM_STACK_BYTES
    if last.resident_bytes - first.resident_bytes > allowed:
        grown.append(f"memory by {(last.resident_bytes - first.resident_bytes) / MIB:.1f} MiB")
    if last.descriptors > first.descriptors:
        grown.append(f"descriptors from {first.descriptors} to {last.descriptors}")
    # A run starts on a new thread while others still tear down the instances of earlier runs: on a busy machine a few.
    if last.threads > first.threads + 8:
        grown.append(f"threads from {first.threads} to {last.threads}")
    if last.temporary_files > first.temporary_files:
        grown.append(f"temporary files from {first.temporary_files} to {last.temporary_files}")
    if last.mappings > first.mappings * 1.2 + 50:
        grown.append(f"mappings from {first.mappings} to {last.mappings}")
    # One whose deadline has passed may still wait for its turn on a processor, to stop.
    deadline = time.monotonic() + 10
    while process_engine().running_guests and time.monotonic() < deadline:
        time.sleep(0.01)
    if process_engine().running_guests:
        grown.append("guests that still run")
    return grown


def plot(found: list[Counts], path: str) -> None:
    import matplotlib.pyplot as plt

    runs = [counts.runs for counts in found]
    figure, (memory, others) = plt.subplots(2, 1, sharex=True, figsize=(8, 6))
    memory.plot(runs, [counts.resident_bytes / MIB for counts in found])
    memory.set_ylabel("resident MiB")
    memory.set_ylim(bottom=0)
    for name in ("descriptors", "threads", "temporary_files"):
        others.plot(runs, [getattr(counts, name) for counts in found], label=name.replace("_", " "))
    others.set_xlabel("runs")
    others.legend()
    figure.savefig(path)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    found = soak(runs)
    print("runs\tseconds\tresident MiB\tdescriptors\tthreads\tmappings\ttemporary files")
    for counts in found:
        row = astuple(counts)
        print(f"{row[0]}\t{row[1]:.0f}\t{row[2] / MIB:.1f}\t" + "\t".join(map(str, row[3:])))
    if len(sys.argv) > 2:
        plot(found, sys.argv[2])
    if grown := growth(found):
        sys.exit("grown: " + ", ".join(grown))
    print(f"{runs} runs left nothing behind")


if __name__ == "__main__":
    main()
