"""docs/values.md: its tables say what a tool really receives and gives back (sections 4 and 7)."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from wasm_sandbox import ErrorKind, Tool, run_tool

DOCUMENT = (Path(__file__).parents[1] / "docs" / "values.md").read_text(encoding="utf-8")
NAMES = {"date": date, "Decimal": Decimal, "PurePosixPath": PurePosixPath}

CLASSES = """
import calendar, dataclasses, enum, re
from collections import namedtuple
from datetime import date
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from pydantic import BaseModel, HttpUrl, SecretStr

class Model(BaseModel):
    x: int

@dataclasses.dataclass
class Data:
    y: int

class Colour(enum.Enum):
    RED = "red"

class Text(str): pass
class Plain: pass
Pair = namedtuple("Pair", "a b")
"""


def rows(columns: int) -> list[tuple[str, ...]]:
    """The rows of the table with so many columns, the cells without their backquotes."""
    lines = re.findall(r"^\| (.*) \|$", DOCUMENT, re.MULTILINE)
    cells = [tuple(cell.strip("`") for cell in line.split(" | ")) for line in lines]
    return [row for row in cells if len(row) == columns and row[0] not in ("---", "declared", "returned")]


def exact(value: Any) -> tuple[type, str]:
    return type(value), repr(value)


@pytest.mark.parametrize(("declared", "given", "received"), rows(3))
def test_an_argument_arrives_as_the_document_says(declared: str, given: str, received: str) -> None:
    """Section 4, W10."""
    spec = {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/A"}]} if " " in declared else {"type": declared}
    schema = {"parameters": {"properties": {"x": spec}, "required": ["x"]}}
    result = run_tool(Tool(name="f", source_code="def f(x):\n    return x", json_schema=schema), {"x": eval(given)})
    if received == "refused":
        assert result.error is not None
        assert result.error.kind is ErrorKind.BAD_ARGUMENTS
    else:
        assert result.error is None
        assert exact(result.func_return) == exact(eval(received))


@pytest.mark.parametrize(("returned", "received"), rows(2))
def test_a_value_comes_back_as_the_document_says(returned: str, received: str) -> None:
    """Section 7."""
    result = run_tool(Tool(name="f", source_code=f"{CLASSES}\ndef f():\n    return {returned}\n"))
    if received in [*ErrorKind]:
        assert result.error is not None
        assert result.error.kind == received
    else:
        assert result.error is None
        assert exact(result.func_return) == exact(eval(received, NAMES))


def test_the_tables_are_there() -> None:
    assert len(rows(3)) > 15
    assert len(rows(2)) > 10
