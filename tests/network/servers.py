"""Servers on loopback, HTTP and HTTPS, as the tests of the network need them. Run as a program it is one of its own."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """What is asked for by its path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a head and its body are two writes, and the second would wait for 40 ms

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: bytes, kind: str = "application/json", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"one,", b"two,", b"three"):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        elif path.startswith("/redirect/"):
            self._answer(b"", status=302, Location=f"/{path.removeprefix('/redirect/')}")
        elif path.startswith("/away/"):
            self._answer(b"", status=302, Location=f"http://{path.removeprefix('/away/')}/json")
        elif path.startswith("/big/"):
            self._answer(b"x" * int(path.removeprefix("/big/")), "text/plain")
        elif path.startswith("/wait/"):
            time.sleep(float(path.removeprefix("/wait/")))
            self._answer(b'{"waited": true}')
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._answer(json.dumps({"path": self.path, "method": self.command, "headers": headers}).encode())

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = {"got": len(body), "body": body[:1000].decode("latin-1"), "headers": headers}
        self._answer(json.dumps(answer).encode())

    do_PUT = do_DELETE = do_POST


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Bear a client that goes away."""


class _Echo(socketserver.ThreadingTCPServer):
    """What is sent comes back, until ``TLS``: then it begins."""

    daemon_threads = allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Bear a client that goes away."""


class _EchoHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


@contextmanager
def http_server(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Port of a server."""
    server = _Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server) as port:
        yield port


@contextmanager
def echo_server() -> Iterator[int]:
    """Port of a server that sends each line back in capitals."""
    with serving(_Echo(("127.0.0.1", 0), _EchoHandler)) as port:
        yield port


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Serve on a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    """Port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def main(certificate: str) -> None:
    """Serve until standard input ends; the ports of HTTP and HTTPS are printed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http_server() as http, http_server(context) as https:
        print(http, https, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
