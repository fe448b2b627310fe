"""One connection of a guest on the network's event loop: opened, checked, read and written there."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Literal, Protocol

from wasm_sandbox.egress import addresses, tls
from wasm_sandbox.egress.cassette import Player, Recorder
from wasm_sandbox.egress.http import Ask, Close, Finished, HttpGate, Step, ToGuest, ToHost
from wasm_sandbox.egress.names import Address, look_up, network_loop
from wasm_sandbox.egress.proxies import through_proxy
from wasm_sandbox.egress.refusals import EACCES, ECONNRESET, EDQUOT, ETIMEDOUT, Refused, of_host
from wasm_sandbox.egress.secrets import RunSecrets
from wasm_sandbox.network import Network, is_address
from wasm_sandbox.request import READABLE, WRITABLE
from wasm_sandbox.results import Connection, Request

MAX_INBOX_BYTES = 512 << 10
"""When so much waits for the guest, no more is read until half of it was taken."""

MAX_UNSENT_BYTES = 512 << 10
"""So much is taken from a guest before the system has taken it."""

SHUTDOWN_SECONDS = 1.0
"""Longest wait for a server's end of TLS."""

_NO_NAME = -2
_NO_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Owner(Protocol):
    """Connections of a run (`wasm_sandbox.egress.RunConnections`), as one of them sees them."""

    network: Network
    secrets: RunSecrets
    tape: Recorder | Player | None
    ask: Callable[[Request], Future[str | None]] | None
    changed: threading.Condition

    @property
    def lookups(self) -> asyncio.Semaphore:
        """Bound of the lookups at a time."""

    def opening(self, link: Link) -> None:
        """Take note that a link is about to open a socket; the caller holds `changed`."""

    def gone(self, link: Link) -> None:
        """Take note that a link has no socket any more."""

    def count_in(self, size: int) -> str | None:
        """Count bytes that came; a sentence, if they are too many."""

    def count_out(self, size: int) -> str | None:
        """Count bytes that are to be sent; a sentence, if they are too many."""

    def count_request(self, request: Request) -> str | None:
        """Count a request, and keep its record; a sentence, if there are too many."""


