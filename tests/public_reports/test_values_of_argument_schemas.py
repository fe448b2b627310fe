"""Reports: a string format turns a string into an object, a reference to a scalar arrives as a wrapper, a member of an
enumeration with null or of mixed types equals nothing, OpenAPI's ``nullable`` is overlooked.

The kinds: every string format, every definition that is no object, every enumeration, ``nullable`` beside anything. The
value is checked, and arrives as it was given.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.script.schema_filter import FORMAT_TYPES

pytestmark = pytest.mark.usefixtures("unhurried")


def call(
    spec: dict[str, Any], value: Any, source: str = "def f(v):\n    return v, type(v).__name__", defs: Any = None
) -> ToolExecutionResult:
    schema = {"type": "object", "properties": {"v": spec}, "required": ["v"], "$defs": defs or {}}
    return run_tool(Tool(name="f", source_code=source, args_json_schema=schema), {"v": value})


def is_refused(result: ToolExecutionResult) -> bool:
    return result.error is not None and result.error.kind is ErrorKind.BAD_ARGUMENTS


FORMATS: dict[str, tuple[str, str | None, str]] = {
    "date": ("2024-02-29", "2023-02-29", "datetime.date"),
    "time": ("10:00:00", "25:00:00", "datetime.time"),
    "time-local": ("10:00:00", "later", "datetime.time"),
    "date-time": ("2024-02-29T10:00:00Z", "today", "datetime.datetime"),
    "date-time-local": ("2024-02-29T10:00:00", "today", "datetime.datetime"),
    "duration": ("P1DT2H", "long", "datetime.timedelta"),
    "uuid": ("12345678-1234-5678-1234-567812345678", "1234", "uuid.UUID"),
    "uuid1": ("b54adc00-67f9-11d9-9669-0800200c9a66", "x", "uuid.UUID"),
    "uuid3": ("6fa459ea-ee8a-3ca4-894e-db77e160355e", "x", "uuid.UUID"),
    "uuid4": ("16fd2706-8baf-433b-82eb-8c7fada847da", "x", "uuid.UUID"),
    "uuid5": ("886313e1-3b8a-5372-9b90-0c9aee199e5d", "x", "uuid.UUID"),
    "uri": ("https://a.b", "no address", "pydantic.AnyUrl"),
    "ipv4": ("127.0.0.1", "1.2.3", "ipaddress.IPv4Address"),
    "ipv6": ("::1", "1.2.3.4", "ipaddress.IPv6Address"),
    "ipv4-network": ("10.0.0.0/8", "10.0.0.0/99", "ipaddress.IPv4Network"),
    "ipv6-network": ("fe80::/10", "10.0.0.0/8", "ipaddress.IPv6Network"),
    "byte": ("aGk=", "a", "pydantic.Base64Str"),
    "decimal": ("1.50", "many", "decimal.Decimal"),
    "binary": ("\x00hi", None, "bytes"),
    "password": ("s3cret", None, "pydantic.SecretStr"),
    "path": ("/a/../b", None, "pathlib.PurePosixPath"),
}
"""Format -> a value, one that is refused, and the annotation that asks for the object."""

PLACES: dict[str, tuple[Any, Any]] = {
    "alone": (lambda spec: spec, lambda value: value),
    "in an array": (lambda spec: {"type": "array", "items": spec}, lambda value: [value, value]),
    "or null": (lambda spec: {"anyOf": [spec, {"type": "null"}]}, lambda value: value),
    "null or": (lambda spec: {**spec, "type": ["null", "string"]}, lambda value: value),
    "nullable": (lambda spec: {**spec, "nullable": True}, lambda value: value),
    "in a mapping": (lambda spec: {"type": "object", "additionalProperties": spec}, lambda value: {"a": value}),
    "in a definition": (lambda spec: {"$ref": "#/$defs/D", "$defs": spec}, lambda value: value),
    "in a model": (lambda spec: {"type": "object", "properties": {"w": spec}}, lambda value: {"w": value}),
}


def test_every_format_that_makes_an_object_is_tried() -> None:
    assert FORMATS.keys() == FORMAT_TYPES.keys()


@settings(max_examples=60)
@given(st.sampled_from(sorted(FORMATS)), st.sampled_from(sorted(PLACES)))
def test_a_text_of_a_format_is_checked_and_arrives_as_it_is(name: str, place: str) -> None:
    text, wrong, _ = FORMATS[name]
    spec, value = PLACES[place]
    schema = spec({"type": "string", "format": name})
    defs = {"D": schema.pop("$defs", {})}
    source = "def f(v):\n    return v"
    result = call(schema, value(text), source, defs=defs)
    assert (result.error, json.dumps(result.func_return)) == (None, json.dumps(value(text)))
    assert is_refused(call(schema, value(wrong), source, defs=defs)) or wrong is None
    assert is_refused(call(schema, value(5), source, defs=defs))


@pytest.mark.parametrize("name", FORMATS)
def test_an_annotation_that_asks_for_the_object_gets_it(name: str) -> None:
    text, _, annotation = FORMATS[name]
    source = f"import datetime, decimal, ipaddress, pathlib, pydantic, uuid\ndef f(v: {annotation}, w: str = ''):\n"
    source += "    return type(v).__name__"
    result = call({"type": "string", "format": name}, text, source)
    assert result.error is None
    made = {"pydantic.Base64Str": "str", "pathlib.PurePosixPath": "PosixPath"}
    assert result.func_return == made.get(annotation, annotation.rpartition(".")[2])


SCALARS: list[tuple[dict[str, Any], Any, Any]] = [
    ({"type": "string"}, "a", 1),
    ({"type": "string", "minLength": 2}, "ab", "a"),
    ({"type": "integer", "minimum": 1}, 5, 0),
    ({"type": "number"}, 1.5, "x"),
    ({"type": "boolean"}, True, "x"),
    ({"type": "null"}, None, 1),
    ({"type": "array", "items": {"type": "integer"}}, [1, 2], ["x"]),
    ({"type": "array", "items": {"$ref": "#/$defs/D"}}, [[], [[]]], [1]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}),
    ({"type": "object", "additionalProperties": {"$ref": "#/$defs/D"}}, {"a": {"b": {}}}, {"a": 1}),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "a", [1]),
    ({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/$defs/D"}}]}, [1, [2]], ["x"]),
    ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, None, "x"),
    ({"type": ["string", "null"]}, None, 1),
    ({"const": "x"}, "x", "y"),
    ({"anyOf": [{"const": "x"}, {"const": "y"}, {"const": None}]}, "x", "z"),
    ({"oneOf": [{"const": "x", "title": "X"}, {"const": "y"}]}, "x", "z"),
    ({"enum": ["fast", None, 1.5]}, "fast", "slow"),
    ({"$ref": "#/$defs/E"}, 7, "x"),
    ({"type": "string", "format": "uuid"}, "12345678-1234-5678-1234-567812345678", "x"),
]


@pytest.mark.parametrize(("definition", "value", "wrong"), SCALARS)
@pytest.mark.parametrize("reference", [{"$ref": "#/$defs/D"}, {"anyOf": [{"$ref": "#/$defs/D"}, {"const": "other"}]}])
def test_a_reference_to_what_is_no_object_gives_the_bare_value(
    definition: dict[str, Any], value: Any, wrong: Any, reference: dict[str, Any]
) -> None:
    defs = {"D": definition, "E": {"type": "integer"}}
    result = call(reference, value, defs=defs)
    assert (result.error, result.func_return) == (None, (value, type(value).__name__))
    assert is_refused(call(reference, wrong, defs=defs))


LETTERS = st.text(st.characters(categories=["L"]), max_size=3)
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | LETTERS
MEMBERS = VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2)
COMPARED = "import json\ndef f(v):\n    return v == json.loads({!r}), f'{{v}}', json.dumps(v)"


@settings(max_examples=60)
@given(st.data())
def test_a_member_of_any_enumeration_compares_and_formats_as_its_value(data: st.DataObject) -> None:
    members = data.draw(st.lists(MEMBERS, min_size=1, max_size=4, unique_by=repr))
    value = data.draw(st.sampled_from(members))
    keywords: dict[str, Any] = {"enum": members}
    if data.draw(st.booleans()):
        keywords["nullable"] = True
    definition = data.draw(st.booleans())
    spec = {"$ref": "#/$defs/D"} if definition else keywords
    result = call(spec, value, COMPARED.format(json.dumps(value)), defs={"D": keywords})
    assert (result.error, result.func_return) == (None, (True, f"{value}", json.dumps(value)))
    assert is_refused(call(spec, ["no", "member", 6], defs={"D": keywords}))


@pytest.mark.parametrize(("spec", "value", "wrong"), SCALARS)
def test_null_fits_what_is_nullable(spec: dict[str, Any], value: Any, wrong: Any) -> None:
    if "$ref" in json.dumps(spec):
        return
    for given_value in (None, value):
        result = call({**spec, "nullable": True, "default": value}, given_value)
        assert (result.error, result.func_return) == (None, (given_value, type(given_value).__name__))
    assert is_refused(call({**spec, "nullable": True}, wrong))


@given(st.sampled_from(["OneOf_1", "Text_date", "_text_of", "_one_of", "X, Text_date", "(Text_date, OneOf_1)"]))
@settings(max_examples=6)
def test_no_name_or_text_of_a_schema_is_taken_for_a_type_of_ours(name: str) -> None:
    text = f'a\n"""\nfrom _sandbox_types import {name}\nb'
    model = {"type": "object", "title": text, "description": text, "properties": {"x": {"type": "integer"}}}
    defs = {name: {**model, "required": ["x"]}}
    spec = {"$ref": f"#/$defs/{name}", "description": text}
    more = {"anyOf": [spec, {"enum": [1, None]}, {"type": "string", "format": "date"}], "description": text}
    for each in (spec, more):
        result = call(each, {"x": 1}, "def f(v):\n    return v.x", defs=defs)
        assert (result.error, result.func_return) == (None, 1)
        assert is_refused(call(each, {"x": "y"}, defs=defs))
