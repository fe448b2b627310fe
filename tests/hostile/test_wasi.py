"""The border itself, probed from hand-written WebAssembly: hostile pointers, lengths, descriptors."""

from __future__ import annotations

import ctypes
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.binding.configuration import engine_configuration
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.threads.watchdog import Watchdog
from wasm_sandbox.engine.world import pipe
from wasm_sandbox.engine.world.clocks import Clocks
from wasm_sandbox.engine.world.descriptors import Descriptors
from wasm_sandbox.engine.world.file_system import FileSystem
from wasm_sandbox.engine.world.host_functions import HostFunctions
from wasm_sandbox.engine.world.mounts import Mounts, link_mounting
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.preview1 import (
    EBADF,
    EFAULT,
    EINVAL,
    ENAMETOOLONG,
    ENOENT,
    ENOTCAPABLE,
    ESPIPE,
    ROOT,
    SUCCESS,
    WASI_MODULE,
)
from wasm_sandbox.engine.world.process import Process, entries
from wasm_sandbox.engine.world.streams import FILE_FUNCTIONS, STREAM_FUNCTIONS, Streams
from wasm_sandbox.engine.world.surroundings import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_THREAD,
    FixedSurroundings,
    LiveSurroundings,
)
from wasm_sandbox.engine.world.world import Halt, World
from wasm_sandbox.files import HostDir
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest

# Every function of preview 1, with its parameters (i = i32, I = i64); all but proc_exit return an errno.
PREVIEW1 = {
    "args_get": "ii", "args_sizes_get": "ii", "environ_get": "ii", "environ_sizes_get": "ii",
    "clock_res_get": "ii", "clock_time_get": "iIi", "fd_advise": "iIIi", "fd_allocate": "iII", "fd_close": "i",
    "fd_datasync": "i", "fd_fdstat_get": "ii", "fd_fdstat_set_flags": "ii", "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii", "fd_filestat_set_size": "iI", "fd_filestat_set_times": "iIIi", "fd_pread": "iiiIi",
    "fd_prestat_get": "ii", "fd_prestat_dir_name": "iii", "fd_pwrite": "iiiIi", "fd_read": "iiii",
    "fd_readdir": "iiiIi", "fd_renumber": "ii", "fd_seek": "iIii", "fd_sync": "i", "fd_tell": "ii", "fd_write": "iiii",
    "path_create_directory": "iii", "path_filestat_get": "iiiii", "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii", "path_open": "iiiiiIIii", "path_readlink": "iiiiii", "path_remove_directory": "iii",
    "path_rename": "iiiiii", "path_symlink": "iiiii", "path_unlink_file": "iii", "poll_oneoff": "iiii",
    "proc_exit": "i", "proc_raise": "i", "sched_yield": "", "random_get": "ii", "sock_accept": "iii",
    "sock_recv": "iiiiii", "sock_send": "iiiii", "sock_shutdown": "ii",
}  # fmt: skip

SERVED = {
    "args_get", "args_sizes_get", "clock_res_get", "clock_time_get", "environ_get", "environ_sizes_get",
    "fd_prestat_dir_name", "fd_prestat_get", "poll_oneoff", "proc_exit", "random_get", "sched_yield",
}  # fmt: skip
"""What a guest may call, besides the functions of files."""

PAGE = 65536
HOSTILE = [0, 1, 7, PAGE - 1, PAGE, PAGE + 1, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1]


def probe_module() -> str:
    """A module that imports all of preview 1 and exports each function under its own name."""
    types = {"i": "i32", "I": "i64"}
    imports, exports = [], []
    for name, parameters in PREVIEW1.items():
        listed = " ".join(types[p] for p in parameters)
        result = "" if name == "proc_exit" else "(result i32)"
        imports.append(f'(import "{WASI_MODULE}" "{name}" (func ${name} (param {listed}) {result}))')
        gets = " ".join(f"local.get {i}" for i in range(len(parameters)))
        exports.append(f'(func (export "{name}") (param {listed}) {result} {gets} call ${name})')
    return f'(module {" ".join(imports)} (memory (export "memory") 1 2) {" ".join(exports)})'


