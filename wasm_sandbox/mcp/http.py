"""A server for clients that come over streamable HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from wasm_sandbox.mcp.service import Service
from wasm_sandbox.mcp.tokens import App, Receive, Scope, Send, Tokens, guarded
from wasm_sandbox.web import Bounds, Server, is_loopback, listen

PATH = "/mcp"
MAX_BODY_BYTES = 16 << 20
MAX_CONNECTIONS = 512
BOUNDS = Bounds(connections=MAX_CONNECTIONS, body_seconds=30.0, end_seconds=2.0)

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


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
        HostError: if it cannot listen there.
    """
    if tokens is None and not is_loopback(host):
        raise ValueError(f"others can reach {host}: give tokens (--token-file), or listen at 127.0.0.1")
    app = http_app(service, tokens)
    with listen(host, port) as listener:
        Server(app, BOUNDS, ready=lambda address: announce(address + PATH)).run([listener])


class Endpoint:
    """The service as an ASGI application inside of another server, for ``POST`` to one path.

    That server says whose a request is (its scope is what `Calls` are given), and bounds it. Each request is served for
    itself: nothing is kept between them, so that a client which hangs up stops its call in either era of the protocol.

    Args:
        service: what is served.
        max_body_bytes: largest request.
    """

    def __init__(self, service: Service, max_body_bytes: int) -> None:
        self._manager = StreamableHTTPSessionManager(
            service.server, stateless=True, max_request_body_size=max_body_bytes
        )

    def life(self) -> AbstractAsyncContextManager[None]:
        """Life of the service, inside of which it answers; entered and left by one task, once."""
        return self._manager.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)
