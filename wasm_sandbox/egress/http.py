"""HTTP of one connection, read on its way: nothing of a guest's is sent on that was not understood and checked.

Requests are read by h11 and written anew, and so are answers: how a message is framed is never the guest's to say. A
head is refused before h11 sees it where two parsers might read it in two ways (`heads`). There is one request at a
time; further ones wait until it has its answer. Sans-io: bytes in, steps out; nothing raises.

A refused request ends its connection, so that clients raise an error instead of taking our words for the server's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import h11

from wasm_sandbox.egress.cassette import Answer, Key, Player, Recorder
from wasm_sandbox.egress.heads import (
    MAX_HEAD_BYTES,
    Headers,
    Refused,
    authority,
    check_framing,
    check_overrides,
    check_request_head,
    check_switches,
    put_into_headers,
    put_into_query,
    sent_on,
    target_of,
)
from wasm_sandbox.egress.secrets import RunSecrets
from wasm_sandbox.network import Network
from wasm_sandbox.results import Request

MAX_WAITING_BYTES = 256 << 10
"""So much of the guest waits while a request is under way, before no more is to be taken."""

MAX_KEPT_HEADERS = 16 << 10
"""Size of a request's headers that its record keeps."""

MAX_INTERIM = 16
"""Interim answers (1xx) to one request."""

_HTTP_START = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]")
_BROKEN = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")


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
    """A request that the policy allows: nothing of it is sent on before `HttpGate.proceed`."""

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
    """Sentence for the host."""
    request: Request | None = None
    """Request that the policy refused, if that is why."""
    is_refusal: bool = True
    """Whether it is what the guest did; otherwise the server broke the protocol."""


Step = ToHost | ToGuest | Ask | Finished | Close