class Probe:
    """One instance of the probe module and its world, with the capabilities of a guest without files."""

    def __init__(self, surroundings: LiveSurroundings | FixedSurroundings | None = None, seconds: float = 30) -> None:
        engine = wasmtime.Engine()
        module = wasmtime.Module(engine, probe_module())
        linker = wasmtime.Linker(engine)
        self.functions = HostFunctions(linker, module)
        self.store = wasmtime.Store(engine)
        self.world = World(surroundings or FixedSurroundings(), time.monotonic() + seconds)
        self.streams = Streams(self.world, OutputPipe(1000), OutputPipe(1000))
        process = Process(self.world, entries({"A": "1", "LONG": "x" * 100}))
        self.world.offer(self.streams, Clocks(self.world, self.streams.is_open), process)
        self.instance = capi.Instance(self.store, linker.instantiate_pre(module))
        self.world.instance = self.instance

    def call(self, name: str, *arguments: int) -> int:
        self.functions.enter(self.world)  # a test may run on another thread than what set it up
        return self.instance.call(name, *arguments)

    def give_files(self, mounted: Path) -> None:
        """A file system with a file, a writable mount, and descriptors 4 to 6 on a file and two directories."""
        system = FileSystem({"/f": b"content"}, ("/m",), 1 << 20, 10, 0)
        engine = wasmtime.Engine(engine_configuration())
        directories = {"/m": HostDir(mounted, read_only=False)}
        mounts = Mounts(engine, lambda: link_mounting(engine), directories, 1 << 16, 10)
        files = Descriptors(self.world, self.streams, lambda: system, mounts)
        self.world.offer(Clocks(self.world, files.is_open), files)
        self.instance.write(1024, b"f.m")
        rights = 1 << 1 | 1 << 6
        assert self.call("path_open", ROOT, 0, 1024, 1, 0, rights, 0, 0, 0) == SUCCESS
        assert self.call("path_open", ROOT, 0, 1025, 1, 2, 1 << 1, 0, 0, 0) == SUCCESS
        assert self.call("path_open", ROOT, 0, 1026, 1, 2, 1 << 1, 0, 0, 0) == SUCCESS

    def close(self) -> None:
        self.functions.leave()
        self.world.close()
        self.store.close()


@pytest.fixture
def probe() -> Iterator[Probe]:
    opened = Probe()
    yield opened
    opened.close()


UNNAMED = range(8192, 57344)
"""Addresses that no hostile number names, nor what follows any of them by a few kilobytes."""


@pytest.mark.parametrize("name", sorted(set(PREVIEW1) - {"proc_exit"}))
def test_hostile_numbers_get_an_errno_and_leave_memory_alone(probe: Probe, name: str) -> None:
    """Each parameter in turn takes every hostile value, the others a harmless one."""
    parameters = PREVIEW1[name]
    pattern = bytes(n % 251 for n in UNNAMED)
    probe.instance.write(UNNAMED.start, pattern)
    for position in range(len(parameters)):
        for hostile in HOSTILE:
            arguments = [hostile if i == position else 16 for i in range(len(parameters))]
            assert 0 <= probe.call(name, *arguments) <= 76, (name, arguments)
    for hostile in HOSTILE:
        assert 0 <= probe.call(name, *[hostile] * len(parameters)) <= 76
    assert probe.world.host_failure is None
    assert probe.instance.memory()[1] == PAGE
    if name != "random_get":  # which was told to fill all of it
        assert probe.instance.read(UNNAMED.start, len(UNNAMED)) == pattern


