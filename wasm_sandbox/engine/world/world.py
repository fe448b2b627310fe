"""What the guest sees of the world: our own few WASI functions, and "not capable" for all the rest.

WASI preview 1 as the guest imports it (witx: ``wasi_snapshot_preview1``). Served are the environment,
standard output and error, an empty standard input, clocks, entropy, sleep and exit; and files, for a guest
that was given some (`wasi_files`). There is no socket and no process behind any of them; wasmtime's own WASI
is not linked.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from wasm_sandbox.engine.binding import capi as _capi
from wasm_sandbox.engine.threads.turns import Turn
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.descriptors import Descriptors
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.preview1 import (
    EBADF,
    EINVAL,
    ENAMETOOLONG,
    ESPIPE,
    MAX_VECTORS,
    ROOT,
    STDERR,
    STDIN,
    STDOUT,
    SUCCESS,
    Fault,
    vectors,
)
from wasm_sandbox.engine.world.surroundings import (
    ABANDONED_POLL_SECONDS,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_THREAD,
    NANOSECONDS,
    LiveSurroundings,
    Surroundings,
)

EVENT_CLOCK, EVENT_FD_READ, EVENT_FD_WRITE = range(3)
ABSOLUTE_TIME = 1  # subclockflags

ROOT_PATH = b"/"
ENTROPY_CHUNK = 1 << 16
REST_SECONDS = 0.001
"""A guest that sleeps for less keeps its turn."""


class Halt(Enum):
    """Why the host ended a guest."""

    EXIT = "exit"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    HOST_FAILURE = "host failure"


class _Stop(Exception):
    """Ends the guest from inside a host function."""


@dataclass
class World:
    """One instance's side of the border: what it may see, what it wrote, why it was ended."""

    environ: list[bytes]
    """Entries ``NAME=value`` with the NUL that ends them."""
    stdout: OutputPipe
    stderr: OutputPipe
    surroundings: Surroundings
    deadline: float
    """On the clock of `time.monotonic`, in seconds."""
    watchdog: Watchdog | None = None
    """Every host call sees to it that no deadline is missed, whosever it is (`Watchdog.catch_up`)."""
    turn: Turn | None = None
    """Among the guests that want to compute."""
    files: Descriptors | None = None
    """For a guest that was given files."""
    stdin: bytes = b""
    """What is left to read of standard input: nothing, except while an image is prepared."""
    arguments: list[bytes] = field(default_factory=list)
    """Of a command, each with the NUL that ends it; our own guest has none."""
    instance: _capi.Instance | None = None
    halt: Halt | None = None
    exit_code: int = 0
    host_failure: BaseException | None = None
    host_calls: int = 0

    def now(self) -> int:
        """The wall clock, in nanoseconds."""
        return self.surroundings.clock(CLOCK_REALTIME)

    def check(self) -> None:
        """End the guest if its time is over or its caller has gone."""
        if self.halt_reason() is not None:
            raise _Stop

    def halt_reason(self) -> Halt | None:
        """Notes, once, that the guest must end now, and why."""
        if self.halt is None:
            if self.surroundings.cancelled:
                self.halt = Halt.CANCELLED
            elif time.monotonic() >= self.deadline:
                self.halt = Halt.DEADLINE
        return self.halt

    def next_look(self) -> float:
        """When `halt_reason` may have something new to say that nobody announces, on `time.monotonic`'s clock."""
        if self.surroundings.abandoned is not None:
            return min(self.deadline, time.monotonic() + ABANDONED_POLL_SECONDS)
        return self.deadline

    def fail(self, error: BaseException) -> None:
        """Note a defect of the host; whoever runs the guest raises it."""
        self.halt, self.host_failure = Halt.HOST_FAILURE, error

    # -- the guest's memory ----------------------------------------------------------------------

    def span(self, pointer: int, size: int) -> int:
        """The address of a range of guest memory, checked against its present size."""
        if self.instance is None:
            raise Fault
        base, limit = self.instance.memory()
        if pointer + size > limit:
            raise Fault
        return base + pointer

    def load(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(self.span(pointer, size), size)

    def store(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(self.span(pointer, len(data)), data, len(data))

    # -- the functions, each (arguments as unsigned integers) -> errno -----------------------------

    def environ_sizes_get(self, count: int, size: int) -> int:
        return self._give_sizes(self.environ, count, size)

    def environ_get(self, pointers: int, block: int) -> int:
        return self._give_texts(self.environ, pointers, block)

    def args_sizes_get(self, count: int, size: int) -> int:
        return self._give_sizes(self.arguments, count, size)

    def args_get(self, pointers: int, block: int) -> int:
        return self._give_texts(self.arguments, pointers, block)

    def _give_sizes(self, texts: list[bytes], count: int, size: int) -> int:
        self.store(count, struct.pack("<I", len(texts)))
        self.store(size, struct.pack("<I", sum(map(len, texts))))
        return SUCCESS

    def _give_texts(self, texts: list[bytes], pointers: int, block: int) -> int:
        addresses, at = [], block
        for text in texts:
            addresses.append(at)
            at += len(text)
        self.span(block, at - block)
        self.store(pointers, struct.pack(f"<{len(addresses)}I", *addresses))
        self.store(block, b"".join(texts))
        return SUCCESS

    def clock_res_get(self, clock_id: int, result: int) -> int:
        if clock_id > CLOCK_THREAD:
            return EINVAL
        self.store(result, struct.pack("<Q", 1))
        return SUCCESS

    def clock_time_get(self, clock_id: int, precision: int, result: int) -> int:
        if clock_id > CLOCK_THREAD:
            return EINVAL
        self.store(result, struct.pack("<Q", self.surroundings.clock(clock_id)))
        return SUCCESS

    def random_get(self, buffer: int, size: int) -> int:
        self.span(buffer, size)
        for start in range(0, size, ENTROPY_CHUNK):
            self.check()
            self.store(buffer + start, self.surroundings.entropy(min(ENTROPY_CHUNK, size - start)))
        return SUCCESS

    def fd_write(self, fd: int, iovs: int, count: int, written: int) -> int:
        if fd == STDIN:
            return EBADF
        pipe = self.stdout if fd == STDOUT else self.stderr
        spans = vectors(self, iovs, count)
        total = sum(size for _, size in spans)
        self.store(written, struct.pack("<I", total))
        pipe.write_all(spans, total)
        return SUCCESS

    def fd_read(self, fd: int, iovs: int, count: int, read: int) -> int:
        if fd != STDIN:
            return EBADF
        if not self.stdin:
            self.store(read, struct.pack("<I", 0))  # at its end
            return SUCCESS
        total = 0
        for address, size in vectors(self, iovs, count):
            data = self.stdin[:size]
            ctypes.memmove(address, data, len(data))
            self.stdin, total = self.stdin[size:], total + len(data)
        self.store(read, struct.pack("<I", total))
        return SUCCESS

    def fd_close(self, fd: int) -> int:
        return SUCCESS

    def fd_seek(self, fd: int, offset: int, whence: int, result: int) -> int:
        return ESPIPE

    def fd_tell(self, fd: int, result: int) -> int:
        return ESPIPE

    def fd_fdstat_get(self, fd: int, result: int) -> int:
        # An unknown file type, no flags: neither a terminal nor a file. Rights: read, write, poll.
        rights = (1 << 1) | (1 << 6) | (1 << 27)
        self.store(result, struct.pack("<BxHxxxxQQ", 0, 0, rights, 0))
        return SUCCESS

    def fd_filestat_get(self, fd: int, result: int) -> int:
        self.store(result, bytes(64))
        return SUCCESS

    # One directory is preopened, always: libc looks for it once, and its answer is part of an image's snapshot.

    def fd_prestat_get(self, fd: int, result: int) -> int:
        if fd != ROOT:
            return EBADF
        self.store(result, struct.pack("<BxxxI", 0, len(ROOT_PATH)))
        return SUCCESS

    def fd_prestat_dir_name(self, fd: int, path: int, size: int) -> int:
        if fd != ROOT:
            return EBADF
        if size < len(ROOT_PATH):
            return ENAMETOOLONG
        self.store(path, ROOT_PATH)
        return SUCCESS

    def sched_yield(self) -> int:
        return SUCCESS

    def poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Wait for the earliest clock; standard streams are always ready."""
        if not 0 < count <= MAX_VECTORS:
            return EINVAL
        raw = self.load(subscriptions, 48 * count)
        self.span(events, 32 * count)
        ready, timers = [], []
        for at in range(0, len(raw), 48):
            userdata, kind = struct.unpack_from("<QB", raw, at)
            if kind == EVENT_CLOCK:
                clock_id, timeout, _, flags = struct.unpack_from("<IxxxxQQH", raw, at + 16)
                if clock_id > CLOCK_MONOTONIC:
                    ready.append((userdata, EINVAL, kind))
                    continue
                if flags & ABSOLUTE_TIME:
                    timeout = max(0, timeout - self.surroundings.clock(clock_id))
                timers.append((timeout, userdata))
            elif kind in (EVENT_FD_READ, EVENT_FD_WRITE):
                (fd,) = struct.unpack_from("<I", raw, at + 16)
                ready.append((userdata, SUCCESS if self._is_open(fd) else EBADF, kind))
            else:
                return EINVAL
        if not ready:
            shortest = min(timeout for timeout, _ in timers)
            self._sleep(shortest / NANOSECONDS)
            ready = [(userdata, SUCCESS, EVENT_CLOCK) for timeout, userdata in timers if timeout <= shortest]
        packed = b"".join(struct.pack("<QHB21x", userdata, errno, kind) for userdata, errno, kind in ready)
        self.store(events, packed)
        self.store(result, struct.pack("<I", len(ready)))
        return SUCCESS

    def _is_open(self, fd: int) -> bool:
        return fd <= STDERR or (self.files is not None and self.files.is_open(fd))

    def _sleep(self, seconds: float) -> None:
        if isinstance(self.surroundings, LiveSurroundings):
            seconds = min(seconds, max(0.0, self.deadline - time.monotonic()))
        if self.turn is not None and seconds >= REST_SECONDS:
            self.turn.give_up()
            self.surroundings.sleep(seconds)
            self.turn.ask_again()
        else:
            self.surroundings.sleep(seconds)
        self.check()

    def proc_exit(self, code: int) -> int:
        self.halt, self.exit_code = Halt.EXIT, code
        raise _Stop


def environ_block(variables: Mapping[str, str]) -> list[bytes]:
    """The entries of a WASI environment; names and values must have been checked."""
    return [f"{name}={value}\0".encode() for name, value in variables.items()]
