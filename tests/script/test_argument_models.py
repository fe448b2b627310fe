"""Tools with an argument schema: what they receive, what is refused and how, all in the real guest."""

from __future__ import annotations

import ast
import datetime
import enum
import ipaddress
import json
import math
import sys
import time
import unicodedata
import uuid
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import wasm_sandbox.script.argument_models
from wasm_sandbox import ErrorKind, Tool, ToolExecutionResult, WasmToolSandbox, run_tool
from wasm_sandbox.errors import ArgumentSchemaError
from wasm_sandbox.script.argument_models import argument_models
from wasm_sandbox.script.generate import RESULT_VAR_NAME, generate_script

pytestmark = pytest.mark.usefixtures("unhurried")

ECHO = "def tool(**given):\n    return given"
KINDS = "def tool(**given):\n    return {name: type(value).__name__ for name, value in given.items()}"


def schema_of(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


def tool_with(schema: dict[str, Any], source: str = ECHO, name: str = "tool", declared: Any = None) -> Tool:
    json_schema: dict[str, Any] | None = (
        None if declared is None else {"parameters": {"properties": {key: {} for key in declared}}}
    )
    return Tool(name=name, source_code=source, args_json_schema=schema, json_schema=json_schema)


def call(schema: dict[str, Any], args: dict[str, Any], source: str = ECHO, **options: Any) -> Any:
    result = run_tool(tool_with(schema, source, **options), args)
    assert result.success_flag, result.error
    return result.func_return


def refused(schema: dict[str, Any], args: dict[str, Any], source: str = ECHO) -> str:
    """The message of a refusal that is no fault of the tool's code."""
    result = run_tool(tool_with(schema, source), args)
    assert result.error is not None
    assert result.error.kind is ErrorKind.BAD_ARGUMENTS
    return result.error.message


def script_of(schema: dict[str, Any], args: dict[str, Any], source: str = ECHO, **options: Any) -> str:
    return generate_script(tool_with(schema, source, **options), args).text


# -- the text -------------------------------------------------------------------------------------------


def test_the_blocks_stand_where_the_layout_has_them() -> None:
    """Sections 3 and 5: models after the client import, the arguments read from ``args_object``."""
    source = "def add(x, y):\n    return x + y\n"
    text = script_of(
        schema_of({"x": {"type": "integer"}, "y": {"type": "integer"}}, title="AddArgs", required=["x", "y"]),
        {"x": 2, "y": 3},
        source,
        name="add",
        declared=["x", "y"],
    )
    models = "from pydantic import BaseModel\n\n\nclass AddArgs(BaseModel):\n    x: int\n    y: int"
    assert f"    Letta = None\n{models}\nagent_state = None\n# Initialize Letta client" in text
    assert (
        "            api_key=os.getenv('LETTA_API_KEY')\n        )\n"
        "args_object = AddArgs(**{'x': 2, 'y': 3})\nx = args_object.x\ny = args_object.y\n"
        "def add(x, y):\n    return x + y\n_function_result = add(x=x, y=y)\n"
    ) in text


def test_without_arguments_the_models_still_check_that_none_is_missing() -> None:
    """Section 5."""
    assert "args_object = Model(**{})\ndef tool" in script_of(schema_of({"x": {}}), {})
    assert call(schema_of({"x": {"type": "integer"}}), {}) == {}
    assert "Field required" in refused(schema_of({"x": {"type": "integer"}}, required=["x"]), {})


def test_an_empty_schema_counts_as_none() -> None:
    """Section 3."""
    assert "args_object" not in script_of({}, {})


def test_an_omitted_argument_leaves_the_tools_own_default() -> None:
    """Section 5."""
    schema = schema_of({"x": {"type": "integer", "default": 1}, "y": {"type": "integer"}})
    assert call(schema, {"y": 2}, "def tool(x=7, y=8):\n    return [x, y]") == [7, 2]


def test_only_arguments_of_the_json_schema_are_passed_on() -> None:
    """Section 6: that filter holds here too; without a JSON schema all are passed."""
    schema = schema_of({"x": {}, "y": {}})
    assert call(schema, {"x": 1, "y": 2}, declared=["x"]) == {"x": 1}
    assert call(schema, {"x": 1, "y": 2}) == {"x": 1, "y": 2}


def test_the_injected_value_wins_over_an_argument_of_that_name() -> None:
    """W15."""
    source = "def tool(x, agent_id, agent_state):\n    return x, agent_id, agent_state.n"
    tool = tool_with(schema_of({"x": {}, "agent_id": {"type": "integer"}}), source, declared=["x", "agent_id"])
    result = run_tool(tool, {"x": 1, "agent_id": "many"}, agent_id="agent-1", agent_state={"n": 5})
    assert result.func_return == (1, "agent-1", 5)


def test_what_is_injected_need_not_be_given_even_if_the_schema_requires_it() -> None:
    """W15."""
    schema = schema_of({"x": {}, "agent_id": {"type": "string"}}, required=["x", "agent_id"])
    tool = tool_with(schema, "def tool(x, agent_id):\n    return x, agent_id")
    assert run_tool(tool, {"x": 1}, agent_id="agent-1").func_return == (1, "agent-1")
    error = run_tool(tool, {}, agent_id="agent-1").error
    assert error is not None
    assert "Field required" in error.message


# -- what a tool receives -------------------------------------------------------------------------------


class Colour(str, enum.Enum):  # noqa: UP042 - agent servers have such
    RED = "red"
    SEA = "sea green"


class Line(pydantic.BaseModel):
    sku: Annotated[str, pydantic.Field(pattern=r"^[A-Z]\d+$", description="a \"quoted\"\n'text' \\")]
    quantity: Annotated[int, pydantic.Field(ge=1, le=9)] = 1
    note: str | None = None
    tags: list[str] = ["it's", 'a "tag"\n']


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    friends: "list[Dog]" = []  # noqa: UP037 - pydantic reads the text


class Order(pydantic.BaseModel):
    """An order; it's "quoted"."""

    lines: list[Line]
    colour: Colour = Colour.RED
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")] | None = None
    either: int | str | None = None
    prices: dict[str, float] = {}
    point: tuple[int, str] | None = None
    when: datetime.datetime | None = None
    due: datetime.date | None = None
    total: Decimal = Decimal("1.5")
    id: uuid.UUID | None = None
    from_: str = pydantic.Field("nowhere", alias="from")


ORDER = {
    "lines": [{"sku": "A1"}, {"sku": "B2", "quantity": "3", "note": "n"}],
    "colour": "sea green",
    "pet": {"kind": "dog", "friends": [{"kind": "dog"}]},
    "either": "x",
    "prices": {"a": 1.5},
    "point": [1, "a"],
    "when": "2024-01-02T03:04:05",
    "due": "2024-01-02",
    "total": "2.50",
    "id": "12345678-1234-5678-1234-567812345678",
    "from": "here",
}


def test_a_schema_of_pydantics_gives_the_values_of_its_model() -> None:
    """W11: nested models, recursion, enums, unions, constraints, defaults and aliases."""
    received = call(Order.model_json_schema(), ORDER)
    plain_line = {"quantity": 1, "note": None, "tags": ["it's", 'a "tag"\n']}
    assert received == {
        "lines": [{"sku": "A1"} | plain_line, {"sku": "B2"} | plain_line | {"quantity": 3, "note": "n"}],
        "colour": "sea green",
        "pet": {"kind": "dog", "friends": [{"kind": "dog", "friends": []}]},
        "either": "x",
        "prices": {"a": 1.5},
        "point": (1, "a"),
        "when": "2024-01-02T03:04:05",
        "due": "2024-01-02",
        "total": "2.50",
        "id": "12345678-1234-5678-1234-567812345678",
        "from": "here",
    }


def test_models_arrive_as_models_and_enums_as_members_that_equal_their_text() -> None:
    """Section 5."""
    source = """
def tool(lines, colour, pet):
    first = lines[0]
    assert isinstance(first, Line) and isinstance(pet, Dog), type(first)
    assert colour == "red" and colour is Colour.red and f"{colour}" == "red", colour
    return first.sku, first.model_dump()["quantity"], pet.friends
"""
    args = {"lines": [{"sku": "A1"}], "colour": "red", "pet": {"kind": "dog"}}
    assert call(Order.model_json_schema(), args, source) == ("A1", 1, [])


def test_members_of_an_enum_without_a_type_equal_their_values_too() -> None:
    """Section 5."""
    schema = schema_of({"word": {"enum": ["a", "b"]}, "number": {"enum": [1, 2]}})
    source = "def tool(word, number):\n    return word == 'a', number == 1, {word: number}['a']"
    assert call(schema, {"word": "a", "number": 1}, source) == (True, True, 1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, ["1 validation error for Order", "lines", "Field required"]),
        ({"lines": [{"sku": "A1"}, {"sku": "b"}]}, ["lines.1.sku", "String should match pattern"]),
        ({"lines": [{"sku": "A1", "quantity": 10}]}, ["lines.0.quantity", "less than or equal to 9"]),
        ({"lines": [], "colour": "blue"}, ["colour", "Input should be 'red' or 'sea green'"]),
        ({"lines": [], "pet": {"kind": "cow"}}, ["pet", "Input should be 'cat'"]),
        ({"lines": [], "due": "tomorrow"}, ["due", "valid date"]),
        ({"lines": [], "from": 5}, ["from", "valid string"]),
        ({"lines": [], "prices": {"a": "b"}}, ["prices.a", "valid number"]),
        ({"lines": [], "pet": {"kind": "dog", "friends": [{"kind": "cat"}]}}, ["friends.0.kind"]),
    ],
)
def test_what_does_not_fit_is_bad_arguments_with_pydantics_message(args: dict[str, Any], words: list[str]) -> None:
    """W11."""
    message = refused(Order.model_json_schema(), args)
    assert all(word in message for word in words), message


