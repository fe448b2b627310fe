"""Capability of the channel: one descriptor, through which a guest reaches what its caller offers.

A request is one ``fd_read``: the buffer that it names holds the request, and the answer is written over it. So a round
trip is one call of the host, and it works in any CPython for WASI. In the buffer: size, operation and number of the
request, then its bytes; after the call: kind, number and size of the answer, then its bytes, as far as they fit. The
rest is fetched by further requests.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import ClassVar

from wasm_sandbox.engine.world.preview1 import EBADF, EINVAL, REGULAR_FILE, RIGHT_READ, SUCCESS, Imported
from wasm_sandbox.engine.world.world import World
from wasm_sandbox.request import Answer, NetworkOperation, Peer

CHANNEL = 1000
"""Number of the descriptor: above all that a guest can open."""

MORE = 6
"""Operation: more of the last answer, at most as many bytes as the number of the request says."""

CALL_FUEL = 20_000
"""Fuel of a request: what the host does for it is no less work than this."""

BYTES_A_FUEL = 64
"""Bytes of a request or an answer for one unit of fuel, as of what a guest moves itself."""

_HEAD, _ANSWER = struct.Struct("<IBI"), struct.Struct("<BII")
_VECTOR, _SIZE = struct.Struct("<II"), struct.Struct("<I")


class Channel:
    """Capability of the channel.

    Args:
        world: world of the guest; what it offers before this serves the other descriptors.
        peer: other end.
        spend: takes fuel from the guest.
    """

    functions: ClassVar[Mapping[str, Imported]]

    def __init__(self, world: World, peer: Peer, spend: Callable[[int], None]) -> None:
        self._world, self._spend = world, spend
        self.peer = peer
        """Other end; another one for each call of a guest that is kept."""
        self._below = {name: world.table[name] for name in self.functions}
        self._rest = memoryview(b"")

    def close(self) -> None:
        """End what is under way at the other end."""
        self.peer.close()

    def fd_read(self, fd: int, iovs: int, count: int, read: int) -> int:
        if fd != CHANNEL:
            return self._pass_on("fd_read", fd, iovs, count, read)
        world = self._world
        if count != 1:
            return EINVAL
        start, room = _VECTOR.unpack(world.load(iovs, _VECTOR.size))
        address = world.span(start, room)
        world.span(read, 4)
        if room < _HEAD.size:
            return EINVAL
        size, op, ident = _HEAD.unpack(ctypes.string_at(address, _HEAD.size))
        if size > room - _HEAD.size:
            return EINVAL
        room -= _ANSWER.size
        if op == MORE:
            part, self._rest = self._rest[: min(ident, room)], self._rest[min(ident, room) :]
            kind, ident, whole_size = 0, 0, len(part)
        else:
            kind, ident, data = self._asked(op, ident, address, size)
            whole_size, part = len(data), memoryview(data)[:room]
            self._rest = memoryview(data)[room:]
        self._spend(CALL_FUEL + (size + whole_size) // BYTES_A_FUEL)
        answer = _ANSWER.pack(kind, ident, whole_size) + part
        # The guest has not run meanwhile, but its memory may have been moved or taken away: look again.
        world.store(start, answer)
        world.store(read, _SIZE.pack(len(answer)))
        return SUCCESS

    def _asked(self, op: int, ident: int, address: int, size: int) -> Answer:
        self._rest = memoryview(b"")
        if size > self.peer.max_request_bytes:
            return self.peer.refuse(ident, size, self._world.wait)
        payload = ctypes.string_at(address + _HEAD.size, size)
        self._world.check()
        is_held = self.peer.holds_deadline and op < NetworkOperation.OPEN
        with self._world.deadline_held() if is_held else nullcontext():
            answer = self.peer.handle(op, ident, payload, self._world.wait)
        self._world.check()
        return answer

    def fd_fdstat_get(self, fd: int, result: int) -> int:
        if fd != CHANNEL:
            return self._pass_on("fd_fdstat_get", fd, result)
        self._world.store(result, struct.pack("<BxHxxxxQQ", REGULAR_FILE, 0, RIGHT_READ, 0))
        return SUCCESS

    def fd_filestat_get(self, fd: int, result: int) -> int:
        if fd != CHANNEL:
            return self._pass_on("fd_filestat_get", fd, result)
        self._world.store(result, struct.pack("<QQB", 0, 0, REGULAR_FILE) + bytes(47))
        return SUCCESS

    def fd_close(self, fd: int) -> int:
        return EBADF if fd == CHANNEL else self._pass_on("fd_close", fd)

    def _pass_on(self, name: str, *arguments: int) -> int:
        place, serve = self._below[name]
        return serve(self._world.capabilities[place], *arguments)


Channel.functions = {
    "fd_close": Channel.fd_close,
    "fd_fdstat_get": Channel.fd_fdstat_get,
    "fd_filestat_get": Channel.fd_filestat_get,
    "fd_read": Channel.fd_read,
}
