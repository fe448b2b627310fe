"""TLS of connections: always with certificates verified, and with HTTP/1.1 where HTTP is spoken."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

HTTP_PROTOCOLS = ("http/1.1",)


@lru_cache(maxsize=64)
def context_of(ca_file: str | None, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """Settings of connections: certificates are verified, against the names of the hosts too.

    Args:
        ca_file: certificates of authorities that are trusted, too, besides those of the system.
        protocols: names of protocols for ALPN.

    Raises:
        OSError: if the file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def description(tls: Any, protocols: Sequence[str]) -> dict[str, Any]:
    """What a guest is told of a TLS connection.

    Args:
        tls: its `ssl.SSLObject`.
        protocols: names that the guest offered for ALPN.
    """
    chosen = tls.selected_alpn_protocol()
    certificate = tls.getpeercert(binary_form=True) or b""
    return {
        "alpn": chosen if chosen in protocols else None,
        "cipher": tls.cipher(),
        "version": tls.version(),
        "peer": tls.getpeercert(),
        "certificate": certificate.hex(),
    }


def replayed(protocols: Sequence[str]) -> dict[str, Any]:
    """What a guest is told of TLS where answers are replayed, and there is none.

    Args:
        protocols: names that the guest offered for ALPN.
    """
    chosen = next((protocol for protocol in HTTP_PROTOCOLS if protocol in protocols), None)
    cipher = ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    return {"alpn": chosen, "cipher": cipher, "version": "TLSv1.3", "peer": {}, "certificate": ""}


def failure(error: BaseException) -> tuple[str, str]:
    """Class and sentence of a failed handshake, for the guest."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "SSLCertVerificationError", f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "SSLError", error.reason or "the handshake failed"
    if isinstance(error, TimeoutError):
        return "TimeoutError", "the handshake took too long"
    return "ConnectionResetError", "the connection ended in the handshake"
