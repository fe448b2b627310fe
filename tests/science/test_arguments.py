"""Arguments of numpy's and pandas' classes: JSON on the host, what the annotation says in the guest."""

from __future__ import annotations

from typing import Any

import pytest

from wasm_sandbox import ErrorKind, Tool, run_tool

HEAD = "import numpy as np, pandas as pd\nfrom numpy.typing import NDArray\n"
ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
_ARRAY = {"type": "array", "items": {}}
_TABLE = {"type": "array", "items": {"type": "object", "additionalProperties": True}}


def tool_of(signature: str, expression: str) -> Tool:
    return Tool.from_source(f"{HEAD}def f({signature}):\n    return {expression}")


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("pd.DataFrame", _TABLE),
        ("pd.Series", _ARRAY),
        ("np.ndarray", _ARRAY),
        ("NDArray[np.float64]", _ARRAY),
        ("np.ndarray[tuple[int, ...], np.dtype[np.int64]]", _ARRAY),
        ("np.float64", {"type": "number"}),
        ("np.int32", {"type": "integer"}),
        ("pd.Timestamp", {"type": "string", "format": "date-time"}),
        ("pd.Timedelta", {"type": "string", "format": "duration"}),
    ],
)
def test_the_schema_says_what_they_are_in_json(annotation: str, schema: dict[str, Any]) -> None:
    found = tool_of(f"x: {annotation}", "x").json_schema
    assert found is not None
    assert found["parameters"]["properties"]["x"] == schema


@pytest.mark.parametrize(
    ("signature", "value", "expression", "expected"),
    [
        ("x: pd.DataFrame", ROWS, "[type(x).__name__, int(x.a.sum()), list(x)]", ["DataFrame", 3, ["a", "b"]]),
        ("x: pd.DataFrame", b"a,b\n1,2\n3,4\n", "x", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        ("x: pd.DataFrame", '[{"a": 1}]', "x", [{"a": 1}]),
        ("x: pd.DataFrame", {"a": [1, 2]}, "x", [{"a": 1}, {"a": 2}]),
        ("x: pd.DataFrame | None = None", None, "x", None),
        ("x: 'pd.DataFrame | None' = None", ROWS, "len(x)", 2),
        ("x: list[pd.DataFrame]", [ROWS], "len(x[0])", 2),
        ("x: pd.Series", [1, 2], "[type(x).__name__, x.mean()]", ["Series", 1.5]),
        ("x: pd.Index", [1, 2], "type(x).__name__", "Index"),
        ("x: np.ndarray", [[1, 2], [3, 4]], "[x.dtype, x.shape, x.sum()]", ["int64", (2, 2), 10]),
        ("x: NDArray[np.float32]", [1, 2], "x.dtype", "float32"),
        ("x: np.ndarray[tuple[int], np.dtype[np.int16]]", [1, 2], "x.dtype", "int16"),
        ("x: dict[str, np.ndarray]", {"k": [1, 2]}, "x['k'].sum()", 3),
        (
            "x: np.ndarray",
            {"dtype": "float32", "shape": [2, 1], "data": [1, 2]},
            "[x.dtype, x.tolist()]",
            ["float32", [[1.0], [2.0]]],
        ),
        ("x: pd.Timestamp", "2024-01-02", "[type(x).__name__, x.day]", ["Timestamp", 2]),
        ("x: pd.Timedelta", "PT1H", "x.total_seconds()", 3600.0),
        ("x: np.int64", 3, "type(x).__name__", "int64"),
        ("x: np.float32", 1.5, "type(x).__name__", "float32"),
    ],
)
def test_the_guest_makes_what_the_annotation_says(signature: str, value: Any, expression: str, expected: Any) -> None:
    result = run_tool(tool_of(signature, expression), {"x": value}, image="science")
    assert result.status == "success", result.error
    assert result.func_return == expected


def test_a_model_may_have_fields_of_them() -> None:
    source = (
        "import pandas as pd\nfrom pydantic import BaseModel\nclass M(BaseModel):\n    df: pd.DataFrame\n"
        "def f(m: M):\n    return [m.df.a.sum(), m]"
    )
    result = run_tool(Tool.from_source(source), {"m": {"df": ROWS}}, image="science")
    assert result.func_return == [3, {"df": ROWS}]


def test_where_a_config_allows_any_class_pydantic_goes_on_to_ask_for_instances() -> None:
    code = (
        "import pandas as pd\nfrom pydantic import BaseModel, ConfigDict, ValidationError\n"
        "class M(BaseModel):\n    model_config = ConfigDict(arbitrary_types_allowed=True)\n    df: pd.DataFrame\n"
        "def f():\n    try:\n        M(df=[{'a': 1}])\n"
        "    except ValidationError as error:\n        return error.errors()[0]['type']"
    )
    assert run_tool(Tool.from_source(code), image="science").func_return == "is_instance_of"


@pytest.mark.parametrize(
    ("signature", "value", "words"),
    [
        ("x: pd.DataFrame", b"ARROW1\0\0", "Arrow cannot be read as an argument: give records"),
        ("x: pd.DataFrame", b"PAR1", "Parquet cannot be read"),
        ("x: pd.DataFrame", 3, "a DataFrame is made of records"),
        ("x: pd.Series", 3, "a Series is made of a list"),
        ("x: np.ndarray", [[1, 2], [3]], "inhomogeneous shape"),
        ("x: np.ndarray", [{}], "all of one kind"),
        ("x: NDArray[np.int64]", ["x"], "invalid literal"),
        ("x: np.int8", 1000, "out of bounds"),
        ("x: pd.Timestamp", "soon", "soon"),
    ],
)
def test_what_does_not_fit_is_a_bad_argument(signature: str, value: Any, words: str) -> None:
    error = run_tool(tool_of(signature, "x"), {"x": value}, image="science").error
    assert error is not None
    assert error.kind is ErrorKind.BAD_ARGUMENTS, error
    assert words in error.message
