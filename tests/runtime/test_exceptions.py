"""Exceptions as plain code: modules run with an engine's own exceptions, and after they were written out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wasmtime import Config, Engine, Func, FuncType, Global, Linker, Module, Store, Trap, ValType, WasmtimeError
from wasmtime import wat2wasm as bytes_of

from runtime.shared.stages.exceptions import VARIABLES, Lowering, Unsupported, functions_of
from wasm_sandbox.engine.module.metering import meter

FUNCTIONS = 3
LOG, UNCAUGHT, FIRST = 0, 1, 2
"""Indices of functions; the last are those that are made up."""

Statement = tuple[Any, ...]


def wat2wasm(text: str) -> bytes:
    return bytes(bytes_of(text))


def statements() -> st.SearchStrategy[list[Statement]]:
    """Bodies of functions: what they do is said in `written`."""
    small = st.integers(0, 3)
    simple = st.one_of(
        st.tuples(st.just("log"), st.integers(0, 99)),
        st.tuples(st.just("throw"), st.integers(0, 1), st.integers(1, 99)),
        st.tuples(st.sampled_from(["call", "indirect"]), small),
        st.tuples(st.just("leave"), small),
        st.tuples(st.just("switch"), st.lists(small, min_size=1, max_size=3)),
        st.tuples(st.just("return"), st.integers(0, 99)),
        st.tuples(st.just("again")),
    )
    clauses = st.tuples(st.sampled_from(["catch", "catch_ref", "catch_all", "catch_all_ref"]), st.integers(0, 1))
    return st.lists(
        st.recursive(
            simple,
            lambda inner: st.one_of(
                st.tuples(st.just("maybe"), st.integers(0, 2), st.lists(inner, max_size=3)),
                st.tuples(st.sampled_from(["block", "loop"]), st.lists(inner, max_size=3)),
                st.tuples(
                    st.just("try"),
                    st.lists(inner, max_size=4),
                    st.lists(st.tuples(clauses, st.lists(inner, max_size=3)), max_size=3),
                ),
            ),
            max_leaves=12,
        ),
        max_size=4,
    )


class Text:
    """Text of a function."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._names = count()
        self._counters: list[str] = []

    def function(self, body: list[Statement]) -> str:
        code = " ".join(self._all(body, []))
        counters = " ".join(f"(local {name} i32)" for name in self._counters)
        head = f"(param $p i32) (result i32) (local $x exnref) {counters}"
        return f"(func $f{self._number} {head} {code} (i32.const {self._number}))"

    def _all(self, body: list[Statement], labels: list[str], caught: bool = False) -> Iterator[str]:
        for statement in body:
            yield from self._one(statement, labels, caught)

    def _one(self, statement: Statement, labels: list[str], caught: bool) -> Iterator[str]:
        kind, name = statement[0], f"$l{next(self._names)}"
        if kind == "log":
            yield f"(call $log (i32.const {statement[1]}))"
        elif kind == "throw":
            yield f"(throw $t{statement[1]} (i32.const {statement[2]}))"
        elif kind in ("call", "indirect"):
            callee = self._number + 1 + statement[1]
            if callee < FUNCTIONS:  # no recursion; and a value is below the call
                place = f"(i32.const {callee + 1})"
                indirect = f"(call_indirect (param i32) (result i32) (local.get $p) {place})"
                call = f"(call $f{callee} (local.get $p))" if kind == "call" else indirect
                yield f"(i32.const 1000) {call} (i32.add) (call $log)"
        elif kind == "leave" and labels:
            yield f"(br {labels[statement[1] % len(labels)]})"
        elif kind == "switch" and labels:
            targets = " ".join(labels[n % len(labels)] for n in statement[1])
            yield f"(br_table {targets} (local.get $p))"
        elif kind == "return":
            yield f"(return (i32.const {statement[1]}))"
        elif kind == "again" and caught:
            yield "(throw_ref (local.get $x))"
        elif kind == "maybe":
            yield f"(if (i32.and (i32.shr_u (local.get $p) (i32.const {statement[1]})) (i32.const 1)) (then"
            yield from self._all(statement[2], labels, caught)
            yield "))"
        elif kind == "block":
            yield f"(block {name}"
            yield from self._all(statement[1], [*labels, name], caught)
            yield ")"
        elif kind == "loop":
            counter = f"{name}_n"
            self._counters.append(counter)
            yield f"(local.set {counter} (i32.const 2)) (loop {name}"
            yield from self._all(statement[1], labels, caught)
            yield f"(br_if {name} (local.tee {counter} (i32.sub (local.get {counter}) (i32.const 1)))))"
        elif kind == "try":
            yield from self._try(statement, labels, caught, name)

    def _try(self, statement: Statement, labels: list[str], caught: bool, name: str) -> Iterator[str]:
        _, body, handlers = statement
        results = {"catch": "(result i32)", "catch_ref": "(result i32 exnref)", "catch_all": "",
                   "catch_all_ref": "(result exnref)"}  # fmt: skip
        yield f"(block {name}"
        for place, ((kind, _), _) in reversed(list(enumerate(handlers))):
            yield f"(block {name}_{place} {results[kind]}"
        clauses = " ".join(
            f"({kind} {f'$t{tag}' if 'all' not in kind else ''} {name}_{place})"
            for place, ((kind, tag), _) in enumerate(handlers)
        )
        yield f"(try_table {name}_t {clauses}"
        yield from self._all(body, [*labels, name, f"{name}_t"], caught)
        yield f") (br {name})"
        for (kind, _), handler in handlers:
            yield ")"
            if "ref" in kind:
                yield "(local.set $x)"
            if "all" not in kind:
                yield "(call $log)"
            yield from self._all(handler, [*labels, name], caught or "ref" in kind)
            yield f"(br {name})"
        yield ")"


