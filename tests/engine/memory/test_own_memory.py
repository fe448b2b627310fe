"""Linear memory of ours: as the image has it before every run, bounded, and guarded on both sides."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from wasmtime import _ffi

from tests.support.engines import ENGINES, engine, run, settled
from tests.support.forks import forking, kinds_of_fork
from wasm_sandbox import Limits
from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.binding.configuration import engine_configuration
from wasm_sandbox.engine.compiled.instances import MAX_IDLE
from wasm_sandbox.engine.engine import GuestEngine
from wasm_sandbox.engine.memory import kept
from wasm_sandbox.engine.memory.address_space import (
    MAX_RANGES,
    NO_ACCESS,
    PAGE_BYTES,
    READ,
    READ_WRITE,
    AddressSpace,
    PageScanner,
)
from wasm_sandbox.engine.memory.kept import KeptMemory, is_supported
from wasm_sandbox.engine.memory.layout import ADDRESSABLE_BYTES, GUARD_BYTES
from wasm_sandbox.engine.memory.slots import MOST_KEPT_BYTES, MappedMemory, Slot
from wasm_sandbox.engine.module.image_file import ALIGNMENT_BYTES, ImageParts, image_parts, with_memory
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Ending
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.switches import ENGINE_VARIABLE

pytestmark = pytest.mark.skipif(not is_supported(), reason="linear memory is ours on 64-bit Linux only")


def idle_slots(guests: GuestEngine) -> list[Slot]:
    """The slots that wait for a run, once those of earlier runs have been put back."""
    return [fresh.slot for fresh in settled(guests).idle if fresh.slot is not None]


# -- one run after the other ---------------------------------------------------------------------

ENDS = {
    "a small run": ("x = {n: str(n) for n in range(2000)}", Ending.EXITED),
    "more pages than are kept": (f"x = bytearray({3 * MOST_KEPT_BYTES}); x[:] = b'y' * len(x)", Ending.EXITED),
    "grown memory": ("x = [bytes(range(256)) * 4096 for _ in range(100)]", Ending.EXITED),
    "an exception": ("x = list(range(100_000)); raise ValueError(x)", Ending.EXITED),
    "an exit": ("import os; x = list(range(100_000)); os._exit(3)", Ending.EXITED),
    "a deadline": ("x = []\nwhile True: x.append(str(len(x)) * 9)", Ending.DEADLINE),
    "no fuel left": ("x = 0\nwhile True: x += 1", Ending.OUT_OF_FUEL),
    "no memory left": ("import pydantic_core\nx = 'y' * 10**7\nwhile True: x += x", Ending.EXITED),
    "a native stack used up": ("t = ()\nfor _ in range(600_000): t = (t,)\nhash(t)", Ending.STACK_OVERFLOW),
}


@pytest.mark.parametrize("kind", ENGINES[:2])
@pytest.mark.parametrize("name", ENDS)
def test_after_a_run_of_any_kind_its_memory_is_the_images_to_the_byte(kind: str, name: str) -> None:
    guests = engine(kind)
    script, ending = ENDS[name]
    cramped: dict[str, dict[str, float]] = {
        "a deadline": {"timeout_seconds": 0.3},
        "no fuel left": {"fuel": 10_000_000},
    }
    assert run(guests, script, **cramped.get(name, {})).ending is ending
    image = guests.image()
    part = image_parts(image.path)
    assert part is not None
    expected = part.read_memory(image.path)
    slots = idle_slots(guests)
    assert slots
    for slot in slots:
        assert slot.linear.size == part.size
        assert ctypes.string_at(slot.linear.address, part.size) == expected
        assert ctypes.string_at(slot.poll.address, slot.poll.size) == bytes(slot.poll.size)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_run_is_the_same_on_every_kind_of_engine(kind: str) -> None:
    script = "import json, pydantic\nprint(json.dumps(list(range(5))), hash('x'), id(object()) > 0)"
    outcomes = [run(engine(kind), script) for _ in range(3)]
    expected = run(engine(ENGINES[0]), script)
    assert {outcome.stdout for outcome in outcomes} == {expected.stdout}
    assert {outcome.memory_bytes for outcome in outcomes} == {expected.memory_bytes}


@pytest.mark.parametrize("kind", ENGINES)
def test_limits_hold_on_every_kind_of_engine(kind: str) -> None:
    guests = engine(kind)
    assert run(guests, "while True: pass", timeout_seconds=0.2).ending is Ending.DEADLINE
    assert run(guests, "while True: pass", fuel=1_000_000).ending is Ending.OUT_OF_FUEL
    outcome = run(guests, "x = bytearray(100 << 20)", memory_bytes=64 << 20)
    assert outcome.exception is not None
    assert outcome.exception.name == "MemoryError"
    assert run(guests, "x = bytearray(100 << 20); print(len(x))").stdout == b"104857600\n"


def test_a_slot_is_used_again_by_the_next_run() -> None:
    guests = engine(ENGINES[1])
    for _ in range(3):
        run(guests, "pass")
    before = {slot.linear.address for slot in idle_slots(guests)}
    for _ in range(10):
        run(guests, "pass")
    assert len({slot.linear.address for slot in idle_slots(guests)} - before) <= 2  # one more thread now and then


def test_only_so_many_slots_are_kept() -> None:
    guests = engine(ENGINES[0])
    many = [
        guests.start(ExecutionRequest("import time; time.sleep(0.3)", {}, Limits()), LiveSurroundings())
        for _ in range(3 * MAX_IDLE)
    ]
    for future in many:
        assert future.result().ending is Ending.EXITED
    assert 0 < len(idle_slots(guests)) <= MAX_IDLE


def test_a_guest_gets_no_slot_that_cannot_be_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    guests = engine(ENGINES[1])
    run(guests, "pass")
    idle_slots(guests)
    pool = guests.image().instances
    fresh = pool.take()
    assert fresh.slot is not None

    def refuse(*_: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(AddressSpace, "forget_changes", refuse)
    kept = len(pool.idle)
    pool.replace(fresh)
    assert len(pool.idle) == kept
    monkeypatch.undo()
    assert run(guests, "print(1)").stdout == b"1\n"


def test_a_system_without_room_for_one_more_guest_says_so() -> None:
    code = (
        "import resource, wasm_sandbox as w\n"
        "tool = w.Tool.from_source('def f() -> int:\\n    import time; time.sleep(0.5); return 1\\n')\n"
        "w.run_tool(tool)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), -1))\n"
        "import asyncio\n"
        "async def main():\n"
        "    runs = [w.WasmToolSandbox('f', {}, None, 'id', tool_object=tool).run() for _ in range(30)]\n"
        "    return await asyncio.gather(*runs, return_exceptions=True)\n"
        "found = asyncio.run(main())\n"
        "print({type(one).__name__ for one in found})\n"
        "import time; time.sleep(1)  # the one slot that there is, is put back\n"
        "print(w.run_tool(tool).func_return)\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != ENGINE_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "HostError" in done.stdout
    assert done.stdout.endswith("\n1\n")


# -- any module in such an engine ------------------------------------------------------------------

MODULE = """(module (memory (export "memory") 1 200) (data (i32.const 8) "content of the module")
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "far") (param i32) (result i32) (i32.load offset=0xfffffffc (local.get 0)))
  (func (export "store") (param i32) (i32.store (local.get 0) (i32.const -1)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""


@pytest.fixture
def module() -> Iterator[capi.Instance]:
    own = KeptMemory().engine
    store = wasmtime.Store(own)
    store.set_limits(memory_size=100 * 65536)
    yield capi.Instance(store, wasmtime.Linker(own).instantiate_pre(wasmtime.Module(own, MODULE)))
    store.close()


@pytest.mark.parametrize(
    ("function", "address"),
    [
        ("load", 65536), ("load", 65533), ("load", 2**32 - 1), ("load", 2**31), ("far", 0), ("far", 2**32 - 1),
        ("store", 65536), ("store", 2**32 - 4),
    ],
)  # fmt: skip
def test_what_lies_outside_a_memory_cannot_be_reached(module: capi.Instance, function: str, address: int) -> None:
    with pytest.raises(capi.GuestStopped) as stopped:
        module.call(function, address)
    assert stopped.value.code == wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS.value


def test_a_memory_grows_with_zeros_up_to_its_limit_and_no_further(module: capi.Instance) -> None:
    module.call("store", 65532)
    assert module.call("grow", 50) == 1
    assert module.memory()[1] == 51 * 65536
    assert module.read(8, 21) == b"content of the module"
    assert not any(module.read(65536, 50 * 65536))
    module.call("store", 51 * 65536 - 4)
    assert module.call("grow", 50) == 2**32 - 1
    assert module.memory()[1] == 51 * 65536
    with pytest.raises(capi.GuestStopped):
        module.call("load", 51 * 65536)


def test_an_instance_that_is_offered_memory_of_another_size_is_refused() -> None:
    image = engine(ENGINES[0]).image()
    own, fresh = image.memory.engine, image.instances.take()
    assert fresh.slot is not None
    fresh.store.close()
    store = wasmtime.Store(own)
    other = wasmtime.Linker(own).instantiate_pre(wasmtime.Module(own, MODULE))
    with pytest.raises(capi.GuestStopped, match="another size"):
        image.memory.instance(store, other, fresh.slot)
    store.close()


def test_memories_of_any_module_are_given_back(module: capi.Instance) -> None:
    own = KeptMemory().engine
    pre = wasmtime.Linker(own).instantiate_pre(wasmtime.Module(own, MODULE))

    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count("\n")

    def once() -> None:
        store = wasmtime.Store(own)
        capi.Instance(store, pre).call("grow", 20)
        store.close()

    once()
    before = mappings()
    for _ in range(50):
        once()
    assert mappings() <= before + 5


# -- the system calls --------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "memory"
    path.write_bytes(b"\x01" * 64 * PAGE_BYTES)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def scanner() -> PageScanner:
    try:
        return PageScanner(AddressSpace())
    except OSError as error:
        pytest.skip(f"this kernel does not tell which pages were written to: {error}")


def test_the_scanner_finds_the_pages_that_were_written_and_no_others(file: int, scanner: PageScanner) -> None:
    space = AddressSpace()
    address = space.map_file(None, 64 * PAGE_BYTES, READ_WRITE, file, 0)
    assert set(ctypes.string_at(address, 64 * PAGE_BYTES)) == {1}  # reading is not writing
    assert scanner.written(address, 64 * PAGE_BYTES, 64) == []
    for page in (0, 3, 4, 63):
        ctypes.memset(address + page * PAGE_BYTES + 5, 1, 1)  # the same value: written to, all the same
    at = [(address + a * PAGE_BYTES, address + b * PAGE_BYTES) for a, b in ((0, 1), (3, 5), (63, 64))]
    assert scanner.written(address, 64 * PAGE_BYTES, 4) == at
    assert scanner.written(address, 64 * PAGE_BYTES, 3) is None
    space.forget_changes(address, 64 * PAGE_BYTES)
    assert scanner.written(address, 64 * PAGE_BYTES, 64) == []
    space.release(address, 64 * PAGE_BYTES)


IN_A_CHILD = """
from wasm_sandbox.engine.memory.address_space import PAGE_BYTES, READ_WRITE, AddressSpace, PageScanner
space = AddressSpace()
try:
    scanner = PageScanner(space)
except OSError as error:
    print("no scanner:", error)
    sys.exit()
file = os.open(sys.argv[1], os.O_RDONLY)
address = space.map_file(None, 64 * PAGE_BYTES, READ_WRITE, file, 0)
assert scanner.written(address, 64 * PAGE_BYTES, 64) == []
child = fork()
if child == 0:
    found = []
    for page in range(20):
        ctypes.memset(address + page * PAGE_BYTES, 1, 1)
        found.append(scanner.written(address, 64 * PAGE_BYTES, 64))
    os.write(1, f"{found}\\n".encode())
    os._exit(0)
os.waitpid(child, 0)
print(scanner.written(address, 64 * PAGE_BYTES, 64))
"""


@pytest.mark.parametrize("kind", kinds_of_fork())
def test_a_scanner_sees_in_a_child_that_it_looks_at_the_parent(kind: str, tmp_path: Path) -> None:
    (tmp_path / "memory").write_bytes(b"\x01" * 64 * PAGE_BYTES)
    command = [*forking(IN_A_CHILD, kind, has_same_id=False), str(tmp_path / "memory")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    if done.stdout.startswith("no scanner"):
        pytest.skip(done.stdout)
    assert done.stdout.splitlines() == [str([None] * 20), "[]"]


def test_a_slot_is_the_images_again_also_where_its_scanner_looks_at_another_process() -> None:
    """An engine is never used in the child of a fork; this is what holds if one were."""
    program = """
from wasm_sandbox.engine.engine import GuestEngine
from wasm_sandbox.engine.module.image_file import image_parts
guests = GuestEngine()
image = guests.image()
slot = image.instances.take().slot
expected = image_parts(image.path).read_memory(image.path)
child = fork()
if child == 0:
    for place in (0, 5, 1 << 20, len(expected) - 1):
        ctypes.memset(slot.linear.address + place, 0xA5, 1)
    assert ctypes.string_at(slot.linear.address, len(expected)) != expected
    slot.restore()
    os._exit(0 if ctypes.string_at(slot.linear.address, len(expected)) == expected else 1)
print(os.waitpid(child, 0)[1])
"""
    command = forking(program, kinds_of_fork()[0], has_same_id=False)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_no_scan_is_believed_that_does_not_find_a_page_that_was_written(
    file: int, scanner: PageScanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: a system that tells too little, or too much."""
    space = AddressSpace()
    address = space.map_file(None, 64 * PAGE_BYTES, READ_WRITE, file, 0)
    ctypes.memset(address, 1, 1)
    assert scanner.written(address, 64 * PAGE_BYTES, 64) == [(address, address + PAGE_BYTES)]
    monkeypatch.setattr(AddressSpace, "control", lambda *_: 0)
    assert scanner.written(address, 64 * PAGE_BYTES, 64) is None
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(AddressSpace, "forget_changes", lambda *_: None)
        found = {str(scanner.written(address, 64 * PAGE_BYTES, 64)) for _ in range(3)}
    assert "None" in found
    space.release(address, 64 * PAGE_BYTES)


def test_a_system_whose_scans_find_nothing_has_no_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AddressSpace, "control", lambda *_: 0)
    with pytest.raises(OSError, match="not that of this process"):
        PageScanner(AddressSpace())
    assert not KeptMemory().keeps_pages


def test_more_pieces_than_fit_in_one_answer_are_not_taken_for_all_of_them(tmp_path: Path, scanner: PageScanner) -> None:
    pages = 2 * (MAX_RANGES + 10)
    path = tmp_path / "memory"
    path.write_bytes(bytes(pages * PAGE_BYTES))
    descriptor, space = os.open(path, os.O_RDONLY), AddressSpace()
    address = space.map_file(None, pages * PAGE_BYTES, READ_WRITE, descriptor, 0)
    for page in range(0, pages, 2):
        ctypes.memset(address + page * PAGE_BYTES, 1, 1)
    assert scanner.written(address, pages * PAGE_BYTES, pages) is None
    space.release(address, pages * PAGE_BYTES)
    os.close(descriptor)


def test_what_the_system_refuses_is_an_error() -> None:
    space = AddressSpace()
    with pytest.raises(OSError, match="Cannot allocate memory"):
        space.reserve(1 << 60)
    with pytest.raises(OSError, match="Bad file descriptor"):
        space.map_file(None, PAGE_BYTES, READ, 10_000, 0)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        space.protect(PAGE_BYTES, PAGE_BYTES, NO_ACCESS)


def test_an_engine_without_a_scanner_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("wasm_sandbox.engine.memory.kept.PageScanner", refuse)
    assert not KeptMemory().keeps_pages


def test_the_guards_are_where_wasmtime_wants_them() -> None:
    """Its answer to the tunables of this configuration: asked for more, `MemoryCreator` would say no."""
    asked = []

    class Curious(capi.MemoryCreator):
        def _new_memory(
            self, env: int, type_: object, low: int, high: int, reserved: int, guard: int, to: object
        ) -> int:
            asked.append((reserved, guard))
            return super()._new_memory(env, type_, low, high, reserved, guard, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capi, "MemoryCreator", Curious)
        own = KeptMemory().engine
    store = wasmtime.Store(own)
    capi.Instance(store, wasmtime.Linker(own).instantiate_pre(wasmtime.Module(own, MODULE)))
    store.close()
    assert asked == [(ADDRESSABLE_BYTES, GUARD_BYTES)]


ASKED = {
    "as much as there is": (ADDRESSABLE_BYTES, GUARD_BYTES, True),
    "less": (1 << 20, 1 << 16, True),
    "more to reserve": (2 * ADDRESSABLE_BYTES, GUARD_BYTES, False),
    "one page more to reserve": (ADDRESSABLE_BYTES + 65536, GUARD_BYTES, False),
    "a larger guard": (ADDRESSABLE_BYTES, 2 * GUARD_BYTES, False),
    "a guard of one page more": (ADDRESSABLE_BYTES, GUARD_BYTES + 65536, False),
}


@pytest.mark.parametrize(("reserved", "guard", "is_given"), ASKED.values(), ids=ASKED.keys())
def test_memory_that_wasmtime_wants_larger_is_refused(
    reserved: int, guard: int, is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its compiled code would leave out bounds checks beyond what is there."""

    def configuration(own_memory: bool) -> wasmtime.Config:
        config = engine_configuration(own_memory)
        _ffi.wasmtime_config_memory_reservation_set(config.ptr(), reserved)
        _ffi.wasmtime_config_memory_guard_size_set(config.ptr(), guard)
        return config

    monkeypatch.setattr(kept, "engine_configuration", configuration)
    own = KeptMemory()
    pre = wasmtime.Linker(own.engine).instantiate_pre(wasmtime.Module(own.engine, MODULE))
    for offered in (False, True):
        store = wasmtime.Store(own.engine)
        memories = own.unstarted(65536, []) if offered else None
        if is_given:
            own.instance(store, pre, memories)
        else:
            with pytest.raises(capi.GuestStopped, match=f"wasmtime asks for {reserved} bytes .* a guard of {guard} "):
                own.instance(store, pre, memories)
        store.close()


def test_a_memory_has_what_it_says_it_has() -> None:
    """Nothing else may be placed there, and no byte of it can be read before it has grown."""
    space = AddressSpace()
    memory = MappedMemory(space, 65536)
    maps = Path("/proc/self/maps").read_text()
    ranges = [(int(line.split("-")[0], 16), line.split()) for line in maps.splitlines()]
    end = memory.address + memory.reserved_bytes + memory.guard_bytes
    inside = [words for start, words in ranges if memory.address + 65536 <= start < end]
    assert [words[1] for words in inside] == ["---p"]
    assert int(inside[0][0].split("-")[1], 16) >= end
    memory.close()


def test_threads_that_make_instances_at_once_get_their_own_memories() -> None:
    guests = engine(ENGINES[0])
    found: list[bytes] = []

    def many(name: str) -> None:
        for _ in range(20):
            found.append(run(guests, f"x = [{name!r}] * 1000; print(x[-1])").stdout)

    threads = [threading.Thread(target=many, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"{n}\n".encode() for n in range(8) for _ in range(20))


# -- the file ----------------------------------------------------------------------------------------


def test_code_and_memory_are_found_again_in_the_file(tmp_path: Path) -> None:
    path, key, code, memory = tmp_path / "image.cwasm", bytes(range(32)), b"code" * 1000, bytes(range(256)) * 1024
    path.write_bytes(with_memory(key, code, memory))
    assert path.read_bytes().startswith(code)
    parts = image_parts(path)
    assert parts == ImageParts(key, len(code), ALIGNMENT_BYTES, len(memory))
    assert (parts.read_code(path), parts.read_memory(path)) == (code, memory)


@pytest.mark.parametrize("part", [slice(0, -1), slice(1, None), slice(0, 10), slice(0, 0)])
def test_a_file_that_is_not_whole_has_no_memory(tmp_path: Path, part: slice) -> None:
    path = tmp_path / "image.cwasm"
    path.write_bytes(with_memory(bytes(32), b"code", bytes(65536))[part])
    assert image_parts(path) is None
