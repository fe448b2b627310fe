"""HTTP of one connection, read on its way: nothing of a guest's is forwarded that was not understood and checked.

Requests are read by h11 and written anew, and so are answers: how a message is framed is never the guest's to say.
Sans-io: bytes in, steps out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import h11

from wasm_sandbox.egress.secrets import Headers, RunSecrets, Scrubber
from wasm_sandbox.errors import InvalidNetwork
from wasm_sandbox.network import Network, canonical_host
from wasm_sandbox.results import Request

MAX_HEAD_BYTES = 64 << 10
"""Longest head of a request or an answer."""

MAX_WAITING_BYTES = 256 << 10
"""So much of further requests waits while one is under way, before no more is taken."""

MAX_KEPT_HEADERS = 16 << 10
"""Size of a request's headers that its record keeps."""

_PORTS = {"http": 80, "https": 443}

_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization"})
_NOT_FORWARDED = frozenset({b"proxy-authorization", b"proxy-connection", b"http2-settings", b"keep-alive"})
_REFUSED_METHODS = frozenset({b"CONNECT", b"TRACE"})
_TOKEN = re.compile(rb"[A-Z]{1,32}")


@dataclass(frozen=True)
class ToHost:
    """Bytes for the server."""

    data: bytes


@dataclass(frozen=True)
class ToGuest:
    """Bytes for the guest."""

    data: bytes


@dataclass(frozen=True)
class Ask:
    """A request that the policy allows: nothing of it is forwarded before `HttpGate.proceed`."""

    request: Request


@dataclass(frozen=True)
class Finished:
    """A request has its whole answer."""

    request: Request


@dataclass(frozen=True)
class Close:
    """The connection is to end."""

    reason: str
    """Sentence for the guest."""
    detail: str
    """Sentence for whoever wrote the policy."""
    request: Request | None = None
    """Request that the policy refused, if that is why."""


Step = ToHost | ToGuest | Ask | Finished | Close


