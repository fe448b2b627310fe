"""A world is made of capabilities: the union of their tables is all that a guest can call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest
import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.world.clocks import Clocks
from wasm_sandbox.engine.world.descriptors import Descriptors
from wasm_sandbox.engine.world.host_functions import HostFunctions
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.preview1 import ENOTCAPABLE, SUCCESS, WASI_MODULE, Imported
from wasm_sandbox.engine.world.process import Process
from wasm_sandbox.engine.world.streams import Streams
from wasm_sandbox.engine.world.surroundings import FixedSurroundings
from wasm_sandbox.engine.world.world import World

# Two functions of preview 1: one that no capability has, and one of the clocks.
MODULE = f"""(module
  (import "{WASI_MODULE}" "sock_shutdown" (func $sock_shutdown (param i32 i32) (result i32)))
  (import "{WASI_MODULE}" "sched_yield" (func $sched_yield (result i32)))
  (memory (export "memory") 1)
  (func (export "sock_shutdown") (param i32 i32) (result i32)
    local.get 0 local.get 1 call $sock_shutdown)
  (func (export "sched_yield") (result i32) call $sched_yield))"""


class Shutdowns:
    """A capability of one function, as a new one would be: this class, and a line where worlds are made."""

    functions: ClassVar[Mapping[str, Imported]]

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.closed = 0

    def sock_shutdown(self, fd: int, how: int) -> int:
        self.seen.append((fd, how))
        return SUCCESS

    def close(self) -> None:
        self.closed += 1


Shutdowns.functions = {"sock_shutdown": Shutdowns.sock_shutdown}


class Probe:
    """An instance of the module, and its world without any capability."""

    def __init__(self) -> None:
        engine = wasmtime.Engine()
        module, linker = wasmtime.Module(engine, MODULE), wasmtime.Linker(engine)
        self.functions, self.store = HostFunctions(linker, module), wasmtime.Store(engine)
        self.world = World(FixedSurroundings(), time.monotonic() + 30)
        self.functions.enter(self.world)
        self.instance = self.world.instance = capi.Instance(self.store, linker.instantiate_pre(module))

    def close(self) -> None:
        self.functions.leave()
        self.world.close()
        self.store.close()


@pytest.fixture
def probe() -> Iterator[Probe]:
    made = Probe()
    yield made
    made.close()


def test_a_world_without_capabilities_answers_not_capable_to_everything(probe: Probe) -> None:
    assert probe.instance.call("sock_shutdown", 1, 2) == ENOTCAPABLE
    assert probe.instance.call("sched_yield") == ENOTCAPABLE


def test_a_capability_that_is_offered_is_all_that_is_served(probe: Probe) -> None:
    shutdowns = Shutdowns()
    probe.world.offer(shutdowns)
    assert probe.instance.call("sock_shutdown", 7, 2**32 - 1) == SUCCESS
    assert shutdowns.seen == [(7, 2**32 - 1)]
    assert probe.instance.call("sched_yield") == ENOTCAPABLE
    probe.world.offer(Clocks(probe.world, lambda fd: False))
    assert probe.instance.call("sched_yield") == SUCCESS


def test_of_two_capabilities_with_a_function_the_later_one_serves_it(probe: Probe) -> None:
    first, second = Shutdowns(), Shutdowns()
    probe.world.offer(first, second)
    probe.instance.call("sock_shutdown", 1, 2)
    assert (first.seen, second.seen) == ([], [(1, 2)])


def test_each_capability_is_closed_once_with_its_world(probe: Probe) -> None:
    shutdowns = Shutdowns()
    probe.world.offer(shutdowns)
    probe.world.close()
    probe.world.close()
    assert shutdowns.closed == 1
    assert probe.instance.call("sock_shutdown", 1, 2) == ENOTCAPABLE


PREVIEW_1_OF_A_RUN = {
    "args_get", "args_sizes_get", "clock_res_get", "clock_time_get", "environ_get", "environ_sizes_get", "fd_advise",
    "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_filestat_get",
    "fd_filestat_set_size", "fd_filestat_set_times", "fd_pread", "fd_prestat_dir_name", "fd_prestat_get", "fd_pwrite",
    "fd_read", "fd_readdir", "fd_renumber", "fd_seek", "fd_sync", "fd_tell", "fd_write", "path_create_directory",
    "path_filestat_get", "path_filestat_set_times", "path_link", "path_open", "path_readlink",
    "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file", "poll_oneoff", "proc_exit",
    "random_get", "sched_yield",
}  # fmt: skip
"""No socket and no process among them: written out, so that whoever adds one has to say so here."""


def test_the_capabilities_of_a_run_have_these_functions_and_no_others() -> None:
    world = World(FixedSurroundings(), time.monotonic() + 30)
    streams = Streams(world, OutputPipe(0), OutputPipe(0))
    world.offer(streams, Clocks(world, streams.is_open), Process(world))
    assert set(world.table) == PREVIEW_1_OF_A_RUN
    assert set(Descriptors.functions) <= PREVIEW_1_OF_A_RUN  # files change what serves, not what there is