# Guarantees: `inbox`, `error`, `is_busy`, `is_at_end`, `tls`, `_is_asked` and `_unsent` are read and written with
# `changed` of the owner held; all else belongs to the event loop, and methods that the guest's thread calls say so.
# Once `error` is set it stays, and the socket is closed.
class Link(asyncio.Protocol):
    """One connection of a guest.

    Args:
        owner: connections of the run.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner, self._changed = owner, owner.changed
        self._loop = network_loop()
        self.record: Connection | None = None
        self.inbox = bytearray()
        self.error: Refused | None = None
        self.is_busy = self.is_at_end = False
        self.tls: dict[str, Any] | None = None
        """What a guest is told of TLS; None while there is none."""
        self._unsent = 0
        self._is_asked = False
        """Whether a request that was sent to its end waits for its answer."""
        self._is_up = self._is_over = self._is_asking = False
        self._is_full = self._is_stalled = False
        self._held = 0
        self._gate: HttpGate | None = None
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._used = 0.0

    # -- of the guest's thread -------------------------------------------------------------------

    def connect(self, record: Connection, is_raw: bool) -> None:
        """Begin to connect."""
        owner = self._owner
        with self._changed:
            self.record, self.is_busy = record, True
            owner.opening(self)
        if not is_raw:
            self._gate = HttpGate(owner.network, record.host, record.port, owner.secrets, owner.tape)
        self._begin(self._replay() if self._is_replayed else self._open(record))

    def start_tls(self, protocols: tuple[str, ...], mark: bytes) -> None:
        """Begin TLS; with a mark, how it went is among the data that the guest reads, behind the mark."""
        with self._changed:
            self.is_busy = True
        self._begin(self._secure(protocols, mark))

    def taken(self, size: int) -> bytes:
        """Take bytes that came; the caller holds `changed`."""
        data = bytes(memoryview(self.inbox)[:size])
        del self.inbox[:size]
        return data

    def drained(self) -> None:
        """Read on, if there is room again."""
        if self._is_full and len(self.inbox) <= MAX_INBOX_BYTES // 2:
            self._loop.call_soon_threadsafe(self._read_on)

    def reserved(self, size: int) -> int | None:
        """Room for bytes to send, None if there is none now; the caller holds `changed`."""
        if self.is_busy or not self._is_up or self._unsent >= MAX_UNSENT_BYTES:
            return None
        self._unsent += size
        return size

    def feed(self, data: bytes) -> None:
        """Send bytes, for which there is room."""
        self._loop.call_soon_threadsafe(self._fed, data)

    @property
    def is_awaited(self) -> bool:
        """Whether something is under way that will come to an end by itself; the caller holds `changed`."""
        is_sending = self._gate is not None and self._unsent > 0
        return self.error is None and (self.is_busy or is_sending or self._is_asked)

    @property
    def state(self) -> int:
        """Whether it can be read and written now; the caller holds `changed`."""
        if self.error is not None:
            return READABLE | WRITABLE
        readable = READABLE if self.inbox or self.is_at_end else 0
        can_send = self._is_up and not self.is_busy and self._unsent < MAX_UNSENT_BYTES
        return readable | (WRITABLE if can_send else 0)

    def shut_down(self) -> None:
        """Send nothing more."""
        self._loop.call_soon_threadsafe(self._shut_down)

    def close(self) -> None:
        """Close it, when what was taken has been sent."""
        self._loop.call_soon_threadsafe(self._finish, None)

    def give_up(self, refused: Refused) -> None:
        """End it with an error, which the guest finds."""
        with self._changed:
            self.error = self.error or refused
        self._loop.call_soon_threadsafe(self._fail, refused, refused.message)

    def end(self, reason: str) -> None:
        """Close it now, without the guest's doing.

        Args:
            reason: what its request fails with, if one is under way.
        """
        self._loop.call_soon_threadsafe(self._finish, reason)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        def begin() -> None:
            if self._is_over:
                work.close()
                return
            self._task = self._loop.create_task(work)

        self._loop.call_soon_threadsafe(begin)

    # -- opening ---------------------------------------------------------------------------------

    @property
    def _is_replayed(self) -> bool:
        """Whether the gate answers by itself, and there is no server."""
        return isinstance(self._owner.tape, Player)

    async def _replay(self) -> None:
        with self._changed:
            self.is_busy, self._is_up = False, True
            self._changed.notify_all()

    async def _open(self, record: Connection) -> None:
        network = self._owner.network
        try:
            async with asyncio.timeout(network.connect_seconds):
                if network.proxy:
                    self._check_without_lookup(record.host)
                    sock = await through_proxy(self._loop, network.proxy, record.host, record.port, self._connected)
                else:
                    sock = await self._connected(await self._addresses(record.host, record.port))
        except Refused as refused:
            self._fail(refused, refused.detail)
        except TimeoutError:
            words = f"it could not be connected to within {network.connect_seconds:g} seconds"
            self._fail(Refused(ETIMEDOUT, words), f"{words} (Network.connect_seconds)")
        except OSError as error:
            self._fail(of_host(error), str(error))
        else:
            record.address = str(sock.getpeername()[0])
            await self._loop.create_connection(lambda: self, sock=sock)
            with self._changed:
                self.is_busy, self._is_up = False, True
                self._changed.notify_all()
        if not self._is_up:
            self._owner.gone(self)

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """Addresses of a host that may be connected to.

        Raises:
            Refused: if there is none.
        """
        lookups = self._owner.lookups
        await lookups.acquire()
        future = look_up(host, port)
        # a thread that looks a name up stays in use when nobody waits for it any more
        future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(lookups.release))
        try:
            found = await asyncio.wrap_future(future)
        except socket.gaierror:
            raise Refused(_NO_NAME, "Name or service not known", "gaierror") from None
        return self._allowed(host, found)

    def _allowed(self, host: str, found: list[Address]) -> list[Address]:
        """Those of a host's addresses that may be connected to.

        Raises:
            Refused: if there is none. The guest hears no address: those of names inside are not its to know.
        """
        private, is_named = self._owner.network.private, is_address(host)
        reasons = [addresses.forbidden(address.text, private, is_named) for address in found]
        allowed = [address for address, reason in zip(found, reasons, strict=True) if reason is None]
        if allowed:
            return allowed
        detail = f"{host}: {', '.join(a.text for a in found)}: {next(filter(None, reasons), 'it has no address')}"
        if not private and any(addresses.forbidden(address.text, True, is_named) is None for address in found):
            detail += " (Network.private)"
        reason = f"the network policy does not allow {host}: its address is private or reserved"
        raise Refused(EACCES, reason, detail=detail)

    def _check_without_lookup(self, host: str) -> None:
        """Check the address of a host that a proxy looks up, as far as it is known here.

        Raises:
            Refused: if it may not be connected to.
        """
        is_local = host == "localhost" or host.endswith(".localhost")
        if is_local or is_address(host):
            self._allowed(host, [Address(0, "127.0.0.1" if is_local else host, ("", 0))])

    async def _connected(self, found: list[Address]) -> socket.socket:
        """Socket that is connected to one of some addresses: just these, which were checked."""
        failure: OSError = OSError("no address")
        for address in found:
            sock = socket.socket(address.family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self._loop.sock_connect(sock, address.place)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure

    async def _secure(self, protocols: tuple[str, ...], mark: bytes) -> None:
        network, record, before = self._owner.network, self.record, self._transport
        assert record is not None
        is_raw = self._gate is None
        if self._gate is not None and not self._gate.is_fresh:
            words = "TLS begins before the first request, or not at all"
            self._told(mark, {"error": "ConnectionResetError", "message": words})
            self._fail(Refused(EACCES, words), words)
            return
        if self._is_replayed:
            self._secured(mark, tls.replayed(protocols))
            return
        if before is None:
            self._told(mark, {"error": "ConnectionResetError", "message": "the connection has ended"})
            return
        try:
            context = tls.context_of(
                str(network.ca_file) if network.ca_file else None, protocols if is_raw else tls.HTTP_PROTOCOLS
            )
            async with asyncio.timeout(network.connect_seconds):
                made = await self._loop.start_tls(
                    before,
                    self,
                    context,
                    server_hostname=record.host,
                    ssl_handshake_timeout=network.connect_seconds + 1,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS,
                )
        except TimeoutError:
            words = f"the TLS handshake took longer than {network.connect_seconds:g} seconds (Network.connect_seconds)"
            self._told(mark, {"error": "TimeoutError", "message": words})
            self._fail(Refused(ETIMEDOUT, words), words)
            self._abandon(before)
            return
        except OSError as error:
            kind, message = tls.failure(error)
            self._told(mark, {"error": kind, "message": message})
            self._fail(Refused(1, message, kind) if kind.startswith("SSL") else of_host(error), message)
            self._abandon(before)
            return
        if made is None:  # it was closed meanwhile
            self._told(mark, {"error": "ConnectionResetError", "message": "the connection has ended"})
            self._abandon(before)
            return
        self._transport = made
        self._secured(mark, tls.description(made.get_extra_info("ssl_object"), protocols))

    def _secured(self, mark: bytes, found: dict[str, Any]) -> None:
        assert self.record is not None
        if self._gate is not None:
            self._gate.is_tls = True
        self.record.tls = True
        self._told(mark, {"info": found}, found)

    def _told(self, mark: bytes, answer: dict[str, Any], found: dict[str, Any] | None = None) -> None:
        """Tell how TLS went: what waits for it, and among the data, if the guest asked for that."""
        with self._changed:
            self.is_busy, self.tls = False, found
            if mark:
                data = json.dumps(answer).encode()
                self.inbox += mark + struct.pack("<I", len(data)) + data
            self._changed.notify_all()

    # -- the transport's protocol ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._used = self._loop.time()
        self._loop.call_later(self._owner.network.io_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self._transport = None
        if self._gate is not None and not self.is_at_end:
            self._apply(self._gate.from_host(b""))
        with self._changed:
            if exc is not None and self.error is None and not self.is_at_end:
                self.error = of_host(exc)
            self.is_at_end = True
            self._changed.notify_all()
        self._ended("closed" if self.error is None else "failed")
        self._owner.gone(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the server."""
        self._used = self._loop.time()
        if self.record is not None:
            self.record.bytes_in += len(data)
        if too_many := self._owner.count_in(len(data)):
            self._fail(Refused(EDQUOT, too_many), too_many)
        elif self._gate is None:
            self._to_guest(data)
        else:
            self._apply(self._gate.from_host(data))

    def eof_received(self) -> bool:
        """Take note that the server sends nothing more; whether the guest may still send."""
        if self._gate is not None:
            self._apply(self._gate.from_host(b""))
        with self._changed:
            self.is_at_end = True
            self._changed.notify_all()
        return self._gate is None and self.tls is None

    def pause_writing(self) -> None:
        """Take less from the guest."""
        self._is_stalled = True

    def resume_writing(self) -> None:
        """Take more from the guest."""
        self._is_stalled = False
        self._used = self._loop.time()
        self._release()

    # -- bytes -----------------------------------------------------------------------------------

    def _fed(self, data: bytes) -> None:
        self._used = self._loop.time()
        if self._gate is None:
            self._to_host(data)
        else:
            self._apply(self._gate.from_guest(data))
        self._held += len(data)
        self._release()

    def _release(self) -> None:
        """Give room for what has been sent."""
        if self._is_asking or self._is_stalled or not self._held or (self._gate is not None and self._gate.is_full):
            return
        with self._changed:
            self._unsent -= self._held
            self._changed.notify_all()
        self._held = 0

    def _apply(self, steps: list[Step]) -> None:
        for step in steps:
            if self._is_over or self.error is not None:
                return
            match step:
                case ToHost(data):
                    self._to_host(data)
                case ToGuest(data):
                    self._to_guest(data)
                case Ask(request):
                    self._asked(request)
                case Finished(request):
                    request.outcome = "ok"
                case Close(reason, detail, request, is_refusal):
                    if request is not None:
                        self._noted(request)
                    self._fail(Refused(EACCES if is_refusal else ECONNRESET, reason), detail)
        if self._gate is not None:
            with self._changed:
                self._is_asked = self._gate.is_awaited
                self.is_at_end = self.is_at_end or (self._is_replayed and self._gate.is_over)
                self._changed.notify_all()
        self._release()

    def _to_host(self, data: bytes) -> None:
        if self._transport is None or not data:
            return
        if too_many := self._owner.count_out(len(data)):
            self._fail(Refused(EDQUOT, too_many), too_many)
            return
        if self.record is not None:
            self.record.bytes_out += len(data)
        self._transport.write(data)

    def _to_guest(self, data: bytes) -> None:
        with self._changed:
            self.inbox += data
            is_full = len(self.inbox) > MAX_INBOX_BYTES
            self._changed.notify_all()
        if is_full and not self._is_full and self._transport is not None:
            self._is_full = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._is_full and self._transport is not None:
            self._is_full = False
            self._transport.resume_reading()

    def _asked(self, request: Request) -> None:
        """Count a request that the policy allows, and let the caller's gate decide on it."""
        if too_many := self._noted(request):
            self._settle(request, too_many)
            return
        if self._owner.ask is None:
            self._settle(request, None)
            return
        self._is_asking = True
        self._owner.ask(request).add_done_callback(self._decided_on(request))

    def _noted(self, request: Request) -> str | None:
        """Count a request, and keep its record; a sentence, if there are too many."""
        if self.record is not None:
            request.connection = self.record.id
        return self._owner.count_request(request)

    def _decided_on(self, request: Request) -> Callable[[Future[str | None]], None]:
        def decided(future: Future[str | None]) -> None:
            reason = "the request was not allowed" if future.cancelled() or future.exception() else future.result()
            self._loop.call_soon_threadsafe(self._settle, request, reason)

        return decided

    def _settle(self, request: Request, reason: str | None) -> None:
        if self._is_over or self._gate is None:
            return
        self._is_asking = False
        if reason is None:
            self._apply(self._gate.proceed(request))
        else:
            request.outcome, request.reason = "refused", reason
            self._apply(self._gate.refuse(request, reason))
        self._release()

    # -- its end ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """End a request that stands still for too long."""
        if self._is_over or self._transport is None:
            return
        patience = self._owner.network.io_seconds
        left = self._used + patience - self._loop.time()
        if left <= 0 and self._gate is not None and self._gate.is_busy and not self._is_asking and not self._is_full:
            words = f"nothing came for {patience:g} seconds (Network.io_seconds)"
            self._fail(Refused(ETIMEDOUT, words), words)
            return
        self._loop.call_later(max(left, patience / 10), self._look)

    def _fail(self, refused: Refused, detail: str) -> None:
        """End it with an error, which the guest finds."""
        with self._changed:
            self.error = self.error or refused
            self.is_busy = False
            self._changed.notify_all()
        if self.record is not None and not self.record.reason:
            self.record.reason = detail
        self._ended("refused" if refused.number == EACCES else "failed")
        if self._transport is not None:
            _abort(self._transport)

    def _ended(self, outcome: Literal["closed", "refused", "failed"]) -> None:
        if self.record is not None:
            self.record.end_at(time.monotonic(), outcome)

    def _shut_down(self) -> None:
        if self._gate is not None:
            self._apply(self._gate.from_guest(b""))
        elif self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def _finish(self, reason: str | None) -> None:
        """Close it: for that reason, or because the guest has closed it."""
        self._is_over = True
        if self._gate is not None:
            if reason is None:
                self._gate.leave()
            else:
                self._gate.cut(reason)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._task.add_done_callback(lambda _: self._release_socket(True))
        else:
            self._release_socket(reason is not None)
        with self._changed:
            self.error = self.error or Refused(ECONNRESET, "the connection has ended")
            self._changed.notify_all()

    def _release_socket(self, now: bool) -> None:
        transport, self._task = self._transport, None
        self._ended("closed")
        if transport is None:
            self._owner.gone(self)
        elif now:
            self._abandon(transport)
        else:
            transport.close()

    def _abandon(self, transport: asyncio.Transport) -> None:
        """Close a transport whose protocol may hear of it or not, as one that was about to begin TLS."""
        _abort(transport)
        self._loop.call_soon(self._owner.gone, self)


def _abort(transport: asyncio.Transport) -> None:
    """Close a transport now. What was not sent is dropped: the system would keep megabytes of it for a deaf server."""
    if transport.get_write_buffer_size() > 0 and (sock := transport.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
