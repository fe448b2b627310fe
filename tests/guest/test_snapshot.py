"""Pre-initialisation: what it captures, and which modules it refuses."""

from __future__ import annotations

import pytest
import wasmtime

from wasm_sandbox.guest import wasm_binary as wb
from wasm_sandbox.guest.snapshot import SnapshotError, data_segments, mutable_globals, take_snapshot

COUNTER = """(module
  (memory (export "memory") 1 10)
  (global $n (export "n") (mut i32) (i32.const 5))
  (global $big (export "big") (mut i64) (i64.const -7))
  (global $fixed i32 (i32.const 9))
  (data (i32.const 8) "start")
  (func (export "init") (i32.store (i32.const 100) (i32.const -1)) (global.set $n (i32.const -3)))
  (func (export "read") (result i32) (i32.load (i32.const 100)))
  (func (export "count") (result i32) (global.get $n))
  (func (export "fixed") (result i32) (global.get $fixed)))"""


def wasm(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def test_the_new_module_starts_where_the_old_instance_stood() -> None:
    module = wasm(COUNTER)
    memory = bytearray(2 * wb.PAGE_BYTES)
    memory[8:13], memory[100:104], memory[-1] = b"start", b"\xff" * 4, 7
    new = take_snapshot(module, bytes(memory), {"n": -3, "big": 2**40}, frozenset({"init"})).module()

    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, new), [])
    exports = instance.exports(store)
    assert "init" not in exports
    assert [exports[f](store) for f in ("read", "count", "fixed")] == [-1, -3, 9]
    assert exports["big"].value(store) == 2**40
    assert bytes(exports["memory"].read(store)) == bytes(memory)


def test_without_data_the_memory_has_its_size_and_no_content() -> None:
    new = take_snapshot(wasm(COUNTER), b"x" * 3 * wb.PAGE_BYTES, {"n": 5, "big": 0}, frozenset())
    store = wasmtime.Store()
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, new.without_data), []).exports(store)
    assert bytes(exports["memory"].read(store)) == bytes(len(new.memory))
    assert exports["count"](store) == 5


def test_code_is_kept_to_the_byte() -> None:
    module = wasm(COUNTER)
    new = take_snapshot(module, bytes(wb.PAGE_BYTES), {"n": 0, "big": 0}, frozenset()).module()
    assert dict(wb.sections(new))[wb.CODE] == dict(wb.sections(module))[wb.CODE]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('(module (memory (export "m") 1) (func $f) (start $f))', "start function"),
        ("(module (func))", "no memory"),
        ("(module (memory 1) (memory 1))", "more than one memory"),
        ('(module (import "a" "b" (global i32)) (memory 1))', "other than functions"),
        ("(module (memory 1) (global (mut i32) (i32.const 0)))", "not exported"),
    ],
)
def test_a_module_whose_state_cannot_be_captured_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SnapshotError, match=reason):
        mutable_globals(wasm(text))


def test_missing_globals_and_half_pages_are_refused() -> None:
    with pytest.raises(SnapshotError, match="no value for the mutable globals big"):
        take_snapshot(wasm(COUNTER), bytes(wb.PAGE_BYTES), {"n": 1}, frozenset())
    with pytest.raises(SnapshotError, match="whole number of pages"):
        take_snapshot(wasm(COUNTER), bytes(5), {"n": 1, "big": 1}, frozenset())


def test_passive_segments_do_not_survive() -> None:
    """Their use would be wrong after the snapshot; without a data count the result does not validate."""
    text = '(module (memory 1) (data "x") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))))'
    new = take_snapshot(wasm(text), bytes(wb.PAGE_BYTES), {}, frozenset())
    for module in (new.module(), new.without_data):
        with pytest.raises(wasmtime.WasmtimeError):
            wasmtime.Module(wasmtime.Engine(), module)


def test_segments_skip_zeros_and_join_small_gaps() -> None:
    chunk = b"a" * 4096
    memory = chunk + bytes(4096) + chunk + bytes(4096 * 20) + b"b" + bytes(4095)
    assert data_segments(memory) == [(0, chunk + bytes(4096) + chunk), (4096 * 23, b"b")]
    assert data_segments(bytes(wb.PAGE_BYTES)) == []


@pytest.mark.parametrize("value", [0, 1, 63, 64, 127, 128, 2**31 - 1, 2**32, -1, -64, -65, -(2**31), 2**62, -(2**63)])
def test_signed_numbers_are_written_as_webassembly_reads_them(value: int) -> None:
    text = f'(module (memory 1) (global (export "g") (mut i64) (i64.const {value})))'
    assert wb.signed(value) in wasm(text)


@pytest.mark.parametrize("module", [b"", b"\0asm", b"MZ" * 10, wasm(COUNTER)[:-4]])
def test_bytes_that_are_no_module_are_refused(module: bytes) -> None:
    with pytest.raises(ValueError, match=r"module|cut"):
        take_snapshot(module, bytes(wb.PAGE_BYTES), {"n": 1, "big": 1}, frozenset())
