"""Guests in the workers of a pre-forking server, whatever was used before the fork."""

from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not hasattr(os, "fork") or importlib.util.find_spec("gunicorn") is None, reason="needs gunicorn, and fork"
    ),
]

APPLICATION = """
import os, threading
from wasm_sandbox import Limits, Tool, run_tool

double = Tool.from_source("def double(n: int) -> int:\\n    return 2 * n")
BEFORE = os.environ["BEFORE"]
if BEFORE != "nothing":
    assert run_tool(double, {"n": 1}).func_return == 2
if BEFORE == "guests that still run":
    nap = Tool.from_source("def nap():\\n    import time; time.sleep(600)")
    for _ in range(3):
        threading.Thread(target=run_tool, args=(nap,), daemon=True).start()

def application(environ, start_response):
    if environ["PATH_INFO"] == "/spin":
        spin = Tool.from_source("def spin():\\n    while True: pass")
        answer = run_tool(spin, limits=Limits(timeout_seconds=0.2)).error.kind
    else:
        answer = run_tool(double, {"n": int(environ["QUERY_STRING"])}).func_return
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {answer}".encode()]
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def is_listening(path: Path) -> bool:
    """Whether somebody takes connections; the socket's file is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def server(before: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with tempfile.TemporaryDirectory() as directory:  # its name is short enough for a socket's
        (Path(directory) / "served.py").write_text(APPLICATION)
        path = Path(directory) / "socket"
        command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{path}", "--workers", "2", "--chdir", directory]
        environ = {**os.environ, "BEFORE": before, "PYTHONPATH": os.pathsep.join(sys.path)}
        arguments = [*command, "--no-control-socket", *options, "served:application"]
        process = subprocess.Popen(arguments, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            while not is_listening(path):
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
            yield process, path
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers too, if they do not leave with it
            process.communicate()


def get(path: Path, target: str) -> tuple[int, str]:
    """The worker's process id, and its answer."""
    connection = UnixConnection(path)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, text
    finally:
        connection.close()
    pid, _, answer = text.partition(" ")
    return int(pid), answer


@pytest.mark.parametrize("options", [(), ("--threads", "4")], ids=["a thread", "threads"])
@pytest.mark.parametrize(
    ("before", "preload"),
    [("nothing", False), ("nothing", True), ("a run", True), ("guests that still run", True)],
    ids=str,
)
def test_every_worker_of_a_pre_forking_server_runs_guests(before: str, preload: bool, options: tuple[str, ...]) -> None:
    with server(before, *options, *(["--preload"] if preload else [])) as (process, path):
        with ThreadPoolExecutor(8) as pool:
            targets = [f"/?{n}" if n % 8 else "/spin" for n in range(48)]
            found = list(pool.map(lambda target: get(path, target), targets))
        assert [answer for _, answer in found] == [str(2 * n) if n % 8 else "timeout" for n in range(48)]
        workers = {pid for pid, _ in found}
        while len(workers) < 2:  # which worker answers is for the system to choose
            workers.add(get(path, "/?1")[0])
        assert process.pid not in workers
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "SIG" not in said.replace("SIGTERM", "").replace("Handling signal: term", "")
