"""Requests of guests beside those of this process: kept alive, large, twenty at once, and a whole run with one.

The server is HTTPS on loopback, in a process of its own. It needs `requests` and `httpx` here, and an image with them.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from bench_live import ROUNDS
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox import CodeResult, Image, Network, Sandbox, Session
from wasm_sandbox.bench.contenders import OURS
from wasm_sandbox.bench.measure import LocalContender, Series, TimedContender, side_by_side
from wasm_sandbox.errors import ImageNotFound, PackageError

SERVERS = Path(__file__).parents[1] / "tests" / "network" / "servers.py"
SMALL, LARGE, MANY, TOGETHER = "/big/1024", f"/big/{16 << 20}", 20, 20
NATIVE = "this process"

WORDS = {
    "small": "GET of 1 KB, kept alive, httpx (wanted: 2 ms more)",
    "large": "GET of 16 MB, httpx (wanted: 2 times)",
    "together": f"{TOGETHER} at once, async httpx, new connections (wanted: 2.5 times)",
    "whole": "a whole run with one GET by requests, beside the bare GET (wanted: 6 ms more)",
    "warmed": "the same, in an image whose warm-up has tried one",
}

WARM_UP = """
import requests
for _ in range(3):
    try:
        requests.get("http://localhost")
    except requests.ConnectionError:
        pass
"""

OPEN = """
import asyncio, gc, httpx, requests, time
client = httpx.Client()
def small():
    began = time.perf_counter()
    for _ in range(many):
        assert len(client.get(small_url).content) == 1024
    return (time.perf_counter() - began) / many
def large():
    gc.collect()  # an answer is kept in a cycle: that of the last round is not to be collected in this one
    began = time.perf_counter()
    assert len(client.get(large_url).content) == 16 << 20
    return time.perf_counter() - began
async def together():
    began = time.perf_counter()
    async with httpx.AsyncClient() as client:
        answers = await asyncio.gather(*[client.get(small_url) for _ in range(at_once)])
    assert all(len(answer.content) == 1024 for answer in answers)
    return time.perf_counter() - began
client.get(small_url)
"""


@contextmanager
def https_server(directory: Path) -> Iterator[tuple[str, Path]]:
    """URL of a server in another process, and the file with the authority of its certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    command = [sys.executable, str(SERVERS), str(directory / "server.pem")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"https://localhost:{process.stdout.readline().split()[1]}", directory / "ca.pem"
        process.stdin.close()


def value_of(result: CodeResult) -> Any:
    """Value of a run that succeeded."""
    assert result.error is None, result.error
    return result.value


def inside(session: Session, call: str) -> Callable[[], float]:
    """Seconds that a call of a session takes, on the guest's own clock."""
    return lambda: float(value_of(session.run_code(call)))


def natively(httpx: Any, url: str, context: ssl.SSLContext) -> dict[str, Callable[[], float]]:
    """The same jobs in this process."""
    client = httpx.Client(verify=context)

    def small() -> float:
        began = time.perf_counter()
        for _ in range(MANY):
            assert len(client.get(url + SMALL).content) == 1024
        return (time.perf_counter() - began) / MANY

    def large() -> float:
        began = time.perf_counter()
        assert len(client.get(url + LARGE).content) == 16 << 20
        return time.perf_counter() - began

    async def gathered() -> float:
        began = time.perf_counter()
        async with httpx.AsyncClient(verify=context) as other:
            answers = await asyncio.gather(*[other.get(url + SMALL) for _ in range(TOGETHER)])
        assert all(len(answer.content) == 1024 for answer in answers)
        return time.perf_counter() - began

    return {"small": small, "large": large, "together": lambda: asyncio.run(gathered())}


def bench_network(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Each job by a guest and by this process, in turns."""
    httpx, requests = pytest.importorskip("httpx"), pytest.importorskip("requests")
    try:
        image = Image.build(["requests", "httpx"], name="bench-network")
        warmed = Image.build(["requests", "httpx"], warm_up=WARM_UP, name="bench-network-warmed")
    except (PackageError, ImageNotFound) as error:
        pytest.skip(f"no image with the clients: {error}")
    with https_server(tmp_path) as (url, ca_file):
        place = url.partition("//")[2]
        network = Network([place], private=True, ca_file=ca_file, max_bytes_in=1 << 40, max_requests=1 << 30)
        box, tried = Sandbox(image=image, network=network), Sandbox(image=warmed, network=network)
        inputs = {"small_url": url + SMALL, "large_url": url + LARGE, "many": MANY, "at_once": TOGETHER}
        whole = f"import requests\nassert len(requests.get({url + SMALL!r}).content) == 1024"
        ours = natively(httpx, url, ssl.create_default_context(cafile=str(ca_file)))

        def bare() -> None:
            assert len(requests.get(url + SMALL, verify=str(ca_file)).content) == 1024

        with box.session() as session:
            value_of(session.run_code(OPEN, inputs))
            pairs = {
                "small": (TimedContender("small", OURS, inside(session, "small()")), ours["small"]),
                "large": (TimedContender("large", OURS, inside(session, "large()")), ours["large"]),
                "together": (TimedContender("together", OURS, inside(session, "await together()")), ours["together"]),
                "whole": (LocalContender("whole", OURS, lambda: value_of(box.run_code(whole))), timed(bare)),
                "warmed": (LocalContender("warmed", OURS, lambda: value_of(tried.run_code(whole))), timed(bare)),
            }
            found = benchmark.pedantic(in_turns, (pairs,), rounds=1)
    print()
    for job, (guest, native) in found.items():
        print(f"{WORDS[job]}:")
        for words, ours_ms, theirs in (
            ("median", guest.median * 1e3, native.median * 1e3),
            ("least", guest.minimum * 1e3, native.minimum * 1e3),
        ):
            more, times = ours_ms - theirs, ours_ms / theirs
            print(f"  {words:6} {ours_ms:8.2f} ms, {NATIVE} {theirs:8.2f}: {more:+.2f} ms, {times:.2f} times")


def timed(action: Callable[[], object]) -> Callable[[], float]:
    """Seconds that something takes."""

    def run() -> float:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    return run


def in_turns(
    pairs: dict[str, tuple[LocalContender | TimedContender, Callable[[], float]]],
) -> dict[str, tuple[Series, Series]]:
    """Each job by a guest and by this process, in turns; one job after the other."""
    series = {}
    for job, (guest, native) in pairs.items():
        found, absent = side_by_side([guest, TimedContender(job, NATIVE, native)], ROUNDS, spare_slow=False)
        assert absent == []
        series[job] = found[0], found[1]
    return series
