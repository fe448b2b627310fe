"""Capability of connections: descriptors of a guest's sockets, served by the other end of its channel.

What only a socket can is an operation of the channel. What any descriptor can is here: reading and writing, without a
copy in the guest, and waiting. ``fd_pread`` and ``fd_pwrite`` take a time in microseconds for their offset, for a
socket has no place to read at; so every operation can have a timeout.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import ClassVar

from wasm_sandbox.engine.world.channel import BYTES_A_FUEL, CALL_FUEL, Channel
from wasm_sandbox.engine.world.clocks import ABSOLUTE_TIME, EVENT_CLOCK, EVENT_FD_READ, EVENT_FD_WRITE
from wasm_sandbox.engine.world.preview1 import EINVAL, EIO, ENOTSUP, MAX_VECTORS, SUCCESS, Imported, Refusal
from wasm_sandbox.engine.world.surroundings import CLOCK_MONOTONIC
from wasm_sandbox.engine.world.world import World
from wasm_sandbox.request import (
    DONE,
    FIRST_SOCKET,
    LAST_SOCKET,
    MAX_SENT_BYTES,
    READABLE,
    WRITABLE,
    NetworkOperation,
)

SOCKET_STREAM = 6
"""File type."""

MAX_RECEIVED_BYTES = 1 << 20
"""Most bytes that one call hands to the guest."""

WITHOUT_END = 1 << 62
"""Offsets from here on are no time, but none."""

_RECEIVE, _SEND, _POLL, _POLLED = struct.Struct("<Iq"), struct.Struct("<q"), struct.Struct("<?q"), struct.Struct("<IB")
_SIZE = struct.Struct("<I")


class Sockets:
    """Capability of connections.

    Args:
        world: world of the guest; what it offers before this serves the other descriptors.
        channel: channel, whose other end has the connections.
        spend: takes fuel from the guest.
    """

    functions: ClassVar[Mapping[str, Imported]]

    def __init__(self, world: World, channel: Channel, spend: Callable[[int], None]) -> None:
        self._world, self._channel, self._spend = world, channel, spend
        self._below = {name: world.table[name] for name in self.functions if name in world.table}

    def close(self) -> None:
        """Do nothing: the channel closes its other end."""

    def fd_read(self, fd: int, iovs: int, count: int, result: int) -> int:
        if not FIRST_SOCKET <= fd <= LAST_SOCKET:
            return self._pass_on("fd_read", fd, iovs, count, result)
        return self._receive(fd, iovs, count, -1, result)

    def fd_pread(self, fd: int, iovs: int, count: int, offset: int, result: int) -> int:
        if not FIRST_SOCKET <= fd <= LAST_SOCKET:
            return self._pass_on("fd_pread", fd, iovs, count, offset, result)
        return self._receive(fd, iovs, count, -1 if offset >= WITHOUT_END else offset, result)

    def fd_write(self, fd: int, iovs: int, count: int, result: int) -> int:
        if not FIRST_SOCKET <= fd <= LAST_SOCKET:
            return self._pass_on("fd_write", fd, iovs, count, result)
        return self._send(fd, iovs, count, -1, result)

    def fd_pwrite(self, fd: int, iovs: int, count: int, offset: int, result: int) -> int:
        if not FIRST_SOCKET <= fd <= LAST_SOCKET:
            return self._pass_on("fd_pwrite", fd, iovs, count, offset, result)
        return self._send(fd, iovs, count, -1 if offset >= WITHOUT_END else offset, result)

    def fd_close(self, fd: int) -> int:
        if not FIRST_SOCKET <= fd <= LAST_SOCKET:
            return self._pass_on("fd_close", fd)
        self._asked(NetworkOperation.CLOSE, fd, b"")
        return SUCCESS

    def fd_fdstat_get(self, fd: int, result: int) -> int:
        if not FIRST_SOCKET <= fd <= LAST_SOCKET:
            return self._pass_on("fd_fdstat_get", fd, result)
        rights = (1 << 1) | (1 << 6) | (1 << 27)  # read, write, poll
        self._world.store(result, struct.pack("<BxHxxxxQQ", SOCKET_STREAM, 0, rights, 0))
        return SUCCESS

    def _vectors(self, iovs: int, count: int) -> list[tuple[int, int]]:
        """Ranges that an array of iovec names, as the guest's own addresses; each is inside of its memory."""
        if count > MAX_VECTORS:
            raise Refusal(EINVAL)
        pairs = list(struct.iter_unpack("<II", self._world.load(iovs, 8 * count)))
        for start, size in pairs:
            self._world.span(start, size)
        return pairs

    def _receive(self, fd: int, iovs: int, count: int, microseconds: int, result: int) -> int:
        pairs = self._vectors(iovs, count)
        self._world.span(result, _SIZE.size)
        room = min(sum(size for _, size in pairs), MAX_RECEIVED_BYTES)
        data = memoryview(self._asked(NetworkOperation.RECEIVE, fd, _RECEIVE.pack(room, microseconds)))
        self._world.store(result, _SIZE.pack(len(data)))
        for start, size in pairs:  # looked at again: the guest's memory may have been moved or taken away
            self._world.store(start, bytes(data[:size]))
            data = data[size:]
        return SUCCESS

    def _send(self, fd: int, iovs: int, count: int, microseconds: int, result: int) -> int:
        self._world.span(result, _SIZE.size)
        parts, left = [_SEND.pack(microseconds)], MAX_SENT_BYTES
        for start, size in self._vectors(iovs, count):
            parts.append(self._world.load(start, min(size, left)))
            left -= len(parts[-1])
        self._world.store(result, self._asked(NetworkOperation.SEND, fd, b"".join(parts))[: _SIZE.size])
        return SUCCESS

    def _asked(self, op: NetworkOperation, fd: int, payload: bytes) -> bytes:
        """Bytes of the answer of the other end.

        Raises:
            Refusal: if it refuses.
        """
        self._world.check()
        kind, _, data = self._channel.peer.handle(op, fd, payload, self._world.wait)
        self._world.check()
        self._spend(CALL_FUEL + (len(payload) + len(data)) // BYTES_A_FUEL)
        if kind != DONE:
            raise Refusal(_SIZE.unpack_from(data)[0] if len(data) >= _SIZE.size else EIO)
        return data

    def poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Wait for the earliest clock, or for a connection; any other descriptor is always ready."""
        world = self._world
        if not 0 < count <= MAX_VECTORS:
            return EINVAL
        raw = world.load(subscriptions, 48 * count)
        if not any(_is_of_socket(raw, at) for at in range(0, len(raw), 48)):
            return self._pass_on("poll_oneoff", subscriptions, events, count, result)
        world.span(events, 32 * count)
        ready, timers, wanted = [], [], []
        for at in range(0, len(raw), 48):
            userdata, kind = struct.unpack_from("<QB", raw, at)
            if kind == EVENT_CLOCK:
                clock_id, timeout, _, flags = struct.unpack_from("<IxxxxQQH", raw, at + 16)
                if clock_id > CLOCK_MONOTONIC:
                    return EINVAL
                if flags & ABSOLUTE_TIME:
                    timeout = max(0, timeout - world.surroundings.clock(clock_id))
                timers.append((timeout, userdata))
            elif kind not in (EVENT_FD_READ, EVENT_FD_WRITE):
                return EINVAL
            elif _is_of_socket(raw, at):
                (fd,) = struct.unpack_from("<I", raw, at + 16)
                wanted.append((userdata, fd, kind))
            else:
                return ENOTSUP  # beside connections only clocks are waited for
        shortest = min(timers, default=None)
        microseconds = -1 if shortest is None else min(-(-shortest[0] // 1000), WITHOUT_END)
        asked = [_POLLED.pack(fd, READABLE if kind == EVENT_FD_READ else WRITABLE) for _, fd, kind in wanted]
        found = self._asked(NetworkOperation.POLL, 0, _POLL.pack(False, microseconds) + b"".join(asked))
        states = dict(_POLLED.iter_unpack(found[: len(found) // _POLLED.size * _POLLED.size]))
        for userdata, fd, kind in wanted:
            if states.get(fd, 0) & (READABLE if kind == EVENT_FD_READ else WRITABLE):
                ready.append((userdata, SUCCESS, kind))
        if not ready and shortest is not None:
            ready = [(userdata, SUCCESS, EVENT_CLOCK) for timeout, userdata in timers if timeout <= shortest[0]]
        packed = (struct.pack("<QHB5xQH6x", userdata, errno, kind, 1, 0) for userdata, errno, kind in ready)
        world.store(events, b"".join(packed))
        world.store(result, _SIZE.pack(len(ready)))
        return SUCCESS

    def _pass_on(self, name: str, *arguments: int) -> int:
        place, serve = self._below[name]
        return serve(self._world.capabilities[place], *arguments)


def _is_of_socket(raw: bytes, at: int) -> bool:
    """Whether the subscription at an offset is to a connection."""
    if raw[at + 8] not in (EVENT_FD_READ, EVENT_FD_WRITE):
        return False
    return FIRST_SOCKET <= int.from_bytes(raw[at + 16 : at + 20], "little") <= LAST_SOCKET


Sockets.functions = {
    "fd_close": Sockets.fd_close,
    "fd_fdstat_get": Sockets.fd_fdstat_get,
    "fd_pread": Sockets.fd_pread,
    "fd_pwrite": Sockets.fd_pwrite,
    "fd_read": Sockets.fd_read,
    "fd_write": Sockets.fd_write,
    "poll_oneoff": Sockets.poll_oneoff,
}
