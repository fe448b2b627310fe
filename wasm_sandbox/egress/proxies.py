"""Connections through a proxy of the host's: its CONNECT, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit

from wasm_sandbox.egress.names import Address, look_up
from wasm_sandbox.egress.refusals import ECONNREFUSED, Refused

MAX_HEAD_BYTES = 16 << 10


async def through_proxy(
    loop: asyncio.AbstractEventLoop,
    proxy: str,
    host: str,
    port: int,
    connect: Callable[[list[Address]], Awaitable[socket.socket]],
) -> socket.socket:
    """Socket that is connected to a host by a proxy, which looks its name up.

    Args:
        loop: event loop.
        proxy: URL of the proxy, ``http://[user:password@]host:port``; the caller trusts it.
        host: name of the host.
        port: port of the host.
        connect: connects to one of some addresses.

    Raises:
        Refused: if the proxy refuses, or cannot be reached.
    """
    parts = urlsplit(proxy)
    assert parts.hostname is not None
    try:
        found = await asyncio.wrap_future(look_up(parts.hostname, parts.port or 80))
        sock = await connect(found)
    except OSError as error:
        detail = f"the proxy {parts.hostname}:{parts.port} cannot be reached: {error} (Network.proxy)"
        raise Refused(ECONNREFUSED, "the proxy cannot be reached", detail=detail) from None
    try:
        name = f"[{host}]" if ":" in host else host
        head = f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n"
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            head += f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}\r\n"
        await loop.sock_sendall(sock, f"{head}\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):  # one at a time: what follows is the host's
            byte = await loop.sock_recv(sock, 1)
            if not byte or len(answer) > MAX_HEAD_BYTES:
                raise Refused(ECONNREFUSED, "the proxy did not answer")
            answer += byte
        status = answer.split(b" ", 2)[1:2]
        if not status or not re.fullmatch(rb"2\d\d", status[0]):
            words = status[0].decode("latin-1", "replace")[:20] if status else "no status"
            raise Refused(ECONNREFUSED, f"the proxy refused the connection: {words}")
    except OSError as error:
        sock.close()
        words = "the proxy ended the connection"
        raise Refused(ECONNREFUSED, words, detail=f"{words}: {error} (Network.proxy)") from None
    except BaseException:
        sock.close()
        raise
    return sock