def module(bodies: list[list[Statement]]) -> bytes:
    functions = " ".join(Text(number).function(body) for number, body in enumerate(bodies))
    names = " ".join(f"$f{number}" for number in range(len(bodies)))
    return wat2wasm(f"""(module
        (import "host" "log" (func $log (param i32)))
        (func $uncaught (param i32) (call $log (i32.const -1)) (call $log (local.get 0)))
        (tag $t0 (param i32)) (tag $t1 (param i32))
        {functions}
        (memory 1)
        (table {len(bodies) + 1} {len(bodies) + 1} funcref) (elem (i32.const 1) {names})
        (export "f" (func $f0)))""")  # fmt: skip


def outcome(engine: Engine, code: bytes, argument: int) -> tuple[list[int], object]:
    """What was logged, and the result, or that an exception left the module."""
    logged: list[int] = []
    store, linker = Store(engine), Linker(engine)
    linker.define(store, "host", "log", Func(store, FuncType([ValType.i32()], []), logged.append))
    called = linker.instantiate(store, Module(engine, code)).exports(store)["f"]
    assert isinstance(called, Func)
    try:
        result: object = called(store, argument)
    except (WasmtimeError, Trap):
        result = "left"
    return logged, result


def own_exceptions() -> Engine:
    config = Config()
    config.wasm_exceptions = True
    return Engine(config)


OWN, PLAIN = own_exceptions(), Engine()


@settings(max_examples=60, deadline=None)
@given(st.lists(statements(), min_size=FUNCTIONS, max_size=FUNCTIONS))
@example([[("try", [("call", 0)], [(("catch_ref", 0), [("again",)])])], [("throw", 0, 5)], []])
@example(
    [[("try", [("try", [("indirect", 0)], [(("catch", 1), [])])], [(("catch_all", 0), [])])], [("throw", 0, 5)], []]
)
@example([[("try", [("maybe", 0, [("throw", 0, 5)]), ("leave", 1)], [(("catch_all", 0), [("log", 9)])])], [], []])
def test_code_does_what_it_did_with_exceptions(bodies: list[list[Statement]]) -> None:
    code = module(bodies)
    lowered = Lowering(code, range(FIRST, FIRST + FUNCTIONS), UNCAUGHT).module()
    assert lowered == Lowering(code, range(FIRST, FIRST + FUNCTIONS), UNCAUGHT).module()
    for argument in range(8):
        logged, result = outcome(OWN, code, argument)
        found, plain = outcome(PLAIN, lowered, argument)
        if result == "left":
            assert found[-2] == -1
            assert 0 < found[-1] < 100
            found = found[:-2]
        assert (found, plain) == (logged, result)


