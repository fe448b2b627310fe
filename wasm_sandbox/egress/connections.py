"""Connections of one run: opened within a policy, read and written beside the guest, ended with the run."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

from wasm_sandbox.egress.cassette import Player, Recorder
from wasm_sandbox.egress.refusals import (
    EACCES,
    EAGAIN,
    EBADF,
    ECONNRESET,
    EINPROGRESS,
    EINVAL,
    EISCONN,
    EMFILE,
    ENOTCONN,
    ETIMEDOUT,
    Refused,
)
from wasm_sandbox.forks import Condition
from wasm_sandbox.network import Network
from wasm_sandbox.request import (
    DONE,
    FIRST_SOCKET,
    LAST_SOCKET,
    MAX_SENT_BYTES,
    READABLE,
    REFUSED,
    UNTIL_IDLE,
    WRITABLE,
    Answer,
    NetworkOperation,
    Wait,
)
from wasm_sandbox.results import Connection, Request

if TYPE_CHECKING:
    import asyncio

    from wasm_sandbox.egress.link import Link
    from wasm_sandbox.egress.secrets import RunSecrets

RUN_LOOKUPS = 4
"""Lookups of one run at a time: a run whose names answer slowly takes so many threads, and no more."""

MAX_POLLED = 1024
MAX_HOST_BYTES = 1024
"""Longest name of a host that is looked at; one of DNS has 253 characters at most."""

MAX_TLS_BYTES = 16 << 10

KEPT_RECORDS = 1000
"""Connections, and requests, of which a run keeps a record."""

_UNANSWERED = "the guest ended before the whole answer came"

_RECEIVE, _SEND, _POLL, _POLLED = struct.Struct("<Iq"), struct.Struct("<q"), struct.Struct("<?q"), struct.Struct("<IB")
_PORT, _SIZE = struct.Struct("<H"), struct.Struct("<I")

Ask = Callable[[Request], "Future[str | None]"]
"""Asks the caller's gate before a request; the sentence of a refusal comes, or None."""