def test_a_refusal_by_the_models_has_its_exception_and_friendly_text() -> None:
    """Section 10."""
    result = run_tool(tool_with(schema_of({"x": {"type": "integer"}}), "print('never')\n" + ECHO), {"x": "many"})
    assert result.error is not None
    assert result.error.exception_name == "ValidationError"
    assert result.func_return.startswith("Error executing function tool: ValidationError: 1 validation error for Model")
    assert (result.stdout, result.agent_state) == ([], None)
    assert result.usage is not None


def test_a_refusal_with_a_very_long_message_is_still_one() -> None:
    schema = schema_of({"x": {"type": "array", "items": {"type": "integer"}}})
    assert refused(schema, {"x": ["many"] * 5000}).startswith("5000 validation errors for Model")


NODE = {"Node": schema_of({"next": {"$ref": "#/$defs/Node"}, "leaf": {"$ref": "#/$defs/Leaf"}})}
LEAF = {"Leaf": schema_of({"n": {"type": "integer"}, "up": {"$ref": "#/$defs/Node"}})}


@pytest.mark.parametrize("definitions", [NODE | LEAF, LEAF | NODE], ids=["used first", "defined first"])
def test_definitions_may_stand_in_any_order_and_refer_to_each_other(definitions: dict[str, Any]) -> None:
    """W11."""
    schema = schema_of({"node": {"$ref": "#/$defs/Node"}}, **{"$defs": definitions})
    node = {"next": {"next": None, "leaf": None}, "leaf": {"n": 1, "up": {"next": None, "leaf": None}}}
    assert call(schema, {"node": {"next": {}, "leaf": {"n": "1", "up": {}}}}) == {"node": node}