@pytest.mark.parametrize("name", sorted(set(PREVIEW1) - {"proc_exit"}))
def test_hostile_numbers_get_an_errno_with_files_too(probe: Probe, name: str, tmp_path: Path) -> None:
    """As above, on descriptors of a file, of a directory and of a mounted one."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside").write_text("untouched")
    parameters = PREVIEW1[name]
    probe.give_files(inside)
    for fd in (ROOT, 4, 5, 6):
        for position in range(len(parameters)):
            for hostile in HOSTILE:
                # 1024 is the address of a path; sizes and flags are hostile with good descriptors
                good = [fd if i == 0 else 1024 for i in range(len(parameters))]
                good[position] = hostile
                assert 0 <= probe.call(name, *good) <= 76, (name, good)
    assert probe.world.host_failure is None
    assert probe.instance.memory()[1] == PAGE
    assert (tmp_path / "outside").read_text() == "untouched"
    assert sum(path.stat().st_size for path in inside.rglob("*")) <= 1 << 16


def test_what_may_be_called_is_in_the_tables_of_the_capabilities_and_nothing_else(probe: Probe, tmp_path: Path) -> None:
    assert set(probe.world.table) == SERVED | FILE_FUNCTIONS
    assert STREAM_FUNCTIONS < FILE_FUNCTIONS
    probe.give_files(tmp_path)
    assert set(probe.world.table) == SERVED | FILE_FUNCTIONS
    probe.world.close()
    assert not probe.world.table


@pytest.mark.parametrize("name", sorted(set(PREVIEW1) - SERVED - FILE_FUNCTIONS))
def test_what_is_not_served_is_not_capable(probe: Probe, name: str) -> None:
    assert probe.call(name, *[0] * len(PREVIEW1[name])) == ENOTCAPABLE


@pytest.mark.parametrize("name", sorted(FILE_FUNCTIONS))
def test_without_files_no_path_exists_and_no_descriptor_is_open(probe: Probe, name: str) -> None:
    for fd in (ROOT, 4):
        errno = probe.call(name, fd, *[0] * (len(PREVIEW1[name]) - 1))
        no_file = name.startswith("path_") or (name == "fd_fdstat_get" and fd == ROOT)
        assert errno == (ENOENT if no_file else EBADF)


def test_one_root_is_preopened_even_where_there_is_nothing_in_it(probe: Probe) -> None:
    """What libc learns of it while an image is prepared is part of the image, so it must always be so."""
    assert probe.call("fd_prestat_get", ROOT, 0) == SUCCESS
    assert struct.unpack("<BxxxI", probe.instance.read(0, 8)) == (0, 1)
    assert probe.call("fd_prestat_dir_name", ROOT, 16, 1) == SUCCESS
    assert probe.instance.read(16, 1) == b"/"
    assert probe.call("fd_prestat_dir_name", ROOT, 16, 0) == ENAMETOOLONG
    assert probe.call("fd_prestat_get", 4, 0) == EBADF
    assert probe.call("fd_prestat_dir_name", 4, 0, 1) == EBADF


OVERLAPS = {
    "args_get": (1024, 1024), "args_sizes_get": (1024, 1026), "environ_get": (1024, 1026),
    "environ_sizes_get": (1024, 1024), "fd_write": (1, 1024, 2, 1028), "fd_read": (0, 1024, 2, 1024),
    "poll_oneoff": (1024, 1024, 2, 1040), "fd_prestat_dir_name": (ROOT, 1024, 1),
}  # fmt: skip
"""Places of a call's input and output that lie one over the other."""


@pytest.mark.parametrize("name", OVERLAPS)
def test_places_that_overlap_spoil_nothing_but_the_guests_own_memory(probe: Probe, name: str) -> None:
    """Vectors that name themselves, results over their own arguments, events over subscriptions."""
    around = bytes(n % 251 for n in range(512))
    probe.instance.write(512, around)
    probe.instance.write(1536, around)
    vectors_or_subscriptions = struct.pack("<IIII", 1020, 12, 1024, 16) + bytes(496)
    if name == "poll_oneoff":
        vectors_or_subscriptions = subscription(1, 0, timeout=1) + subscription(2, 1, fd=0) + bytes(416)
    probe.instance.write(1024, vectors_or_subscriptions)
    assert probe.call(name, *OVERLAPS[name]) == SUCCESS
    assert probe.world.host_failure is None
    assert probe.instance.read(512, 508) == around[:508]
    assert probe.instance.read(1536, 512) == around


def test_a_file_is_read_into_the_vectors_that_name_the_place(probe: Probe, tmp_path: Path) -> None:
    """They are taken in before the first byte is moved: what arrives there changes no address."""
    (tmp_path / "inside").mkdir()
    probe.give_files(tmp_path / "inside")
    probe.instance.write(2048, struct.pack("<IIII", 2048, 4, 2**32 - 4, 4))
    assert probe.call("fd_read", 4, 2048, 2, 3000) == EFAULT
    probe.instance.write(2048, struct.pack("<IIII", 2056, 4, 4096, 3))
    assert probe.call("fd_read", 4, 2048, 2, 2048) == SUCCESS
    assert probe.instance.read(2056, 4) + probe.instance.read(4096, 3) == b"content"