# Guarantees:
# - nothing is connected to, and nothing sent, that the policy does not allow;
# - after `end_run` nothing of the run is opened, read or written; `settle` waits until it is closed. A lookup of a name
#   cannot be interrupted: nobody waits for it;
# - what the guest sends waits in its memory when a connection takes no more, and what it does not read in the
#   server's: of each connection a bounded number of bytes is here.
# Locks: `changed` guards what guest and event loop share: the table of connections, their buffers and states, counts
# and records. Nothing is waited for, called back or written to the network while it is held.
class RunConnections:
    """Connections of one run, or of one session: the network's part of the other end of a guest's channel.

    Args:
        network: policy.
        secrets: secrets of the run, with their placeholders.
        is_kept: whether connections outlive a run, as those of a session do; `drop` ends them.

    Raises:
        InvalidNetwork: if answers are to be replayed from a file that is no cassette.
    """

    def __init__(self, network: Network, secrets: RunSecrets, is_kept: bool = False) -> None:
        self.network, self.secrets = network, secrets
        self.ask: Ask | None = None
        """Asks the caller's gate before each request, if there is one."""
        self._is_kept = is_kept
        self.changed: threading.Condition = Condition()
        self._links: dict[int, Link] = {}
        self._open: set[Link] = set()
        """Those that are about to open a socket, or have one."""
        self._is_over = False
        self._has_answer: Callable[[], bool] = bool
        self.connections: list[Connection] = []
        """Records of this run's connections, in order."""
        self.requests: list[Request] = []
        self._connects = self._request_count = 0
        self.bytes_in = self.bytes_out = 0
        self._lookups: asyncio.Semaphore | None = None
        self.tape: Recorder | Player | None = None
        """Where answers are recorded, or come from."""
        if network.replay is not None:
            self.tape = Player(network.replay)
        elif network.record is not None:
            self.tape = Recorder()
        self.environ = dict(secrets.placeholders)
        """Placeholders of secrets, as environment variables of the guest."""

    def save(self) -> None:
        """Write what has been recorded, if it is to be.

        Raises:
            InvalidNetwork: if there is too much, or the file cannot be written.
        """
        if isinstance(self.tape, Recorder) and self.network.record is not None:
            self.tape.save(self.network.record)

    def scrub(self, text: str) -> str:
        """A text without the values of secrets."""
        return self.secrets.scrub(text)

    def scrub_bytes(self, data: bytes) -> bytes:
        """Bytes without the values of secrets."""
        return self.secrets.scrub_bytes(data)

    @property
    def lookups(self) -> asyncio.Semaphore:
        """Bound of the lookups at a time, on the event loop."""
        if self._lookups is None:
            import asyncio  # lazy: only for runs that connect

            self._lookups = asyncio.Semaphore(RUN_LOOKUPS)
        return self._lookups

    def begin_run(self, has_answer: Callable[[], bool]) -> None:
        """Begin a run of its own budgets and records; connections of an earlier one are still there, if they are kept.

        Args:
            has_answer: whether a host function has answered, or none is under way; called with `changed` held.
        """
        self._has_answer = has_answer
        self.connections, self.requests = [], []
        self._connects = self._request_count = 0
        self.bytes_in = self.bytes_out = 0
        self._is_over = False

    def end_run(self) -> None:
        """End what the run began, unless it is kept; called when the guest has ended, perhaps again."""
        if self._is_kept:
            return
        self.drop()
        self._is_over = True

    def drop(self) -> None:
        """End all connections: a guest that still knows one finds it reset."""
        with self.changed:
            links, self._links = self._open.union(self._links.values()), {}
        for link in links:
            link.end(_UNANSWERED)

    def settle(self, seconds: float) -> None:
        """Wait until no connection that was ended is open; one that is kept is not waited for.

        A request of the run that has no answer then has failed, unless its connection is kept.

        Args:
            seconds: longest wait.
        """
        with self.changed:
            self.changed.wait_for(lambda: not self.is_ending, seconds)
            if self._is_kept:
                return
            for request in self.requests:  # of a connection without a socket, as in a replay, or that takes longer
                if request.outcome == "pending":
                    request.outcome, request.reason = "failed", _UNANSWERED

    @property
    def is_ending(self) -> bool:
        """Whether a connection that was ended is still open; the caller holds `changed`, or asks again."""
        return bool(self._open.difference(self._links.values()))

    # -- the channel's end -----------------------------------------------------------------------

    def handle(self, op: int, ident: int, payload: bytes, wait: Wait) -> Answer:
        """Serve one operation of the guest, on its thread.

        Args:
            op: `NetworkOperation`.
            ident: descriptor, of the guest's choice.
            payload: bytes of the operation, hostile.
            wait: waits without the guest's turn.

        Returns:
            The answer, of kind ``DONE`` or ``REFUSED``.
        """
        try:
            return Answer(DONE, ident, self._served(op, ident, payload, wait))
        except Refused as refused:
            return Answer(REFUSED, ident, refused.encoded())
        except struct.error:
            return Answer(REFUSED, ident, Refused(EINVAL, "the operation is malformed").encoded())

    def _served(self, op: int, fd: int, payload: bytes, wait: Wait) -> bytes:
        match op:
            case NetworkOperation.OPEN:
                return _SIZE.pack(self._opened(fd))
            case NetworkOperation.CONNECT:
                self._connect(self._link(fd), payload)
            case NetworkOperation.STATUS:
                return self._status(self._link(fd), _seconds(*_SEND.unpack(payload)), wait)
            case NetworkOperation.START_TLS:
                self._start_tls(self._link(fd), payload)
            case NetworkOperation.SHUTDOWN:
                self._link(fd).shut_down()
            case NetworkOperation.POLL:
                return self._polled(payload, wait)
            case NetworkOperation.RECEIVE:
                size, microseconds = _RECEIVE.unpack(payload)
                return self._received(self._link(fd), size, _seconds(microseconds), wait)
            case NetworkOperation.SEND:
                data = payload[_SEND.size :][:MAX_SENT_BYTES]
                return _SIZE.pack(self._sent(self._link(fd), data, _seconds(*_SEND.unpack_from(payload)), wait))
            case NetworkOperation.CLOSE:
                self._close(fd)
            case _:
                raise Refused(EINVAL, "there is no such operation")
        return b""

    def _link(self, fd: int) -> Link:
        with self.changed:
            link = self._links.get(fd)
        if link is None:
            raise Refused(ECONNRESET, "the connection has ended, as all do with a checkpoint")
        return link

    def _opened(self, last: int) -> int:
        from wasm_sandbox.egress.link import Link  # lazy: asyncio and TLS, 40 ms, only for runs that connect

        with self.changed:
            if self._is_over:
                raise Refused(EBADF, "the run is over")
            count = LAST_SOCKET + 1 - FIRST_SOCKET
            candidates = (FIRST_SOCKET + (max(last + 1, FIRST_SOCKET) - FIRST_SOCKET + n) % count for n in range(count))
            fd = next((number for number in candidates if number not in self._links), None)
            if fd is None:
                raise Refused(EMFILE, f"{count} sockets are open, as many as there may be")
            self._links[fd] = Link(self)
        return fd

    def _connect(self, link: Link, payload: bytes) -> None:
        (port,) = _PORT.unpack_from(payload)
        host = payload[_PORT.size :][:MAX_HOST_BYTES].decode("utf-8", "replace")
        if link.record is not None:
            raise Refused(EISCONN, "the socket was connected already")
        decision = self.network.check_connect(host, port)
        self._connects += 1
        record = Connection.begun(self._connects, decision.host or host[:MAX_HOST_BYTES], port)
        if len(self.connections) < KEPT_RECORDS:
            self.connections.append(record)
        reason, detail = decision.reason, decision.detail
        with self.changed:
            is_full = len(self._open) >= self.network.max_connections
        if decision.is_raw and self.tape is not None:
            reason = detail = "only HTTP can be recorded and replayed, and this connection would carry any protocol"
        if decision.allowed and is_full:
            most = self.network.max_connections
            reason = detail = f"{most} connections are open, as many as there may be (Network.max_connections)"
        if reason:
            record.end_at(time.monotonic(), "refused")
            record.reason = detail
            raise Refused(EACCES, reason)
        link.connect(record, is_raw=decision.is_raw)

    def _status(self, link: Link, seconds: float | None, wait: Wait) -> bytes:
        wait(lambda: None if link.is_busy else True, _endless(seconds), self.changed)
        with self.changed:
            if link.is_busy:
                raise Refused(EINPROGRESS, "it is under way")
            if link.error is not None:
                raise link.error
            if link.record is None:
                raise Refused(ENOTCONN, "the socket is not connected")
            return json.dumps(link.tls).encode()

    def _start_tls(self, link: Link, payload: bytes) -> None:
        name, protocols, mark = _tls_of(payload)
        with self.changed:
            if link.error is not None:
                raise link.error
            if link.record is None or link.is_busy or link.tls is not None:
                raise Refused(ENOTCONN, "TLS cannot begin here")
        host = link.record.host
        if name is not None and self.network.check_connect(name, link.record.port).host != host:
            link.record.reason = f"TLS was asked for the name {name[:MAX_HOST_BYTES]!r}"
            raise Refused(EACCES, f"TLS is for the host of the connection, {host}, and no other name")
        link.start_tls(protocols, mark)

    def _received(self, link: Link, size: int, seconds: float | None, wait: Wait) -> bytes:
        def ready() -> bytes | Refused | None:
            if link.inbox:
                return link.taken(size)
            if link.error is not None:
                return link.error
            if link.record is None:
                return Refused(ENOTCONN, "the socket is not connected")
            return b"" if link.is_at_end else None

        began = time.monotonic()
        found = cast(bytes | Refused | None, wait(ready, self._patience(seconds), self.changed))
        if found is None:
            raise self._late(link, seconds, began, "nothing came")
        if isinstance(found, Refused):
            raise found
        link.drained()
        return found

    def _sent(self, link: Link, data: bytes, seconds: float | None, wait: Wait) -> int:
        def ready() -> int | Refused | None:
            if link.error is not None:
                return link.error
            if link.record is None:
                return Refused(ENOTCONN, "the socket is not connected")
            return link.reserved(len(data))

        began = time.monotonic()
        found = cast(int | Refused | None, wait(ready, self._patience(seconds), self.changed))
        if found is None:
            raise self._late(link, seconds, began, "nothing could be sent")
        if isinstance(found, Refused):
            raise found
        link.feed(data[:found])
        return found

    def _patience(self, seconds: float | None) -> float:
        return self.network.io_seconds if seconds is None else seconds

    def _late(self, link: Link, seconds: float | None, began: float, what: str) -> Refused:
        """Refusal of what took too long; without a timeout of the guest's own it ends the connection."""
        if seconds is not None or time.monotonic() - began < self.network.io_seconds:  # the run is over before
            return Refused(EAGAIN, "timed out")
        refused = Refused(ETIMEDOUT, f"{what} for {self.network.io_seconds:g} seconds (Network.io_seconds)")
        link.give_up(refused)
        return refused

    def _polled(self, payload: bytes, wait: Wait) -> bytes:
        with_answers, microseconds = _POLL.unpack_from(payload)
        entries = payload[_POLL.size :]
        if len(entries) % _POLLED.size or len(entries) > MAX_POLLED * _POLLED.size:
            raise Refused(EINVAL, "the operation is malformed")
        wanted = list(_POLLED.iter_unpack(entries))

        def ready() -> bytes | None:
            found, is_idle = [], True
            for fd, kinds in wanted:
                link = self._links.get(fd)
                is_idle = is_idle and (link is None or not link.is_awaited)
                if state := (READABLE | WRITABLE if link is None else link.state) & kinds:
                    found.append(_POLLED.pack(fd, state))
            if found:
                return b"".join(found)
            if microseconds == UNTIL_IDLE and is_idle:
                return b""
            return b"" if with_answers and self._has_answer() else None

        return wait(ready, _endless(_seconds(microseconds)), self.changed) or b""

    def _close(self, fd: int) -> None:
        with self.changed:
            link = self._links.pop(fd, None)
        if link is not None:
            link.close()

    # -- what the event loop tells ---------------------------------------------------------------

    def opening(self, link: Link) -> None:
        """Take note that a link is about to open a socket; the caller holds `changed`."""
        self._open.add(link)

    def gone(self, link: Link) -> None:
        """Take note that a link has no socket any more."""
        with self.changed:
            self._open.discard(link)
            self.changed.notify_all()

    def count_in(self, size: int) -> str | None:
        """Count bytes that came; a sentence, if they are too many."""
        with self.changed:
            self.bytes_in += size
            if self.bytes_in <= self.network.max_bytes_in:
                return None
        return f"this run may receive {self.network.max_bytes_in} bytes (Network.max_bytes_in)"

    def count_out(self, size: int) -> str | None:
        """Count bytes that are to be sent; a sentence, if they are too many."""
        with self.changed:
            self.bytes_out += size
            if self.bytes_out <= self.network.max_bytes_out:
                return None
        return f"this run may send {self.network.max_bytes_out} bytes (Network.max_bytes_out)"

    def count_request(self, request: Request) -> str | None:
        """Count a request, and keep its record; a sentence, if there are too many."""
        with self.changed:
            self._request_count += 1
            request.id = self._request_count
            if len(self.requests) < KEPT_RECORDS:
                self.requests.append(request)
            if self._request_count <= self.network.max_requests:
                return None
        return f"this run may make {self.network.max_requests} requests (Network.max_requests)"


def _seconds(microseconds: int) -> float | None:
    return None if microseconds < 0 else microseconds / 1e6


def _endless(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds


def _tls_of(payload: bytes) -> tuple[str | None, tuple[str, ...], bytes]:
    """Name of the server, protocols and mark of a request for TLS.

    Raises:
        Refused: if it is none.
    """
    if len(payload) > MAX_TLS_BYTES:
        raise Refused(EINVAL, "the operation is too long")
    try:
        wanted: Any = json.loads(payload)
        name, protocols, mark = wanted["name"], wanted["alpn"], wanted["in_band"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refused(EINVAL, "the operation is malformed") from None
    are_names = isinstance(protocols, list) and all(isinstance(one, str) and 0 < len(one) < 256 for one in protocols)
    if not (are_names and (name is None or isinstance(name, str)) and isinstance(mark, str)):
        raise Refused(EINVAL, "the operation is malformed")
    if not all(one.isascii() for one in protocols):
        raise Refused(EINVAL, "the operation is malformed")
    return name, tuple(protocols), mark.encode("utf-8", "replace")