class _Fault(Exception):
    """A message that is not forwarded."""

    def __init__(self, reason: str, detail: str = "", refused: Request | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.refused = reason, detail or reason, refused


class HttpGate:
    """HTTP of one connection.

    Args:
        network: policy.
        host: canonical name of the host.
        port: its port.
        secrets: secrets of the run.

    Attributes:
        is_tls: whether the connection has TLS, as its owner says.
    """

    def __init__(self, network: Network, host: str, port: int, secrets: RunSecrets) -> None:
        self._network, self._host, self._port, self._secrets = network, host, port, secrets
        self.is_tls = False
        self._is_closed = self._is_through = False
        self._pending = bytearray()
        self._next()

    def _next(self) -> None:
        """Begin to wait for a request."""
        self._guest = h11.Connection(h11.SERVER, MAX_HEAD_BYTES)
        self._server = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)
        self._request: Request | None = None
        self._asked: h11.Request | None = None
        self._is_answered = False
        self._scrubber = Scrubber(self._secrets)

    @property
    def is_busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._request is not None and self._asked is None and not self._is_through

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more is to be taken from the guest."""
        return len(self._pending) > MAX_WAITING_BYTES

    # -- requests --------------------------------------------------------------------------------

    def from_guest(self, data: bytes) -> list[Step]:
        """Steps for bytes of the guest."""
        if self._is_closed or not data:
            return []
        if self._is_through:
            return [ToHost(data)]
        self._pending += data
        return self._steps(self._read_guest())

    def proceed(self, request: Request) -> list[Step]:
        """Steps for a request that was asked about, and is allowed."""
        asked, self._asked = self._asked, None
        if asked is None or self._is_closed:
            return []
        return self._steps(self._forwarded(asked))

    def refuse(self, request: Request, reason: str) -> list[Step]:
        """Steps for a request that was asked about, and is refused."""
        return self._steps(iter([Close(reason, request.reason or reason)]))

    def _steps(self, found: Iterator[Step]) -> list[Step]:
        """Steps until the connection is to end; what goes the same way one after the other, in one piece."""
        steps: list[Step] = []
        try:
            for step in found:
                last = steps[-1] if steps else None
                if isinstance(step, ToHost) and isinstance(last, ToHost):
                    steps[-1] = ToHost(last.data + step.data)
                elif isinstance(step, ToGuest) and isinstance(last, ToGuest):
                    steps[-1] = ToGuest(last.data + step.data)
                else:
                    steps.append(step)
        except _Fault as fault:
            steps.append(Close(fault.reason, fault.detail, fault.refused))
        except h11.RemoteProtocolError as error:
            steps.append(Close(f"this is no HTTP that is forwarded: {error}", str(error)))
        except h11.LocalProtocolError as error:
            steps.append(Close("the message does not fit what was said of it", str(error)))
        if any(isinstance(step, Close) for step in steps):
            self._is_closed = True
            if self._request is not None and self._request.outcome == "pending":
                self._request.outcome = "failed"
                self._request.reason = self._request.reason or next(s.detail for s in steps if isinstance(s, Close))
        return steps

    def _read_guest(self) -> Iterator[Step]:
        while self._pending and self._asked is None and not self._is_through:
            if self._request is None:
                end = self._pending.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
                if end < 0:
                    if len(self._pending) > MAX_HEAD_BYTES or b"\n\n" in self._pending[:MAX_HEAD_BYTES]:
                        raise _Fault("the head of a request has no end within 64 KB")
                    return
                head = bytes(self._pending[: end + 4])
                del self._pending[: end + 4]
                yield self._head_of(head)
            elif self._guest.their_state is h11.SEND_BODY:
                data = bytes(self._pending)
                self._pending.clear()
                self._guest.receive_data(data)
                yield from self._body()
            else:
                return  # the next request waits for this one's answer

    def _head_of(self, head: bytes) -> Ask:
        """Read and check the head of a request."""
        _check_head(head)
        self._guest.receive_data(head)
        event = self._guest.next_event()
        if not isinstance(event, h11.Request):
            raise _Fault("this is no request of HTTP/1.1")
        method, target = bytes(event.method), bytes(event.target)
        if not _TOKEN.fullmatch(method) or method in _REFUSED_METHODS:
            raise _Fault(f"the method {method[:32].decode('latin-1')} is not allowed")
        scheme = "https" if self.is_tls else "http"
        self._check_host(dict(event.headers).get(b"host"))
        path = self._path_of(scheme, target)
        default = _PORTS[scheme] == self._port
        name = f"[{self._host}]" if ":" in self._host else self._host
        url = f"{scheme}://{name}{'' if default else f':{self._port}'}{path}"
        request = self._request = Request(method=method.decode(), url=url, headers=_kept(event.headers.raw_items()))
        decision = self._network.check_request(request.method, scheme, self._host, self._port, path)
        if not decision.allowed:
            request.outcome, request.reason = "refused", decision.detail
            raise _Fault(decision.reason, decision.detail, request)
        self._asked = h11.Request(
            method=method, target=path.encode("latin-1"), headers=self._forwardable(event.headers.raw_items())
        )
        return Ask(request)

    def _check_host(self, given: bytes | None) -> None:
        """Check that a request is for the host of the connection."""
        if given is None:
            raise _Fault("the request names no host")
        text = given.decode("latin-1")
        host, separator, port = text.rpartition(":")
        if not separator or text.endswith("]"):
            host, port = text, str(_PORTS["https" if self.is_tls else "http"])
        try:
            is_right = canonical_host(host) == self._host and port == str(self._port)
        except InvalidNetwork:
            is_right = False
        if not is_right:
            shown = f"{self._host}:{self._port}"
            raise _Fault(f"the request is for {text[:300]}, and the connection is to {shown}")

    def _path_of(self, scheme: str, target: bytes) -> str:
        """Path and query of a target, which may be a whole URL."""
        text = target.decode("latin-1")
        if not text.startswith("/"):
            given, separator, rest = text.partition("://")
            place, slash, path = rest.partition("/")
            if not separator or given.lower() != scheme or "@" in place or "?" in place:
                raise _Fault("the target of the request is no path")
            self._check_host(place.encode("latin-1"))
            text = slash + path if slash else "/"
        if "#" in text:
            raise _Fault("the target of the request has a fragment")
        return text

    def _forwardable(self, raw: list[tuple[bytes, bytes]]) -> Headers:
        """Headers that are forwarded: without those of a proxy, and without an upgrade to anything but WebSocket."""
        upgrades = [value.strip().lower() for name, value in raw if name.lower() == b"upgrade"]
        is_websocket = upgrades == [b"websocket"]
        dropped = _NOT_FORWARDED | (frozenset() if is_websocket else {b"upgrade"})
        may_have_secret = self._secrets.are_for(self._host, self._port, self.is_tls)
        headers: Headers = []
        for name, value in raw:
            low = name.lower()
            if low in dropped or (low == b"accept-encoding" and may_have_secret):
                continue
            kept = value
            if low == b"connection" and not is_websocket:
                kept = b"close" if b"close" in value.lower() else b"keep-alive"
            headers.append((name, kept))
        if may_have_secret:  # an answer that is compressed could not be looked through
            headers.append((b"Accept-Encoding", b"identity"))
        return headers

    def _forwarded(self, asked: h11.Request) -> Iterator[Step]:
        headers = list(asked.headers.raw_items())
        target, headers = self._secrets.with_values(self._host, self._port, self.is_tls, bytes(asked.target), headers)
        made = h11.Request(method=asked.method, target=target, headers=headers)
        yield ToHost(_sent(self._server, made))
        yield from self._body()
        yield from self._read_guest()

    def _body(self) -> Iterator[Step]:
        """Forward what came of the body."""
        while True:
            event = self._guest.next_event()
            match event:
                case h11.Data():
                    assert self._request is not None
                    self._request.bytes_out += len(event.data)
                    yield ToHost(_sent(self._server, h11.Data(data=event.data)))
                case h11.EndOfMessage():
                    yield ToHost(_sent(self._server, h11.EndOfMessage()))  # trailers are not forwarded
                    self._pending[:0] = self._guest.trailing_data[0]
                    yield from self._ended()
                    return
                case _:
                    return

    # -- answers ---------------------------------------------------------------------------------

    def from_host(self, data: bytes) -> list[Step]:
        """Steps for bytes of the server; none at its end."""
        if self._is_closed:
            return []
        if self._is_through:
            return [ToGuest(data)] if data else []
        if self._request is None or self._asked is not None:
            if not data:
                return []
            return self._steps(iter([Close("the server sent what nobody asked for", "an answer without a request")]))
        return self._steps(self._read_host(data))

    def _read_host(self, data: bytes) -> Iterator[Step]:
        if self._is_answered:
            return
        self._server.receive_data(data)
        request = self._request
        assert request is not None
        while True:
            event = self._server.next_event()
            match event:
                case h11.InformationalResponse():
                    yield ToGuest(_sent(self._guest, event))
                    if event.status_code == 101:
                        request.status, request.outcome = 101, "ok"
                        yield from self._switched()
                        return
                case h11.Response():
                    request.status = event.status_code
                    headers = [(name, self._secrets.scrub_bytes(value)) for name, value in event.headers.raw_items()]
                    made = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
                    yield ToGuest(_sent(self._guest, made))
                case h11.Data():
                    request.bytes_in += len(event.data)
                    if scrubbed := self._scrubber.fed(bytes(event.data)):
                        yield ToGuest(_sent(self._guest, h11.Data(data=scrubbed)))
                case h11.EndOfMessage():
                    if rest := self._scrubber.rest():
                        yield ToGuest(_sent(self._guest, h11.Data(data=rest)))
                    yield ToGuest(_sent(self._guest, h11.EndOfMessage()))
                    self._is_answered = True
                    yield Finished(request)
                    yield from self._ended()
                    return
                case h11.ConnectionClosed():
                    raise _Fault("the server closed the connection without an answer")
                case _:
                    return

    def _switched(self) -> Iterator[Step]:
        """Let bytes through both ways from here on: the server took a checked request for a WebSocket."""
        self._is_through = True
        rest = self._server.trailing_data[0]
        if rest:
            yield ToGuest(rest)
        if self._pending:
            yield ToHost(bytes(self._pending))
            self._pending.clear()

    def _ended(self) -> Iterator[Step]:
        """Begin with the next request, when this one and its answer are whole."""
        if not self._is_answered or self._guest.their_state is h11.SEND_BODY:
            return
        if self._server.trailing_data[0]:
            raise _Fault("the server sent what nobody asked for", "more than an answer came for a request")
        self._next()
        yield from self._read_guest()


def _check_head(head: bytes) -> None:
    """Refuse forms of a head that servers read in more than one way.

    Raises:
        _Fault: if it is one.
    """
    if head.count(b"\n") != head.count(b"\r\n") or head.count(b"\r") != head.count(b"\r\n") or b"\0" in head:
        raise _Fault("the head of the request has a bare CR, LF or NUL")
    lines = head[:-4].split(b"\r\n")[1:]
    names = []
    for line in lines:
        name, separator, _ = line.partition(b":")
        if not separator or name != name.strip() or not name:
            raise _Fault("a header of the request is folded or malformed")
        names.append(name.lower())
    if twice := next((name for name in _ONCE if names.count(name) > 1), None):
        raise _Fault(f"the request has two headers {twice.decode()}")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise _Fault("the request has a length, and is in chunks, too")


def _kept(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers for the record, as many as it keeps."""
    kept, left = {}, MAX_KEPT_HEADERS
    for name, value in raw:
        left -= len(name) + len(value)
        if left < 0:
            break
        kept[name.decode("latin-1").lower()] = value.decode("latin-1")
    return kept


def _sent(connection: h11.Connection, event: h11.Event) -> bytes:
    return connection.send(event) or b""
