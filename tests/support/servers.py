"""Servers of `wasm_sandbox.serve` on loopback: in a thread of this process, or as the command in one of its own."""

from __future__ import annotations

import io
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

from tests.support.processes import python
from wasm_sandbox.serve import Settings, Tokens
from wasm_sandbox.serve.app import App
from wasm_sandbox.serve.server import server_of
from wasm_sandbox.serve.visits import Log
from wasm_sandbox.web import Server, listen

ALICE, BOB = "alice-has-a-token-of-her-own", "bob-has-a-token-of-his-own-too"
ADD = "def add(a: int, b: int) -> int:\n    return a + b"


@dataclass
class Running:
    """Server that listens."""

    url: str
    app: App
    stream: io.StringIO
    server: Server

    @property
    def log(self) -> list[dict[str, Any]]:
        """Lines of its log."""
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """Client of it."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    """A server with these settings, in a thread; it has ended when the block is left."""
    settings, stream = Settings(port=0, **options), io.StringIO()
    app = App(settings, Log(stream))
    listens, address = threading.Event(), []

    def ready(url: str) -> None:
        address.append(url)
        listens.set()

    server, listens_at = server_of(app, ready), listen(settings.host, settings.port)
    thread = threading.Thread(target=server.run, args=([listens_at],))
    thread.start()
    try:
        assert listens.wait(30), stream.getvalue()
        yield Running(address[0], app, stream, server)
    finally:
        server.end()
        thread.join(60)
        listens_at.close()
    assert not thread.is_alive()


@contextmanager
def command(*arguments: str, **options: Any) -> Iterator[tuple[Popen[str], str]]:
    """``wasm-sandbox serve`` in a process of its own, and its address; killed when the block is left."""
    with python("-m", "wasm_sandbox", "serve", "--port", "0", *arguments, **options) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), process.communicate(timeout=30)
        yield process, address


def ended(process: Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    """Exit code of a server that was told to end by SIGTERM, and its log."""
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in errors.splitlines() if line.startswith("{")]


def idle(server: Running) -> None:
    """Wait until no call is under way, for some seconds at most."""
    end = time.monotonic() + 10
    while server.app.admission.running:
        assert time.monotonic() < end
        time.sleep(0.01)


def token_file(path: Path, *entries: str) -> Path:
    """A token file with these entries."""
    path.write_text("".join(f"[[tokens]]\n{entry}\n" for entry in entries), encoding="utf-8")
    return path


def tokens(path: Path, *, alice: str = "", bob: str = "") -> Tokens:
    """Tokens of Alice and of Bob, with these further lines."""
    entries = f'name = "alice"\ntoken = "{ALICE}"\n{alice}', f'name = "bob"\ntoken = "{BOB}"\n{bob}'
    return Tokens.read(token_file(path / "tokens.toml", *entries))


def events(text: str) -> list[dict[str, Any]]:
    """Events of a stream of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
