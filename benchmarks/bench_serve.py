"""The server: a warm call beside the same call in-process, and calls a second with 1 to 256 clients (``wrk``).

Run it with ``python -m pytest benchmarks/bench_serve.py -s``. The server is a process of its own, on loopback; calls
over HTTP and in-process take turns, and medians are compared. Without ``wrk`` the second part is skipped.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pytest

from tests.support.servers import ADD, command
from wasm_sandbox import AsyncSandbox, Tool, run_tool

ROUNDS, CALLS = 15, 60
CLIENTS = (1, 8, 64, 256)
SECONDS = 5
BODY = json.dumps({"source": ADD, "args": {"a": 1, "b": 2}})
HEADERS = {"Content-Type": "application/json"}


def bench_a_warm_call_beside_the_same_in_process(tmp_path: Path) -> None:
    tool = Tool.from_source(ADD)
    with (tmp_path / "log").open("w") as log, command(stderr=log) as (_, url):
        connection = http.client.HTTPConnection(urlsplit(url).netloc)

        def over_http() -> None:
            connection.request("POST", "/v1/run", BODY, HEADERS)
            assert b'"func_return":3' in connection.getresponse().read()

        def in_process() -> None:
            assert run_tool(tool, {"a": 1, "b": 2}).func_return == 3

        figures: dict[str, list[float]] = {"HTTP": [], "in-process": []}
        for _ in range(20):
            over_http()
            in_process()
        for number in range(ROUNDS):
            pairs: list[tuple[str, Callable[[], None]]] = [("HTTP", over_http), ("in-process", in_process)]
            for name, call in pairs if number % 2 else reversed(pairs):
                figures[name] += [_milliseconds(call) for _ in range(CALLS)]
        awaited = asyncio.run(_awaited(tool))
        connection.close()
    p50 = {name: median(times) for name, times in figures.items()}
    for name, value in {**p50, "in-process, awaited": awaited}.items():
        print(f"  {name:20} p50 {value:6.2f} ms")
    print(f"  HTTP takes {p50['HTTP'] - p50['in-process']:.2f} ms more")


def _milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


async def _awaited(tool: Tool) -> float:
    box, times = AsyncSandbox(), []
    for _ in range(ROUNDS * CALLS // 3):
        began = time.perf_counter()
        await box.run_tool(tool, {"a": 1, "b": 2})
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def bench_calls_a_second(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("there is no wrk")
    script = tmp_path / "call.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = [[{BODY}]]\nwrk.headers['Content-Type'] = 'application/json'\n"
        "function done(summary, latency, requests)\n"
        "  io.write(string.format('p99 %.1f ms, %d answers that are no 2xx\\n',"
        " latency:percentile(99) / 1000, summary.errors.status + summary.errors.timeout))\nend\n"
    )
    with (tmp_path / "log").open("w") as log, command(stderr=log) as (_, url):
        for clients in CLIENTS:
            words = ["wrk", "-t1", f"-c{clients}", f"-d{SECONDS}s", "--latency", "-s", str(script), f"{url}/v1/run"]
            printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
            half = re.search(r"50%\s+(\S+)", printed)
            last = printed.strip().splitlines()[-1]
            assert rate is not None
            assert half is not None
            print(f"  {clients:3} clients: {float(rate[1]):6.0f} calls a second, p50 {half[1]}, {last}")
