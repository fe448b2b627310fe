"""The functions of wasmtime's C API that wasmtime-py wraps at a cost or not at all.

wasmtime-py allocates an entry in an unlocked, process-wide table for every Python callback, and
keeps "the last exception" of a callback in one global: with several guests on several threads
both go wrong. So host functions, instances and calls are bound here, straight to the C API
(https://docs.wasmtime.dev/c-api/). Nothing else in the library touches a private name of
wasmtime-py; what is missing is found when this module is imported.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import CFUNCTYPE, byref, c_bool, c_char_p, c_int64, c_size_t, c_uint8, c_uint64, c_void_p
from typing import Any, Protocol

import wasmtime

from wasm_sandbox.engine.binding.version import wasmtime_version

try:
    from wasmtime import _ffi
except ImportError as error:
    raise ImportError(f"wasmtime-py {wasmtime_version()} has no C API module: install wasmtime 50.x") from error

HostCallback = CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_size_t)
"""``(env, caller, raw values, count) -> trap or 0``; results replace the parameters."""

_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "wasmtime_linker_define_func_unchecked": (
        c_void_p,
        [c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, HostCallback, c_void_p, c_void_p],
    ),
    "wasmtime_instance_pre_instantiate": (c_void_p, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "wasmtime_instance_export_get": (c_bool, [c_void_p, c_void_p, c_char_p, c_size_t, c_void_p]),
    "wasmtime_func_call_unchecked": (c_void_p, [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p]),
    "wasmtime_func_call_async": (
        c_void_p,
        [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p],
    ),
    "wasmtime_call_future_poll": (c_bool, [c_void_p]),
    "wasmtime_call_future_delete": (None, [c_void_p]),
    "wasmtime_memory_data": (c_void_p, [c_void_p, c_void_p]),
    "wasmtime_memory_data_size": (c_size_t, [c_void_p, c_void_p]),
    "wasmtime_memory_grow": (c_void_p, [c_void_p, c_void_p, c_uint64, c_void_p]),
    "wasmtime_trap_new": (c_void_p, [c_char_p, c_size_t]),
    "wasmtime_trap_code": (c_bool, [c_void_p, c_void_p]),
    "wasm_trap_message": (None, [c_void_p, c_void_p]),
    "wasm_trap_delete": (None, [c_void_p]),
    "wasmtime_error_message": (None, [c_void_p, c_void_p]),
    "wasmtime_error_delete": (None, [c_void_p]),
    "wasmtime_error_new": (c_void_p, [c_char_p]),
    "wasmtime_store_limiter": (None, [c_void_p, *[c_int64] * 5]),
    "wasmtime_global_get": (None, [c_void_p, c_void_p, c_void_p]),
    "wasmtime_global_set": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "wasmtime_config_host_memory_creator_set": (None, [c_void_p, c_void_p]),
    "wasm_byte_vec_delete": (None, [c_void_p]),
}

_RUNS_GUEST_CODE = frozenset(
    {"wasmtime_func_call_unchecked", "wasmtime_call_future_poll", "wasmtime_instance_pre_instantiate"}
)


def _bind(library: Any, name: str) -> Any:
    try:
        # Item access makes a function object of our own; attribute access would change wasmtime-py's.
        function = library[name]
    except AttributeError as error:
        raise ImportError(f"wasmtime-py {wasmtime_version()} has no {name}: install wasmtime 50.x") from error
    function.restype, function.argtypes = _PROTOTYPES[name]
    return function


# What takes microseconds keeps the interpreter lock: with several guests, getting it back takes longer than the call.
_keeping_lock = ctypes.PyDLL(_ffi.dll._name)
_c = {name: _bind(_ffi.dll if name in _RUNS_GUEST_CODE else _keeping_lock, name) for name in _PROTOTYPES}
_instantiate = _c["wasmtime_instance_pre_instantiate"]
_instantiate_quickly = _bind(_keeping_lock, "wasmtime_instance_pre_instantiate")
_export_get = _c["wasmtime_instance_export_get"]
_call_unchecked = _c["wasmtime_func_call_unchecked"]
_begin_call, _poll_call = _c["wasmtime_func_call_async"], _c["wasmtime_call_future_poll"]
_end_call = _c["wasmtime_call_future_delete"]
_memory_data = _c["wasmtime_memory_data"]
_memory_data_size = _c["wasmtime_memory_data_size"]
_get_global, _set_global = _c["wasmtime_global_get"], _c["wasmtime_global_set"]

RAW_VALUE_BYTES = ctypes.sizeof(_ffi.wasmtime_val_raw_t)
"""Size of a value in the array that a `HostCallback` gets."""

_KIND_I64 = int(_ffi.WASMTIME_I64.value)

I32 = _ffi.WASMTIME_I32
"""Kind of a global."""

_STRATEGY_BASELINE = 2  # wasmtime_strategy_enum, Winch; wasmtime-py names only the first two

_OTHER_STACK_BYTES = 1 << 20
"""Part of a stack of wasmtime's own that is not the guest's."""

_NO_FINALIZER = c_void_p(None)


class GuestStopped(Exception):
    """A guest call that ended by a trap or an engine error instead of returning.

    Attributes:
        code: wasmtime's trap code, or ``None`` for a trap that the host raised and for an engine error.
        message: the engine's own text.
    """

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _text_of(read: Callable[[Any, Any], None], pointer: int) -> str:
    vec = _ffi.wasm_byte_vec_t()
    read(pointer, byref(vec))
    text = ctypes.string_at(vec.data, vec.size).rstrip(b"\0").decode("utf-8", "replace")
    _c["wasm_byte_vec_delete"](byref(vec))
    return text


def _stopped(error: int | None, trap: int | None) -> GuestStopped:
    """Take ownership of an engine error or a trap, and free it."""
    if trap:
        code = c_uint8()
        has_code = _c["wasmtime_trap_code"](trap, byref(code))
        text = _text_of(_c["wasm_trap_message"], trap)
        _c["wasm_trap_delete"](trap)
        return GuestStopped(code.value if has_code else None, text)
    text = _text_of(_c["wasmtime_error_message"], error or 0)
    _c["wasmtime_error_delete"](error)
    return GuestStopped(None, text)


def new_trap(message: bytes) -> int:
    """Trap for a `HostCallback` to return; the engine frees it."""
    return int(_c["wasmtime_trap_new"](message, len(message)))


def use_baseline_compiler(config: wasmtime.Config) -> None:
    """Compile with Winch, quickly, for code that runs once.

    Not on every machine: making an engine or a module with the configuration can fail.
    """
    _ffi.wasmtime_config_strategy_set(config.ptr(), _STRATEGY_BASELINE)


def heed_branch_hints(config: wasmtime.Config) -> None:
    """Lay out code by the ``metadata.code.branch_hint`` section of a module."""
    _ffi.wasmtime_config_wasm_branch_hinting_set(config.ptr(), True)


def give_stack(config: wasmtime.Config, size: int) -> None:
    """Let guests use so much native stack, in bytes.

    The stacks that wasmtime makes itself (`Instance.on_own_stack`) are larger: code of its own runs on them, too.
    """
    _ffi.dll.wasmtime_config_async_stack_size_set(config.ptr(), c_uint64(size + _OTHER_STACK_BYTES))
    config.max_wasm_stack = size


def copy_data_segments(config: wasmtime.Config) -> None:
    """Copy data segments into memories instead of mapping them.

    wasmtime maps them into memory of its own only, and panics over that of a `MemoryCreator`.
    """
    _ffi.wasmtime_config_memory_init_cow_set(config.ptr(), False)


def delete_store(store: wasmtime.Store) -> None:
    """Free a store, with its instances, for good.

    `Store.close` forgets that it has freed one if a signal handler raises right then, and `__del__` frees it again.
    """
    _ffi.wasmtime_store_delete(store._consume())


def define_host_function(
    linker: wasmtime.Linker, module: str, name: str, type_: wasmtime.FuncType, callback: Any
) -> None:
    """Define an import for every store of the linker's engine. ``callback`` must outlive the linker.

    Raises:
        GuestStopped: if the linker refuses the definition.
    """
    m, n = module.encode(), name.encode()
    error = _c["wasmtime_linker_define_func_unchecked"](
        linker.ptr(), m, len(m), n, len(n), type_.ptr(), callback, None, _NO_FINALIZER
    )
    if error:
        raise _stopped(error, None)


class HostMemory(Protocol):
    """Linear memory that wasmtime has not made: see `MemoryCreator`."""

    address: int
    """Address of the first byte; fixed for the memory's lifetime."""
    size: int
    """Present size in bytes."""
    capacity: int
    """Maximum size in bytes."""
    reserved_bytes: int
    """Address space from the first byte on that is the memory's own, accessible or not."""
    guard_bytes: int
    """Size of the range behind it that is never accessible."""

    def grow(self, size: int) -> None:
        """Make the memory larger.

        Raises:
            OSError: if the system gives no memory.
            NoRoom: if the size is beyond `capacity`.
        """

    def close(self) -> None:
        """Give the memory back to the system."""