def test_what_is_written_can_be_metered() -> None:
    body = [("try", [("throw", 0, 1)], [(("catch_all_ref", 0), [("again",)])])]
    lowered = Lowering(module([body]), [FIRST], UNCAUGHT).module()
    assert meter(lowered)


GUARDED = """(module
    (import "host" "log" (func $log (param i32)))
    (func $uncaught (param i32) (call $log (i32.const -1)) (call $log (local.get 0)))
    (tag $t (param i32)) (type $unary (func (param i32) (result i32)))
    (func $thrower (param i32) (result i32) (throw $t (local.get 0)))
    (func $knows (param i32) (result i32)
        (block $l (result i32) (try_table (catch $t $l) (drop (call $direct (local.get 0)))) (i32.const 0)))
    (func $knows_table (param i32) (result i32)
        (block $l (result i32) (try_table (catch $t $l)
            (drop (call_indirect (type $unary) (local.get 0) (i32.const 1)))) (i32.const 0)))
    (func $unknowing (param i32) (result i32) (call $thrower (local.get 0)))
    (func $unknowing_table (param i32) (result i32) (call_indirect (type $unary) (local.get 0) (i32.const 1)))
    (func $direct (param i32) (result i32) (call $thrower (local.get 0)))
    (func $over (param i32) (result i32)
        (block $l (result i32) (try_table (catch $t $l) (drop (call CALLEE (local.get 0)))) (i32.const 0)))
    (table 3 3 funcref) (elem (i32.const 1) $thrower $unknowing_table)
    (export "f" (func ENTRY)))"""
LISTED = [2, 3, 4, 7, 8]


def guarded(entry: str, callee: str = "$thrower") -> tuple[list[int], object]:
    code = wat2wasm(GUARDED.replace("ENTRY", entry).replace("CALLEE", callee))
    return outcome(PLAIN, Lowering(code, LISTED, UNCAUGHT).module(), 42)


@pytest.mark.parametrize("entry", ["$knows", "$knows_table", "$over"])
def test_an_exception_is_caught_through_functions_that_know(entry: str) -> None:
    assert guarded(entry) == ([], 42)


def test_nothing_is_left_of_an_exception_that_was_caught() -> None:
    """A snapshot is refused where a variable has changed."""
    code = wat2wasm(GUARDED.replace("ENTRY", "$knows").replace("CALLEE", "$thrower"))
    store, linker = Store(PLAIN), Linker(PLAIN)
    linker.define(store, "host", "log", Func(store, FuncType([ValType.i32()], []), print))
    exports = linker.instantiate(store, Module(PLAIN, Lowering(code, LISTED, UNCAUGHT).module())).exports(store)
    called, variables = exports["f"], [exports[name] for name in VARIABLES]
    assert isinstance(called, Func)
    assert called(store, 42) == 42
    assert [variable.value(store) for variable in variables if isinstance(variable, Global)] == [0, 0]


@pytest.mark.parametrize("entry", ["$unknowing", "$unknowing_table", "$thrower", "$direct"])
def test_an_exception_that_would_leave_to_others_ends_the_run(entry: str) -> None:
    assert guarded(entry) == ([-1, 42], "left")


@pytest.mark.parametrize("callee", ["$unknowing", "$unknowing_table"])
def test_a_handler_gets_nothing_through_functions_that_do_not_know(callee: str) -> None:
    assert guarded("$over", callee) == ([-1, 42], "left")


def test_whoever_says_that_nothing_caught_it_may_call_what_throws() -> None:
    """Nothing is in flight any more when the last function is called."""
    code = wat2wasm("""(module
        (import "host" "log" (func $log (param i32)))
        (func $uncaught (param i32) (call $log (call $both (i32.const 7))))
        (tag $t (param i32))
        (func $f (param i32) (result i32) (throw $t (local.get 0)))
        (func $both (param i32) (result i32)
            (block $l (result i32) (try_table (catch $t $l) (drop (call $f (local.get 0)))) (i32.const 0)))
        (export "f" (func $f)))""")
    assert outcome(PLAIN, Lowering(code, [1, 2, 3], UNCAUGHT).module(), 42) == ([7], "left")


