"""A server for clients that come over streamable HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route, Router

from wasm_sandbox.mcp.service import Service
from wasm_sandbox.mcp.tokens import NOBODY, OWNER, App, Receive, Scope, Send, Tokens, guarded
from wasm_sandbox.web import Bounds, Server, is_loopback, listen

PATH = "/mcp"
MAX_BODY_BYTES = 16 << 20
MAX_CONNECTIONS = 512
MIN_SHARE = MAX_CONNECTIONS // 4
"""Least of them that one token may hold, however many tokens there are."""
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
    owners = [NOBODY] if tokens is None else tokens.names
    places = _Places(service, security, owners)
    app = Router([Route(PATH, places)], lifespan=lambda _: places.life())
    return app if tokens is None else guarded(app, tokens)


class _Places:
    """The service as an ASGI application in which each owner has a share of the places: one leaves room for others.

    A place is a request under way, and a session of the protocol's older versions, which is kept for half an hour.

    Args:
        service: what is served.
        security: names of hosts and origins.
        owners: all owners.
    """

    def __init__(self, service: Service, security: TransportSecuritySettings, owners: Sequence[str]) -> None:
        self._share = max(MAX_CONNECTIONS // max(1, len(owners)), MIN_SHARE)
        self._under_way = dict.fromkeys(owners, 0)
        self._managers = {
            owner: StreamableHTTPSessionManager(
                service.server,
                security_settings=security,
                max_request_body_size=MAX_BODY_BYTES,
                max_sessions=self._share,
            )
            for owner in owners
        }

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """Life of the service, inside of which it answers."""
        async with AsyncExitStack() as lives:
            for manager in self._managers.values():
                await lives.enter_async_context(manager.run())
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = scope.get(OWNER, NOBODY)
        if self._under_way[owner] >= self._share:
            headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1")]
            await send({"type": "http.response.start", "status": 429, "headers": headers})
            words = b"%d requests of yours are under way, as many as there may be" % self._share
            await send({"type": "http.response.body", "body": words})
            return
        self._under_way[owner] += 1
        try:
            await self._managers[owner].handle_request(scope, receive, send)
        finally:
            self._under_way[owner] -= 1


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
