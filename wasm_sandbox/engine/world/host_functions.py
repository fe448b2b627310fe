"""Imports of a module, defined once and routed to the world of the guest that calls."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Any

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.world.preview1 import EFAULT, ENOTCAPABLE, WASI_MODULE, Fault, Imported, Refusal
from wasm_sandbox.engine.world.world import Stop, World
from wasm_sandbox.events import is_heard, mark


# Guarantees:
# - a call is served by the world that its thread has entered, and by no other;
# - nothing is raised across the C frames below, as long as a world is entered: a defect of the host ends the guest,
#   and is kept in its world.
# Locks: none: the world is the thread's own. A call may `Watchdog.catch_up`, and so take the locks of other guests'
# looks.
class HostFunctions:
    """Imports of a module, defined once per linker and routed to the world of the calling thread.

    Raises:
        ValueError: if the module imports anything but functions of preview 1.
    """

    def __init__(self, linker: wasmtime.Linker, module: wasmtime.Module) -> None:
        self._local = threading.local()
        self._callbacks: list[Any] = []  # ctypes callbacks must outlive the linker
        for import_ in module.imports:
            if import_.module != WASI_MODULE or not isinstance(import_.type, wasmtime.FuncType):
                raise ValueError(f"the guest imports {import_.module}.{import_.name}: only {WASI_MODULE} is served")
            callback = self._callback(str(import_.name), import_.type)
            self._callbacks.append(callback)
            capi.define_host_function(linker, WASI_MODULE, str(import_.name), import_.type, callback)

    def enter(self, world: World) -> None:
        """Route the calls of this thread's guest to ``world``."""
        self._local.world = world

    def leave(self) -> None:
        """Route calls of this thread nowhere: no guest runs on it."""
        self._local.world = None

    def _callback(self, name: str, type_: wasmtime.FuncType) -> Any:
        parameters = [str(p) for p in type_.params]
        masks = [0xFFFFFFFF if p == "i32" else 0xFFFFFFFFFFFFFFFF for p in parameters]
        slots = ctypes.c_uint64 * (max(1, len(masks)) * capi.RAW_VALUE_BYTES // 8)
        stride = capi.RAW_VALUE_BYTES // 8
        local, monotonic = self._local, time.monotonic

        def host_function(_env: int, _caller: int, values: int, _count: int) -> int:
            world: World = local.world
            try:
                world.host_calls += 1
                if world.watchdog is not None and world.watchdog.due < monotonic():
                    world.watchdog.catch_up()
                    if world.halt is not None:
                        raise Stop
                cells = slots.from_address(values)
                errno = ENOTCAPABLE
                if (found := world.table.get(name)) is not None:
                    place, serve = found
                    if is_heard():
                        serve = _marked(name, serve)
                    try:
                        errno = serve(
                            world.capabilities[place], *[cells[i * stride] & mask for i, mask in enumerate(masks)]
                        )
                    except Fault:
                        errno = EFAULT
                    except Refusal as refusal:
                        errno = refusal.errno
                cells[0] = errno
                return 0
            except Stop:
                return capi.new_trap(b"stopped by the host")
            except BaseException as error:  # nothing may cross the C frames below
                world.fail(error)
                return capi.new_trap(b"a host function failed")

        return capi.HostCallback(host_function)


def _marked(name: str, serve: Imported) -> Imported:
    def marked(*arguments: Any) -> int:
        with mark("host call", name):
            return serve(*arguments)

    return marked
