"""JSON as text for an optional list (crewAI 611, fastmcp 4784): it arrived as the text.

Arguments of optional parameters are converted as those of the type beside null.
"""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, Tool, run_tool
from wasm_sandbox.errors import BadArguments
from wasm_sandbox.script.arguments import argument_literals

TYPES: dict[str, list[Any]] = {
    "int": [5, "5", " 7 ", 5.9, True, "x", [], "5.0"],
    "bool": [True, "false", " TRUE ", 0, 1, 2, "yes", []],
    "float": [1.5, "1.5", 2, "x", True],
    "str": ["a", "null", "[1]", "5", 5, True],
    "list[str]": [["a"], '["a"]', "[]", "x", '{"a": 1}'],
    "list": [[1], "[1]", "a"],
    "dict[str, int]": [{"a": 1}, '{"a": 1}', "[1]"],
    "dict": [{}, "{}", "a"],
}
WAYS = [
    "Optional[{}]",
    "Union[{}, None]",
    "{} | None",
    "None | {}",
    "Union[None, {}]",
    "Annotated[Optional[{}], 'text']",
]


def converted(annotation: str, value: Any, default: str = "") -> Any:
    """What arrives, or the refusal without the argument's name."""
    tool = Tool.from_source(f"def f(v: {annotation}{default}): return v")
    try:
        return ast.literal_eval(argument_literals(tool.json_schema, {"v": value}, derived=True)["v"])
    except BadArguments as error:
        return str(error)


CASES = [(kind, value) for kind, values in TYPES.items() for value in values]


@given(case=st.sampled_from(CASES), way=st.sampled_from(WAYS), default=st.sampled_from(["", " = None"]))
@settings(max_examples=400)
def test_an_optional_parameter_is_converted_as_the_type_beside_null(
    case: tuple[str, Any], way: str, default: str
) -> None:
    kind, value = case
    expected = converted(kind, value)
    found = converted(way.format(kind), value, default)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("kind", TYPES)
def test_null_and_its_text_are_none_where_no_text_is_meant(kind: str) -> None:
    assert converted(f"{kind} | None", None) is None
    assert converted(f"{kind} | None", "null") == ("null" if kind == "str" else None)


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        ("int | str | None", "5", "5"),
        ("list[int] | int | None", "[5]", [5]),
        ("list[int] | int | None", "5", 5),
        ("list[int] | dict[str, int]", '{"a": 1}', {"a": 1}),
        ("int | bool | None", "true", True),
        ("list[int] | str", "[5]", "[5]"),
    ],
)
def test_of_several_types_the_first_that_fits_counts_unless_it_may_be_text(
    annotation: str, value: str, expected: object
) -> None:
    assert converted(annotation, value) == expected


def test_in_the_guest() -> None:
    tool = Tool.from_source("def f(tags: Optional[list[str]] = None, on: Optional[bool] = None): return [tags, on]")
    assert run_tool(tool, {"tags": '["ab"]', "on": "false"}).func_return == [["ab"], False]
    assert run_tool(tool, {"tags": None}).func_return == [None, None]
    result = run_tool(tool, {"on": "perhaps"})
    assert result.error is not None
    assert (result.error.kind, "argument 'on'" in result.error.message) == (ErrorKind.BAD_ARGUMENTS, True)


def test_a_schema_given_by_hand_passes_a_choice_on_as_it_is() -> None:
    spec = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert argument_literals({"parameters": {"properties": {"v": spec}}}, {"v": "5"}) == {"v": "'5'"}
