"""The imports of a module: our own few WASI functions, and "not capable" for all the rest."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

import wasmtime

from wasm_sandbox.engine.binding import capi as _capi
from wasm_sandbox.engine.world.descriptors import Descriptors
from wasm_sandbox.engine.world.preview1 import (
    EBADF,
    EFAULT,
    ENOENT,
    ENOTCAPABLE,
    ROOT,
    STDERR,
    WASI_MODULE,
    Fault,
    Refusal,
)
from wasm_sandbox.engine.world.world import World, _Stop

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