class HttpGate:
    """HTTP of one connection. Used by one thread at a time.

    Args:
        network: policy.
        host: canonical name of the host.
        port: its port.
        secrets: secrets of the run.
        tape: where answers are recorded, or come from; then no step is `ToHost`.

    Attributes:
        is_tls: whether the connection has TLS, as its owner says.
        is_fresh: whether nothing has come from either side.
    """

    def __init__(
        self, network: Network, host: str, port: int, secrets: RunSecrets, tape: Recorder | Player | None = None
    ) -> None:
        self._network, self._host, self._port, self._secrets, self._tape = network, host, port, secrets, tape
        self.is_tls, self.is_fresh = False, True
        self._is_closed = self._is_through = self._is_last = False
        self._pending = bytearray()
        self._looked = 0
        self._exchange: _Exchange | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request waits for its answer."""
        exchange = self._exchange
        return exchange is not None and exchange.asked is None and not self._is_through

    @property
    def is_awaited(self) -> bool:
        """Whether a request is being decided on, or was sent to its end and has no answer, or part of one that ends."""
        exchange = self._exchange
        if exchange is None or self._is_through:
            return False
        return exchange.asked is not None or (exchange.is_sent and not exchange.is_endless)

    @property
    def is_over(self) -> bool:
        """Whether the connection carries no further request."""
        return self._is_last and self._exchange is None

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more is to be taken from the guest."""
        return len(self._pending) > MAX_WAITING_BYTES

    # -- requests --------------------------------------------------------------------------------

    def from_guest(self, data: bytes) -> list[Step]:
        """Steps for bytes of the guest; none when it sends no more."""
        self.is_fresh = False
        if self._is_closed:
            return []
        if self._is_through:
            return [ToHost(data)] if data else []
        if not data:
            return self._steps(self._guest_ended())
        if not self._is_last:
            self._pending += data
        return self._steps(self._read_guest())

    def proceed(self, request: Request) -> list[Step]:
        """Steps for a request that was asked about, and is allowed."""
        exchange = self._exchange
        if self._is_closed or exchange is None or exchange.request is not request or exchange.asked is None:
            return []
        return self._steps(self._begin(exchange, exchange.asked))

    def refuse(self, request: Request, reason: str) -> list[Step]:
        """Steps for a request that was asked about, and is refused."""
        return [] if self._is_closed else self._steps(iter([Close(reason, request.reason or reason)]))

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
        except _RefusedByPolicy as refused:
            steps.append(Close(refused.reason, refused.detail, refused.request))
        except Refused as refused:
            steps.append(Close(refused.reason, refused.detail))
        except h11.LocalProtocolError as error:
            words = self._secrets.scrub(f"what was to be sent is no HTTP: {error}")
            steps.append(Close(words, words, is_refusal=False))
        except _Broken as broken:
            steps.append(Close(str(broken), str(broken), is_refusal=False))
        for step in steps:
            if isinstance(step, Close):
                self._end(step)
        return steps

    def _end(self, close: Close) -> None:
        self._is_closed = True
        self._pending.clear()
        request = self._exchange.request if self._exchange is not None else None
        if request is not None and request.outcome == "pending":
            request.outcome = "failed"
            request.reason = request.reason or self._secrets.scrub(close.detail)

    def leave(self) -> None:
        """End it because the guest has closed the connection; a guest need not read the whole of an answer."""
        request = self._exchange.request if self._exchange is not None else None
        if request is not None and request.outcome == "pending" and request.status is not None:
            request.outcome = "ok"
        self.cut("the guest closed the connection before the answer came")

    def cut(self, reason: str) -> None:
        """End it for a reason of ours: a request under way has failed, however much of its answer has come."""
        self._end(Close(reason, reason, is_refusal=False))

    def _guest_ended(self) -> Iterator[Step]:
        self._is_last = True
        if self._exchange is not None and not self._exchange.is_sent:
            yield Close("the request has no end", "the guest sent no more in the middle of a request")

    def _read_guest(self) -> Iterator[Step]:
        while self._pending and not self._is_through:
            exchange = self._exchange
            if exchange is None:
                if (head := self._next_head()) is None:
                    return
                yield self._ask(head)
            elif exchange.asked is not None or exchange.is_sent:
                return  # further requests wait for this one's answer
            else:
                data = bytes(self._pending)
                self._pending.clear()
                yield from self._send_body(exchange, data)

    def _next_head(self) -> bytes | None:
        """The head of the next request, once it is whole."""
        pending = self._pending
        end = pending.find(b"\r\n\r\n", max(0, self._looked - 3), MAX_HEAD_BYTES)
        if not _HTTP_START.match(pending):
            raise Refused("this is no HTTP, and the network policy allows no other protocol here", self._use_tcp())
        if end < 0:
            if _BROKEN.search(pending, max(0, self._looked - 1)):
                raise Refused("a line of the request does not end in CR LF")
            self._looked = len(pending)
            if len(pending) >= MAX_HEAD_BYTES:
                raise Refused(f"the head of a request has no end within {MAX_HEAD_BYTES} bytes")
            return None
        head = bytes(pending[: end + 4])
        del pending[: end + 4]
        self._looked = 0
        return head

    def _use_tcp(self) -> str:
        place = f"tcp://{self._host}:{self._port}"
        return f"what goes over this connection is no HTTP: for another protocol put {place!r} into allow"

    def _ask(self, head: bytes) -> Ask:
        """Read and check the head of a request."""
        check_request_head(head)
        guest = h11.Connection(h11.SERVER, MAX_HEAD_BYTES)
        guest.receive_data(head)
        try:
            event = guest.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(f"a request is malformed: {error}") from None
        assert isinstance(event, h11.Request)
        method, version, headers = bytes(event.method), bytes(event.http_version), list(event.headers)
        # h11 has merged lengths that are equal, so those of the head itself are looked at
        raw = [line.partition(b":") for line in head[:-4].split(b"\r\n")[1:]]
        check_framing([(name.lower(), value.strip()) for name, _, value in raw], version)
        is_upgrade = check_switches(method, headers)
        scheme = "https" if self.is_tls else "http"
        place = scheme, self._host, self._port
        target = target_of(bytes(event.target), method, headers, place, version)
        request = Request(method=method.decode(), url=target.url, headers=_kept(headers))
        decision = self._network.check_request(request.method, scheme, self._host, self._port, target.text)
        if not decision.allowed:
            request.outcome, request.reason = "refused", decision.detail
            raise _RefusedByPolicy(decision.reason, decision.detail, request)
        if decision.is_narrow:
            check_overrides(headers)
        if is_upgrade and self._tape is not None:
            raise Refused("a WebSocket cannot be recorded or replayed")
        kept = [(name, value) for name, value in sent_on(headers, is_upgrade) if name != b"host"]
        if version == b"1.0" and (b"connection", b"close") not in kept:
            kept.append((b"connection", b"close"))  # its answer may end with the connection
        kept.insert(0, (b"host", authority(*place).encode()))
        asked = h11.Request(method=method, target=target.text, headers=kept)
        self._exchange = _Exchange(request, guest, asked, self._secrets)
        return Ask(request)

    def _begin(self, exchange: _Exchange, asked: h11.Request) -> Iterator[Step]:
        """Send on the head of a request, with the values of secrets, and what has come of its body."""
        exchange.asked = None
        if not isinstance(self._tape, Player):
            yield ToHost(exchange.to_host(self._with_secrets(asked)))
        elif exchange.guest.they_are_waiting_for_100_continue:
            yield ToGuest(exchange.to_guest(h11.InformationalResponse(status_code=100, headers=[])))
        yield from self._send_body(exchange, b"")
        yield from self._read_guest()

    def _with_secrets(self, asked: h11.Request) -> h11.Request:
        target, headers = asked.target.decode(), list(asked.headers)
        is_scrubbed = False
        for name, secret in self._secrets.secrets.items():
            if secret.goes_to(self._host, self._port, self.is_tls):
                placeholder = self._secrets.placeholders[name]
                headers = put_into_headers(headers, secret, placeholder.encode())
                target = put_into_query(target, secret, placeholder)
                is_scrubbed = True
        if is_scrubbed:  # a compressed answer could not be looked through
            headers = [(name, value) for name, value in headers if name != b"accept-encoding"]
            headers.append((b"accept-encoding", b"identity"))
        return h11.Request(method=asked.method, target=target, headers=headers)

    def _send_body(self, exchange: _Exchange, data: bytes) -> Iterator[Step]:
        """Send on what has come of a body."""
        if data:
            exchange.guest.receive_data(data)
        while True:
            try:
                event = exchange.guest.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(f"the body of a request is malformed: {error}") from None
            if isinstance(event, h11.Data):
                exchange.request.bytes_out += len(event.data)
                if self._tape is not None:
                    exchange.body += event.data
                if not isinstance(self._tape, Player):
                    yield ToHost(exchange.to_host(h11.Data(data=bytes(event.data))))
            elif isinstance(event, h11.EndOfMessage):
                if list(event.headers):
                    raise Refused("the body of a request has trailers")
                yield from self._sent(exchange)
                return
            else:
                return

    def _sent(self, exchange: _Exchange) -> Iterator[Step]:
        """A request has been sent on to its end."""
        exchange.is_sent = True
        self._pending[:0] = exchange.guest.trailing_data[0]
        if isinstance(self._tape, Player):
            request = exchange.request
            answer = self._tape.answer(self._key(exchange))
            if answer is None:
                raise Refused(
                    f"no answer is recorded for {request.method} {request.url}",
                    f"the cassette has no further answer for {request.method} {request.url}: record it again",
                )
            yield from self._replay(exchange, answer)
            return
        yield ToHost(exchange.to_host(h11.EndOfMessage()))
        yield from self._next(exchange)

    # -- answers ---------------------------------------------------------------------------------

    def from_host(self, data: bytes) -> list[Step]:
        """Steps for bytes of the server; none when it sends no more."""
        self.is_fresh = False
        if self._is_closed:
            return []
        if self._is_through:
            return [ToGuest(self._secrets.scrub_bytes(data))] if data else []
        exchange = self._exchange
        if exchange is None or exchange.asked is not None or exchange.is_answered:
            if not data:
                return []
            words = "the server sent what no request asked for"
            return self._steps(iter([Close(words, f"{words}; {self._use_tcp()}", is_refusal=False)]))
        return self._steps(self._read_host(exchange, data))

    def _read_host(self, exchange: _Exchange, data: bytes) -> Iterator[Step]:
        exchange.host.receive_data(data)
        while True:
            try:
                event = exchange.host.next_event()
            except h11.RemoteProtocolError as error:
                words = str(error) if data else "it ended too early"
                raise _Broken(f"the server's answer is malformed: {self._secrets.scrub(words)}") from None
            match event:
                case h11.InformationalResponse():
                    yield from self._interim(exchange, event)
                    if self._is_through:
                        return
                case h11.Response():
                    yield self._answer(exchange, event.status_code, self._scrubbed(event), bytes(event.reason))
                case h11.Data():
                    yield from self._pass(exchange, exchange.stream.feed(bytes(event.data)))
                case h11.EndOfMessage():
                    yield from self._pass(exchange, exchange.stream.end())
                    yield from self._answered(exchange)
                    return
                case h11.ConnectionClosed():
                    raise _Broken("the server closed the connection without an answer")
                case _:
                    return

    def _scrubbed(self, event: h11.Response | h11.InformationalResponse) -> Headers:
        scrub = self._secrets.scrub_bytes
        return [(scrub(name), scrub(value)) for name, value in event.headers.raw_items() if name.lower() != b"trailer"]

    def _interim(self, exchange: _Exchange, event: h11.InformationalResponse) -> Iterator[Step]:
        exchange.interim += 1
        if exchange.interim > MAX_INTERIM:
            raise _Broken(f"the server sent more than {MAX_INTERIM} interim answers")
        if exchange.guest.their_http_version == b"1.0":
            return
        headers = self._scrubbed(event)
        reason = self._secrets.scrub_bytes(bytes(event.reason))
        yield ToGuest(
            exchange.to_guest(h11.InformationalResponse(status_code=event.status_code, headers=headers, reason=reason))
        )
        if event.status_code == 101:
            yield from self._switch(exchange)

    def _switch(self, exchange: _Exchange) -> Iterator[Step]:
        """Let bytes through both ways from here on: the server took a checked request for a WebSocket."""
        self._is_through = True
        exchange.request.status, exchange.request.outcome = 101, "ok"
        yield Finished(exchange.request)
        if rest := exchange.host.trailing_data[0]:
            yield ToGuest(self._secrets.scrub_bytes(rest))
        if waiting := bytes(self._pending):
            self._pending.clear()
            yield ToHost(waiting)

    def _answer(self, exchange: _Exchange, status: int, headers: Headers, reason: bytes) -> Step:
        exchange.request.status = status
        exchange.answer_headers = headers
        response = h11.Response(status_code=status, headers=headers, reason=self._secrets.scrub_bytes(reason))
        return ToGuest(exchange.to_guest(response))

    def _pass(self, exchange: _Exchange, data: bytes) -> Iterator[Step]:
        """Hand a piece of an answer's body to the guest."""
        if not data:
            return
        exchange.request.bytes_in += len(data)
        if isinstance(self._tape, Recorder):
            exchange.answer_body += data
        yield ToGuest(exchange.to_guest(h11.Data(data=data)))

    def _answered(self, exchange: _Exchange) -> Iterator[Step]:
        """An answer has come to its end."""
        yield ToGuest(exchange.to_guest(h11.EndOfMessage()))
        exchange.is_answered = True
        request = exchange.request
        request.outcome = "ok"
        if isinstance(self._tape, Recorder):
            answer = Answer(request.status or 0, exchange.answer_headers, bytes(exchange.answer_body))
            self._tape.add(self._key(exchange), answer)
        yield Finished(request)
        if exchange.host.trailing_data[0]:
            raise _Broken("the server sent more than its answer")
        yield from self._next(exchange)

    def _replay(self, exchange: _Exchange, answer: Answer) -> Iterator[Step]:
        yield self._answer(exchange, answer.status, answer.headers, b"")
        yield from self._pass(exchange, answer.body)
        yield from self._answered(exchange)

    def _next(self, exchange: _Exchange) -> Iterator[Step]:
        """Begin with the next request, when this one and its answer are whole."""
        if not (exchange.is_sent and exchange.is_answered):
            return
        self._is_last = self._is_last or exchange.guest.our_state is not h11.DONE
        self._exchange = None
        if self._is_last:
            self._pending.clear()
        yield from self._read_guest()

    def _key(self, exchange: _Exchange) -> Key:
        """What a request is known by on a tape, the same in every run."""
        request, neutral = exchange.request, self._secrets.neutral
        digest = sha256(neutral(bytes(exchange.body))).hexdigest()
        return Key(request.method, neutral(request.url.encode()).decode(), digest)


