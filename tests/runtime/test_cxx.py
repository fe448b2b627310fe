"""C++ that throws and C that jumps, compiled for WebAssembly's exceptions, and with the recipe's code in their place.

`throwing/build.sh` compiles the programs; the functions of C++'s exceptions in them are the recipe's own.
"""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import pytest
from wasmtime import Config, Engine, Func, Linker, Memory, Module, Store, Trap, WasiConfig, WasmtimeError

from runtime.shared.stages import exceptions

HERE = Path(__file__).parent / "throwing"
AWARE = ["exceptions.o", "cases.o", "jumps.o", *(f"/usr/lib/wasm32-wasi/lib{name}.a" for name in ("c++", "setjmp"))]
PROGRAMS = [
    *("catches", "throws_again", "nests", "keeps", "virtuals", "library", "no_memory", "in_destructor", "in_loops"),
    *("values", "through_plain", "promises"),
]
"""Functions of cases.cpp, in the order of their numbers."""


def own_exceptions() -> Config:
    config = Config()
    config.wasm_exceptions = True
    return config


class Program:
    """The compiled programs in an engine."""

    def __init__(self, code: bytes, config: Config, directory: Path) -> None:
        self._engine = Engine(config)
        self._module = Module(self._engine, code)
        self._stderr = directory / "stderr"

    def run(self, name: str, *arguments: int) -> tuple[object, str]:
        """Result, or what was on standard error when it ended; and what the program said."""
        store, linker, wasi = Store(self._engine), Linker(self._engine), WasiConfig()
        wasi.stderr_file = str(self._stderr)
        store.set_wasi(wasi)
        store.set_limits(memory_size=64 << 20)
        linker.define_wasi()
        exports = linker.instantiate(store, self._module).exports(store)
        functions = {key: exports[key] for key in (name, "_initialize", "said")}
        called, initialize, said = (functions[key] for key in (name, "_initialize", "said"))
        memory = exports["memory"]
        assert isinstance(called, Func)
        assert isinstance(initialize, Func)
        assert isinstance(said, Func)
        assert isinstance(memory, Memory)
        initialize(store)
        try:
            result: object = called(store, *arguments)
        except (Trap, WasmtimeError):
            result = self._stderr.read_text()
        start = said(store)
        return result, bytes(memory.read(store, start, start + 200)).split(b"\0")[0].decode()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Program:
    code = lzma.decompress((HERE / "cases.wasm.xz").read_bytes())
    return Program(code, own_exceptions(), tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Program:
    directory = tmp_path_factory.mktemp("plain")
    for name in ("cases.wasm", "cases.map"):
        (directory / name).write_bytes(lzma.decompress((HERE / f"{name}.xz").read_bytes()))
    (directory / "listed").write_text("\n".join(AWARE))
    exceptions.main(*(str(directory / name) for name in ("cases.wasm", "cases.map", "listed", "plain.wasm")))
    return Program((directory / "plain.wasm").read_bytes(), Config(), directory)


def test_the_programs_are_compiled_from_what_is_here() -> None:
    for line in (HERE / "made_from").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == digest, f"run build.sh: {name} has changed"


THROWN = {1: "i", 2: "St13runtime_error two", 3: "PKc", 4: "1C", 5: "NSt3__210shared_ptrIiEE",
          6: "St9bad_alloc std::bad_alloc", 7: "P1C"}  # fmt: skip
NOWHERE = "libc++abi: an exception was thrown to code without exceptions: "


@pytest.mark.parametrize("argument", range(9))
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_what_it_does_elsewhere(own: Program, plain: Program, name: str, argument: int) -> None:
    number = PROGRAMS.index(name)
    found, said = plain.run("run", number, argument)
    expected, said_elsewhere = own.run("run", number, argument)
    if name == "through_plain" and argument in THROWN:
        expected, found = NOWHERE + THROWN[argument], str(found).rstrip()
    assert (found, said) == (expected, said_elsewhere)
    if name == "promises" and argument in THROWN:
        assert found == "libc++abi: an exception was thrown where none may be\n"
    else:
        assert isinstance(found, int) or name == "through_plain"


def test_some_of_what_they_do(plain: Program) -> None:
    """That both ways are right, too."""
    assert plain.run("run", 0, 4) == (6, "~t~mB")
    assert plain.run("run", 1, 2) == (9, "~t~m<two")
    assert plain.run("run", 2, 1) == (1, "~t~m~t~min~ninner")
    assert plain.run("run", 3, 2) == (5, "~t~m[two]twotwomade")
    assert plain.run("run", 6, 1) == (2, "std::bad_alloc")
    assert plain.run("run", 6, 2) == (2, "std::bad_alloc")


@pytest.mark.parametrize("argument", THROWN)
def test_who_calls_from_outside_does_not_see_an_exception(plain: Program, argument: int) -> None:
    found, said = plain.run("leave", argument)
    assert (str(found).rstrip(), said) == (NOWHERE + THROWN[argument], "~t~m")


@pytest.mark.parametrize(
    ("name", "results"), [("jump", [5, 12, 13, 14]), ("nest", [501, 502, 503]), ("wild", [2])]
)  # fmt: skip
def test_a_jump_goes_back_to_where_it_was_set(own: Program, plain: Program, name: str, results: list[int]) -> None:
    for argument, expected in enumerate(results):
        assert plain.run(name, argument) == own.run(name, argument) == (expected, "")


def test_a_jump_to_nowhere_ends_the_run_in_words(plain: Program) -> None:
    assert plain.run("wild", 1) == ("a library written in C gave up, and there is no way back from it here\n", "")
