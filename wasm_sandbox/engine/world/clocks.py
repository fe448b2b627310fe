"""Capability of clocks, sleep and entropy, from the surroundings of a run."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import ClassVar

from wasm_sandbox.engine.world.preview1 import EBADF, EINVAL, MAX_VECTORS, SUCCESS, Imported
from wasm_sandbox.engine.world.surroundings import CLOCK_MONOTONIC, CLOCK_THREAD, NANOSECONDS
from wasm_sandbox.engine.world.world import World

EVENT_CLOCK, EVENT_FD_READ, EVENT_FD_WRITE = range(3)
ABSOLUTE_TIME = 1  # subclockflags
ENTROPY_CHUNK = 1 << 16


class Clocks:
    """Capability of clocks, entropy and waiting.

    Args:
        world: world of the guest.
        is_open: whether a descriptor is open; a wait for one that is ends at once.
    """

    functions: ClassVar[Mapping[str, Imported]]

    def __init__(self, world: World, is_open: Callable[[int], bool]) -> None:
        self._world, self._is_open = world, is_open

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def clock_res_get(self, clock_id: int, result: int) -> int:
        if clock_id > CLOCK_THREAD:
            return EINVAL
        self._world.store(result, struct.pack("<Q", 1))
        return SUCCESS

    def clock_time_get(self, clock_id: int, precision: int, result: int) -> int:
        if clock_id > CLOCK_THREAD:
            return EINVAL
        self._world.store(result, struct.pack("<Q", self._world.surroundings.clock(clock_id)))
        return SUCCESS

    def random_get(self, buffer: int, size: int) -> int:
        world = self._world
        world.span(buffer, size)
        for start in range(0, size, ENTROPY_CHUNK):
            world.check()
            world.store(buffer + start, world.surroundings.entropy(min(ENTROPY_CHUNK, size - start)))
        return SUCCESS

    def sched_yield(self) -> int:
        return SUCCESS

    def poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Wait for the earliest clock; standard streams are always ready."""
        world = self._world
        if not 0 < count <= MAX_VECTORS:
            return EINVAL
        raw = world.load(subscriptions, 48 * count)
        world.span(events, 32 * count)
        ready, timers = [], []
        for at in range(0, len(raw), 48):
            userdata, kind = struct.unpack_from("<QB", raw, at)
            if kind == EVENT_CLOCK:
                clock_id, timeout, _, flags = struct.unpack_from("<IxxxxQQH", raw, at + 16)
                if clock_id > CLOCK_MONOTONIC:
                    ready.append((userdata, EINVAL, kind))
                    continue
                if flags & ABSOLUTE_TIME:
                    timeout = max(0, timeout - world.surroundings.clock(clock_id))
                timers.append((timeout, userdata))
            elif kind in (EVENT_FD_READ, EVENT_FD_WRITE):
                (fd,) = struct.unpack_from("<I", raw, at + 16)
                ready.append((userdata, SUCCESS if self._is_open(fd) else EBADF, kind))
            else:
                return EINVAL
        if not ready:
            shortest = min(timeout for timeout, _ in timers)
            world.sleep(shortest / NANOSECONDS)
            ready = [(userdata, SUCCESS, EVENT_CLOCK) for timeout, userdata in timers if timeout <= shortest]
        packed = b"".join(struct.pack("<QHB21x", userdata, errno, kind) for userdata, errno, kind in ready)
        world.store(events, packed)
        world.store(result, struct.pack("<I", len(ready)))
        return SUCCESS


Clocks.functions = {
    "clock_res_get": Clocks.clock_res_get,
    "clock_time_get": Clocks.clock_time_get,
    "poll_oneoff": Clocks.poll_oneoff,
    "random_get": Clocks.random_get,
    "sched_yield": Clocks.sched_yield,
}
