"""Argument literals: what a tool receives for a value, by the type that its schema declares."""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import json
import math
import unicodedata
from collections import OrderedDict, UserDict
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasm_sandbox import Tool, run_tool
from wasm_sandbox.errors import BadArguments
from wasm_sandbox.script.arguments import MAX_DEPTH, argument_literal, argument_literals

INF, NAN = float("inf"), float("nan")


def received(literal: str) -> Any:
    """What the literal evaluates to where no name means anything."""
    return eval(literal, {"__builtins__": {}})


def typed(kind: Any) -> dict[str, Any]:
    return {"type": kind}


# --- The table of section 4 ---------------------------------------------------------------------------


TABLE: list[tuple[Any, Any, str]] = [
    ("string", "a", "'a'"),
    ("string", 'it\'s "q"\n', "'it\\'s \"q\"\\n'"),
    ("string", "\ud800", "'\\ud800'"),
    ("string", 5, "5"),
    ("string", None, "None"),
    ("string", True, "True"),
    ("string", [1], "[1]"),
    ("integer", 5, "5"),
    ("integer", "5", "5"),
    ("integer", " 5 ", "5"),
    ("integer", "1_000", "1000"),
    ("integer", "٣", "3"),
    ("integer", 5.9, "5"),
    ("integer", -5.9, "-5"),
    ("integer", True, "1"),
    ("integer", 1e20, "100000000000000000000"),
    ("boolean", True, "True"),
    ("boolean", 1, "True"),
    ("boolean", 0, "False"),
    ("boolean", " FALSE ", "False"),
    ("number", 1, "1"),
    ("number", 1.5, "1.5"),
    ("number", "1.5", "1.5"),
    ("number", None, "None"),
    ("number", True, "True"),
    ("number", -0.0, "-0.0"),
    ("array", [1, "a", None], "[1, 'a', None]"),
    ("array", "[true]", "[True]"),
    ("array", None, "None"),
    ("array", 5, "5"),
    ("array", {"a": 1}, "{'a': 1}"),
    ("object", {"a": [1, None]}, "{'a': [1, None]}"),
    ("object", '{"a": 1}', "{'a': 1}"),
    # Where the type says nothing, JSON passes through (W9).
    (None, {"a": [1.5, "x"]}, "{'a': [1.5, 'x']}"),
    ("null", None, "None"),
    ("any", "[1]", "'[1]'"),
    ("", 1, "1"),
    (["string", "null"], None, "None"),
    (["integer", "null"], "5", "'5'"),
]


@pytest.mark.parametrize(("declared", "value", "text"), TABLE)
def test_a_value_becomes_the_text_of_the_table(declared: Any, value: Any, text: str) -> None:
    """Section 4, W10: with the documented coercions."""
    assert argument_literal(typed(declared), value) == text


