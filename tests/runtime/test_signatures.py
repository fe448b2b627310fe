"""The recipe's scan of a linked module for functions that CPython calls with other parameters."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from runtime.shared.stages import signatures
from runtime.shared.stages.signatures import CONVENTIONS, SLOTS, TYPE, TYPES

BASE, NAMES, TABLES, END = 0x40000000, 1024, 2048, 8192
SHAPES = ["()", *("(param" + " i32" * n + ")" for n in range(1, 6)), "(param i32 i64)"]
"""Parameters of the functions of the module; each is there with a result and without."""


def address(parameters: int, results: int) -> int:
    """Address of a function with so many parameters and results."""
    return BASE + 2 * parameters + results


def module(
    tmp_path: Path, table: list[int], at: int = TABLES, more: dict[int, list[int]] | None = None, named: str = "f"
) -> str:
    """A linked module with a table in its data, and a function of this name."""
    functions = [
        f"(func {shape if shape != '()' else ''} {'(result i32)' * results} {'i32.const 0' * results})"
        for shape in SHAPES
        for results in (0, 1)
    ]
    memory = bytearray(END - NAMES)
    memory[:8] = b"a_name\0\0"
    for start, words in {at: table, **(more or {})}.items():
        memory[start - NAMES : start - NAMES + 4 * len(words)] = struct.pack(f"<{len(words)}I", *words)
    data = "".join(f"\\{byte:02x}" for byte in memory)
    elements = " ".join(map(str, range(len(functions))))
    text = (
        f"(module {' '.join(functions)} (func ${named}) (table {BASE + len(functions)} funcref) (memory 1)"
        f' (elem (i32.const {BASE}) func {elements}) (data (i32.const {NAMES}) "{data}"))'
    )
    path = tmp_path / "module.wasm"
    path.write_bytes(wat2wasm(text))
    return str(path)


def mistakes(path: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    try:
        signatures.main(path)
    except SystemExit:
        return capsys.readouterr().out.splitlines()
    assert " functions in tables of CPython's" in capsys.readouterr().out
    return []


@pytest.mark.parametrize("flags", CONVENTIONS)
@pytest.mark.parametrize("more", [0, signatures.CLASS, signatures.STATIC | signatures.COEXIST])
def test_a_method_has_the_parameters_that_its_flags_say(
    flags: int, more: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = len(CONVENTIONS[flags][0])
    for parameters in range(6):
        table = [NAMES, address(parameters, 1), flags | more, 0]
        found = mistakes(module(tmp_path, table), capsys)
        assert len(found) == (parameters != wanted), found
        assert all("method a_name" in line for line in found)
    assert mistakes(module(tmp_path, [NAMES, address(wanted, 0), flags | more, 0]), capsys)


@pytest.mark.parametrize("number", [number for number, name in SLOTS.items() if name != "-"])
def test_a_slot_has_the_parameters_of_its_kind(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters, results = map(len, TYPES.get(SLOTS[number], signatures.BINARY))
    other = [signatures.GETSET_SLOT, TABLES + 1024, 56, NAMES]  # attributes, none; a text
    assert not mistakes(module(tmp_path, [number, address(parameters, results), *other, 0, 0]), capsys)
    for wrong in (address(parameters + 1, results), address(parameters, 1 - results), address(6, results)):
        (line,) = mistakes(module(tmp_path, [number, wrong, *other, 0, 0]), capsys)
        assert line.startswith(f"slot {SLOTS[number]}: ")


@pytest.mark.parametrize("place", [place for place, name in enumerate(TYPE) if name[2:3] == "_"])
def test_a_function_of_a_type_has_the_parameters_of_its_kind(
    place: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters, results = map(len, TYPES.get(TYPE[place], signatures.BINARY))
    whole = [1, 0, 0, NAMES, 16] + [0] * (len(TYPE) - 5)
    whole[place] = address(parameters, results)
    assert not mistakes(module(tmp_path, whole), capsys)
    whole[place] = address(parameters - 1, results)
    (line,) = mistakes(module(tmp_path, whole), capsys)
    assert line.startswith(f"{TYPE[place]} of a_name: ")


@pytest.mark.parametrize("table", signatures.TABLES)
def test_the_tables_of_a_type_are_looked_at(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = TABLES + 1024
    whole = [1, 0, 0, NAMES, 16] + [0] * (len(TYPE) - 5)
    whole[TYPE.index("tp_dealloc")] = address(1, 0)
    whole[TYPE.index(table)] = numbers
    names = signatures.TABLES[table]
    right = [0 if n == "-" else address(*map(len, TYPES.get(n, signatures.BINARY))) for n in names]
    assert not mistakes(module(tmp_path, whole, more={numbers: right}), capsys)
    wrong = [0 if n == "-" else address(5, 1) for n in names]
    assert len(mistakes(module(tmp_path, whole, more={numbers: wrong}), capsys)) == sum(n != "-" for n in names)


def test_getters_and_setters_of_a_type_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attributes = TABLES + 1024
    whole = [1, 0, 0, NAMES, 16] + [0] * (len(TYPE) - 5)
    whole[TYPE.index("tp_dealloc")], whole[signatures.TYPE_GETSET] = address(1, 0), attributes
    right = [NAMES, address(2, 1), 0, 0, 0, NAMES, address(2, 1), address(3, 1), 0, 7, 0]
    assert not mistakes(module(tmp_path, whole, more={attributes: right}), capsys)
    wrong = [NAMES, address(1, 1), 0, 0, 0, NAMES, address(2, 1), address(2, 1), 0, 7, 0]
    found = mistakes(module(tmp_path, whole, more={attributes: wrong}), capsys)
    assert [line.split(":")[0] for line in found] == ["getter of a_name", "setter of a_name"]


@pytest.mark.parametrize("name", [".Lf_bitcast", ".Lf_bitcast_invalid", ".Lf_bitcast.7", "f_bitcast_invalid"])
def test_a_call_by_a_wrong_declaration_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """These are what clang 21 links, with -flto, of ``int f(int);`` for ``long long f(int a)``, and the like."""
    (line,) = mistakes(module(tmp_path, [], named=name), capsys)
    assert line == "f is declared with other parameters than it has"
    assert not mistakes(module(tmp_path, [], named="f_bitcasting"), capsys)
