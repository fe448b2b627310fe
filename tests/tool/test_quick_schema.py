"""The schemas of everyday types are the ones that pydantic gives."""

from __future__ import annotations

import functools
import json
import operator
import typing
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from wasm_sandbox.tool.definition import Tool
from wasm_sandbox.tool.quick_schema import quick_schema

_ATOMS = [bool, int, float, str, None, Any, object, list, dict, typing.List, typing.Dict]  # noqa: UP006 - what is read
_OF_ONE: list[Any] = [list, typing.List, Optional]  # noqa: UP006 - what is read
_TABLES: list[Any] = [dict, typing.Dict]  # noqa: UP006 - what is read


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    of_text = st.tuples(st.just(str), inner)
    return st.one_of(
        *[inner.map(functools.partial(operator.getitem, kind)) for kind in _OF_ONE],
        *[of_text.map(functools.partial(operator.getitem, kind)) for kind in _TABLES],
    )


@given(st.recursive(st.sampled_from(_ATOMS), _larger, max_leaves=6))
def test_a_simple_schema_is_pydantics_to_the_letter(annotation: Any) -> None:
    assert json.dumps(quick_schema(annotation)) == json.dumps(TypeAdapter(annotation).json_schema())


@pytest.mark.parametrize(
    "annotation", [bytes, set[int], tuple[int, str], dict[int, str], int | str, int | str | None, typing.Literal["a"]]
)
def test_other_types_are_left_to_pydantic(annotation: Any) -> None:
    assert quick_schema(annotation) is None


def test_simple_and_other_parameters_go_together() -> None:
    tool = Tool.from_source("def f(a: int, b: set[str], c, d: dict[str, list[int]] = {}):\n    pass")
    assert tool.json_schema is not None
    assert tool.json_schema["parameters"]["properties"] == {
        "a": {"type": "integer"},
        "b": {"items": {"type": "string"}, "type": "array", "uniqueItems": True},
        "c": {},
        "d": {"additionalProperties": {"items": {"type": "integer"}, "type": "array"}, "type": "object", "default": {}},
    }