def test_the_top_level_may_refer_to_a_definition_or_be_referred_to() -> None:
    """W11: the schema that pydantic makes of a model which contains itself."""
    schema = {"$ref": "#/$defs/Node", "$defs": {"Node": schema_of({"next": {"$ref": "#/$defs/Node"}, "n": {}})}}
    assert call(schema, {"n": 1, "next": {"n": 2}}) == {"n": 1, "next": {"n": 2, "next": None}}
    assert call(schema_of({"self": {"$ref": "#"}}), {"self": {"self": {}}}) == {"self": {"self": {"self": None}}}


@pytest.mark.parametrize(
    ("spec", "value", "received"),
    [
        ({"type": "number"}, math.inf, math.inf),
        ({"type": "number"}, 1, 1.0),
        ({"type": ["integer", "null"]}, None, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, "5", 5),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "a", "a"),
        ({"oneOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "integer"}}]}, ["1"], [1]),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, 3, 3),
        ({"enum": ["a", 1, None, 1.5]}, None, None),
        ({"enum": ["a", 1, None, 1.5]}, "a", "a"),
        ({"type": "integer", "enum": [1, 2]}, 2, 2),
        ({"type": "string", "enum": ["name", "value", "mro", "", "import os", "a'\"\n"]}, "a'\"\n", "a'\"\n"),
        ({"const": "x"}, "x", "x"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, ["b"], ["b"]),
        ({"type": "array", "minItems": 1, "maxItems": 2, "uniqueItems": True}, [1], [1]),
        ({"type": "array", "items": [{"type": "integer"}]}, [1], [1]),
        ({"type": "object"}, {"a": [1, None]}, {"a": [1, None]}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "1"}, {"a": 1}),
        ({"type": "object", "patternProperties": {"^a": {"type": "integer"}}}, {"a": "1"}, {"a": 1}),
        (schema_of({"class": {"type": "integer"}}), {"class": "1"}, {"class_": 1}),
        ({}, {"any": [1, "x"]}, {"any": [1, "x"]}),
        (True, "x", "x"),
        ({"type": "string"}, "é\n'\"\\{}%s", "é\n'\"\\{}%s"),
        ({"type": "string", "pattern": "^(?=a)(?!ab)"}, "ac", "ac"),
    ],
)
def test_what_arrives_for_a_property(spec: Any, value: Any, received: Any) -> None:
    """Section 5, W11."""
    arrived = call(schema_of({"x": spec}, required=["x"]), {"x": value})["x"]
    assert arrived == received
    assert type(arrived) is type(received)


