"""An island: a process with a network of its own, where every address is this machine, and a name server of ours.

The process enters namespaces of its own (Linux), gives its loopback all addresses of IPv4 and IPv6, and has the
system's resolver ask a server here. So a guest's connection to any address arrives, at the servers of
`hostile_servers` on ports 80 and 443, and what arrives nowhere was not made. `Island` calls methods of the
`World` in it.
"""

from __future__ import annotations

import ipaddress
import os
import pickle
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import trustme

from tests.network.hostile_servers import HostileServer, Visit
from tests.network.servers import serving
from wasm_sandbox import CodeResult, Limits, Network, run_code

ROOT = Path(__file__).parents[2]
NAME_SERVER = "127.0.0.53"
CERTIFIED = ("api.example.com", "other.example.com", "api.weather.example", "api.github.example", "rates.example")
"""Names that the certificate of the servers is for."""

_UNSHARE = ("unshare", "--net", "--mount")
_A, _AAAA = 1, 28


def why_not() -> str | None:
    """Why there can be no island here; None if there can."""
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        return "it needs Linux with unshare and ip"
    return None if _command() else "this system lets nobody have a network namespace"


def _command() -> list[str]:
    """Command that begins a process in namespaces of its own; empty if that is not to be had."""
    for prefix in ([*_UNSHARE, "--map-root-user"], list(_UNSHARE)):
        probe = [*prefix, "sh", "-c", "ip link set lo up && ip route add local 0.0.0.0/0 dev lo"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return prefix
    return []


# --- On the island --------------------------------------------------------------------------------------


class NameServer:
    """Answers questions for addresses, by UDP.

    Attributes:
        names: name -> the answers to give one after the other, each a list of addresses; the last one stays. A name
            with no answers at all gets no word, and one that is not here does not exist.
        asked: the names that were asked for, in order.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._counts: dict[tuple[str, int], int] = defaultdict(int)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NAME_SERVER, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, place = self._socket.recvfrom(2000)
            if answer := self._answer(question):
                self._socket.sendto(answer, place)

    def _answer(self, question: bytes) -> bytes | None:
        labels, at = [], 12
        while size := question[at]:
            labels.append(question[at + 1 : at + 1 + size].decode("latin-1"))
            at += 1 + size
        name = ".".join(labels).lower()
        (kind,) = struct.unpack_from(">H", question, at + 1)
        asked = question[12 : at + 5]
        self.asked.append(name)
        answers = self.names.get(name)
        if answers is None:
            return question[:2] + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + asked
        if not answers:
            return None
        count = self._counts[name, kind]
        self._counts[name, kind] += 1
        found = [ipaddress.ip_address(text) for text in answers[min(count, len(answers) - 1)]]
        wanted = [address.packed for address in found if address.version == (4 if kind == _A else 6)]
        wanted = wanted if kind in (_A, _AAAA) else []
        records = b"".join(struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(data)) + data for data in wanted)
        return question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(wanted), 0, 0) + asked + records


class World:
    """What is on the island; its methods are called from outside."""

    def __init__(self, stack: ExitStack) -> None:
        self._name_server = NameServer()
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        self._ca_file = self._directory / "ca.pem"
        authority.cert_pem.write_to_path(self._ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*CERTIFIED).configure_cert(context)
        self._servers = [
            HostileServer(("::", 80), socket.AF_INET6),
            HostileServer(("::", 443), socket.AF_INET6, context),
        ]
        for server in self._servers:
            stack.enter_context(serving(server))

    def ca_file(self) -> str:
        """Certificates of the servers' authority."""
        return str(self._ca_file)

    def names(self, table: dict[str, list[list[str]]]) -> None:
        """Have the name server know these names and no others."""
        self._name_server.names = dict(table)
        self._name_server._counts.clear()

    def asked(self) -> list[str]:
        """The names that were asked for since the last call."""
        found, self._name_server.asked = self._name_server.asked, []
        return found

    def visits(self) -> list[Visit]:
        """The connections that came since the last call."""
        found = [visit for server in self._servers for visit in server.ended_visits()]
        for server in self._servers:
            server.visits = []
        return found

    def run_code(
        self, code: str, inputs: dict[str, Any] | None, limits: dict[str, Any], network: dict[str, Any]
    ) -> CodeResult:
        """Run a program."""
        return run_code(code, inputs, limits=Limits(**limits), network=Network(**network))

    def run_together(self, first: tuple[Any, ...], second: tuple[Any, ...], seconds: float) -> list[CodeResult]:
        """Run a program, and another so many seconds later; the results in their order."""
        found: list[CodeResult | None] = [None, None]

        def run() -> None:
            found[0] = self.run_code(*first)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(seconds)
        found[1] = self.run_code(*second)
        thread.join()
        return [result for result in found if result is not None]

    def run_shell(self, line: str, directory: str, environment: dict[str, str]) -> tuple[int, str, str]:
        """Run a line of a shell, whose programs trust the servers' certificates: exit code, output, errors."""
        done = subprocess.run(
            ["sh", "-c", line],
            capture_output=True,
            text=True,
            check=False,
            cwd=directory,
            env={**environment, "SSL_CERT_FILE": str(self._ca_file)},
        )
        return done.returncode, done.stdout, done.stderr

    def pages(self, pages: dict[str, Any]) -> None:
        """Have the servers answer these paths with JSON."""
        for server in self._servers:
            server.pages = pages

    def threads(self) -> int:
        """Threads that look names up."""
        return sum(thread.name == "wasm-sandbox-names" for thread in threading.enumerate())


def _settle_down() -> None:
    """Give this process, in namespaces of its own, all addresses, and a resolver that asks our name server."""
    for command in ("link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    texts = {
        "/etc/resolv.conf": f"nameserver {NAME_SERVER}\noptions timeout:5 attempts:1\n",
        "/etc/nsswitch.conf": "hosts: files dns\n",
        "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    }
    for place, text in texts.items():
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        subprocess.run(["mount", "--bind", file.name, os.path.realpath(place)], check=True)
        os.unlink(file.name)


def _main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _settle_down()
    with ExitStack() as stack:
        world = World(stack)
        while True:
            try:
                name, arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                answer = True, getattr(world, name)(*arguments)
            except Exception:
                answer = False, traceback.format_exc()
            pickle.dump(answer, answers)
            answers.flush()


# --- From outside ---------------------------------------------------------------------------------------


class Island:
    """The island, as tests see it: the methods of its `World`."""

    def __init__(self, to: BinaryIO, back: BinaryIO) -> None:
        self._to, self._back = to, back

    def _call(self, name: str, *arguments: Any) -> Any:
        pickle.dump((name, arguments), self._to)
        self._to.flush()
        is_right, value = pickle.load(self._back)
        assert is_right, value
        return value

    def run(
        self, code: str, inputs: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **network: Any
    ) -> CodeResult:
        """Run a program with a network of these options there."""
        result: CodeResult = self._call("run_code", code, inputs, limits or {}, self._network(network))
        return result

    def run_together(
        self, first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]], seconds: float = 0.3
    ) -> list[CodeResult]:
        """Run a program, and another so many seconds later; each is its text and the options of its network."""
        calls: list[tuple[Any, ...]] = [(code, None, {}, self._network(network)) for code, network in (first, second)]
        results: list[CodeResult] = self._call("run_together", *calls, seconds)
        return results

    def _network(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"allow": ["*"], "ca_file": self._call("ca_file"), **options}

    def run_shell(self, line: str, directory: Path, environment: dict[str, str]) -> tuple[int, str, str]:
        """Run a line of a shell there: exit code, output, errors."""
        found: tuple[int, str, str] = self._call("run_shell", line, str(directory), environment)
        return found

    def pages(self, pages: dict[str, Any]) -> None:
        """Have the servers answer these paths with JSON."""
        self._call("pages", pages)

    def names(self, **table: list[list[str]]) -> None:
        """Names of the name server; an underscore stands for a dot. Forgets what was asked and who came."""
        self._call("names", {name.replace("_", "."): answers for name, answers in table.items()})
        self._call("asked")
        self._call("visits")

    def asked(self) -> set[str]:
        """The names that were asked for."""
        return set(self._call("asked"))

    def visits(self) -> list[Visit]:
        """The connections that came."""
        visits: list[Visit] = self._call("visits")
        return visits

    def threads(self) -> int:
        """Threads there that look names up."""
        count: int = self._call("threads")
        return count


@contextmanager
def island() -> Iterator[Island]:
    """An island; `why_not` says whether there can be one."""
    command = [*_command(), sys.executable, "-m", "tests.network.island"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Island(process.stdin, process.stdout)  # type: ignore[arg-type]  # both are of bytes
        process.stdin.close()


if __name__ == "__main__":
    sys.modules["tests.network.island"] = sys.modules["__main__"]
    _main()
