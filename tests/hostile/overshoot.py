"""How long after its deadline a guest that does its worst has ended. As a script it prints percentiles."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future

from wasm_sandbox import Limits
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest

DEADLINE_SECONDS = 0.3

BURNERS = {
    "loop": "while True: pass",
    "sum": "sum(range(10**12))",
    "power": "while True: x = 7 ** 300_000",
    "one huge power": "3 ** 10**9",
    "regular expression": "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')",
    "sort": "import random\nx = [random.random() for _ in range(200_000)]\nwhile True: sorted(x)",
    "replace": "x = 'ab' * 2_000_000\nwhile True: x.replace('ab', 'abc')",
    "copy": "x = bytearray(20 << 20)\nwhile True: x[:]",
    "fill": "while True: b'x' * (60 << 20)",
    "exceptions": "while True:\n  try: raise ValueError\n  except BaseException: pass",
    "entropy": "import os\nwhile True: os.urandom(8 << 20)",
    "sleep of 291 years": "import time; time.sleep(9.2e9)",  # as long as CPython takes
    "short sleeps": "import time\nwhile True: time.sleep(1e-6)",
    "asyncio, 300 years": "import asyncio; asyncio.run(asyncio.sleep(9.5e9))",
    "standard input": "import sys\nwhile True: sys.stdin.read()",
    "flood": "import os\nx = b'x' * (4 << 20)\nwhile True: os.write(1, x)",
    "flood by the byte": "import os\nwhile True: os.write(2, b'x')",
}


def start(script: str, timeout_seconds: float) -> Future[Outcome]:
    limits = Limits(timeout_seconds=timeout_seconds, fuel=2**62)
    return process_engine().start(ExecutionRequest(script, {}, limits), LiveSurroundings())


def overshoots(scripts: list[str], concurrent: int) -> list[float]:
    """Seconds past the deadline, one for each script, with so many running at once."""
    start("pass", 30).result()
    found = []
    for first in range(0, len(scripts), concurrent):
        futures = [start(script, DEADLINE_SECONDS) for script in scripts[first : first + concurrent]]
        for future in futures:
            outcome = future.result(timeout=60)
            assert outcome.ending.name == "DEADLINE", outcome
            found.append(outcome.wall_seconds - DEADLINE_SECONDS)
    return found


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _print(concurrent: int, name: str, values: list[float]) -> None:
    median, p99 = percentile(values, 0.5) * 1e3, percentile(values, 0.99) * 1e3
    print(f"{concurrent:3} at once  {name:20} median {median:7.1f} ms  p99 {p99:7.1f} ms", flush=True)


def main(rounds: int) -> None:
    for concurrent in (1, 32):
        everything: list[float] = []
        for name, script in BURNERS.items():
            values = overshoots([script] * max(rounds, concurrent), concurrent)
            everything += values
            _print(concurrent, name, values)
        if concurrent > 1:
            mixed = overshoots([*BURNERS.values()] * rounds, concurrent)
            everything += mixed
            _print(concurrent, "all kinds mixed", mixed)
        print(f"{concurrent:3} at once  everything: p50 {percentile(everything, 0.5) * 1e3:.1f} ms", end="")
        print(f"  p99 {percentile(everything, 0.99) * 1e3:.1f} ms  worst {max(everything) * 1e3:.1f} ms")


if __name__ == "__main__":
    began = time.monotonic()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
    print(f"took {time.monotonic() - began:.0f} s")
