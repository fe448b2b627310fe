"""Servers for the clients of `libraries`: the parts of APIs that they use, mail, and Debian's PostgreSQL and Redis."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import trustme

from tests.network.servers import serving

API_KEY = "sk-api-0123456789abcdef"
PASSWORD = "pw-0123456789abcdef"

_AGENT = {
    "agent_type": "letta_v1_agent", "blocks": [], "id": "agent-1", "memory": {"blocks": []}, "name": "Ada",
    "sources": [], "system": "You are Ada.", "tags": [], "tools": [],
}  # fmt: skip


def _chat(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Chunks of an answer as OpenAI's API gives them, or the answer."""
    text = request["messages"][-1]["content"].upper()
    common = {"id": "c-1", "created": 1, "model": request["model"]}
    if not request.get("stream"):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [{**common, "object": "chat.completion", "choices": [choice]}]
    return [
        {**common, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": part}}]}
        for part in text.split()
    ]


def _messages(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Events of an answer as Anthropic's API gives them, or the answer."""
    text = request["messages"][-1]["content"].upper()
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m-1", "type": "message", "role": "assistant", "model": request["model"], "usage": usage}
    message |= {"stop_reason": None, "stop_sequence": None, "content": []}
    if not request.get("stream"):
        return [{**message, "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}]
    parts: list[dict[str, Any]] = [{"type": "text_delta", "text": part} for part in text.split()]
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": part} for part in parts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


class _Api(BaseHTTPRequestHandler):
    """APIs by their paths; each asks for the key in the way of its own."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _give(self, value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _is_known(self) -> bool:
        keys = (self.headers.get("Authorization"), self.headers.get("X-Api-Key"))
        if f"Bearer {API_KEY}" in keys or API_KEY in keys:
            return True
        self._give({"error": {"message": "who are you?"}}, 401)
        return False

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _stream(self, events: list[dict[str, Any]], end: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            name = f"event: {event['type']}\n" if "type" in event else ""
            piece = f"{name}data: {json.dumps(event)}\n\n".encode()
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            time.sleep(0.01)
        self.wfile.write((f"{len(end):x}\r\n".encode() + end + b"\r\n" if end else b"") + b"0\r\n\r\n")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._web_socket()
        elif path == "/v1/agents/":
            if self._is_known():
                self._give([] if "after=" in self.path else [_AGENT, {**_AGENT, "id": "agent-2", "name": "Grace"}])
        elif path in self.objects:
            body = self.objects[path]
            self._give(body, kind="binary/octet-stream", ETag=f'"{hashlib.md5(body).hexdigest()}"')
        else:
            self._give({"path": self.path})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        request = json.loads(self._body() or b"null")
        if not self._is_known():
            return
        if self.path == "/v1/chat/completions":
            answer, end = _chat(request), b"data: [DONE]\n\n"
        elif self.path == "/v1/messages":
            answer, end = _messages(request), b""
        elif self.path == "/v1/agents/agent-1/messages":
            text = f"You said: {request['messages'][0]['content']}"
            date = "2026-11-30T10:00:00Z"
            said = {"id": "message-1", "date": date, "message_type": "assistant_message", "content": text}
            answer = [{"messages": [said], "stop_reason": {"stop_reason": "end_turn"}, "usage": {"step_count": 1}}]
        else:
            answer = [{"path": self.path, "body": request}]
        if request and request.get("stream"):
            self._stream(answer, end)
        else:
            self._give(answer[0])

    def do_PUT(self) -> None:
        """Keep an object, as S3 does; the body may come in signed chunks."""
        body = self._body()
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            body = _without_chunks(body)
        self.objects[self.path.partition("?")[0]] = body
        self._give(b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def _web_socket(self) -> None:
        """Shake hands, and send each message back in capitals until the other side closes."""
        key = self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key).digest()).decode())
        self.end_headers()
        while True:
            first, size = self.rfile.read(2)
            size &= 127
            if size == 126:
                (size,) = struct.unpack(">H", self.rfile.read(2))
            mask, data = self.rfile.read(4), self.rfile.read(size)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            if first & 15 == 8:
                self.wfile.write(bytes([0x88, len(text)]) + text)
                self.close_connection = True
                return
            text = text.upper()
            head = struct.pack(">BBH", first, 126, len(text)) if len(text) > 125 else bytes([first, len(text)])
            self.wfile.write(head + text)


def _without_chunks(body: bytes) -> bytes:
    """What is in the chunks of ``aws-chunked``."""
    found = b""
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            return found
        found, body = found + body[:size], body[size + 2 :]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Bear a client that goes away."""


def _mail_handler(context: ssl.SSLContext, mails: list[dict[str, str]]) -> type[socketserver.StreamRequestHandler]:
    class Mail(socketserver.StreamRequestHandler):
        """SMTP with STARTTLS and a password, as far as a client needs it."""

        def handle(self) -> None:
            say = self._say
            say("220 mail ready")
            while line := self.rfile.readline():
                verb = line.strip().upper()
                if verb.startswith(b"EHLO"):
                    is_tls = isinstance(self.connection, ssl.SSLSocket)
                    say("250-mail", "250 AUTH PLAIN" if is_tls else "250 STARTTLS")
                elif verb == b"STARTTLS":
                    say("220 go ahead")
                    self.connection = context.wrap_socket(self.connection, server_side=True)
                    self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                elif verb.startswith(b"AUTH PLAIN"):
                    right = base64.b64encode(f"\0ada\0{PASSWORD}".encode())
                    say("235 welcome" if line.split()[2] == right else "535 no")
                elif verb == b"DATA":
                    say("354 go ahead")
                    text = b""
                    while not text.endswith(b"\r\n.\r\n"):
                        text += self.rfile.readline()
                    mails.append(dict(message_from_bytes(text[:-5]).items()))
                    say("250 kept")
                elif verb == b"QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 ok")

        def finish(self) -> None:
            super().finish()
            self.connection.close()  # not the socket that the server knows, once there is TLS

        def _say(self, *lines: str) -> None:
            self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    return Mail


def _program(name: str) -> str | None:
    """Path of a program, one of Debian's PostgreSQL too."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _wait_for(port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens at port {port}")


@contextmanager
def _running(command: list[str], port: int, **options: Any) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:
        try:
            _wait_for(port)
            yield
        finally:
            process.terminate()


def _redis(stack: ExitStack) -> int | None:
    """Port of a Redis that asks for the password; None where there is none."""
    program = _program("redis-server")
    if program is None:
        return None
    port = _free_port()
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--requirepass",
        PASSWORD,
    ]
    stack.enter_context(_running([program, *options], port))
    return port


def _postgres(stack: ExitStack, certificate: trustme.LeafCert) -> int | None:
    """Port of a PostgreSQL that speaks TLS and asks for the password; None where there is none."""
    initdb, program = _program("initdb"), _program("postgres")
    if initdb is None or program is None or sys.platform == "win32":
        return None
    import pwd  # lazy: there is none on Windows

    user: dict[str, Any] = {}
    if os.getuid() == 0:  # it refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            return None
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # pytest's own are nobody else's to enter
    data = directory / "data"
    (directory / "password").write_text(PASSWORD)
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    (directory / "key.pem").chmod(0o600)
    if user:
        for path in (directory, *directory.iterdir()):
            os.chown(path, user["user"], user["group"])
    options = ["--username=ada", "--auth=scram-sha-256", f"--pwfile={directory / 'password'}", "--no-sync"]
    subprocess.run([initdb, f"--pgdata={data}", *options], check=True, capture_output=True, cwd="/", **user)
    port = _free_port()
    settings = {
        "listen_addresses": "127.0.0.1", "port": port, "ssl": "on", "ssl_cert_file": directory / "cert.pem",
        "ssl_key_file": directory / "key.pem", "unix_socket_directories": "", "fsync": "off",
    }  # fmt: skip
    command = [program, "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
    stack.enter_context(_running(command, port, cwd="/", **user))
    return port


@dataclass(frozen=True)
class Services:
    """Ports by name: ``api`` and ``mail``, and ``postgres`` and ``redis`` or None where these are not installed."""

    ports: Mapping[str, int | None]
    mails: list[dict[str, str]]


@contextmanager
def services(authority: trustme.CA) -> Iterator[Services]:
    """All servers, on loopback, with certificates of an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("localhost")
    certificate.configure_cert(context)
    mails: list[dict[str, str]] = []
    with ExitStack() as stack:
        api = _Server(("127.0.0.1", 0), _Api)
        api.socket = context.wrap_socket(api.socket, server_side=True, do_handshake_on_connect=False)
        mail = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _mail_handler(context, mails))
        mail.daemon_threads = True
        starts: dict[str, Callable[[], int | None]] = {
            "api": lambda: stack.enter_context(serving(api)),
            "mail": lambda: stack.enter_context(serving(mail)),
            "postgres": lambda: _postgres(stack, certificate),
            "redis": lambda: _redis(stack),
        }
        yield Services({name: start() for name, start in starts.items()}, mails)
