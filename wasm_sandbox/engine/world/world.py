"""What the guest sees of the world: our own few WASI functions, and "not capable" for all the rest.

WASI preview 1 as the guest imports it (witx: ``wasi_snapshot_preview1``). Served are the environment,
standard output and error, an empty standard input, clocks, entropy, sleep and exit; and files, for a guest
that was given some (`wasi_files`). There is no socket and no process behind any of them; wasmtime's own WASI
is not linked.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

import wasmtime

from wasm_sandbox.engine.binding import capi as _capi
from wasm_sandbox.engine.threads.turns import Turn
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world.descriptors import Descriptors
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.preview1 import (
    EBADF,
    EFAULT,
    EINVAL,
    ENAMETOOLONG,
    ENOENT,
    ENOTCAPABLE,
    ESPIPE,
    MAX_VECTORS,
    ROOT,
    STDERR,
    STDIN,
    STDOUT,
    SUCCESS,
    WASI_MODULE,
    Fault,
    Refusal,
    vectors,
)
from wasm_sandbox.limits import Limits

CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS, CLOCK_THREAD = range(4)
EVENT_CLOCK, EVENT_FD_READ, EVENT_FD_WRITE = range(3)
ABSOLUTE_TIME = 1  # subclockflags

ROOT_PATH = b"/"
ENTROPY_CHUNK = 1 << 16
NANOSECONDS = 1_000_000_000
ABANDONED_POLL_SECONDS = 0.5
REST_SECONDS = 0.001
"""A guest that sleeps for less keeps its turn."""

SERVED = frozenset(
    {
        "args_get", "args_sizes_get", "clock_res_get", "clock_time_get", "environ_get", "environ_sizes_get",
        "fd_prestat_dir_name", "fd_prestat_get", "poll_oneoff", "proc_exit", "random_get", "sched_yield",
    }
)  # fmt: skip
"""The functions that need no file."""

STREAM_FUNCTIONS = frozenset(
    {"fd_close", "fd_fdstat_get", "fd_filestat_get", "fd_read", "fd_seek", "fd_tell", "fd_write"}
)
"""What standard streams can do."""

FILE_FUNCTIONS = STREAM_FUNCTIONS | {
    "fd_advise", "fd_allocate", "fd_datasync", "fd_fdstat_set_flags", "fd_filestat_set_size", "fd_filestat_set_times",
    "fd_pread", "fd_pwrite", "fd_readdir", "fd_renumber", "fd_sync", "path_create_directory", "path_filestat_get",
    "path_filestat_set_times", "path_link", "path_open", "path_readlink", "path_remove_directory", "path_rename",
    "path_symlink", "path_unlink_file",
}  # fmt: skip
"""What a guest with files can do with them; without any, no path exists and no descriptor above the streams'.

