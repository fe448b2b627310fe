"""Tools made of functions and of sources: the derived JSON schema, and what is refused."""

from __future__ import annotations

import ast
import datetime
import enum
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
import pytest
from typing_extensions import TypedDict

from wasm_sandbox.errors import ToolSourceError
from wasm_sandbox.sandbox.wasm import run_tool
from wasm_sandbox.script.generate import generate_script
from wasm_sandbox.tool.definition import Tool


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Line(pydantic.BaseModel):
    """One line."""

    sku: str
    qty: int = pydantic.Field(1, ge=1, description="How many.")
    color: Color = Color.RED


@dataclass
class Point:
    x: float
    y: float = 0.0


class Options(TypedDict, total=False):
    fast: bool


def plain(a: int, b: str = "x", *, c: float, d: bool = False, e=None, f) -> None: ...  # type: ignore[no-untyped-def]  # parameters without a type are read, too


def documented(first: int, second: list[str], third: Annotated[int, pydantic.Field(description="own")]) -> None:
    """Short.

    Long text.

    Args:
        first: The first.
        second (list[str]): The second,
            over two lines.
        third: Loses.

    Returns:
        Nothing.
    """


def numpy_style(first: int) -> None:
    """Short.

    Parameters
    ----------
    first : int
        The first.
    """


def rest_style(first: int) -> None:
    """Short.

    :param first: The first.
    """


async def rich(
    *,
    line: Line,
    lines: list[Line],
    point: Point,
    options: Options,
    color: Color,
    choice: Literal["a", "b"],
    limited: Annotated[int, pydantic.Field(ge=0, le=9)],
    described: Annotated[str, "A text."],
    maybe: int | None,
    when: datetime.datetime,
    table: dict[str, float],
) -> None: ...


RICH_SOURCE = '''
import datetime as dt
import enum
from dataclasses import dataclass
from typing import Annotated, Literal, Optional
import pydantic
from pydantic import BaseModel
from typing_extensions import TypedDict
raise SystemExit("a source is never run")

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Line(BaseModel):
    """One line."""

    sku: str
    qty: int = pydantic.Field(1, ge=1, description="How many.")
    color: Color = Color.RED

@dataclass
class Point:
    x: float
    y: float = 0.0

class Options(TypedDict, total=False):
    fast: bool

Table = dict[str, float]

async def rich(
    *,
    line: Line,
    lines: "list[Line]",
    point: Point,
    options: Options,
    color: Color,
    choice: Literal["a", "b"],
    limited: Annotated[int, pydantic.Field(ge=0, le=9)],
    described: Annotated[str, "A text."],
    maybe: Optional[int],
    when: dt.datetime,
    table: Table,
): ...
'''


def properties(tool: Tool) -> dict[str, Any]:
    assert tool.json_schema is not None
    found: dict[str, Any] = tool.json_schema["parameters"]["properties"]
    return found


def properties_of(parameters: str, head: str = "") -> dict[str, Any]:
    return properties(Tool.from_source(f"{head}\ndef f({parameters}): ..."))


# --- From a function ----------------------------------------------------------------------------------


def test_the_schema_of_a_signature() -> None:
    tool = Tool.from_function(plain)
    assert tool.name == "plain"
    assert tool.source_code.startswith("def plain(")
    assert tool.json_schema == {
        "name": "plain",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "string", "default": "x"},
                "c": {"type": "number"},
                "d": {"type": "boolean", "default": False},
                "e": {"default": None},
                "f": {},
            },
            "required": ["a", "c", "f"],
        },
    }


def test_descriptions_come_from_the_docstring_unless_the_annotation_has_its_own() -> None:
    source = f"import pydantic\n{inspect.getsource(documented)}"
    tool = Tool.from_source(source)
    assert tool.description == "Short.\n\nLong text."
    descriptions = {name: found["description"] for name, found in properties(tool).items()}
    assert descriptions == {"first": "The first.", "second": "The second,\nover two lines.", "third": "own"}


