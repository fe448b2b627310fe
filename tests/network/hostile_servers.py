"""A server that misbehaves as it is asked to, by the path; it remembers what reached it, and at which address."""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.network.servers import serving
from tests.support.waiting import wait_until

GIB = 1 << 30
BOMB = gzip.compress(bytes(16 << 20)) * 64
"""Gzip of 1 GiB."""

_PIECE = b"x" * (64 << 10)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@dataclass
class Visit:
    """One connection that a server was given."""

    address: str
    """Where it was made to: the server's side."""
    port: int
    received: bytes = b""
    """The first megabyte; within TLS, where there is TLS."""
    sent: int = 0
    heads: list[bytes] = field(default_factory=list)
    """Of the requests, as this server read them: by lengths and chunks, the first line of each."""
    is_over: bool = False
    """Whether the connection has ended, so that nothing more is received."""


class HostileServer(socketserver.ThreadingTCPServer):
    """Server on a thread for each connection.

    Args:
        place: address and port; port 0 for any.
        family: of the address.
        context: for TLS.
    """

    daemon_threads = allow_reuse_address = True
    request_queue_size = 256

    def __init__(
        self,
        place: tuple[str, int] = ("127.0.0.1", 0),
        family: socket.AddressFamily = socket.AF_INET,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.address_family, self.context = family, context
        self.visits: list[Visit] = []
        self.pages: dict[str, Any] = {}
        """Path -> what it is answered with, as JSON."""
        super().__init__(place, _Conversation, bind_and_activate=False)
        if family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.server_bind()
        self.server_activate()

    def ended_visits(self, seconds: float = 5.0) -> list[Visit]:
        """The connections that came since ``visits`` was emptied, when all have been read to their ends."""
        time.sleep(0.05)  # those that are made and not yet accepted
        wait_until(lambda: all(visit.is_over for visit in self.visits), seconds)
        return list(self.visits)

    def handle_error(self, request: object, client_address: object) -> None:
        """Bear a client that goes away."""


class _Conversation(socketserver.BaseRequestHandler):
    server: HostileServer
    request: socket.socket
    visit: Visit

    def handle(self) -> None:
        address, port = self.request.getsockname()[:2]
        self.visit = Visit(str(address).removeprefix("::ffff:"), port)
        self.server.visits.append(self.visit)
        with contextlib.suppress(OSError):
            if self.server.context is not None:
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
            while self._answer_one():
                pass

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self.request.close()
        self.visit.is_over = True

    def _take(self, size: int = 65_536) -> bytes:
        data = self.request.recv(size)
        if len(self.visit.received) < 1 << 20:
            self.visit.received += data
        return data

    def _say(self, data: bytes) -> None:
        self.request.sendall(data)
        self.visit.sent += len(data)

    def _answer_one(self) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            data = self._take(1)
            if not data:
                return False
            head += data
        line = head.partition(b"\r\n")[0]
        self.visit.heads.append(line)
        path = line.split(b" ")[1].decode()
        name, _, rest = path.removeprefix("/").partition("/")
        answer = self.ANSWERS.get(name)
        if name != "deaf":
            self._read_body(head)
        if (page := self.server.pages.get(path.partition("?")[0])) is not None:
            body = json.dumps(page).encode()
            self._say(_HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        elif answer is not None:
            answer(self, rest, head)
        else:
            self._say(_HEAD + b"Content-Length: 2\r\n\r\nok")
        return True

    def _read_body(self, head: bytes) -> None:
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        if headers.get(b"transfer-encoding") == b"chunked":
            while size := int(self._line(), 16):
                for _ in range(size + 2):
                    self._take(1)
            self._line()
        for _ in range(int(headers.get(b"content-length", b"0"))):
            self._take(1)

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n") and (byte := self._take(1)):
            line += byte
        return line.strip()

    # -- what is asked for -----------------------------------------------------------------------

    def big(self, _rest: str, _head: bytes) -> None:
        """Ten gigabytes."""
        self._say(_HEAD + f"Content-Length: {10 * GIB}\r\n\r\n".encode())
        while True:
            self._say(_PIECE)

    def drip(self, _rest: str, _head: bytes) -> None:
        """A byte now and then."""
        self._say(_HEAD + b"Content-Length: 1000000\r\n\r\n")
        while True:
            time.sleep(0.05)
            self._say(b"x")

    def events(self, _rest: str, _head: bytes) -> None:
        """A stream of events without an end."""
        self._say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            self._say(b"data: x\n\n")
            time.sleep(0.2)

    def drip_head(self, _rest: str, _head: bytes) -> None:
        """A head of a byte now and then."""
        self._say(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            time.sleep(0.05)
            self._say(b"x")

    def line(self, _rest: str, _head: bytes) -> None:
        """A head of one line without an end."""
        self._say(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            self._say(_PIECE)

    def headers(self, _rest: str, _head: bytes) -> None:
        """A head of lines without an end."""
        self._say(b"HTTP/1.1 200 OK\r\n")
        while True:
            self._say(b"X-Header: x\r\n" * 1000)

    def interim(self, _rest: str, _head: bytes) -> None:
        """Interim answers without an end."""
        while True:
            self._say(b"HTTP/1.1 100 Continue\r\nLink: x\r\n\r\n")

    def chunk(self, _rest: str, _head: bytes) -> None:
        """The line before a chunk, without an end."""
        self._say(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;")
        while True:
            self._say(_PIECE)

    def trailers(self, _rest: str, _head: bytes) -> None:
        """Trailers without an end."""
        self._say(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        while True:
            self._say(b"X-Trailer: x\r\n" * 1000)

    def bomb(self, _rest: str, _head: bytes) -> None:
        """A gigabyte in a megabyte."""
        self._say(_HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n\r\n".encode() + BOMB)

    def silent(self, _rest: str, _head: bytes) -> None:
        """Nothing."""
        while self._take():
            pass

    def deaf(self, _rest: str, _head: bytes) -> None:
        """Nothing, and nothing is read."""
        wait_for_the_end(self.request)
        raise ConnectionResetError

    def to(self, rest: str, _head: bytes) -> None:
        """A redirect."""
        self._say(f"HTTP/1.1 302 Found\r\nLocation: {rest}\r\nContent-Length: 0\r\n\r\n".encode())

    def mirror(self, rest: str, head: bytes) -> None:
        """The request itself: as a body, in chunks of so many bytes, and in headers."""
        lines = [line for line in head.split(b"\r\n")[1:] if line]
        echoed = b"".join(b"X-Echo-" + line + b"\r\n" for line in lines)
        head += b"\r\n" + self.visit.received[-2000:]
        if not rest:
            self._say(_HEAD + echoed + f"Content-Length: {len(head)}\r\n\r\n".encode() + head)
            return
        self._say(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        size = int(rest)
        for at in range(0, len(head), size):
            piece = head[at : at + size]
            self._say(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self._say(b"0\r\n\r\n")

    def mirror_status(self, _rest: str, head: bytes) -> None:
        """The value of ``Authorization``, where it is no answer of HTTP."""
        value = head.partition(b"uthorization: ")[2].partition(b"\r\n")[0]
        self._say(b"HTTP/1.1 " + value + b" OK\r\n\r\n")

    def mirror_reason(self, _rest: str, head: bytes) -> None:
        """The value of ``Authorization``, in the first line and in a redirect."""
        value = head.partition(b"uthorization: ")[2].partition(b"\r\n")[0]
        self._say(b"HTTP/1.1 302 " + value + b"\r\nLocation: /ok?" + value + b"\r\nContent-Length: 0\r\n\r\n")

    ANSWERS: ClassVar[dict[str, Callable[[_Conversation, str, bytes], None]]] = {
        "big": big,
        "bomb": bomb,
        "chunk": chunk,
        "deaf": deaf,
        "drip": drip,
        "drip_head": drip_head,
        "events": events,
        "headers": headers,
        "interim": interim,
        "line": line,
        "mirror": mirror,
        "mirror_reason": mirror_reason,
        "mirror_status": mirror_status,
        "silent": silent,
        "to": to,
        "trailers": trailers,
    }


def wait_for_the_end(connection: socket.socket, _head: bytes = b"", seconds: float = 20) -> None:
    """Read nothing and say nothing until the other side has closed a connection, or a time is over."""
    if sys.platform != "linux":
        time.sleep(seconds)
        return
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll(seconds * 1000)


@contextlib.contextmanager
def hostile_server(context: ssl.SSLContext | None = None) -> Iterator[HostileServer]:
    """A server on loopback, on threads of this process."""
    server = HostileServer(context=context)
    with serving(server):
        yield server


@contextlib.contextmanager
def full_port() -> Iterator[int]:
    """Port whose queue is full: the system answers no further connection to it, and its clients wait."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]


@contextlib.contextmanager
def proxy_server(behave: Callable[[socket.socket, bytes], None] | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Proxy on loopback that understands CONNECT: its port, and the heads that it was asked with.

    Args:
        behave: what it does with a connection and the head instead of connecting.
    """
    heads: list[bytes] = []

    class Proxy(socketserver.BaseRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            head = b""
            with contextlib.suppress(OSError):
                while b"\r\n\r\n" not in head and (byte := self.request.recv(1)):
                    head += byte
                heads.append(head)
                if behave is not None:
                    behave(self.request, head)
                    return
                host, _, port = head.split(b" ")[1].decode().rpartition(":")
                with socket.create_connection((host.strip("[]"), int(port))) as server:
                    self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(server, self.request), daemon=True)
                    back.start()
                    _pump(self.request, server)
                    back.join()

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    with serving(server) as port:
        yield port, heads


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