Every other function of preview 1 answers ``ENOTCAPABLE``.
"""


class Halt(Enum):
    """Why the host ended a guest."""

    EXIT = "exit"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    HOST_FAILURE = "host failure"


class _Stop(Exception):
    """Ends the guest from inside a host function."""


class _Cancellable:
    """The caller's way to end a run.

    Args:
        abandoned: tells that nobody waits any more, for callers that can go without saying so.
    """

    def __init__(self, abandoned: Callable[[], bool] | None = None) -> None:
        self.abandoned = abandoned
        self._cancelled = threading.Event()
        self._stop: Callable[[], object] | None = None

    def stop_with(self, stop: Callable[[], object] | None) -> None:
        """What `cancel` calls, beside ending a sleep. ``None`` when the guest is gone: it refers to its world."""
        self._stop = stop

    def cancel(self) -> None:
        self._cancelled.set()
        if (stop := self._stop) is not None:
            stop()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set() or (self.abandoned is not None and self.abandoned())


class LiveSurroundings(_Cancellable):
    """Real clocks, real entropy, and a sleep that ends early on cancellation.

    Only the wall clock has the host's origin. The others start with the run: the host's uptime, and what
    earlier runs computed on the same thread, are no business of a guest.
    """

    def __init__(self, abandoned: Callable[[], bool] | None = None) -> None:
        super().__init__(abandoned)
        self._started = time.monotonic_ns()
        self._cpu_before: int | None = None
        self._clocks: tuple[Callable[[], int], ...] = (
            time.time_ns,
            lambda: time.monotonic_ns() - self._started,
            self._cpu_time,
            self._cpu_time,
        )

    def _cpu_time(self) -> int:
        """Of the thread that runs the guest, since the first look."""
        now = time.thread_time_ns()
        if self._cpu_before is None:
            self._cpu_before = now
        return now - self._cpu_before

    def clock(self, clock_id: int) -> int:
        """Nanoseconds of one of the four preview 1 clocks."""
        return self._clocks[clock_id]()

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.cancelled and (left := end - time.monotonic()) > 0:
            self._cancelled.wait(min(left, threading.TIMEOUT_MAX if self.abandoned is None else ABANDONED_POLL_SECONDS))


class FixedSurroundings(_Cancellable):
    """Clocks that start at a fixed origin and step at every look, seeded entropy, no real sleeping.

    The same guest sees the same world every time: for making snapshots, and for runs with
    ``Limits.deterministic``. A sleep moves the clocks and takes no time; all four clocks are one.
    """

    ORIGIN = 1_700_000_000 * NANOSECONDS
    STEP = 1_000
    END = 2**63 - 1
    """Where the clocks stop: a guest may sleep for centuries, and its own time is 64 bits wide."""

    def __init__(self, abandoned: Callable[[], bool] | None = None, seed: int = 0) -> None:
        super().__init__(abandoned)
        self._now = self.ORIGIN
        self._random = Random(seed)

    def clock(self, clock_id: int) -> int:
        self._now = min(self._now + self.STEP, self.END)
        return self._now if clock_id == CLOCK_REALTIME else self._now - self.ORIGIN

    def entropy(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def sleep(self, seconds: float) -> None:
        self._now += int(seconds * NANOSECONDS)


Surroundings = LiveSurroundings | FixedSurroundings


def surroundings_for(limits: Limits, abandoned: Callable[[], bool] | None = None) -> Surroundings:
    """What a run with these limits sees of the world.

    Args:
        limits: ``deterministic`` decides.
        abandoned: tells that nobody waits any more, for callers that can go without saying so.
    """
    return FixedSurroundings(abandoned) if limits.deterministic else LiveSurroundings(abandoned)


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


def _serving(name: str) -> Callable[..., int] | None:
    """The function of a world that serves an import, if there is one."""
    if name not in FILE_FUNCTIONS:
        return getattr(World, name) if name in SERVED else None
    with_files: Callable[..., int] = getattr(Descriptors, name)
    on_streams: Callable[..., int] | None = getattr(World, name) if name in STREAM_FUNCTIONS else None
    takes_path = name.startswith("path_")

    def serve(world: World, *arguments: int) -> int:
        if not takes_path and arguments[0] <= STDERR:
            return on_streams(world, *arguments) if on_streams else ENOTCAPABLE
        if world.files is None:
            # libc asks for the status of the root before it opens anything below: no file is what it is to tell.
            no_file = takes_path or (name == "fd_fdstat_get" and arguments[0] == ROOT)
            return ENOENT if no_file else EBADF
        world.check()
        return with_files(world.files, *arguments)

    return serve


class HostFunctions:
    """The imports of a module, defined once per linker and routed to the instance of the calling thread."""

    def __init__(self, linker: wasmtime.Linker, module: wasmtime.Module) -> None:
        self._local = threading.local()
        self._callbacks: list[Any] = []  # ctypes callbacks must outlive the linker
        for import_ in module.imports:
            if import_.module != WASI_MODULE or not isinstance(import_.type, wasmtime.FuncType):
                raise ValueError(f"the guest imports {import_.module}.{import_.name}: only {WASI_MODULE} is served")
            callback = self._callback(str(import_.name), import_.type)
            self._callbacks.append(callback)
            _capi.define_host_function(linker, WASI_MODULE, str(import_.name), import_.type, callback)

    def enter(self, world: World) -> None:
        """Route the calls of this thread's guest to ``world``."""
        self._local.world = world

    def leave(self) -> None:
        self._local.world = None

    def _callback(self, name: str, type_: wasmtime.FuncType) -> Any:
        serve = _serving(name)
        parameters = [str(p) for p in type_.params]
        masks = [0xFFFFFFFF if p == "i32" else 0xFFFFFFFFFFFFFFFF for p in parameters]
        slots = ctypes.c_uint64 * (max(1, len(masks)) * _capi.RAW_VALUE_BYTES // 8)
        stride = _capi.RAW_VALUE_BYTES // 8
        local, monotonic = self._local, time.monotonic

        def host_function(_env: int, _caller: int, values: int, _count: int) -> int:
            world: World = local.world
            try:
                world.host_calls += 1
                if world.watchdog is not None and world.watchdog.due < monotonic():
                    world.watchdog.catch_up()
                    if world.halt is not None:
                        raise _Stop
                cells = slots.from_address(values)
                errno = ENOTCAPABLE
                if serve is not None:
                    try:
                        errno = serve(world, *[cells[i * stride] & mask for i, mask in enumerate(masks)])
                    except Fault:
                        errno = EFAULT
                    except Refusal as refusal:
                        errno = refusal.errno
                cells[0] = errno
                return 0
            except _Stop:
                return _capi.new_trap(b"stopped by the host")
            except BaseException as error:  # nothing may cross the C frames below
                world.fail(error)
                return _capi.new_trap(b"a host function failed")

        return _capi.HostCallback(host_function)
