"""Keywords of an argument schema that no model expresses went unchecked, in silence.

openapi-python-client 1405 (``nullable``), fastmcp 2082 (``patternProperties``), datamodel-code-generator 2943: a schema
promised more than was held. Kind: what a schema says of values is checked before anything runs, whatever the keyword,
and a value that fits arrives.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from wasm_sandbox import ErrorKind, Tool, ToolExecutionResult, run_tool

pytestmark = pytest.mark.usefixtures("unhurried")

RETURN = "def f(value=None, other=None):\n    return value\n"


def call(schema: Any, value: Any, **top: Any) -> ToolExecutionResult:
    arguments = {"type": "object", "properties": {"value": schema, "other": {"type": "integer"}}, **top}
    tool = Tool(
        name="f",
        source_code=RETURN,
        json_schema={"name": "f", "parameters": {"type": "object", "properties": {"value": {}, "other": {}}}},
        args_json_schema=arguments,
    )
    return run_tool(tool, value if top else {"value": value})


def check_refused(result: ToolExecutionResult) -> None:
    assert result.error is not None
    assert result.error.kind is ErrorKind.BAD_ARGUMENTS


MEMBERS: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("uniqueItems", {"type": "array", "uniqueItems": True}, [[], ["a", "b"], [{"a": 1}, {"a": 2}]], [["a", "a"]]),
    ("unique values of two types", {"uniqueItems": True}, [[1, True], 5], [[1, 1], [[1], [1.0]]]),
    ("not", {"not": {"type": "integer"}}, ["a", None], [1]),
    (
        "if, then, else",
        {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 5}},
        ["ab", 6],
        ["a", 4],
    ),
    ("contains", {"type": "array", "contains": {"const": 7}, "maxContains": 2}, [[7], [1, 7, 7]], [[], [7, 7, 7]]),
    ("dependentRequired", {"type": "object", "dependentRequired": {"a": ["b"]}}, [{}, {"a": 1, "b": 2}], [{"a": 1}]),
    (
        "dependentSchemas",
        {"dependentSchemas": {"a": {"properties": {"b": {"type": "integer"}}}}},
        [{"b": "x"}, {"a": 1, "b": 2}],
        [{"a": 1, "b": "x"}],
    ),
    ("patternProperties", {"patternProperties": {"^n_": {"type": "integer"}}}, [{"n_a": 1, "b": "x"}], [{"n_a": "x"}]),
    (
        "patternProperties beside properties",
        {
            "type": "object", "properties": {"a": {"type": "string"}},
            "patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": False,
        },
        [{"a": "x", "n1": 5}],
        [{"a": "x", "b": 5}, {"n1": "x"}],
    ),
    ("propertyNames", {"type": "object", "propertyNames": {"maxLength": 2}}, [{"ab": 1}], [{"abc": 1}]),
    ("minProperties", {"type": "object", "minProperties": 1}, [{"a": 1}], [{}]),
    (
        "unevaluatedProperties",
        {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
        [{"a": 1}],
        [{"b": 1}],
    ),
    ("oneOf with two that fit", {"oneOf": [{"type": "integer"}, {"minimum": 2}]}, [1, 2.5], [3]),
    ("a border without a type", {"minimum": 3}, [3, "a"], [2]),
    ("nullable and a border", {"type": "integer", "nullable": True, "not": {"const": 3}}, [None, 2], [3]),
    ("OpenAPI's exclusive border", {"type": "integer", "minimum": 3, "exclusiveMinimum": True, "not": {}}, [], [4]),
    ("items as in draft 7", {"items": [{"type": "integer"}], "additionalItems": False}, [[1]], [[1, 2]]),
    ("false", False, [], [1, None]),
    ("numbers that are no booleans", {"enum": [0, 1]}, [0], [False]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), [member[1:] for member in MEMBERS], ids=[m[0] for m in MEMBERS])
def test_what_fits_arrives_and_what_does_not_is_bad_arguments(schema: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        result = call(schema, value)
        assert result.error is None, (value, result.error)
        assert result.func_return == value or isinstance(result.func_return, set)
    for value in bad:
        result = call(schema, value)
        check_refused(result)
        assert "'value'" in str(result.error)


def test_what_is_said_of_the_arguments_as_a_whole_is_checked() -> None:
    top = {"dependentRequired": {"other": ["value"]}}
    assert call({}, {"other": 1, "value": 2}, **top).error is None
    refused = call({}, {"other": 1}, **top)
    check_refused(refused)
    assert refused.error is not None
    assert "'value' is a dependency of 'other'" in refused.error.message


def test_a_schema_that_begins_with_a_reference_is_checked_too() -> None:
    arguments = {"type": "object", "properties": {"value": {"minimum": 3}}}
    tool = Tool(
        name="f",
        source_code=RETURN,
        json_schema={"name": "f", "parameters": {"type": "object", "properties": {"value": {}}}},
        args_json_schema={"$ref": "#/$defs/Arguments", "$defs": {"Arguments": arguments}},
    )
    assert run_tool(tool, {"value": "text"}).func_return == "text"
    check_refused(run_tool(tool, {"value": 2}))


def test_conversions_of_models_stay_beside_such_keywords() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "contains": {"const": 7}}
    assert call(schema, ["7", 1]).func_return == [7, 1]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"pattern": "(?=a)b"}}, "leave out look-around"),
        ({"not": {"$ref": "https://example.com/a.json"}}, "nothing is fetched"),
        ({"not": {"$ref": "#/$defs/nowhere"}}, "which is not there"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_words(schema: Any, words: str) -> None:
    result = call(schema, 1)
    check_refused(result)
    assert words in str(result.error)


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "ab", "abc", "ä", "x" * 9])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "n_1"]), inner, max_size=3),
    max_leaves=8,
)
beyond = st.deferred(
    lambda: st.one_of(
        st.fixed_dictionaries({"uniqueItems": st.just(True)}),
        st.fixed_dictionaries({"not": schemas}),
        st.fixed_dictionaries({"if": schemas, "then": schemas, "else": schemas}),
        st.fixed_dictionaries({"contains": schemas}),
        st.fixed_dictionaries({"oneOf": st.lists(schemas, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"allOf": st.lists(schemas, min_size=1, max_size=2), "not": schemas}),
        st.fixed_dictionaries({"patternProperties": st.fixed_dictionaries({"^n": schemas, "b$": schemas})}),
        st.fixed_dictionaries({"propertyNames": schemas}),
        st.fixed_dictionaries({"properties": st.fixed_dictionaries({"a": schemas}), "minProperties": st.just(1)}),
    )
)
schemas: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        st.booleans(),
        st.fixed_dictionaries({"maxLength": st.integers(0, 4)}),
        st.fixed_dictionaries({"minimum": st.integers(-3, 3)}),
        st.fixed_dictionaries({"required": st.lists(st.sampled_from(["a", "b"]), unique=True)}),
        st.fixed_dictionaries({"pattern": st.sampled_from(["^a", "b", "x{3}"])}),
        st.fixed_dictionaries({"const": scalars}),
        beyond,
    )
)


@settings(max_examples=120)
@given(schema=beyond, value=values, draft=st.sampled_from([Draft7Validator, Draft202012Validator]))
def test_any_of_them_is_checked_as_the_standard_has_it(schema: Any, value: Any, draft: Any) -> None:
    result = call(schema, {"value": value}, **{"$schema": draft.META_SCHEMA["$schema"]})
    if draft(schema).is_valid(value):
        assert result.error is None, result.error
    else:
        check_refused(result)