@pytest.mark.parametrize("path", [b"../x", b"a/../../x", b"..", b"/x"])
def test_no_path_of_an_open_directory_of_a_mount_leads_out_of_it(probe: Probe, tmp_path: Path, path: bytes) -> None:
    """Refused by us, before wasmtime's WASI, which would do the same, has seen it."""
    (tmp_path / "inside" / "sub").mkdir(parents=True)
    (tmp_path / "inside" / "x").write_text("x")
    probe.give_files(tmp_path / "inside")
    probe.instance.write(1024, b"m/sub")
    assert probe.call("path_open", ROOT, 0, 1024, 5, 2, 1 << 1, 0, 0, 2048) == SUCCESS
    (sub,) = struct.unpack("<I", probe.instance.read(2048, 4))
    probe.instance.write(1024, path)
    assert probe.call("path_filestat_get", sub, 0, 1024, len(path), 4096) == ENOTCAPABLE
    assert probe.call("path_open", sub, 0, 1024, len(path), 0, 1 << 1, 0, 0, 2048) == ENOTCAPABLE


def test_pointers_past_the_end_are_faults(probe: Probe) -> None:
    assert probe.call("random_get", PAGE - 4, 5) == EFAULT
    assert probe.call("random_get", PAGE - 5, 5) == SUCCESS
    assert probe.call("clock_time_get", 0, 0, PAGE - 7) == EFAULT
    assert probe.call("environ_get", 0, PAGE - 50) == EFAULT
    assert probe.call("environ_sizes_get", 2**32 - 1, 0) == EFAULT


def test_write_checks_every_vector_before_it_takes_any(probe: Probe) -> None:
    probe.instance.write(0, b"hello")
    probe.instance.write(64, struct.pack("<IIII", 0, 5, PAGE - 1, 2))
    assert probe.call("fd_write", 1, 64, 2, 128) == EFAULT
    assert probe.streams.stdout.contents() == b""
    assert probe.call("fd_write", 1, 64, 1, 128) == SUCCESS
    assert probe.streams.stdout.contents() == b"hello"
    assert struct.unpack("<I", probe.instance.read(128, 4)) == (5,)


def test_write_refuses_a_flood_of_vectors(probe: Probe) -> None:
    assert probe.call("fd_write", 1, 0, 1025, 0) == EINVAL
    assert probe.call("fd_write", 1, 0, 2**32 - 1, 0) == EINVAL


def test_only_the_standard_streams_exist(probe: Probe) -> None:
    for fd in (3, 4, 1000, 2**31, 2**32 - 1):
        assert probe.call("fd_write", fd, 0, 0, 0) == EBADF
        assert probe.call("fd_read", fd, 0, 0, 0) == EBADF
        assert probe.call("fd_fdstat_get", fd, 0) == (ENOENT if fd == ROOT else EBADF)
        assert probe.call("fd_filestat_get", fd, 0) == EBADF
        assert probe.call("fd_close", fd) == EBADF
    assert probe.call("fd_seek", 1, 0, 0, 0) == ESPIPE
    assert probe.call("fd_write", 0, 0, 0, 0) == EBADF  # standard input cannot be written


def test_standard_input_is_empty(probe: Probe) -> None:
    probe.instance.write(0, b"\xff" * 4)
    assert probe.call("fd_read", 0, 64, 1, 0) == SUCCESS
    assert probe.instance.read(0, 4) == bytes(4)


def test_the_environment_is_laid_out_as_libc_reads_it(probe: Probe) -> None:
    assert probe.call("environ_sizes_get", 0, 4) == SUCCESS
    count, size = struct.unpack("<II", probe.instance.read(0, 8))
    assert (count, size) == (2, len("A=1") + len("LONG=") + 100 + 2)
    assert probe.call("environ_get", 16, 64) == SUCCESS
    first, second = struct.unpack("<II", probe.instance.read(16, 8))
    assert probe.instance.read(first, 4) == b"A=1\0"
    assert probe.instance.read(second, 8) == b"LONG=xxx"


def subscription(userdata: int, kind: int, *, clock: int = 1, timeout: int = 0, flags: int = 0, fd: int = 0) -> bytes:
    body = struct.pack("<IxxxxQQHxxxxxx", clock, timeout, 0, flags) if kind == 0 else struct.pack("<I28x", fd)
    return struct.pack("<QBxxxxxxx", userdata, kind) + body


def test_poll_returns_the_earliest_clock(probe: Probe) -> None:
    probe.instance.write(0, subscription(7, 0, timeout=10**9) + subscription(8, 0, timeout=10**12))
    assert probe.call("poll_oneoff", 0, 512, 2, 1000) == SUCCESS
    assert struct.unpack("<I", probe.instance.read(1000, 4)) == (1,)
    assert struct.unpack("<QHB", probe.instance.read(512, 11)) == (7, SUCCESS, 0)