class NoRoom(Exception):
    """A linear memory cannot be so large."""


# Guarantees:
# - instances may be made and torn down on any thread: what is offered is offered to the calling thread's instance only;
# - a memory that is offered stays its owner's; one that was made here is closed with its store;
# - nothing is raised across the C frames.
# Locks: none. A handle is drawn, entered and removed by one operation each, which the interpreter lock keeps whole.
class MemoryCreator:
    """Provider of the linear memories of an engine's instances.

    Args:
        config: configuration of the engine, with `copy_data_segments`; the creator must outlive the engine's stores.
        make: makes a memory of so many bytes for an instance that is offered none; raises OSError or `NoRoom`.
    """

    def __init__(self, config: wasmtime.Config, make: Callable[[int], HostMemory]) -> None:
        self._make = make
        self._live: dict[int, tuple[HostMemory, bool]] = {}  # by wasmtime's handle, and whether we made it
        self._handles = itertools.count(1)
        self._offered = threading.local()
        self._get = _ffi.wasmtime_memory_get_callback_t(self._get_memory)
        self._grow = _ffi.wasmtime_memory_grow_callback_t(self._grow_memory)
        self._finalizer = CFUNCTYPE(None, c_void_p)(self._drop)
        self._creator = _ffi.wasmtime_memory_creator_t(None, _ffi.wasmtime_new_memory_callback_t(self._new_memory))
        _c["wasmtime_config_host_memory_creator_set"](config.ptr(), byref(self._creator))

    @contextmanager
    def offering(self, memories: Sequence[HostMemory]) -> Iterator[None]:
        """Give these memories, in order, to the instance that this thread makes inside the block."""
        self._offered.memories = list(memories)
        try:
            yield
        finally:
            self._offered.memories = None

    # Nothing may be raised across the C frames below: what cannot be done is an error for wasmtime.

    def _new_memory(
        self, _env: int, _type: Any, minimum: int, maximum: int, reserved: int, guard: int, result: Any
    ) -> int:
        try:
            offered = getattr(self._offered, "memories", None)
            if offered is None:
                memory, is_made = self._make(minimum), True
            elif offered and minimum <= offered[0].size <= maximum:
                memory, is_made = offered.pop(0), False
            else:
                return self._error("the memory that is offered to the guest has another size")
            # Compiled code leaves out bounds checks for as far as it was promised to hit nothing.
            if reserved > memory.reserved_bytes or guard > memory.guard_bytes:
                if is_made:
                    memory.close()
                return self._error(
                    f"wasmtime asks for {reserved} bytes of address space and a guard of {guard} for a memory, which "
                    f"has {memory.reserved_bytes} and {memory.guard_bytes}"
                )
        except (OSError, NoRoom) as error:
            return self._error(f"the system gives no memory to a guest: {error}")
        except BaseException as error:
            return self._error(f"a defect of the host: {error!r}")
        handle = next(self._handles)
        self._live[handle] = memory, is_made
        made = result.contents
        made.env, made.get_memory, made.grow_memory, made.finalizer = handle, self._get, self._grow, self._finalizer
        return 0

    def _get_memory(self, handle: int, size: Any, most: Any) -> int:
        memory, _ = self._live[handle]
        size[0], most[0] = memory.size, memory.capacity
        return memory.address

    def _grow_memory(self, handle: int, size: int) -> int:
        try:
            self._live[handle][0].grow(size)
        except (OSError, NoRoom) as error:
            return self._error(f"the system gives no more memory to a guest: {error}")
        except BaseException as error:
            return self._error(f"a defect of the host: {error!r}")
        return 0

    def _drop(self, handle: int) -> None:
        memory, is_made = self._live.pop(handle)
        if is_made:
            memory.close()

    @staticmethod
    def _error(message: str) -> int:
        return int(_c["wasmtime_error_new"](message.encode()))