def test_a_branch_out_of_a_function_gives_its_results() -> None:
    code = wat2wasm("""(module
        (import "host" "log" (func $log (param i32)))
        (func $uncaught (param i32)) (tag $t (param i32))
        (func $f (param i32) (result i32)
            (block (br_if 1 (i32.const 7) (i32.eqz (local.get 0))) (drop))
            (try_table (result i32) (br_table 0 1 (i32.const 8) (i32.sub (local.get 0) (i32.const 1))))
            (call $log)
            (throw $t (i32.const 1)))
        (export "f" (func $f)))""")
    lowered = Lowering(code, [2], UNCAUGHT).module()
    assert outcome(PLAIN, lowered, 0) == ([], 7)
    assert outcome(PLAIN, lowered, 1) == ([8], "left")
    assert outcome(PLAIN, lowered, 2) == ([], 8)


def test_functions_that_no_exception_leaves_stay_as_they_are() -> None:
    code = wat2wasm("""(module
        (func $uncaught (param i32)) (tag $t (param i32))
        (func $quiet (param i32) (result i32) (call $leaf (local.get 0)))
        (func $leaf (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
        (func $catches (result i32)
            (block $l (try_table (catch_all $l) (throw $t (i32.const 1)))) (i32.const 5))
        (func $calls (result i32) (call $catches))
        (export "quiet" (func $quiet)) (export "calls" (func $calls)))""")
    lowering = Lowering(code, range(5), 0)
    assert lowering.escaping == set()
    quiet = b"\x06\0\x20\0\x10\x02\x0b"
    assert quiet in code
    assert quiet in lowering.module()


RESULTS = {"i32": "i32.const 1", "i64": "i64.const 1", "f32": "f32.const 1", "f64": "f64.const 1",
           "v128": "v128.const i64x2 1 1"}  # fmt: skip


@pytest.mark.parametrize("kinds", [[], ["i32"], ["i64"], ["f32"], ["f64"], ["v128"], ["i32", "f64", "v128"]])
def test_a_function_of_any_results_can_be_left(kinds: list[str]) -> None:
    code = wat2wasm(f"""(module
        (import "host" "log" (func $log (param i32)))
        (func $uncaught (param i32)) (tag $t (param i32))
        (func $g (param i32) (result {" ".join(kinds)})
            (if (local.get 0) (then (throw $t (local.get 0)))) {" ".join(f"({RESULTS[kind]})" for kind in kinds)})
        (func $f (param i32) (result i32)
            (block $l (result i32)
                (try_table (catch $t $l) (call $g (local.get 0)) {"(drop)" * len(kinds)}) (i32.const 77)))
        (export "f" (func $f)))""")
    lowered = Lowering(code, [2, 3], UNCAUGHT).module()
    assert [outcome(PLAIN, lowered, n) for n in (0, 5)] == [([], 77), ([], 5)]


UNKNOWN = {
    "payload": '(tag $t (param i64)) (func $f (throw $t (i64.const 1)))',
    "table that grows": '(tag $t (param i32)) (table 1 funcref) (func $f (throw $t (i32.const 1)))',
    "import": '(import "a" "b" (tag $t (param i32))) (func $f (throw $t (i32.const 1)))',
    "opcode 0x12": '(tag $t (param i32)) (func $f (return_call $g)) (func $g (throw $t (i32.const 1)))',
    "reference": '(tag $t (param i32)) (func $f (result funcref) (throw $t (i32.const 1)))',
    "type that is not": '(tag $t (param i32)) (type (struct)) (func $f (throw $t (i32.const 1)))',
}  # fmt: skip


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_not_known_is_an_error(what: str) -> None:
    with pytest.raises(Unsupported, match=what):
        Lowering(wat2wasm(f"(module {UNKNOWN[what]})"), [0, 1], 0).module()


def test_functions_are_found_in_the_map_of_the_linker(tmp_path: Path) -> None:
    text = """\
    Addr      Off     Size Out     In      Symbol
       -        8       6e TYPE
       -      1b8     6284 CODE
       -      1b9        3         <internal>:(__wasm_call_ctors)
       -      1f4        b         c.o:(run)
       -      1f4        b                 run
       -      21f      130         /a/lib(x).a(a.o):(_Z1fi)
       -      21f      130                 f(int)
    1000     6459      189 .rodata
    1000     6459      189         <internal>:(.rodata)
"""
    expected = [(3, "<internal>", "__wasm_call_ctors"), (11, "c.o", "run"), (304, "/a/lib(x).a", "_Z1fi")]
    assert functions_of(text) == expected