def test_poll_of_a_stream_is_ready_at_once_and_of_anything_else_an_error(probe: Probe) -> None:
    probe.instance.write(0, subscription(1, 1, fd=0) + subscription(2, 2, fd=9) + subscription(3, 0, timeout=2**64 - 1))
    assert probe.call("poll_oneoff", 0, 512, 3, 1000) == SUCCESS
    assert struct.unpack("<I", probe.instance.read(1000, 4)) == (2,)
    assert struct.unpack("<QHB", probe.instance.read(512, 11)) == (1, SUCCESS, 1)
    assert struct.unpack("<QHB", probe.instance.read(544, 11)) == (2, EBADF, 2)
    assert probe.call("poll_oneoff", 0, 512, 0, 1000) == EINVAL
    assert probe.call("poll_oneoff", 0, 512, 1025, 1000) == EINVAL


def test_a_sleep_of_centuries_ends_at_the_deadline() -> None:
    probe = Probe(LiveSurroundings(), seconds=0.2)
    probe.instance.write(0, subscription(1, 0, timeout=2**64 - 1))
    with pytest.raises(capi.GuestStopped):
        probe.call("poll_oneoff", 0, 512, 1, 1000)
    assert probe.world.halt is Halt.DEADLINE
    probe.close()


def test_a_large_request_for_entropy_ends_at_the_deadline() -> None:
    probe = Probe(LiveSurroundings(), seconds=-1)
    with pytest.raises(capi.GuestStopped):
        probe.call("random_get", 0, PAGE)
    assert probe.world.halt is Halt.DEADLINE
    probe.close()


@pytest.fixture
def no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)


@pytest.mark.usefixtures("no_thread_starts")
def test_any_host_call_makes_the_looks_at_deadlines_that_are_due(probe: Probe) -> None:
    """Whoever has the interpreter lock makes them; the watchdog's thread may wait long, and is not there here."""
    watchdog, looks = Watchdog(), list[str]()
    probe.world.watchdog = watchdog
    with (
        watchdog.watch(time.monotonic() - 1, lambda: looks.append("another guest's")),
        watchdog.watch(time.monotonic() + 1000, lambda: looks.append("not due")),
    ):
        assert probe.call("sched_yield") == SUCCESS
        assert looks == ["another guest's"]


@pytest.mark.usefixtures("no_thread_starts")
def test_a_host_call_of_a_guest_whose_time_is_over_is_its_last(probe: Probe) -> None:
    watchdog = Watchdog()
    probe.world.watchdog, probe.world.deadline = watchdog, time.monotonic() - 1
    with watchdog.watch(probe.world.deadline, lambda: probe.world.halt_reason() and None):
        with pytest.raises(capi.GuestStopped):
            probe.call("sched_yield")
        assert probe.world.halt is Halt.DEADLINE


def test_exit_ends_the_guest_at_once(probe: Probe) -> None:
    with pytest.raises(capi.GuestStopped):
        probe.call("proc_exit", 3)
    assert (probe.world.halt, probe.world.exit_code) == (Halt.EXIT, 3)


def test_a_defect_of_a_host_function_stops_the_guest_and_is_kept(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.world.surroundings, "clock", lambda clock_id: 1 / 0)
    with pytest.raises(capi.GuestStopped):
        probe.call("clock_time_get", 0, 0, 0)
    assert isinstance(probe.world.host_failure, ZeroDivisionError)


def test_a_module_that_imports_something_else_is_refused() -> None:
    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, '(module (import "env" "system" (func)))')
    with pytest.raises(ValueError, match=r"env\.system"):
        HostFunctions(wasmtime.Linker(engine), module)


def test_fixed_surroundings_are_the_same_every_time() -> None:
    def look(s: FixedSurroundings) -> list[object]:
        before = [s.clock(0), s.clock(1), s.entropy(8)]
        s.sleep(2.5)
        return [*before, s.clock(1)]

    assert look(FixedSurroundings()) == look(FixedSurroundings())