# What a short call needs of these two is made once for an instance: to make it is half of their time. Like an instance,
# one is used by one thread at a time.
class _OwnCall:
    """Call of a function of so many i32 parameters and one i32 result, on a stack that wasmtime makes."""

    def __init__(self, context: Any, function: Any, count: int) -> None:
        self._values, self._result = (_ffi.wasmtime_val_t * max(1, count))(), _ffi.wasmtime_val_t()
        for value in self._values:
            value.kind = _ffi.WASMTIME_I32
        self._trap, self._error = c_void_p(), c_void_p()
        found = byref(self._result), 1, byref(self._trap), byref(self._error)
        self._arguments = context, byref(function), self._values, count, *found

    def made(self, arguments: Sequence[int]) -> int:
        """Make the call; its result, unsigned.

        Raises:
            GuestStopped: as of `Instance.call`.
        """
        for value, argument in zip(self._values, arguments, strict=False):
            value.of.i32 = argument
        future = _begin_call(*self._arguments)
        try:
            _poll_call(future)
        finally:
            _end_call(future)
        error, trap = self._error.value, self._trap.value
        if error or trap:
            self._error.value = self._trap.value = None
            raise _stopped(error, trap)
        return int(self._result.of.i32) & 0xFFFFFFFF


class _Setting:
    """Global, to be set."""

    def __init__(self, context: Any, global_: Any, kind: Any) -> None:
        value = _ffi.wasmtime_val_t()
        value.kind = kind
        self._number = value.of
        self._arguments = context, byref(global_), byref(value)

    def set(self, number: int) -> None:
        """Set it."""
        self._number.i64 = number
        if error := _set_global(*self._arguments):
            raise _stopped(error, None)


