"""An untrusted argument schema is reduced to what a generator may see, or refused with the fix."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox.errors import ArgumentSchemaError
from wasm_sandbox.script.argument_models import argument_models, known_here
from wasm_sandbox.script.schema_filter import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_PARTS,
    MAX_TUPLE_ITEMS,
    filtered_schema,
)


def schema_of(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def chained(count: int, link: Any) -> dict[str, Any]:
    """A property whose type is the first of many definitions, each made of the next by ``link``."""
    definitions = {f"D{i}": link(reference(f"D{i + 1}")) for i in range(count)}
    return schema_of({"x": reference("D0")}, **{"$defs": {**definitions, f"D{count}": {"type": "string"}}})


def nested(depth: int, wrap: Any) -> dict[str, Any]:
    schema: Any = {"type": "integer"}
    for _ in range(depth):
        schema = wrap(schema)
    return schema_of({"x": schema})


TOO_MUCH = {
    "schemas": (schema_of({f"p{i}": {} for i in range(MAX_PARTS)}), "more than 400 parts"),
    "schemas in definitions": (
        chained(40, lambda r: schema_of({f"p{i}": {} for i in range(40)}, items=r)),
        "more than 400 parts",
    ),
    "depth": (nested(MAX_DEPTH, lambda s: {"type": "array", "items": s}), "more than 50 schemas deep"),
    "very deep": (nested(2000, lambda s: {"anyOf": [s]}), "is not JSON|schemas deep"),
    "enum": (schema_of({"x": {"enum": [*range(4 * MAX_PARTS)]}}), "more than 400 parts"),
    "text": (schema_of({"x": {"description": "x" * MAX_CHARACTERS}}), "characters, at most"),
    "tuple": (
        schema_of({"x": {"type": "array", "prefixItems": [{}], "minItems": MAX_TUPLE_ITEMS + 1}}),
        "tuple of more than 100 items",
    ),
    "laughs": (chained(15, lambda r: {"allOf": [r, r]}), "more than 1000 schemas; write them out"),
    "mixed laughs": (chained(15, lambda r: {"allOf": [{"anyOf": [r, r]}, r]}), "write them out"),
    "long chain": (chained(90, lambda r: {"allOf": [r]}), "write them out"),
    "made of itself": (chained(1, lambda _: {"anyOf": [reference("D0")]}), "'D0' is made of itself"),
    "made of each other": (
        schema_of({"x": reference("A")}, **{"$defs": {"A": {"allOf": [reference("B")]}, "B": reference("A")}}),
        "is made of itself",
    ),
    "top level itself": ({"$ref": "#"}, "refers to itself"),
    "top level in a circle": ({**reference("A"), "$defs": {"A": reference("A")}}, "refers to itself"),
}


@pytest.mark.parametrize(("schema", "words"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_would_cost_too_much_is_refused_at_once(schema: dict[str, Any], words: str) -> None:
    started = time.process_time()
    with pytest.raises(ArgumentSchemaError, match=words):
        argument_models(schema)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": {}}, "by 'properties' at its top level"),
        ({"anyOf": [schema_of({})]}, "by 'properties' at its top level"),
        ({"type": ["object", "null"], "properties": {}}, "by 'properties' at its top level"),
        (schema_of({"x": 5}), "args_json_schema/properties/x is no schema but a int"),
        (schema_of({"x": {"items": "y"}}), "properties/x/items is no schema but a str"),
        (schema_of({"x": {"$ref": 5}}), "a reference is a text"),
        (schema_of({"x": reference("missing")}), "refers to 'missing' under"),
        (schema_of({"x": {"$ref": "#/properties/x"}}), "put the definition under"),
        (schema_of({"x": {"$ref": "#/$defs/A/B"}}), "put the definition under"),
        (schema_of({"x": reference("A")}, **{"$defs": {"A": 5}}), "A is no schema"),
        (schema_of({"x": {"default": float("nan")}}), "is not JSON"),
        (schema_of({"x": {"default": {1, 2}}}), "is not JSON"),
        (schema_of({"\ud800": {}}), "is not JSON"),
        (schema_of({"x": {"type": "string", "maxLength": "__import__('os')"}}), "no models can be made"),
        (schema_of({"x": {"type": {"a": 1}}}), "no models can be made"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused_by_its_place(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentSchemaError, match=words):
        argument_models(schema)


def test_only_known_keywords_formats_and_used_definitions_stay() -> None:
    reduced = filtered_schema(
        {
            "$id": "http://a/b",
            "$schema": "http://a/c",
            "title": "Args",
            "description": "dropped",
            "x-python-type": "os.system",
            "properties": {
                "x": {"type": "string", "format": "email", "customTypePath": "os.system", "$id": "http://a/d"},
                "format": {"type": "string", "format": "date"},
                "y": {"$ref": "#/definitions/a~1b"},
                "never": False,
                "any": True,
            },
            "required": ["x"],
            "definitions": {"a/b": {"not": {}, "enum": [1]}, "unused": {"$ref": "http://a/e"}},
        }
    )
    assert reduced == {
        "title": "Args",
        "type": "object",
        "properties": {
            "x": {"type": "string"},
            "format": {"type": "string", "customTypePath": "_sandbox_types.Text_date"},
            "y": {"$ref": "#/$defs/a_b"},
            "any": {},
        },
        "required": ["x"],
        "$defs": {"a_b": {"enum": [1], "type": "integer"}},
    }


def test_names_of_definitions_become_distinct_identifiers() -> None:
    names = ["a.b", "a b", "a_b", "", "é", "..~x", "x"]
    schema = schema_of(
        {str(i): reference(name.replace("~", "~0")) for i, name in enumerate(names)},
        **{"$defs": dict.fromkeys(names, True)},
    )
    reduced = filtered_schema(schema)
    assert [*reduced["$defs"]] == ["a_b", "a_b_2", "a_b_3", "Definition", "Definition_2", "x", "x_2"]
    assert [spec["$ref"].rpartition("/")[2] for spec in reduced["properties"].values()] == [*reduced["$defs"]]


def test_references_of_a_discriminator_follow_their_definitions() -> None:
    mapping = {"cat": "#/$defs/a.Cat"}
    schema = schema_of(
        {"x": {"oneOf": [reference("a.Cat")], "discriminator": {"propertyName": "kind", "mapping": mapping}}},
        **{"$defs": {"a.Cat": schema_of({"kind": {"const": "cat"}}, required=["kind"])}},
    )
    spec = filtered_schema(schema)["properties"]["x"]
    assert spec["discriminator"] == {"propertyName": "kind", "mapping": {"cat": "#/$defs/a_Cat"}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KEYWORDS = [
    *("type", "properties", "items", "prefixItems", "anyOf", "oneOf", "allOf", "$ref", "$defs", "additionalProperties"),
    *("patternProperties", "required", "enum", "const", "default", "format", "pattern", "minimum", "maxLength"),
    *("minItems", "maxItems", "discriminator", "title", "description", "nullable"),
]
schemas = st.recursive(
    st.dictionaries(st.sampled_from(KEYWORDS), json_values, max_size=3)
    | st.sampled_from([{"type": "string"}, {"type": "integer"}, {"$ref": "#"}, {"$ref": "#/$defs/A"}, True]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", ["string", "null"]]),
            "properties": st.dictionaries(st.text(max_size=4), inner, max_size=2),
            "items": inner,
            "anyOf": st.lists(inner, max_size=2),
            "allOf": st.lists(inner, max_size=2),
            "default": json_values,
        },
    ),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.dictionaries(st.text(max_size=4), schemas, max_size=3), schemas)
def test_whatever_a_schema_holds_there_are_models_that_parse_or_a_refusal(properties: Any, definition: Any) -> None:
    try:
        models = argument_models(schema_of(properties, **{"$defs": {"A": definition}}))
    except ArgumentSchemaError:
        return
    compile(known_here(models.source), "<models>", "exec")
    assert models.fields.keys() <= properties.keys()
