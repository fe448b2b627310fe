"""A server for clients that come over streamable HTTP."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from wasm_sandbox.mcp.service import Service
from wasm_sandbox.mcp.tokens import App, Tokens, guarded

PATH = "/mcp"
MAX_BODY_BYTES = 16 << 20
MAX_CONNECTIONS = 512
DRAIN_SECONDS = 2

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def http_app(service: Service, tokens: Tokens | None = None, names: Sequence[str] = _LOOPBACK_NAMES) -> App:
    """Make an ASGI application, with the server at ``/mcp``.

    Args:
        service: what is served.
        tokens: tokens, one of which each request must have; without them requests are taken only under ``names``.
        names: host names under which clients come, with any port. A page that a browser was led to this server with
            comes under another one (DNS rebinding), and is refused.
    """
    hosts = [pattern for name in names for pattern in (name, f"{name}:*")]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=tokens is None, allowed_hosts=hosts, allowed_origins=origins
    )
    app: App = service.server.streamable_http_app(
        streamable_http_path=PATH,
        transport_security=security,
        max_request_body_size=MAX_BODY_BYTES,
        max_sessions=MAX_CONNECTIONS,
    )
    return app if tokens is None else guarded(app, tokens)


def serve_http(
    service: Service,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: Tokens | None = None,
    announce: Callable[[str], object] = print,
) -> None:
    """Serve until interrupted or terminated; then what runs is stopped.

    Args:
        service: what is served.
        host: address to listen at.
        port: port to listen at; 0 for any that is free.
        tokens: tokens of clients.
        announce: called with the address, once clients can connect.

    Raises:
        ValueError: if others than this machine could connect, and there are no tokens.
        OSError: if it cannot listen there.
    """
    if tokens is None and not is_loopback(host):
        raise ValueError(f"others can reach {host}: give tokens (--token-file), or listen at 127.0.0.1")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol, or asyncio leaves Nagle's algorithm on, which holds answers up for 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name == "posix":  # on Windows it would let another process take the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        shown = f"[{host}]" if family is socket.AF_INET6 else host
        announce(f"http://{shown}:{listener.getsockname()[1]}{PATH}")
        config = uvicorn.Config(
            http_app(service, tokens),
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])