class Instance:
    """Instance of a pre-linked module: its memory and its exports.

    Args:
        store: store of the instance.
        pre: module, linked.
        memory: linear memory that the host offers; the module must have no start function then, for the interpreter
            lock is kept while the instance is made. Without it wasmtime provides the memory.

    Attributes:
        on_own_stack: whether calls run on a stack that wasmtime makes for the store and keeps, whatever the calling
            thread has. No Python may be called there: it may take that stack for one that overflows.

    Raises:
        GuestStopped: if instantiation fails, for example because the memory limit is too low.
    """

    def __init__(self, store: wasmtime.Store, pre: wasmtime.InstancePre, memory: HostMemory | None = None) -> None:
        self._store = store  # keeps the context alive
        self._context = store._context()
        self._instance = _ffi.wasmtime_instance_t()
        self._exports: dict[str, Any] = {}
        self._own_memory = memory
        self.on_own_stack = False
        self._calls: dict[tuple[str, int], _OwnCall] = {}
        self._settings: dict[str, _Setting] = {}
        self._limit_bytes = -1
        trap = c_void_p()
        instantiate = _instantiate if memory is None else _instantiate_quickly
        error = instantiate(pre.ptr(), self._context, byref(self._instance), byref(trap))
        if error or trap:
            raise _stopped(error, trap.value)
        self._memory = None if memory else self._export("memory").of.memory

    def _export(self, name: str) -> Any:
        found = self._exports.get(name)
        if found is None:
            found, raw = _ffi.wasmtime_extern_t(), name.encode()
            if not _export_get(self._context, byref(self._instance), raw, len(raw), byref(found)):
                raise GuestStopped(None, f"the module does not export {name}")
            self._exports[name] = found
        return found

    def look_up(self, *names: str) -> None:
        """Look exports up ahead of their use.

        Raises:
            GuestStopped: if the module has no such export.
        """
        for name in names:
            self._export(name)

    def limit(self, memory_bytes: int) -> None:
        """Let no memory of the store grow past so many bytes, and the store hold nothing besides this instance."""
        if memory_bytes == self._limit_bytes:
            return
        self._limit_bytes = memory_bytes
        instances, memories, tables = 1, 2, 1
        _c["wasmtime_store_limiter"](self._store.ptr(), memory_bytes, -1, instances, tables, memories)

    def memory(self) -> tuple[int, int]:
        """Address and present size in bytes of the linear memory; both may change when the guest runs."""
        if self._own_memory is not None:
            return self._own_memory.address, self._own_memory.size
        return self._extent(self._memory)

    def grow_to(self, size: int) -> None:
        """Make the linear memory so many bytes large, in whole pages of 64 KiB; a smaller size changes nothing.

        Raises:
            GuestStopped: if the limit of the store, or the system, does not allow it.
        """
        missing = size - self.memory()[1]
        if missing <= 0:
            return
        before = c_uint64()
        memory = self._export("memory").of.memory
        error = _c["wasmtime_memory_grow"](self._context, byref(memory), missing >> 16, byref(before))
        if error:
            raise _stopped(error, None)

    def memory_named(self, name: str) -> tuple[int, int]:
        """Address and size in bytes of another exported memory."""
        return self._extent(self._export(name).of.memory)

    def _extent(self, handle: Any) -> tuple[int, int]:
        memory = byref(handle)
        return (
            _memory_data(self._context, memory) or 0,
            _memory_data_size(self._context, memory),
        )

    def read(self, start: int, size: int) -> bytes:
        """Copy of a range of the linear memory.

        Raises:
            GuestStopped: if the range is outside of the memory.
        """
        base, limit = self.memory()
        if not 0 <= start <= start + size <= limit:
            raise GuestStopped(None, f"{size} bytes at {start} are outside the guest's memory")
        return ctypes.string_at(base + start, size)

    def write(self, start: int, data: bytes) -> None:
        """Write into the linear memory.

        Raises:
            GuestStopped: if the range is outside of the memory.
        """
        base, limit = self.memory()
        if not 0 <= start <= start + len(data) <= limit:
            raise GuestStopped(None, f"{len(data)} bytes at {start} are outside the guest's memory")
        ctypes.memmove(base + start, data, len(data))

    def call(self, name: str, *arguments: int) -> int:
        """Call an exported function; its i32 result, unsigned (of no meaning if it has none).

        Raises:
            GuestStopped: if the guest traps, or a host function stops it.
        """
        if self.on_own_stack:
            return self._call_on_own_stack(name, arguments)
        return self._call_on_thread(self._export(name).of.func, arguments)

    def _call_on_thread(self, function: Any, arguments: Sequence[int]) -> int:
        values = (_ffi.wasmtime_val_raw_t * max(1, len(arguments)))()
        for i, argument in enumerate(arguments):
            values[i].i64 = argument
        trap = c_void_p()
        error = _call_unchecked(self._context, byref(function), values, len(values), byref(trap))
        if error or trap:
            raise _stopped(error, trap.value)
        return int(values[0].i64) & 0xFFFFFFFF

    def _call_on_own_stack(self, name: str, arguments: Sequence[int]) -> int:
        """Call a function of i32 parameters and one i32 result."""
        key = name, len(arguments)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _OwnCall(self._context, self._export(name).of.func, len(arguments))
        return call.made(arguments)

    def place(self, data: bytes) -> int:
        """Copy data into a block of our guest's ``sandbox_alloc``; the address, or 0 if there is no room.

        Raises:
            GuestStopped: if the guest traps, or names a block outside of its memory.
        """
        address = self._call_on_thread(self._export("sandbox_alloc").of.func, (len(data),))  # any stack is enough
        if address:
            self.write(address, data)
        return address

    def table_entries(self, name: str) -> list[bytes]:
        """Identities of the entries of an exported table of functions."""
        table = self._export(name).of.table
        value = _ffi.wasmtime_val_t()
        entries: list[bytes] = []
        while _ffi.wasmtime_table_get(self._context, byref(table), len(entries), byref(value)):
            entries.append(bytes(value.of.funcref))
        return entries

    def set_global(self, name: str, number: int, kind: Any = _ffi.WASMTIME_I64) -> None:
        """Set an exported, mutable global, an i64 if nothing else is said (`I32`)."""
        setting = self._settings.get(name)
        if setting is None:
            setting = self._settings[name] = _Setting(self._context, self._export(name).of.global_, kind)
        setting.set(number)

    def global_value(self, name: str) -> int:
        """Present value of an exported i32 or i64 global; other threads may ask meanwhile."""
        value = _ffi.wasmtime_val_t()
        _get_global(self._context, byref(self._export(name).of.global_), byref(value))
        return int(value.of.i64 if int(value.kind) == _KIND_I64 else value.of.i32)
