"""Metering in a module's own code: what it costs, what it changes, and that nothing goes on for ever."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from typing import Any

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.exports import function, global_variable, memory_of
from wasm_sandbox.engine.binding.configuration import engine_configuration
from wasm_sandbox.engine.compiled.artifact import PLAIN, find_artifact
from wasm_sandbox.engine.compiled.built_in import FLAVOUR_IMAGES
from wasm_sandbox.engine.memory.poll_page import PollPage
from wasm_sandbox.engine.memory.trap_signals import TrapSignals
from wasm_sandbox.engine.module.binary import (
    ELEMENT,
    IMPORT,
    IMPORT_FUNCTION,
    PAGE_BYTES,
    MalformedModule,
    Reader,
    import_counts,
    sections,
)
from wasm_sandbox.engine.module.metering import (
    ALONE_EXPORT,
    BULK_BYTES_SHIFT,
    CHUNK_BYTES,
    FUEL_EXPORT,
    GROWN_EXPORT,
    POLL_EXPORT,
    Metering,
    meter,
    meter_code,
)

PLENTY = 1 << 40
ENGINE = wasmtime.Engine(engine_configuration())


class Metered:
    """An instance of a metered module."""

    def __init__(self, text: str, metering: Metering = Metering.FUEL) -> None:
        self.store = wasmtime.Store(ENGINE)
        module = wasmtime.Module(ENGINE, meter(bytes(wasmtime.wat2wasm(text)), metering))
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.fuel = PLENTY

    @property
    def fuel(self) -> int:
        return int(global_variable(self.exports, FUEL_EXPORT).value(self.store))

    @fuel.setter
    def fuel(self, units: int) -> None:
        global_variable(self.exports, FUEL_EXPORT).set_value(self.store, wasmtime.Val.i64(units))

    def call(self, name: str, *arguments: int) -> Any:
        return function(self.exports, name)(self.store, *arguments)

    def cost(self, name: str, *arguments: int) -> int:
        before = self.fuel
        self.call(name, *arguments)
        return before - self.fuel

    def poll_page(self) -> tuple[int, int]:
        memory = memory_of(self.exports, POLL_EXPORT)
        address = ctypes.cast(memory.data_ptr(self.store), ctypes.c_void_p).value
        assert address is not None
        return address, memory.data_len(self.store)


PROGRAMS = """(module
  (memory (export "memory") 1)
  (type $unary (func (param i32) (result i32)))
  (table funcref (elem $fib $even))
  (func $fib (export "fib") (param $n i32) (result i32)
    (if (result i32) (i32.lt_u (local.get $n) (i32.const 2)) (then (local.get $n))
      (else (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1)))
                     (call $fib (i32.sub (local.get $n) (i32.const 2)))))))
  (func (export "count") (param $n i32) (result i32) (local $i i32)
    (loop $again
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (local.get $n))))
    (local.get $i))
  (func (export "nested") (param $n i32) (result i32) (local $i i32) (local $j i32) (local $sum i32)
    (loop $outer
      (local.set $j (i32.const 0))
      (loop $inner
        (local.set $sum (i32.add (local.get $sum) (i32.mul (local.get $i) (local.get $j))))
        (local.set $j (i32.add (local.get $j) (i32.const 1)))
        (br_if $inner (i32.lt_u (local.get $j) (local.get $n))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $outer (i32.lt_u (local.get $i) (local.get $n))))
    (local.get $sum))
  (func (export "machine") (param $n i32) (result i32) (local $steps i32)
    (loop $next
      (local.set $steps (i32.add (local.get $steps) (i32.const 1)))
      (block $done (block $odd (block $even
        (br_table $done $odd $even (select (i32.add (i32.and (local.get $n) (i32.const 1)) (i32.const 0)) (i32.const 0)
          (i32.ne (local.get $n) (i32.const 1)))))
        (unreachable))
        (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 3)) (i32.const 1)))
        (br $next))
      (if (i32.ne (local.get $n) (i32.const 1))
        (then (local.set $n (i32.shr_u (local.get $n) (i32.const 1))) (br $next))))
    (local.get $steps))
  (func $even (export "even") (param $n i32) (result i32)
    (if (result i32) (i32.eqz (local.get $n)) (then (i32.const 1))
      (else (return_call $odd (i32.sub (local.get $n) (i32.const 1))))))
  (func $odd (param $n i32) (result i32)
    (if (result i32) (i32.eqz (local.get $n)) (then (i32.const 0))
      (else (return_call $even (i32.sub (local.get $n) (i32.const 1))))))
  (func (export "indirect") (param $n i32) (result i32)
    (call_indirect (type $unary) (local.get $n) (i32.and (local.get $n) (i32.const 1))))
  (func (export "lanes") (param $n i32) (result i32)
    (i32x4.extract_lane 2 (i32x4.mul (i32x4.splat (local.get $n)) (v128.const i32x4 1 2 3 4))))
  (func (export "floats") (param $n i32) (result i32)
    (i32.trunc_sat_f64_s (f64.sqrt (f64.mul (f64.convert_i32_u (local.get $n)) (f64.const 2.25)))))
  (func (export "small") (param $n i32) (result i32) (i32.add (local.get $n) (i32.const 1)))
)"""


@pytest.fixture(scope="module")
def programs() -> Metered:
    return Metered(PROGRAMS)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("fib", 15), ("count", 1000), ("nested", 30), ("even", 501), ("indirect", 8), ("indirect", 9), ("lanes", 7),
     ("floats", 4000), ("small", 4), ("machine", 1)],
)  # fmt: skip
def test_a_metered_module_computes_what_it_did(programs: Metered, name: str, argument: int) -> None:
    store = wasmtime.Store(ENGINE)
    plain = wasmtime.Instance(store, wasmtime.Module(ENGINE, bytes(wasmtime.wat2wasm(PROGRAMS))), []).exports(store)
    expected = function(plain, name)(store, argument)
    without_fuel = Metered(PROGRAMS, Metering.DEADLINE)
    assert programs.call(name, argument) == without_fuel.call(name, argument) == expected
    assert without_fuel.fuel == PLENTY


def test_fuel_grows_with_iterations_and_calls_and_is_the_same_each_time(programs: Metered) -> None:
    assert programs.cost("count", 2000) - programs.cost("count", 1000) == 1000 * programs.cost("count", 1)
    assert programs.cost("nested", 40) > 3 * programs.cost("nested", 20)
    assert programs.cost("fib", 12) == programs.cost("fib", 12) > programs.cost("fib", 11) > 100
    assert programs.cost("small", 1) == 0


def test_without_fuel_every_endless_thing_traps() -> None:
    endless = Metered("""(module
      (func (export "loop") (loop $l (br $l)))
      (func $recursion (export "recursion") (call $recursion))
      (func $tail (export "tail") (return_call $tail))
      (table funcref (elem $indirect))
      (type $t (func))
      (func $indirect (export "indirect") (return_call_indirect (type $t) (i32.const 0))))""")
    for name in ("loop", "recursion", "tail", "indirect"):
        endless.fuel = 10_000
        with pytest.raises(wasmtime.Trap):
            endless.call(name)
        assert endless.fuel < 0, name


def test_the_last_unit_can_be_used(programs: Metered) -> None:
    needed = programs.cost("count", 1000)
    programs.fuel = needed
    assert programs.call("count", 1000) == 1000
    programs.fuel = needed - 1
    with pytest.raises(wasmtime.Trap):
        programs.call("count", 1000)
    programs.fuel = PLENTY


BULK_PAGES = 3 * CHUNK_BYTES // PAGE_BYTES
BULK = f"""(module
  (memory (export "memory") {BULK_PAGES})
  (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
  (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2))))"""
BULK_BYTES = BULK_PAGES * PAGE_BYTES
PATTERN = bytes(range(251)) * (BULK_BYTES // 251 + 1)


@settings(max_examples=60)
@given(
    to=st.integers(0, BULK_BYTES), from_=st.integers(0, BULK_BYTES), size=st.one_of(
        st.integers(0, 200), st.integers(CHUNK_BYTES - 2, CHUNK_BYTES + 2), st.integers(0, BULK_BYTES)
    )
)  # fmt: skip
def test_copying_in_chunks_moves_the_same_bytes(to: int, from_: int, size: int) -> None:
    """Overlapping in both directions; a range outside the memory still traps."""
    bulk = Metered(BULK)
    memory = memory_of(bulk.exports, "memory")
    expected = bytearray(PATTERN[:BULK_BYTES])
    memory.write(bulk.store, bytes(expected))
    if max(to, from_) + size > BULK_BYTES:
        with pytest.raises(wasmtime.Trap):
            bulk.call("copy", to, from_, size)
        return
    expected[to : to + size] = bytes(expected[from_ : from_ + size])
    assert bulk.cost("copy", to, from_, size) >= size >> BULK_BYTES_SHIFT
    assert bytes(memory.read(bulk.store)) == bytes(expected)


@settings(max_examples=30)
@given(
    to=st.integers(0, BULK_BYTES), value=st.integers(-1, 257), size=st.one_of(
        st.integers(0, 200), st.integers(0, BULK_BYTES)
    )
)  # fmt: skip
def test_filling_in_chunks_writes_the_same_bytes(to: int, value: int, size: int) -> None:
    bulk = Metered(BULK)
    memory = memory_of(bulk.exports, "memory")
    size = min(size, BULK_BYTES - to)
    assert bulk.cost("fill", to, value, size) >= size >> BULK_BYTES_SHIFT
    assert bytes(memory.read(bulk.store)) == bytes(to) + bytes([value & 0xFF]) * size + bytes(BULK_BYTES - to - size)


def test_moving_little_is_right_at_every_size_and_distance() -> None:
    """Sizes on both sides of each way to do it; overlapping in both directions."""
    bulk = Metered(BULK)
    memory = memory_of(bulk.exports, "memory")
    for size in range(80):
        for distance in (-64, -33, -9, -3, -1, 0, 1, 2, 7, 8, 31, 100):
            expected = bytearray(PATTERN[:512])
            memory.write(bulk.store, bytes(expected))
            expected[200 + distance : 200 + distance + size] = bytes(expected[200 : 200 + size])
            bulk.call("copy", 200 + distance, 200, size)
            assert bytes(memory.read(bulk.store, 0, 512)) == bytes(expected), (size, distance)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 17, 63, 64])
@pytest.mark.parametrize("name", ["copy", "fill"])
def test_what_is_little_and_outside_the_memory_traps(name: str, size: int) -> None:
    bulk = Metered(BULK)
    for outside in (BULK_BYTES - size + 1, BULK_BYTES, BULK_BYTES + 7, -1, -size):
        for arguments in [(outside, 1, size)] + [(0, outside, size)] * (name == "copy"):
            with pytest.raises(wasmtime.Trap):
                bulk.call(name, *arguments)


ENDLESS = """(module
  (memory 64)
  (func (export "loop") (loop $l (br $l)))
  (func $tail (export "recursion") (return_call $tail))
  (func (export "fill") (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 4194304)) (br $l)))
  (func (export "copy") (loop $l (memory.copy (i32.const 0) (i32.const 9) (i32.const 4000000)) (br $l))))"""


@pytest.mark.parametrize("metering", [Metering.FUEL, Metering.DEADLINE])
@pytest.mark.parametrize("name", ["loop", "recursion", "fill", "copy"])
def test_a_closed_poll_page_stops_whatever_is_going_on(name: str, metering: Metering) -> None:
    """From another thread, while the guest computes: as a deadline and a cancellation do."""
    endless = Metered(ENDLESS, metering)
    page = PollPage(TrapSignals())
    page.attach(*endless.poll_page())
    threading.Timer(0.05, page.stop).start()
    with pytest.raises(wasmtime.Trap):
        endless.call(name)
    page.detach()
    assert endless.fuel < PLENTY if metering is Metering.FUEL else endless.fuel == PLENTY


def test_a_page_closed_too_early_stops_the_guest_at_once_and_one_closed_too_late_touches_nothing() -> None:
    early, late = Metered(PROGRAMS), Metered(PROGRAMS)
    page = PollPage(TrapSignals())
    page.stop()
    page.attach(*early.poll_page())
    with pytest.raises(wasmtime.Trap):
        early.call("count", 3)
    page.detach()

    page = PollPage(TrapSignals())
    page.attach(*late.poll_page())
    page.detach()
    page.stop()
    assert late.call("count", 3) == 3


def test_the_guest_itself_is_metered_the_same_way_each_time() -> None:
    module = find_artifact().read()
    metered = meter(module)
    assert meter(module) == metered
    wasmtime.Module.validate(ENGINE, metered)


REFUSED = {
    "a second memory": "(module (memory 1) (memory $b 1) (func (drop (i32.load $b (i32.const 0)))))",
    "a passive segment": '(module (memory 1) (data $d "x")'
    " (func (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))))",
    "growing a table": "(module (table 1 funcref) (func (drop (table.grow (ref.null func) (i32.const 9)))))",
    "a copy between memories": "(module (memory $a 1) (memory $b 1)"
    " (func (memory.copy $a $b (i32.const 0) (i32.const 0) (i32.const 9))))",
}


def test_code_may_be_metered_ahead_of_the_rest_of_its_module() -> None:
    text = '(module (global $g (mut i32) (i32.const {})) (func $f (loop (br 0))) (func (export "{}") call $f))'
    before, after, other = (bytes(wasmtime.wat2wasm(text.format(*values))) for values in ((0, "a"), (7, "b"), (0, "a")))
    assert meter(after, code=meter_code(before)) == meter(after)
    assert meter(after, Metering.DEADLINE, meter_code(before, Metering.DEADLINE)) == meter(after, Metering.DEADLINE)
    with pytest.raises(MalformedModule, match="for another module"):
        meter(other, Metering.DEADLINE, meter_code(other))
    with pytest.raises(MalformedModule, match="for another module"):
        meter(other, code=meter_code(bytes(wasmtime.wat2wasm("(module)"))))


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_metered_is_refused(text: str) -> None:
    with pytest.raises(MalformedModule, match="cannot be metered"):
        meter(bytes(wasmtime.wat2wasm(text)))


def test_a_module_is_metered_once() -> None:
    with pytest.raises(MalformedModule, match="metered already"):
        meter(meter(bytes(wasmtime.wat2wasm("(module)"))))


@settings(max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 400))
def test_damaged_modules_are_refused_or_stay_modules(noise: bytes, at: int) -> None:
    """Never another exception; what comes out is for the engine to judge."""
    whole = bytes(wasmtime.wat2wasm(PROGRAMS))
    with suppress(MalformedModule):
        meter(whole[: 8 + at] + noise + whole[8 + at + len(noise) :])


@pytest.mark.parametrize("metering", Metering)
def test_what_the_last_growth_gave_is_kept(metering: Metering) -> None:
    text = '(module (memory 1 3) (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))'
    grown = Metered(text, metering)

    def kept() -> int:
        return int(global_variable(grown.exports, GROWN_EXPORT).value(grown.store))

    assert kept() == 0
    for pages, expected in ((1, 1), (9, -1), (0, 2), (1, 2), (1, -1)):
        assert grown.call("grow", pages) == expected
        assert kept() == expected


HOSTED = """(module
  (import "host" "f" (func $f (result i32)))
  (memory 1 3)
  (func (export "call") (result i32) (call $f))
  (func (export "jump") (result i32) (return_call $f))
  (func (export "grow") (result i32) (memory.grow (i32.const 1)))
  (func $own (result i32) (i32.const 7))
  (func (export "own") (result i32) (call $own)))"""


@pytest.mark.parametrize("metering", Metering)
@pytest.mark.parametrize("name", ["call", "jump", "grow"])
def test_a_guest_that_is_alone_reaches_nothing_of_the_host(name: str, metering: Metering) -> None:
    called = []

    def f() -> int:
        called.append(1)
        return 1

    store = wasmtime.Store(ENGINE)
    module = wasmtime.Module(ENGINE, meter(bytes(wasmtime.wat2wasm(HOSTED)), metering))
    host = wasmtime.Func(store, wasmtime.FuncType([], [wasmtime.ValType.i32()]), f)
    exports = wasmtime.Instance(store, module, [host]).exports(store)
    global_variable(exports, FUEL_EXPORT).set_value(store, wasmtime.Val.i64(PLENTY))
    alone = global_variable(exports, ALONE_EXPORT)
    assert function(exports, name)(store) == 1
    alone.set_value(store, wasmtime.Val.i32(1))
    with pytest.raises(wasmtime.Trap, match="unreachable"):
        function(exports, name)(store)
    assert function(exports, "own")(store) == 7
    alone.set_value(store, wasmtime.Val.i32(0))
    assert function(exports, name)(store) == (2 if name == "grow" else 1)
    assert len(called) == (0 if name == "grow" else 2)


@pytest.mark.parametrize("flavour", [PLAIN, *FLAVOUR_IMAGES])
def test_no_import_of_our_guests_is_called_by_way_of_a_table(flavour: str) -> None:
    """There a guest that is alone would reach it."""
    module = find_artifact(flavour).read()
    bodies = dict(sections(module))
    imported = import_counts(bodies[IMPORT])[IMPORT_FUNCTION]
    listed = functions_in_tables(bodies[ELEMENT])
    assert len(listed) > 1000
    assert min(listed) >= imported


def functions_in_tables(body: bytes) -> list[int]:
    """Functions that an element section puts into the table: segments of indices, each at a constant."""
    reader, found = Reader(body), list[int]()
    for _ in range(reader.unsigned()):
        assert reader.unsigned() == 0
        assert reader.byte() == 0x41  # i32.const
        reader.unsigned()
        assert reader.byte() == 0x0B
        found += [reader.unsigned() for _ in range(reader.unsigned())]
    assert reader.at == len(body)
    return found
