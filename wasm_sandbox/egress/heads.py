"""Heads of HTTP messages: what is refused before a parser sees it, and what is sent on in place of what came.

A head that two parsers might read in two ways is refused, not repaired: that is how requests are smuggled past a check.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus, urlsplit

from wasm_sandbox.errors import InvalidNetwork
from wasm_sandbox.network import Secret, canonical_host, split_host

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 256

Headers = list[tuple[bytes, bytes]]

_REQUEST_LINE = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+ [\x21-\x7e]+ HTTP/1\.[01]")
_FIELD = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
    }
)
"""Headers of one connection, which are not sent on. ``Connection`` is written anew."""

_OVERRIDES = frozenset(
    {
        *(b"x-http-method-override", b"x-http-method", b"x-method-override"),
        *(b"x-original-url", b"x-rewrite-url", b"x-original-uri", b"x-forwarded-uri", b"x-forwarded-path"),
    }
)
"""Headers by which some servers take another method or path than those of the request line."""


class Refused(Exception):
    """What a guest sent is not passed on.

    Attributes:
        reason: for the guest.
        detail: for the host.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail or reason


@dataclass(frozen=True)
class Target:
    """What a request is about: path and query, as they are sent on, and the whole URL."""

    text: str
    url: str


def check_request_head(head: bytes) -> None:
    """Refuse a head that is not exactly HTTP/1.0 or 1.1, up to the empty line at its end.

    Raises:
        Refused: if it is not.
    """
    lines = head[:-4].split(b"\r\n")
    if lines[0].startswith(b"PRI * HTTP/2"):
        raise Refused("HTTP/2 is not spoken here: use HTTP/1.1")
    if not _REQUEST_LINE.fullmatch(lines[0]):
        raise Refused("this is no request of HTTP/1.1, and the network policy allows no other protocol here")
    if len(lines) > MAX_HEADERS:
        raise Refused(f"a request has more than {MAX_HEADERS} headers")
    for line in lines[1:]:
        if line.startswith((b" ", b"\t")):
            raise Refused("a header of the request is folded")
        if not _FIELD.fullmatch(line):
            raise Refused("a header of the request is malformed")


def check_framing(headers: Iterable[tuple[bytes, bytes]], version: bytes) -> None:
    """Refuse a request of whose body two parsers might see two ends.

    Args:
        headers: the headers, names in lower case.
        version: of HTTP.

    Raises:
        Refused: if it is one.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if lengths and codings:
        raise Refused("a request has both a length and a transfer encoding")
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        raise Refused("a request has no clear length")
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked" or version != b"1.1"):
        raise Refused("a request has a transfer encoding other than chunked")


def check_switches(method: bytes, headers: Headers) -> bool:
    """Refuse what would make another protocol of the connection, but for a WebSocket.

    Returns:
        Whether the request asks for a WebSocket.

    Raises:
        Refused: if it asks for anything else.
    """
    if method in (b"CONNECT", b"TRACE"):
        raise Refused(f"the method {method.decode()} is not passed on")
    upgrades = values_of(headers, b"upgrade")
    if not upgrades:
        return False
    has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
    if [value.lower() for value in upgrades] != [b"websocket"] or method != b"GET" or has_body:
        raise Refused("a request asks for another protocol than WebSocket")
    return True


def check_overrides(headers: Headers) -> None:
    """Refuse headers that take the place of a method or path that was checked.

    Raises:
        Refused: if there is one.
    """
    for name, _ in headers:
        if name in _OVERRIDES:
            raise Refused(f"the header {name.decode()} is not passed on where the policy looks at methods or paths")


def target_of(target: bytes, method: bytes, headers: Headers, place: tuple[str, str, int], version: bytes) -> Target:
    """What a request is about, which must be the host and port of its connection.

    Args:
        target: of the request line.
        method: of the request line.
        headers: the headers, names in lower case.
        place: scheme, canonical host and port of the connection.
        version: of HTTP; 1.0 knows requests without ``Host``.

    Raises:
        Refused: if it is about another host, or names none or several.
    """
    scheme, host, port = place
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == b"1.1"):
        raise Refused("a request must have exactly one Host")
    for value in hosts:
        _check_authority(value.decode("latin-1"), place)
    text = target.decode("ascii")
    if text == "*" and method == b"OPTIONS":
        return Target(text, f"{authority_url(*place)}/*")
    if not text.startswith("/"):
        text = _origin_form(text, place)
    if "#" in text:
        raise Refused("the target of a request has a fragment")
    return Target(text, f"{authority_url(scheme, host, port)}{text}")


def _origin_form(text: str, place: tuple[str, str, int]) -> str:
    """Path and query of an absolute URL that is about the connection's host."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise Refused("the target of a request is malformed") from None
    if parts.scheme != place[0] or not parts.netloc or "\\" in text:
        raise Refused("the target of a request is about another scheme or none")
    _check_authority(parts.netloc, place)
    rest = text[text.index("://") + 3 + len(parts.netloc) :]
    return rest if rest.startswith("/") else f"/{rest}"