class _RefusedByPolicy(Refused):
    def __init__(self, reason: str, detail: str, request: Request) -> None:
        super().__init__(reason, detail)
        self.request = request


class _Broken(Exception):
    """A server broke the protocol; the message is for guest and host."""


class _Exchange:
    """A request and its answer, with the states of both sides' protocol."""

    def __init__(self, request: Request, guest: h11.Connection, asked: h11.Request, secrets: RunSecrets) -> None:
        self.request, self.guest = request, guest
        self.host = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)
        self.asked: h11.Request | None = asked
        """What is to be sent on; None once it has been."""
        self.is_sent = self.is_answered = False
        self.interim = 0
        self.stream = secrets.stream()
        self.body = bytearray()
        """Of the request, if there is a tape."""
        self.answer_headers: Headers = []
        self.answer_body = bytearray()
        """As the guest has got it, if it is recorded."""

    @property
    def is_endless(self) -> bool:
        """Whether its answer is a stream of events, which ends when its server likes."""
        kinds = [value.lower() for name, value in self.answer_headers if name.lower() == b"content-type"]
        return any(kind.startswith(b"text/event-stream") for kind in kinds)

    def to_host(self, event: h11.Event) -> bytes:
        """Bytes for the server."""
        return self.host.send(event) or b""

    def to_guest(self, event: h11.Event) -> bytes:
        """Bytes for the guest."""
        return self.guest.send(event) or b""


def _kept(headers: Headers) -> dict[str, str]:
    """Headers for the record of a request, up to a size."""
    kept: dict[str, str] = {}
    left = MAX_KEPT_HEADERS
    for name, value in headers:
        left -= len(name) + len(value)
        if left < 0:
            break
        kept[name.decode("latin-1")] = value.decode("latin-1")
    return kept
