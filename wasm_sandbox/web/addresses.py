"""Addresses: whether only this machine reaches one, and a socket that listens at it."""

from __future__ import annotations

import ipaddress
import os
import socket

from wasm_sandbox import HostError

BACKLOG = 2048


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address: a name counts if it is ``localhost``.

    Args:
        host: address or name; one of IPv6 may stand in brackets.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(_bare(host)).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Socket that listens.

    Args:
        host: address or name; one of IPv6 may stand in brackets.
        port: port; 0 for a free one.

    Raises:
        HostError: if it cannot.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            _bare(host), port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )[0]
        # With its protocol, or asyncio leaves Nagle's algorithm on, which holds answers up for 40 ms.
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _cannot_listen(host, port, error) from error
    return made


def address_of(listening: socket.socket) -> str:
    """Address of a server as a client writes it, without a path."""
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _cannot_listen(host: str, port: int, error: Exception) -> HostError:
    why = getattr(error, "strerror", None) or error
    return HostError(f"{host} port {port} cannot be listened at: {why}; name another --host or --port")
