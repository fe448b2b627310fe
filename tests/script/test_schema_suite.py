"""The official tests of JSON Schema, each as one call of a tool whose argument has the schema."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from wasm_sandbox import ErrorKind, Tool, run_tool

SUITE = Path(__file__).parent / "json_schema_test_suite"
FILES = sorted(SUITE.glob("*/*.json"))
DRAFTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}

LOOK_ALIKES = {
    "a string is still not an integer, even if it looks like one",
    "a string is still not a number, even if it looks like one",
    "a boolean is not an integer",
    "a boolean is not a number",
    "an integer is not a boolean",
    "zero is not a boolean",
    "a boolean is invalid",
    "nested array with invalid type",
    "object with strings is invalid",
}
"""Tests whose value is of another type and looks like the right one, which models convert: docs/values.md says so."""

NOT_FOLLOWED = "only references into itself are followed", "which is not followed", "which is not there"
"""What is said of references by address: nothing is fetched, and no part of a schema is known by its address."""


def as_argument(schema: Any, draft: str) -> dict[str, Any]:
    """A schema of arguments of which ``value`` has the schema; references into that lead where it is now."""
    inner, top = copy.deepcopy(schema), dict[str, Any]()
    if isinstance(inner, dict):
        inner.pop("$schema", None)
        top = {key: inner.pop(key) for key in ("$defs", "definitions") if key in inner}

    def moved(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref" and isinstance(value, str) and value.startswith("#"):
                    if not value.startswith(("#/$defs", "#/definitions")):
                        node[key] = f"#/properties/value{value[1:]}"
                else:
                    moved(value)
        elif isinstance(node, list):
            for value in node:
                moved(value)

    moved(inner)
    moved(top)
    return {"$schema": draft, "type": "object", "properties": {"value": inner}, "required": ["value"], **top}


@cache
def verdicts(path: Path) -> dict[str, int]:
    """How many tests of a file came out right, and how many in each other way that is documented."""
    counts = dict.fromkeys(("right", "converted", "not followed"), 0)
    for group in json.loads(path.read_text(encoding="utf-8")):
        schema = as_argument(group["schema"], DRAFTS[path.parent.name])
        for test in group["tests"]:
            tool = Tool(
                name="f",
                source_code="def f(value):\n    return value\n",
                json_schema={"name": "f", "parameters": {"type": "object", "properties": {"value": {}}}},
                args_json_schema=schema,
            )
            result = run_tool(tool, {"value": test["data"]})
            name = f"{group['description']}: {test['description']}"
            if result.error is None and test["valid"]:
                counts["right"] += 1
            elif result.error is None:
                assert test["description"] in LOOK_ALIKES, name
                counts["converted"] += 1
            else:
                assert result.error.kind is ErrorKind.BAD_ARGUMENTS, (name, result.error)
                if test["valid"]:
                    assert any(words in result.error.message for words in NOT_FOLLOWED), (name, result.error.message)
                counts["not followed" if test["valid"] else "right"] += 1
    return counts


pytestmark = [pytest.mark.long, pytest.mark.usefixtures("unhurried")]


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}/{path.stem}" for path in FILES])
def test_what_the_standard_says_of_values_holds_for_arguments(path: Path) -> None:
    assert verdicts(path)["right"] > 0


def test_the_counts_are_those_of_the_documentation() -> None:
    total = dict.fromkeys(("right", "converted", "not followed"), 0)
    for path in FILES:
        for kind, count in verdicts(path).items():
            total[kind] += count
    document = (Path(__file__).parents[2] / "docs" / "values.md").read_text(encoding="utf-8")
    document = " ".join(document.split())
    said = f"{total['right']:,} of {sum(total.values()):,} tests"
    assert said in document, (said, total)
    assert f"{total['converted']} are of values that look like" in document, total
    assert f"{total['not followed']} refer to a schema by its address" in document, total
