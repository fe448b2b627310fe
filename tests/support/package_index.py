"""A package index on loopback that remembers what it was asked for, and a distribution that tells when it is built."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

BACKEND = """
import os
with open({mark!r}, "a") as mark:
    mark.write(__name__ + chr(10))
def build_wheel(*args, **more): raise SystemExit("built")
def build_sdist(*args, **more): raise SystemExit("built")
def prepare_metadata_for_build_wheel(*args, **more): raise SystemExit("built")
def get_requires_for_build_wheel(*args, **more): return []
"""


class PackageIndex:
    """What is served: the files of a directory, by their projects, and what was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[str] = []
        self.files: dict[str, bytes] = {}
        self.page_of: dict[str, str] = {}
        """Project -> more HTML for its page."""

    @property
    def simple(self) -> str:
        return f"{self.url}/simple"

    def add(self, path: Path) -> None:
        """Serve a file."""
        self.files[path.name] = path.read_bytes()

    def answer(self, path: str) -> bytes | None:
        self.requests.append(path)
        first, _, rest = path.strip("/").partition("/")
        if first == "files":
            return self.files.get(rest)
        if first != "simple":
            return None
        name = rest.strip("/")
        own = [file for file in self.files if canonicalize_name(file.partition("-")[0]) == name]
        links = "".join(f'<a href="/files/{file}">{file}</a>' for file in own)
        return f"<!DOCTYPE html><html><body>{links}{self.page_of.get(name, '')}</body></html>".encode() if own else None


@contextmanager
def serving() -> Iterator[PackageIndex]:
    """An index, empty at first, at a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = index.answer(self.path.partition("?")[0])
            self.send_response(404 if body is None else 200)
            kind = "text/html" if self.path.startswith("/simple") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = PackageIndex(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def make_trap(directory: Path, mark: Path, name: str = "trap", version: str = "1.0") -> Path:
    """A source archive whose build backend, in its own tree, writes ``mark`` as soon as anything of it is executed."""
    stem = f"{name}-{version}"
    backend = BACKEND.format(mark=str(mark))
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
        "setup.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for place, text in files.items():
            info = tarfile.TarInfo(f"{stem}/{place}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def configure(monkeypatch: pytest.MonkeyPatch, index: PackageIndex, directory: Path) -> None:
    """Have pip and uv know this index and no other: pip by a file, uv by a variable."""
    import os  # the environment of this machine may configure either of them

    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    file = directory / "pip.conf"
    file.write_text(f"[global]\nindex-url = {index.simple}\nno-cache-dir = true\nretries = 0\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
