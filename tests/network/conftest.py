"""Servers on loopback in a process of their own, certificates, and an image with clients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.network.servers import echo_server, silent_server
from wasm_sandbox import Image, Network
from wasm_sandbox.errors import ImageNotFound, PackageError

CLIENTS = ["requests", "httpx"]


@dataclass(frozen=True)
class Servers:
    """Ports of the servers, and the authority of their certificates."""

    http: int
    https: int
    ca_file: str

    def network(self, **options: Any) -> Network:
        """Network that allows these servers."""
        allow = options.pop("allow", [f"localhost:{self.http}", f"localhost:{self.https}"])
        return Network(allow, **{"private": True, "ca_file": self.ca_file, **options})

    @property
    def inputs(self) -> dict[str, str]:
        """Base URLs, as variables of a program."""
        return {"http": f"http://localhost:{self.http}", "https": f"https://localhost:{self.https}"}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Authority of the servers' certificates."""
    return trustme.CA()


@pytest.fixture(scope="session")
def servers(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """HTTP and HTTPS on loopback, in a process of their own."""
    directory = tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate = directory / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    program = Path(__file__).with_name("servers.py")
    command = [sys.executable, str(program), str(certificate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        http, https = map(int, process.stdout.readline().split())
        yield Servers(http, https, str(directory / "ca.pem"))
        process.stdin.close()


@pytest.fixture(scope="session")
def clients() -> Image:
    """Image with requests and httpx, from an index or a cache; tests are skipped without one."""
    try:
        return Image.build(CLIENTS, name="tests-network-clients")
    except (PackageError, ImageNotFound) as error:
        pytest.skip(f"no image with {', '.join(CLIENTS)}: {error}")


@pytest.fixture(scope="session")
def echo() -> Iterator[int]:
    """Port of a server that sends each line back in capitals."""
    with echo_server() as port:
        yield port


@pytest.fixture(scope="session")
def silent() -> Iterator[int]:
    """Port of a server that takes connections and says nothing."""
    with silent_server() as port:
        yield port