def test_a_pipe_keeps_the_head_and_the_tail() -> None:
    data = bytes(range(256)) * 40
    buffer = ctypes.create_string_buffer(data, len(data))
    for step in (1, 3, 1000, len(data)):
        pipe = OutputPipe(100, 50)
        for at in range(0, len(data), step):
            pipe.write_from(ctypes.addressof(buffer) + at, min(step, len(data) - at))
        assert pipe.contents() == data[:100] + data[-50:]
        assert pipe.dropped_bytes == len(data) - 150
        assert pipe.written_bytes == len(data)


@given(st.lists(st.lists(st.integers(0, 40), max_size=4), max_size=30), st.integers(0, 20), st.integers(0, 20))
def test_whatever_the_writes_a_pipe_keeps_the_same_bytes(writes: list[list[int]], head: int, tail: int) -> None:
    written = bytes(number % 251 for number in range(sum(map(sum, writes))))
    buffer = ctypes.create_string_buffer(written, len(written) + 1)
    pipe, at = OutputPipe(head, tail), ctypes.addressof(buffer)
    for sizes in writes:
        spans = []
        for size in sizes:
            spans.append((at, size))
            at += size
        pipe.write_all(spans, sum(sizes))
    rest = written[head:]
    assert pipe.contents() == written[:head] + rest[max(0, len(rest) - tail) :]
    assert pipe.dropped_bytes == max(0, len(rest) - tail)


def test_a_flood_is_kept_in_no_more_than_its_bounds() -> None:
    buffer = ctypes.create_string_buffer(4 << 20)
    pipe = OutputPipe(1 << 20, 17 << 20)
    tracemalloc.start()
    try:
        for _ in range(50):
            pipe.write_from(ctypes.addressof(buffer), 4 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pipe.written_bytes == 200 << 20
    assert peak < 1.25 * (18 << 20)


def test_a_write_that_names_one_range_a_thousand_times_copies_only_what_is_kept(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []

    def counting(address: int, size: int) -> bytes:
        copied.append(size)
        return ctypes.string_at(address, size)

    monkeypatch.setattr(pipe, "memory_at", counting)
    probe.streams.stdout = OutputPipe(1000, 500)
    probe.instance.write(1000, bytes(range(250)) * 4)
    probe.instance.write(8192, struct.pack("<II", 1000, 1000) * 1000)
    assert probe.call("fd_write", 1, 8192, 1000, 0) == SUCCESS
    assert sum(copied) == 1500
    assert probe.streams.stdout.contents() == bytes(range(250)) * 6
    assert probe.streams.stdout.dropped_bytes == 1_000_000 - 1500


def run(script: str, abandoned: Callable[[], bool]) -> Outcome:
    request = ExecutionRequest(script, {}, Limits(timeout_seconds=60, fuel=2**62))
    return process_engine().start(request, LiveSurroundings(abandoned)).result(timeout=50)


@pytest.mark.parametrize("script", ["while True: pass", "import time; time.sleep(60)"])
def test_a_failing_look_of_the_host_stops_the_guest_and_is_kept(script: str) -> None:
    """Else the watchdog could only log it, and the guest would run on."""
    looks: list[str] = []

    def fail_for_the_watchdog() -> bool:
        looks.append(threading.current_thread().name)
        return "watchdog" in looks[-1] and bool(1 / 0)

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        run(script, fail_for_the_watchdog)
    assert "wasm-sandbox-watchdog" in looks
    assert time.monotonic() - began < 30


def test_clocks_other_than_the_wall_clock_start_with_the_run() -> None:
    live = LiveSurroundings()
    assert live.clock(CLOCK_MONOTONIC) < 10**9
    assert live.clock(CLOCK_THREAD) == 0
    assert sum(range(200_000)) > 0
    assert 0 < live.clock(CLOCK_THREAD) < 10**10
    assert abs(live.clock(CLOCK_REALTIME) - time.time_ns()) < 10**9


def test_a_sleep_ends_when_nobody_waits_any_more() -> None:
    process_engine().image()
    gone = threading.Event()
    threading.Timer(0.3, gone.set).start()
    began = time.monotonic()
    assert run("import time; time.sleep(60)", gone.is_set).ending is Ending.CANCELLED
    assert 0.2 < time.monotonic() - began < 10


def test_a_sleep_ends_when_it_is_cancelled() -> None:
    live = LiveSurroundings()
    threading.Timer(0.1, live.cancel).start()
    began = time.monotonic()
    live.sleep(60)
    assert live.cancelled
    assert time.monotonic() - began < 10