def test_nan_survives() -> None:
    """W6, W11."""
    assert math.isnan(call(schema_of({"x": {"type": "number"}}), {"x": math.nan})["x"])


@pytest.mark.parametrize(
    ("declared", "value", "received"),
    [
        ("date", "2024-01-02", datetime.date(2024, 1, 2)),
        ("time", "03:04:05", datetime.time(3, 4, 5)),
        ("date-time", "2024-01-02T03:04:05", datetime.datetime(2024, 1, 2, 3, 4, 5)),
        ("date-time-local", "2024-01-02T03:04:05", datetime.datetime(2024, 1, 2, 3, 4, 5)),
        ("time-local", "03:04:05", datetime.time(3, 4, 5)),
        ("duration", "PT1H", datetime.timedelta(hours=1)),
        ("uuid", "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
        ("uuid1", "b54adc00-67f9-11d9-9669-0800200c9a66", uuid.UUID("b54adc00-67f9-11d9-9669-0800200c9a66")),
        ("uuid3", "6fa459ea-ee8a-3ca4-894e-db77e160355e", uuid.UUID("6fa459ea-ee8a-3ca4-894e-db77e160355e")),
        ("uuid4", "16fd2706-8baf-433b-82eb-8c7fada847da", uuid.UUID("16fd2706-8baf-433b-82eb-8c7fada847da")),
        ("uuid5", "886313e1-3b8a-5372-9b90-0c9aee199e5d", uuid.UUID("886313e1-3b8a-5372-9b90-0c9aee199e5d")),
        ("ipv4", "127.0.0.1", ipaddress.ip_address("127.0.0.1")),
        ("ipv6", "::1", ipaddress.ip_address("::1")),
        ("ipv4-network", "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
        ("ipv6-network", "fe80::/10", ipaddress.ip_network("fe80::/10")),
        ("hostname", "example.org", "example.org"),
        ("byte", "aGk=", "hi"),
        ("binary", "hi", b"hi"),
        ("decimal", "1.50", Decimal("1.50")),
        ("path", "/a/b", PurePosixPath("/a/b")),
        *[(name, "any text", "any text") for name in ("email", "idn-email", "ulid", "regex", "iri", "json-pointer")],
        *[(name, "any text", "any text") for name in ("uri-reference", "no-such-format", "int32")],
    ],
)
def test_what_arrives_for_a_format(declared: str, value: str, received: Any) -> None:
    """W11: a text, unless the tool's annotation asks for an object; what the guest cannot check is a plain string."""
    schema = schema_of({"x": {"type": "string", "format": declared}})
    assert call(schema, {"x": value}) == {"x": value}
    names = "datetime, decimal, ipaddress, pathlib, uuid, pydantic"
    annotated = f"import {names}\ndef tool(x: {type(received).__name__!r}):\n    return x"
    annotated = annotated.replace("'str'", "'Base64Str'").replace("IPv4Network", "ipaddress.IPv4Network")
    assert call(schema, {"x": value}, annotated) == received


def test_a_moment_with_a_zone_keeps_it() -> None:
    schema = schema_of({"x": {"type": "string", "format": "date-time"}})
    source = "import datetime\ndef tool(x: datetime.datetime):\n    return x.isoformat()"
    assert call(schema, {"x": "2024-01-02T03:04:05+02:00"}, source) == "2024-01-02T03:04:05+02:00"


def test_formats_whose_values_are_objects_of_pydantics() -> None:
    """Section 5: an address and a password arrive as in any pydantic model."""
    schema = schema_of({"u": {"type": "string", "format": "uri"}, "p": {"type": "string", "format": "password"}})
    source = "import pydantic\ndef tool(u: pydantic.AnyUrl, p: pydantic.SecretStr):\n"
    source += "    return str(u), str(p), p.get_secret_value()"
    assert call(schema, {"u": "https://a.b/c", "p": "s3"}, source) == ("https://a.b/c", "**********", "s3")


@pytest.mark.parametrize("spec", [{"type": "integer", "format": "int64"}, {"type": "integer", "format": "date-time"}])
def test_a_format_of_a_number_never_makes_it_something_else(spec: dict[str, Any]) -> None:
    assert call(schema_of({"x": spec}), {"x": 5}) == {"x": 5}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def specs_with_values(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[dict[str, Any], Any]]:
    """A schema of a type, alone or within others, and a value of it."""
    plain = values.map(lambda value: ({"type": kind}, value))
    return st.one_of(
        plain,
        values.map(lambda value: ({"type": kind, "default": value, "description": str(value)}, value)),
        values.map(lambda value: ({"anyOf": [{"type": kind}, {"type": "null"}]}, value)),
        st.lists(values, max_size=3).map(lambda items: ({"type": "array", "items": {"type": kind}}, items)),
        st.dictionaries(texts, values, max_size=3).map(
            lambda items: ({"type": "object", "additionalProperties": {"type": kind}}, items)
        ),
    )


specs = st.one_of(
    specs_with_values("string", texts),
    specs_with_values("integer", st.integers()),
    specs_with_values("number", st.floats(allow_nan=False, allow_infinity=False)),
    specs_with_values("boolean", st.booleans()),
    texts.map(lambda text: ({"const": text}, text)),
    texts.map(lambda text: ({"enum": [text, text + "'"]}, text)),
    json_values.map(lambda value: ({}, value)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(texts, specs, max_size=5))
@example({"0": ({}, 1), "\xa0": ({}, 2), "odd_0": ({}, 3), "odd_1": ({}, 4), "field_0": ({}, 5)})
def test_any_value_of_any_matching_schema_arrives_as_it_was_passed(case: dict[str, tuple[dict[str, Any], Any]]) -> None:
    """W6, W7, W11."""
    normal = {unicodedata.normalize("NFKC", name): name for name in case}
    args = {name: case[name][1] for name in normal.values()}
    received = call(schema_of({name: case[name][0] for name in args}), args)
    assert {normal.get(unicodedata.normalize("NFKC", name)): value for name, value in received.items()} == args


# -- extra arguments ------------------------------------------------------------------------------------


def test_an_argument_that_the_schema_lacks_is_refused_by_name() -> None:
    """W11."""
    message = refused(schema_of({"x": {}, "y": {}}), {"z": 1})
    assert message == "argument 'z': the tool's args_json_schema has no such property (it has: x, y)"
    assert "(it has: none)" in refused(schema_of({}, additionalProperties=False), {"z": 1})


def test_a_schema_that_takes_additional_properties_passes_them_on() -> None:
    """W11."""
    schema = schema_of({"x": {}}, additionalProperties={"type": "integer"})
    assert call(schema, {"x": 1, "class": "2", "model_extra": 3}) == {"x": 1, "class": 2, "model_extra": 3}
    assert "valid integer" in refused(schema, {"y": "many"})
    assert call(schema_of({}, additionalProperties=True), {"y": "many"}) == {"y": "many"}


def test_a_value_that_is_no_plain_data_is_refused() -> None:
    """Section 5."""
    assert "argument 'x'" in refused(schema_of({"x": {}}), {"x": object()})


# -- names ----------------------------------------------------------------------------------------------

NAMES = [
    *("sys", "pickle", "struct", "hashlib", "base64", "os", "asyncio", "client", "args_object", "Letta", "len", "str"),
    *("int", "list", "dict", "print", "type", "date", "Exception", "ImportError", "_function_result", "_wrapped", "e"),
    *("_TempResultWrapper", "_serialized_result", "_async_wrapper", "BaseModel", "Field", "Annotated", "Optional"),
    *("Any", "Model", "Colour", "tool", "class", "None", "self", "cls", "schema", "copy", "json", "model_config"),
    *("model_fields", "model_extra", "__init__", "__class__", "_private", "__dunder__", "datetime", "enum", "Enum"),
    *("super", "object", "property", "AgentState", RESULT_VAR_NAME, "", "a-b", "1", "a\nb", "x=1, **{}", "'", '"'),
    *("\\", "é", "日本", "a.b", "$ref", "#"),
]


def test_a_property_may_have_any_name() -> None:
    """W7, W8, W11: keywords, names of the script and of pydantic, and names that are no identifiers."""
    colour = {"enum": ["red"], "type": "string"}
    schema = schema_of({name: {"type": "string"} for name in NAMES}, **{"$defs": {"Colour": colour}})
    schema["properties"]["when"] = {"type": "string", "format": "date"}
    schema["properties"]["colour"] = {"$ref": "#/$defs/Colour"}
    args = {name: f"value of {name}" for name in NAMES}
    given = args | {"when": "2024-01-02", "colour": "red"}
    assert call(schema, given) == given


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "async "])
def test_each_of_these_names_works_alone(name: str, prefix: str) -> None:
    """W8: beside a tool that uses the script's globals."""
    source = f"{prefix}def tool(**k):\n    return k, sys.__name__, len([]), str(1), type(Optional[int]) is not None"
    assert call(schema_of({name: {"type": "string"}}), {name: "x"}, source) == ({name: "x"}, "sys", 0, "1", True)


def test_a_name_that_python_reads_as_another_is_passed_as_that() -> None:
    """W7."""
    assert call(schema_of({"\ufb01": {"type": "string"}}), {"\ufb01": "x"}) == {"fi": "x"}
    assert "as that of 'fi'" in refused(schema_of({"fi": {}, "\ufb01": {}}), {"fi": 1, "\ufb01": 2})


@pytest.mark.parametrize("prefix", ["", "async "])
def test_a_member_of_an_enum_may_be_returned_whatever_its_name(prefix: str) -> None:
    """W23."""
    schema = schema_of(
        {"list": {"enum": ["a", "b"]}, "x": {"$ref": "#/$defs/Exception"}},
        **{"$defs": {"Exception": {"enum": ["1", "b"]}}},
    )
    source = f"{prefix}def tool(list, x):\n    return list, x, type(x).__name__"
    assert call(schema, {"list": "b", "x": "1"}, source) == ("b", "1", "ExceptionSchema")


@pytest.mark.parametrize(
    "title",
    ["tool", "my args", "class", "123", "", " ", "add(1)", "a\nb", "'\"\\", "日本", "Exception", "BaseModel", 5],
)
def test_the_title_may_be_anything(title: Any) -> None:
    """W7, W11."""
    schema = schema_of({"x": {"type": "integer"}}, title=title)
    assert call(schema, {"x": "1"}, "def tool(x):\n    return [x, len([])]") == [1, 0]


DEFINITIONS = [
    "Exception",
    "ImportError",
    "List",
    "len",
    "sys",
    "Letta",
    "AgentState",
    "tool",
    "Tool",
    "a/b~c",
    "x.y",
    "日",
]


@pytest.mark.parametrize(
    "name", [*DEFINITIONS, "Model", "Optional", "Field", "BaseModel", "http://a/b", "", "args_object"]
)
@pytest.mark.parametrize("prefix", ["", "async ", "from __future__ import annotations\n", "globals\n"])
def test_a_definition_may_have_any_name(name: str, prefix: str) -> None:
    """W8: models that would hide a name which the script or the tool reads do not."""
    key = name.replace("~", "~0").replace("/", "~1")
    reference = {"$ref": f"#/$defs/{key}"}
    node = schema_of({"n": {"type": "integer"}, "next": reference, "day": {"type": "string", "format": "date"}})
    source = f"""{prefix}def tool(x, agent_state: AgentState):
    try:
        raise KeyError
    except Exception as error:
        return [x.next.n, len(List[int].__args__), type(error).__name__, issubclass(ImportError, Exception), Letta]
"""
    schema = schema_of({"x": reference}, **{"$defs": {name: node}})
    assert call(schema, {"x": {"next": {"n": "5"}}}, source) == [5, 1, "KeyError", True, None]


@pytest.mark.parametrize(
    "ending",
    [
        "args_object = None",
        "del args_object",
        "Model = 5",
        "globals().clear()",
        "x = 100",
        "BaseModel = Any = pickle = None",
        "from datetime import *",
    ],
)
@pytest.mark.parametrize("source", ["def tool(x): return x", "async def tool(x): return x", "def tool(x, /): return x"])
def test_a_tool_may_rebind_what_the_models_bind(source: str, ending: str) -> None:
    """W8."""
    body = f"{source}\n{ending}" if "clear" not in ending else f"{source.replace(': return', f': {ending}; return')}"
    assert call(schema_of({"x": {"type": "integer"}}), {"x": "5"}, body) == 5


def test_models_do_not_change_how_the_tools_source_is_compiled() -> None:
    """W12, W13: no future import of the models reaches the tool, and no text that looks like one is lost."""
    line = "from __future__ import annotations"
    schema = schema_of({"x": {"type": "string", "description": line, "default": line}, "y": {"const": line}})
    source = f"def tool(x: int, y: '{line}'):\n    return x, y, tool.__annotations__['x'] is int"
    assert call(schema, {"x": line, "y": line}, source) == (line, line, True)
    assert not script_of(schema, {"x": line}).startswith("from __future__")


@pytest.mark.parametrize(
    "text", ["'''", '"""', "\\", "\n", "\r\n", "\0", "\u2028", "{}", "%s", "'\"", "${x}", "é", "{{ 7 }}"]
)
def test_texts_in_a_schema_are_only_texts(text: str) -> None:
    """W11, W13: descriptions, titles, defaults and enum values with quotes, newlines and template syntax."""
    hostile = f"{text}); import os  # {text}"
    inner = schema_of({"d": {"type": "string", "default": hostile}}, description=hostile, title=hostile)
    schema = schema_of(
        {"x": inner, "e": {"enum": [hostile, "b"], "description": hostile, "title": hostile}},
        description=hostile,
        title=hostile,
    )
    source = "def tool(x, e):\n    return x.d, e, 'os' in globals()"
    assert call(schema, {"x": {}, "e": hostile}, source) == (hostile, hostile, True)
    assert len(ast.parse(argument_models(schema).source).body) == len(
        ast.parse(argument_models(json.loads(json.dumps(schema).replace(json.dumps(hostile)[1:-1], "t"))).source).body
    )


# -- whose error it is ----------------------------------------------------------------------------------

RAISES = """
from pydantic import BaseModel
class Model(BaseModel):
    x: int
{prefix}def {name}(x):
    {statement}
"""


@pytest.mark.parametrize("name", ["tool", "script"])
@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize(
    "statement", ["Model(x='many')", "args_object.model_validate({'y': 'many'})", "exec(\"Model(x='many')\")"]
)
def test_a_validation_error_that_the_tool_raises_is_the_tools(statement: str, prefix: str, name: str) -> None:
    """W11."""
    source = RAISES.format(prefix=prefix, name=name, statement=statement)
    result = run_tool(tool_with(schema_of({"x": {}, "y": {"type": "integer"}}), source, name), {"x": 5})
    assert result.error is not None
    assert (result.error.kind, result.error.exception_name) == (ErrorKind.TOOL_EXCEPTION, "ValidationError")


def test_a_validation_error_of_the_tools_with_a_very_long_message_is_the_tools() -> None:
    source = (
        "from pydantic import TypeAdapter\ndef tool(x):\n    TypeAdapter(list[int]).validate_python(['many'] * 5000)"
    )
    result = run_tool(tool_with(schema_of({"x": {}}), source), {"x": 5})
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION


@pytest.mark.parametrize("name", ["tool", "script"])
def test_an_exception_at_the_tools_top_level_is_the_tools_on_whatever_line(name: str) -> None:
    schema = schema_of({"x": {"type": "integer"}})
    lines = generate_script(tool_with(schema, ECHO), {"x": 1}).argument_lines
    for line in {line for span in lines for line in span}:
        source = "\n" * (line - 1) + f"raise KeyError('top')\ndef {name}(x): ..."
        error = run_tool(tool_with(schema, source, name), {"x": 1}).error
        assert error is not None
        assert (error.kind, error.exception_name) == (ErrorKind.TOOL_EXCEPTION, "KeyError")


def test_a_schema_that_pydantic_cannot_use_is_no_fault_of_the_tools_code() -> None:
    schema = schema_of({"x": {"type": "string", "pattern": "(unclosed"}})
    assert "regex" in refused(schema, {"x": "a"})


# -- the generator --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:9/x", "https://a/b#/c", "file:///etc/passwd", "other.json", "#a"]
)
def test_nothing_outside_the_schema_is_ever_read(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """W11: hostile schemas."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    assert "nothing is fetched" in refused(schema_of({"x": {"$ref": reference}}), {"x": 1})
    harmless = schema_of({"x": {"$ref": "#/$defs/A"}}, **{"$id": reference, "$schema": reference, "$defs": {"A": {}}})
    assert call(harmless, {"x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    "keyword",
    ["customTypePath", "customBasePath", "x-python-type", "x-python-import", "x-custom", "$comment"],
)
def test_vocabulary_of_generators_has_no_effect(keyword: str) -> None:
    """W11: hostile schemas."""
    schema = schema_of({"x": {"type": "string", keyword: "os.system"}}, **{keyword: "os.system"})
    assert argument_models(schema).source == argument_models(schema_of({"x": {"type": "string"}})).source


def test_nothing_of_a_schema_is_executed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """W6, W11: only the guest runs what was generated."""
    argument_models(_quoting("harmless"))  # imports what it needs
    ran: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: ran.append(event) if watching and event in ("exec", "os.system") else None)
    argument_models(_quoting("__import__('os').system('true')"))
    watching = False
    assert ran == []


def _quoting(code: str) -> dict[str, Any]:
    """Schema with a text wherever it may have one."""
    return schema_of(
        {"x": {"type": "string", "default": code, "pattern": code, "enum": [code]}, code: {"const": code}},
        title=code,
        **{"$defs": {code: {"enum": [code]}}},
    )


def test_a_schema_is_generated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of({"once": {"type": "integer"}})
    models = argument_models(schema)
    monkeypatch.setattr(wasm_sandbox.script.argument_models, "generate_code", None)
    assert argument_models(json.loads(json.dumps(schema))) is models


def test_a_refusal_is_remembered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of({"never": {"type": "string", "minLength": "many"}})
    with pytest.raises(ArgumentSchemaError, match="no models can be made"):
        argument_models(schema)
    monkeypatch.setattr(wasm_sandbox.script.argument_models, "generate_code", None)
    with pytest.raises(ArgumentSchemaError, match="minLength"):
        argument_models(schema)


def test_a_generation_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(*_: Any) -> None:
        while True:
            len("")

    argument_models(schema_of({"warm": {}}))
    monkeypatch.setattr(wasm_sandbox.script.argument_models, "MAX_SECONDS", 0.05)
    monkeypatch.setattr(wasm_sandbox.script.argument_models, "generate_code", forever)
    with pytest.raises(ArgumentSchemaError, match=r"more than 0\.05 seconds"):
        argument_models(schema_of({"slow": {}}))


def test_a_missing_generator_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    argument_models(schema_of({"warm": {}}))
    for name in [name for name in sys.modules if name.partition(".")[0] == "datamodel_code_generator"]:
        monkeypatch.setitem(sys.modules, name, None)
    schema = schema_of({"missing": {"type": "integer"}})
    with pytest.raises(ArgumentSchemaError, match=r"pip install 'wasm-sandbox\[schema\]'"):
        argument_models(schema)
    monkeypatch.undo()
    assert argument_models(schema).class_name == "Model"


async def test_the_event_loop_stays_free_while_models_are_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    original = wasm_sandbox.script.argument_models.generate_code

    def slow(*schema: Any) -> Any:
        time.sleep(0.3)
        return original(*schema)

    monkeypatch.setattr(wasm_sandbox.script.argument_models, "generate_code", slow)
    tool = tool_with(schema_of({"free": {}}))
    running = asyncio.create_task(WasmToolSandbox("tool", {"free": 1}, None, None, tool_object=tool).run())
    turns = 0
    while not running.done():
        await asyncio.sleep(0.01)
        turns += 1
    result: ToolExecutionResult = await running
    assert result.func_return == {"free": 1}
    assert turns > 10