def received_in_guest(specs: dict[str, Any], args: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """What a tool in the guest receives by name; every parameter has the given schema."""
    schema = {"parameters": {"type": "object", "properties": specs, "required": required or []}}
    tool = Tool(name="f", source_code="def f(**given):\n    return given\n", json_schema=schema)
    result = run_tool(tool, args)
    assert result.success_flag, result.error
    return dict(result.func_return)


def test_the_table_is_what_a_tool_receives() -> None:
    """Section 4, W10, all of its rows at once, in the guest."""
    specs = {f"p{number}": typed(declared) for number, (declared, _, _) in enumerate(TABLE)}
    args = {f"p{number}": value for number, (_, value, _) in enumerate(TABLE)}
    arrived = received_in_guest(specs, args)
    for number, (_, _, text) in enumerate(TABLE):
        assert same(arrived[f"p{number}"], received(text)), TABLE[number]


def each(declared: str, *values: Any) -> list[tuple[str, Any]]:
    return [(declared, value) for value in values]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        *each("integer", "5.0", "0x10", "", "abc", NAN, INF, None, [], {}, "1" * 5000),
        *each("boolean", 2, 1.0, "yes", "1", "", None, [], 1 << 20_000),
        *each("number", "abc", "1;2", "", "true", "[1]", "__import__('os').getcwd()"),
        *each("array", "abc", "['a']", '{"a": 1}', "5", "[" * 100_000, '"text"'),
        *each("object", "abc", "{'a': 1}", "[1]", "x, y", "{}; print(1)"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else type(value).__name__,
)
def test_a_value_that_does_not_fit_is_refused_by_name(declared: Any, value: Any) -> None:
    """Section 4, W6."""
    with pytest.raises(BadArguments, match=r"^argument 'size': expected ") as caught:
        argument_literal(typed(declared), value, "size")
    assert caught.value.argument == "size"
    assert len(str(caught.value)) < 200


def test_a_type_may_stand_in_a_nested_parameters_entry() -> None:
    """Section 4."""
    assert argument_literal({"parameters": {"type": "integer"}}, "5") == "5"
    assert argument_literal({"type": None, "parameters": {"type": "integer"}}, "5") == "5"
    assert argument_literal({"type": "string", "parameters": {"type": "integer"}}, "5") == "'5'"


@pytest.mark.parametrize("spec", [{"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"$ref": "#/$defs/A"}, True])
def test_a_property_without_a_single_type_takes_any_json(spec: Any) -> None:
    """W9."""
    for value in (None, 1, "1", [1], {"a": None}):
        assert received(argument_literal(spec, value)) == value


@pytest.mark.parametrize("declared", ["integer", "boolean"])
def test_none_fits_an_optional_or_nullable_property(declared: Any) -> None:
    """W9."""
    assert argument_literal(typed(declared), None, required=False) == "None"
    for nullable in ({"nullable": True}, {"default": None}, {"enum": [1, None]}):
        assert argument_literal({"type": declared, **nullable}, None) == "None"
    with pytest.raises(BadArguments):
        argument_literal({"type": declared, "default": 1}, None)


# --- Values that a literal can hold, and others -------------------------------------------------------


@pytest.mark.parametrize("declared", ["number", "array", "object", "string", None])
def test_infinity_and_nan_survive(declared: Any) -> None:
    """W6."""
    for value in (INF, -INF):
        assert received(argument_literal(typed(declared), value)) == value
    assert math.isnan(received(argument_literal(typed(declared), NAN)))
    assert received(argument_literal({}, {"a": [-INF]})) == {"a": [-INF]}
    assert received(argument_literal(typed("number"), "Infinity")) == INF


@pytest.mark.parametrize("digits", [4299, 4300, 100_000])
@pytest.mark.parametrize("declared", ["integer", "number", None])
def test_integers_of_any_size_survive(declared: Any, digits: int) -> None:
    for value in (10**digits, -(10**digits)):
        assert received(argument_literal(typed(declared), value)) == value
        assert received(argument_literal({}, [value])) == [value]


def test_small_integers_are_decimal() -> None:
    assert argument_literal({}, 10**4299) == "1" + "0" * 4299


class Color(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Plain(enum.Enum):
    A = 1


class Loud(float):
    def __repr__(self) -> str:
        return "print('loud')"


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Color.RED, "red"),
        (Number.ONE, 1),
        (Loud(1.5), 1.5),
        (OrderedDict(a=1), {"a": 1}),
        (Pair(1, 2), (1, 2)),
        ((1,), (1,)),
        ((), ()),
        (b"\xff'", b"\xff'"),
        ({1}, {1}),
        (set(), set()),
        ({1: 2, None: 3, (1, 2): 4}, {1: 2, None: 3, (1, 2): 4}),
    ],
)
def test_plain_values_beyond_json_arrive_as_plain_values(value: Any, plain: Any) -> None:
    found = received(argument_literal({}, value))
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    "value",
    [
        datetime.date(2025, 1, 2),
        decimal.Decimal("1.5"),
        frozenset({1}),
        bytearray(b"a"),
        1j,
        ...,
        object(),
        print,
        UserDict(a=1),
        Plain.A,
    ],
)
@pytest.mark.parametrize("declared", ["string", "number", "array", "object", None])
def test_what_is_no_plain_value_is_refused(declared: Any, value: Any) -> None:
    """W6."""
    for nested in (value, [value], {"a": value}):
        with pytest.raises(BadArguments, match="pass JSON data") as caught:
            argument_literal(typed(declared), nested, "x")
        assert caught.value.argument == "x"


def nested_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_deep_nesting_is_refused() -> None:
    literal = argument_literal({}, nested_list(MAX_DEPTH))
    assert received(literal) == nested_list(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(BadArguments, match="nested more than 100 levels"):
            argument_literal({}, nested_list(depth))


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append({"again": value})
    with pytest.raises(BadArguments, match="contains itself"):
        argument_literal({}, value)


def test_a_value_may_occur_twice() -> None:
    twice = [1]
    assert received(argument_literal({}, [twice, twice])) == [[1], [1]]


# --- Which arguments reach the tool -------------------------------------------------------------------

SCHEMA = {"parameters": {"properties": {"a": {"type": "integer"}, "b": True}, "required": ["a"]}}


def test_only_arguments_that_the_schema_names_are_kept_in_their_order() -> None:
    """Section 4."""
    assert argument_literals(SCHEMA, {"b": [1], "self": 1, "a": "2"}) == {"b": "[1]", "a": "2"}


def test_an_argument_that_is_not_required_may_be_none() -> None:
    """W9."""
    with pytest.raises(BadArguments, match="'a'"):
        argument_literals(SCHEMA, {"a": None})
    optional = {"parameters": {"properties": {"a": {"type": "integer"}}}}
    assert argument_literals(optional, {"a": None}) == {"a": "None"}


@pytest.mark.parametrize(
    "schema", [None, {}, {"parameters": None}, {"parameters": {}}, {"parameters": {"properties": 5}}]
)
def test_arguments_without_a_schema_are_refused_with_the_remedy(schema: Any) -> None:
    """Section 4; section 6: without arguments the schema is never touched."""
    assert argument_literals(schema, {}) == {}
    with pytest.raises(BadArguments, match=r"Tool\.from_function") as caught:
        argument_literals(schema, {"a": 1})
    assert caught.value.argument is None


# --- For any value ------------------------------------------------------------------------------------

# The machine may be slow; no example's time says anything about the code.
unhurried = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
matching = st.one_of(
    st.tuples(st.just("string"), st.text(st.characters())),
    st.tuples(st.just("integer"), st.integers()),
    st.tuples(st.just("boolean"), st.booleans()),
    st.tuples(st.just("number"), st.integers() | st.floats(allow_nan=False)),
    st.tuples(st.just("array"), st.lists(json_values)),
    st.tuples(st.just("object"), st.dictionaries(st.text(), json_values)),
    st.tuples(st.none(), json_values),
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types all the way down."""
    return repr(left) == repr(right)


@unhurried
@given(matching)
def test_a_value_that_matches_its_type_arrives_unchanged(case: tuple[Any, Any]) -> None:
    """Section 4, W6."""
    declared, value = case
    literal = argument_literal(typed(declared), value)
    assert same(received(literal), value)
    assert "\n" not in literal
    literal.encode()


@unhurried
@given(matching.filter(lambda case: case[0] in ("number", "array", "object")))
def test_json_text_arrives_as_the_value_it_says(case: tuple[Any, Any]) -> None:
    """Section 0."""
    declared, value = case
    literal = argument_literal(typed(declared), json.dumps(value))
    assert same(received(literal), json.loads(json.dumps(value)))


def keeping(declared: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any, Any]]:
    """A type, a value for it, and what the tool receives: the same."""
    return values.map(lambda value: (declared, value, value))


def from_text(declared: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any, Any]]:
    """JSON text for a type whose values are read from it."""
    return values.map(lambda value: (declared, json.dumps(value), value))


encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers() | st.floats(allow_nan=False)
small_json = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
blanks = st.sampled_from(["", " ", "\n\t", "\u3000"])
documented = st.one_of(
    keeping("string", small_json),
    keeping("integer", st.integers()),
    st.tuples(blanks, st.integers(), blanks).map(lambda t: ("integer", f"{t[0]}{t[1]}{t[2]}", t[1])),
    st.floats(-1e30, 1e30).map(lambda value: ("integer", value, math.trunc(value))),
    st.booleans().map(lambda value: ("integer", value, 1 if value else 0)),
    keeping("boolean", st.booleans()),
    st.booleans().map(lambda value: ("boolean", int(value), value)),
    st.tuples(blanks, st.sampled_from(["true", "True", "FALSE", "fAlSe"])).map(
        lambda t: ("boolean", t[0] + t[1] + t[0], t[1].lower() == "true")
    ),
    keeping("number", numbers | st.booleans() | st.none()),
    from_text("number", numbers),
    keeping("array", st.lists(small_json, max_size=4)),
    from_text("array", st.lists(small_json, max_size=4)),
    keeping("object", st.dictionaries(st.text(max_size=5), small_json, max_size=4)),
    from_text("object", st.dictionaries(st.text(max_size=5), small_json, max_size=4)),
    *[keeping(declared, small_json) for declared in (None, ["string", "null"], "any")],
    *[st.just((declared, None, None)) for declared in ("integer", "boolean")],  # not required, so it may be None
)


@unhurried
@given(st.dictionaries(encodable, documented, max_size=6), encodable)
def test_any_tool_receives_what_was_passed_or_its_documented_coercion(
    cases: dict[str, tuple[Any, Any, Any]], extra: str
) -> None:
    """Section 4, W6, W7, W9, W10, in the guest: for any names and values of any matching types."""
    names = {unicodedata.normalize("NFKC", name): name for name in cases}
    specs = {name: {} if cases[name][0] is None else typed(cases[name][0]) for name in names.values()}
    args = {name: cases[name][1] for name in names.values()}
    arrived = received_in_guest(specs, {**({} if extra in specs else {extra: "not in the schema"}), **args})
    assert {unicodedata.normalize("NFKC", name) for name in arrived} == set(names)
    for name, value in arrived.items():
        assert same(value, cases[names[unicodedata.normalize("NFKC", name)]][2])


@unhurried
@given(st.sampled_from(["string", "integer", "boolean", "number", "array", "object", None, "odd"]), json_values)
def test_a_literal_holds_nothing_but_data(declared: Any, value: Any) -> None:
    """W6."""
    try:
        literal = argument_literal(typed(declared), value)
    except BadArguments:
        return
    allowed = (ast.Constant, ast.List, ast.Dict, ast.UnaryOp, ast.USub, ast.Load, ast.BinOp, ast.Sub)
    assert all(isinstance(node, allowed) for node in ast.walk(ast.parse(literal, mode="eval").body))
