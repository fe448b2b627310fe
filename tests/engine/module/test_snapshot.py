"""Pre-initialisation: what it captures, and which modules it refuses."""

from __future__ import annotations

import pytest
import wasmtime

from tests.support.exports import function, global_variable, memory_of
from wasm_sandbox.engine.module import binary as wb
from wasm_sandbox.engine.module.snapshot import (
    Snapshot,
    SnapshotError,
    data_segments,
    initial_memory,
    mutable_globals,
    without_data,
)

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
    memory = bytearray(2 * wb.PAGE_BYTES)
    memory[8:13], memory[100:104], memory[-1] = b"start", b"\xff" * 4, 7
    new = Snapshot(wasm(COUNTER), bytes(memory)).module(frozenset({"init"}))

    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, new), [])
    exports = instance.exports(store)
    assert "init" not in exports
    assert [function(exports, f)(store) for f in ("read", "count", "fixed")] == [-1, 5, 9]
    assert global_variable(exports, "big").value(store) == -7
    assert bytes(memory_of(exports, "memory").read(store)) == bytes(memory)


def test_without_data_the_memory_has_its_size_and_no_content() -> None:
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, without_data(wasm(COUNTER)))
    exports = wasmtime.Instance(store, module, []).exports(store)
    assert bytes(memory_of(exports, "memory").read(store)) == bytes(wb.PAGE_BYTES)
    assert function(exports, "count")(store) == 5


def test_the_memory_that_a_module_starts_with_is_known_without_an_instance() -> None:
    high = '(module (memory 65536) (data (i32.const 3) "a") (data (i32.const -65536) "bc") (data (i32.const 64) ""))'
    for text, expected in [
        (COUNTER, (1, [(8, b"start")])),
        ("(module (memory 2))", (2, [])),
        (high, (65536, [(3, b"a"), (2**32 - 65536, b"bc"), (64, b"")])),
    ]:
        size, segments = initial_memory(wasm(text))
        assert (size // wb.PAGE_BYTES, list(segments)) == expected


@pytest.mark.parametrize(
    "text",
    [
        '(module (memory 1) (data "passive"))',
        '(module (memory 1) (memory 1) (data (memory 1) (i32.const 0) "other"))',
        '(module (memory 1) (global i32 (i32.const 1)) (data (global.get 0) "x"))',
        '(module (memory 1) (data (i32.add (i32.const 1) (i32.const 1)) "x"))',
    ],
)
def test_segments_of_another_kind_are_refused(text: str) -> None:
    with pytest.raises(wb.MalformedModule, match="data segment"):
        list(initial_memory(wasm(text))[1])


def test_code_is_kept_to_the_byte() -> None:
    module = wasm(COUNTER)
    for new in (Snapshot(module, bytes(wb.PAGE_BYTES)).module(), without_data(module)):
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


def test_half_a_page_is_refused() -> None:
    with pytest.raises(SnapshotError, match="whole number of pages"):
        Snapshot(wasm(COUNTER), bytes(5)).module()


def test_passive_segments_do_not_survive() -> None:
    """Their use would be wrong after the snapshot; without a data count the result does not validate."""
    text = '(module (memory 1) (data "x") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))))'
    for module in (Snapshot(wasm(text), bytes(wb.PAGE_BYTES)).module(), without_data(wasm(text))):
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
        Snapshot(module, bytes(wb.PAGE_BYTES)).module()