@pytest.mark.parametrize("function", [numpy_style, rest_style])
def test_every_usual_docstring_style_is_read(function: Callable[..., None]) -> None:
    tool = Tool.from_function(function)
    assert tool.description == "Short."
    assert properties(tool) == {"first": {"type": "integer", "description": "The first."}}


def test_annotations_from_outside_a_function_do_not_go_along() -> None:
    with pytest.raises(ToolSourceError, match="rich takes from outside itself the names Color, Line, Options, Point"):
        Tool.from_function(rich)


def test_rich_annotations_have_pydantic_schemas() -> None:
    tool = Tool.from_source(RICH_SOURCE)
    found = properties(tool)
    line = {
        "description": "One line.",
        "properties": {
            "sku": {"title": "Sku", "type": "string"},
            "qty": {
                **{"default": 1, "description": "How many.", "minimum": 1},
                **{"title": "Qty", "type": "integer"},
            },
        },
        "required": ["sku"],
        "title": "Line",
        "type": "object",
    }
    color = {"enum": ["red", "blue"], "title": "Color", "type": "string"}
    shown = {**found["line"], "properties": {**found["line"]["properties"]}}
    assert shown["properties"].pop("color")["$ref"] == "#/$defs/Color"
    assert shown == line
    assert found["lines"] == {"type": "array", "items": {"$ref": "#/$defs/Line"}}
    assert found["point"]["type"] == found["options"]["type"] == "object"
    assert found["point"]["required"] == ["x"]
    assert "required" not in found["options"]
    assert found["color"] == color
    assert found["choice"] == {"type": "string", "enum": ["a", "b"]}
    assert found["limited"] == {"type": "integer", "minimum": 0, "maximum": 9}
    assert found["described"] == {"type": "string", "description": "A text."}
    assert found["maybe"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert found["when"] == {"type": "string", "format": "date-time"}
    assert found["table"] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert tool.json_schema is not None
    assert {*tool.json_schema["parameters"]["$defs"]} == {"Color", "Line"}


def test_reserved_and_variadic_parameters_are_not_in_the_schema() -> None:
    def f(self, agent_state, x, *rest, agent_id, **more): ...  # type: ignore[no-untyped-def]  # as tools are written

    assert [*properties(Tool.from_function(f))] == ["x"]


def test_types_without_a_json_schema_leave_the_parameter_untyped() -> None:
    found = properties(Tool.from_source("def f(a: type[int], b: object, c: Unknown, d: int) -> None: ..."))
    assert found["a"] == found["b"] == found["c"] == {}


def test_a_nested_function_goes_along_at_the_left_margin() -> None:
    def nested(x: int) -> int:
        text = """
left
"""
        return x + len(text)

    def also(x: int) -> int:
        return x

    for function in (nested, also):
        tool = Tool.from_function(function)
        compile(tool.source_code, "tool", "exec")
        assert properties(tool) == {"x": {"type": "integer"}}


def test_a_decorated_function_keeps_its_decorators() -> None:
    @__import__("functools").cache  # type: ignore[untyped-decorator]
    def f(x: int) -> None: ...

    tool = Tool.from_function(f)
    assert tool.name == "f"
    assert tool.source_code.startswith('@__import__("functools").cache')
    assert [*properties(tool)] == ["x"]


def test_what_is_no_function_with_a_source_is_refused() -> None:
    enclosed = 5

    def closure() -> int:
        return enclosed

    module: dict[str, Any] = {}
    exec("def made(): ...", module)
    with pytest.raises(ToolSourceError, match=r"enclosing function \(enclosed\)"):
        Tool.from_function(closure)
    with pytest.raises(ToolSourceError, match=r"Tool\.from_source"):
        Tool.from_function(module["made"])
    for thing in (lambda: 1, len, Point, functools.partial(plain), 5):
        with pytest.raises(ToolSourceError, match="not a function"):
            Tool.from_function(thing)  # type: ignore[arg-type]  # what is refused


# --- From a source ------------------------------------------------------------------------------------


def test_the_last_public_function_is_the_tool() -> None:
    source = "def a(): ...\nasync def b(): ...\ndef _c(): ...\nclass D:\n    def e(self): ..."
    assert Tool.from_source(source).name == "b"
    assert Tool.from_source(source, "a").name == "a"
    assert Tool.from_source(source, "_c").name == "_c"
    assert Tool.from_source("def _only(): ...").name == "_only"
    assert Tool.from_source("\ufeff" + source).source_code == "\ufeff" + source


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("x = (\n", None, "line 1"),
        ("def f():\n  pass\n pass", None, "line 3"),
        ("x = 1", None, "no function at its top level"),
        ("def f(): ...", "g", r"no function 'g'.*defines: f"),
        ("def f(): ...\0", None, "does not parse"),
        ("(" * 5000, None, "does not parse"),
    ],
)
def test_a_source_without_the_function_is_refused(source: str, name: str | None, message: str) -> None:
    with pytest.raises(ToolSourceError, match=message):
        Tool.from_source(source, name)


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("int", {"type": "integer"}),
        ("'int'", {"type": "integer"}),
        ("None", {"type": "null"}),
        ("Any", {}),
        ("int | str", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("list[list[str]]", {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
        ("Sequence[int]", {"type": "array", "items": {"type": "integer"}}),
        ("tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        ("Mapping[str, Any]", {"type": "object", "additionalProperties": True}),
        ("list", {"type": "array", "items": {}}),
        ("dict", {"type": "object", "additionalProperties": True}),
        ("Literal[-1, 'a', None]", {"enum": [-1, "a", None]}),
        ("Annotated[str, unknown(), 'Text']", {"type": "string", "description": "Text"}),
        # Parts that cannot be understood are any value; a whole that cannot is no type.
        ("list[Unknown]", {"type": "array", "items": {}}),
        ("Unknown", {}),
        ("os.PathLike", {}),
        ("print('x')", {}),
        ("int[str]", {}),
        ("[int]", {}),
        ("Callable[[int], int]", {}),
        ("'not python('", {}),
        ("__import__('os').environ", {}),
    ],
)
def test_an_annotation_is_read_without_running_it(annotation: str, schema: dict[str, Any]) -> None:
    assert properties_of(f"x: {annotation}") == {"x": schema}


AUTO_ENUM = "from enum import IntEnum, auto\nclass E(IntEnum):\n    A = auto()\n    B = 7"
TEXT_ENUM = "from enum import Enum\nclass E(str, Enum):\n    A = 'a'\n    B = 'b'"


@pytest.mark.parametrize(
    ("head", "annotation", "schema"),
    [
        ("from datetime import date as D", "D", {"type": "string", "format": "date"}),
        ("import collections.abc as c", "c.Sequence[int]", {"type": "array", "items": {"type": "integer"}}),
        ("from decimal import *", "Decimal", {}),
        ("import uuid", "uuid.UUID", {"type": "string", "format": "uuid"}),
        ("import pathlib", "pathlib.Path", {"type": "string", "format": "path"}),
        ("from pydantic import conint", "conint(gt=3)", {"type": "integer", "exclusiveMinimum": 3}),
        ("from pydantic import conset", "conset(Any)", {"type": "array", "items": {}, "uniqueItems": True}),
        ("from pydantic import constr", "constr(pattern='(')", {}),
        ("from pydantic import constr", "constr(pattern=evil())", {"type": "string"}),
        ("from pydantic import PositiveInt", "PositiveInt", {"type": "integer", "exclusiveMinimum": 0}),
        ("from annotated_types import Ge", "Annotated[int, Ge(1)]", {"type": "integer", "minimum": 1}),
        ("if TYPE_CHECKING:\n    from uuid import UUID", "UUID", {"type": "string", "format": "uuid"}),
        ("Ids = list[int]", "Ids", {"type": "array", "items": {"type": "integer"}}),
        ("Ids: TypeAlias = 'list[Ids]'", "Ids", {"type": "array", "items": {}}),
        (AUTO_ENUM, "E", {"type": "integer", "enum": [1, 7], "title": "E"}),
        (TEXT_ENUM, "E", {"type": "string", "enum": ["a", "b"], "title": "E"}),
        ("from enum import Enum\nclass E(Enum):\n    mro = 1", "E", {}),
        ("from enum import Enum\nclass E(Enum):\n    A = evil()", "E", {}),
        ("class Other: ...", "Other", {}),
    ],
)  # fmt: skip
def test_names_are_looked_up_in_the_source(head: str, annotation: str, schema: dict[str, Any]) -> None:
    assert properties_of(f"x: {annotation}", head) == {"x": schema}


def test_classes_of_the_source_may_inherit_and_refer_to_themselves() -> None:
    head = (
        "from pydantic import BaseModel\n"
        "class Base(BaseModel):\n    _hidden: int = 0\n    K: ClassVar[int] = 1\n    a: int\n"
        "class Node(Base):\n    schema: str = evil()\n    next: Optional['Node'] = None\n"
    )
    found = properties_of("x: Node", head)["x"]
    assert {*found["properties"]} == {"a", "schema", "next"}
    assert found["required"] == ["a"]
    assert found["properties"]["next"]["anyOf"] == [{}, {"type": "null"}]


def test_types_that_grow_without_bound_are_not_read() -> None:
    aliases = "\n".join(f"A{i + 1} = tuple[A{i}, A{i}]" for i in range(60))
    assert properties_of("x: A60, y: int", f"A0 = int\n{aliases}")["x"].get("type") in (None, "array")
    classes = "\n".join(f"class A{i + 1}(BaseModel):\n    a: A{i}\n    b: A{i}" for i in range(60))
    head = f"from pydantic import BaseModel\nA0 = int\n{classes}"
    assert properties_of("x: A10", head)["x"]["type"] == "object"


def test_named_tuples_and_partly_required_dictionaries_are_read() -> None:
    head = "class P(NamedTuple):\n    a: int\n    b: str\nclass D(TypedDict):\n    a: int\n    b: NotRequired[int]\n"
    found = properties_of("p: P, d: D", head)
    assert [item["type"] for item in found["p"]["prefixItems"]] == ["integer", "string"]
    assert found["d"]["required"] == ["a"]


def test_defaults_are_shown_if_they_are_literal_json() -> None:
    found = properties_of("a=1, b=None, c=[1, {'k': 'v'}], d=evil(), e=1e999, f=(1,), g=-2, h={1: 2}")
    defaults = {name: schema.get("default", "none") for name, schema in found.items()}
    assert defaults == {
        **{"a": 1, "b": None, "c": [1, {"k": "v"}], "d": "none"},
        **{"e": "none", "f": "none", "g": -2, "h": "none"},
    }


# --- The tool -----------------------------------------------------------------------------------------


def test_a_tool_cannot_be_changed_and_knows_its_fields() -> None:
    tool = Tool(name="a", source_code="def a(): ...", id="tool-1")
    with pytest.raises(pydantic.ValidationError):
        tool.name = "b"  # type: ignore[misc]  # what is refused
    with pytest.raises(pydantic.ValidationError):
        Tool(name="a", source_code="", other=1)  # type: ignore[call-arg]  # what is refused


def test_arguments_are_read_by_the_derived_types() -> None:
    tool = Tool.from_source("def f(line: dict, limited: int, maybe: int | None): ...")
    script = generate_script(tool, {"line": '{"sku": "a"}', "limited": "5", "maybe": None})
    assert "\nline = {'sku': 'a'}\nlimited = 5\nmaybe = None\n" in script.text


def test_a_parse_that_another_thread_disturbed_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython up to 3.12 ends one in many millions with SystemError; it cannot be brought about at will."""
    parse, disturbed = ast.parse, iter([True, True, False])

    def sometimes(*args: Any, **options: Any) -> Any:
        if next(disturbed, False):
            raise SystemError("AST constructor recursion depth mismatch (before=63, after=66)")
        return parse(*args, **options)

    monkeypatch.setattr(ast, "parse", sometimes)
    tool = Tool.from_source("def disturbed(x: int) -> int:\n    return x + 1\n")
    assert run_tool(tool, {"x": 1}).func_return == 2
