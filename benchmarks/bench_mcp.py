"""A call over stdio to `wasm-sandbox mcp`, by the SDK's own client, beside the same call in this process."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from pytest_benchmark.fixture import BenchmarkFixture

from tests.mcp.conversations import Conversation, command
from wasm_sandbox import AsyncSandbox, Sandbox

ROUNDS = int(os.environ.get("WASM_SANDBOX_BENCH_ROUNDS", "300"))
CODE = "1 + 1"


def bench_mcp(benchmark: BenchmarkFixture) -> None:
    """In turns: code in this process, awaited and not, and over stdio; without and with a session."""
    box, awaited = Sandbox(), AsyncSandbox()
    with Conversation(command()) as client, box.session() as session:
        client.tools()
        client.run(CODE, session="s")
        session.run_code(CODE)
        contenders: dict[str, Callable[[], object]] = {
            "in this process": lambda: box.run_code(CODE),
            "in this process, awaited": lambda: client.begin(awaited.run_code(CODE)).result(),
            "over stdio": lambda: client.run(CODE),
            "in this process, a session": lambda: session.run_code(CODE),
            "over stdio, a session": lambda: client.run(CODE, session="s"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}

        def one_round() -> None:
            for name, call in contenders.items():
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)

        benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=10)
    medians = {name: statistics.median(found[10:]) * 1e3 for name, found in seconds.items()}
    print()
    for name, found in medians.items():
        print(f"{name:30} {found:6.2f} ms, at least {min(seconds[name]) * 1e3:.2f}")
    for kind in ("", ", a session"):
        print(f"stdio adds{kind}: {medians[f'over stdio{kind}'] - medians[f'in this process{kind}']:.2f} ms")