def _check_authority(text: str, place: tuple[str, str, int]) -> None:
    scheme, host, port = place
    try:
        name, given = split_host(text)
        found = canonical_host(name), given or {"https": 443, "http": 80}[scheme]
    except InvalidNetwork:
        raise Refused("the Host of a request is malformed") from None
    if found != (host, port):
        detail = f"a request for {found[0]}:{found[1]} on a connection to {host}:{port}"
        raise Refused("the Host of a request is not that of its connection", detail)


def authority(scheme: str, host: str, port: int) -> str:
    """The value of ``Host`` for a connection."""
    name = f"[{host}]" if ":" in host else host
    return name if {"https": 443, "http": 80}[scheme] == port else f"{name}:{port}"


def authority_url(scheme: str, host: str, port: int) -> str:
    """URL of a connection, without a path."""
    return f"{scheme}://{authority(scheme, host, port)}"


def values_of(headers: Headers, wanted: bytes) -> list[bytes]:
    """Members of a header that is a list."""
    lines = [value for name, value in headers if name == wanted]
    return [part for part in (piece.strip() for line in lines for piece in line.split(b",")) if part]


def sent_on(headers: Headers, is_upgrade: bool) -> Headers:
    """Headers as they are sent on: without those of the connection, which are written anew."""
    options = {option.lower() for option in values_of(headers, b"connection")}
    dropped = _HOP_BY_HOP | (options - {b"host", b"content-length", b"transfer-encoding"})
    kept = [(name, value) for name, value in headers if name not in dropped and name != b"upgrade"]
    if is_upgrade:
        return [*kept, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    return [*kept, (b"connection", b"close")] if b"close" in options else kept


def put_into_headers(headers: Headers, secret: Secret, placeholder: bytes) -> Headers:
    """Headers with the value of a secret in place of its placeholder, in the named ones."""
    value = secret.value.encode()
    named = {name.encode() for name in secret.headers}
    return [
        (name, _filled(content, placeholder, value, secret.basic) if name in named else content)
        for name, content in headers
    ]


def _filled(content: bytes, placeholder: bytes, value: bytes, basic: bool) -> bytes:
    scheme, _, credentials = content.partition(b" ")
    if basic and scheme.lower() == b"basic":
        try:
            plain = b64decode(credentials.strip(), validate=True)
        except ValueError:
            return content
        if placeholder in plain:
            return scheme + b" " + b64encode(plain.replace(placeholder, value))
    return content.replace(placeholder, value)


def put_into_query(target: str, secret: Secret, placeholder: str) -> str:
    """Path and query with the value of a secret in place of its placeholder, in the named parameters."""
    path, mark, query = target.partition("?")
    if not mark or placeholder not in query:
        return target
    pieces = []
    for piece in query.split("&"):
        name, equals, content = piece.partition("=")
        if equals and unquote_plus(name) in secret.query:
            content = content.replace(placeholder, quote(secret.value, safe=""))
        pieces.append(name + equals + content)
    return path + mark + "&".join(pieces)
