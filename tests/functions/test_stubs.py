"""What one writes about host functions in a prompt: stubs and JSON schemas, for every kind of parameter and type."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import datetime
import enum
import functools
import importlib
import inspect
import ipaddress
import json
import pathlib
import re
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypeVar

import mypy.api
import pytest
from jsonschema import Draft202012Validator
from pydantic import AnyUrl, BaseModel, Field, JsonValue, RootModel, SecretStr
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import TypedDict

from wasm_sandbox import HostFunction, Sandbox, Tool, host_function, run_code

T = TypeVar("T")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Ratio(enum.Enum):
    HALF = 0.5


class Leaf(BaseModel):
    colour: Colour = Colour.RED


class Tree(BaseModel):
    name: str
    below: list[Tree] = []
    leaf: Leaf | None = None
    title: str = Field("", alias="Title")
    items: list[int] = []


class Day(BaseModel):
    date: datetime.date
    before: datetime.date | None = None


class Boxed(BaseModel, Generic[T]):
    item: T


class Numbers(RootModel[list[int]]):
    pass


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)


@checked_dataclass
class Checked:
    n: int


class Row(TypedDict):
    a: int
    b: NotRequired[str]


class Place(NamedTuple):
    latitude: float
    longitude: float = 0.0


class Empty(BaseModel):
    pass


def every_kind(a: int, /, b: str = "x", *rest: bytes, c: float = 1.5, d: bool = True, **more: int) -> dict[str, int]:
    """Every kind of parameter.

    It "quotes" \\ and ends in a quotation mark: "so"
    """
    return {}


def no_types(a, /, b=None, *c, d, **e):  # type: ignore[no-untyped-def]
    """Nothing is said."""


def collections(
    a: list[tuple[int, str]], b: tuple[int, ...], c: tuple[()], d: set[str], e: frozenset[bytes], f: Mapping[str, Any],
    g: Sequence[int] = (), h: Iterable[str] = (), i: deque[int] = deque(), j: list = [], k: dict[str, list[int]] = {},  # type: ignore[type-arg]  # noqa: B006
) -> Any: ...  # fmt: skip


def unions(
    a: Optional[int],  # noqa: UP045 - spelled as users do
    b: int | str | None = None,
    c: Annotated[int, Field(gt=0, description="how many")] = 1,
    d: Literal["a", 1, None, b"x", Colour.BLUE] = "a",
    e: UserId = UserId(3),
    f: JsonValue = None,
) -> None: ...


def of_the_library(
    a: datetime.date, b: datetime.datetime, c: datetime.time, d: datetime.timedelta, e: Decimal, f: uuid.UUID,
    g: pathlib.Path, h: ipaddress.IPv4Address, i: ipaddress.IPv6Network, j: Fraction = Fraction(1, 2),
    k: re.Pattern[str] | None = None, m: Path = Path("x"), n: float = float("inf"), o: float = float("nan"),
) -> Any: ...  # fmt: skip


def enumerations(
    a: Colour, b: Rights, c: Ratio, d: HTTPStatus, e: Colour | None = Colour.BLUE, f: Rights = Rights.READ
) -> list[Colour]:
    return []


def by_fields(
    a: Tree, b: Point, c: Row, d: Place, e: Boxed[int], f: Numbers, g: Checked, h: Day, i: Empty
) -> Boxed[str]:
    return Boxed(item="")


def of_pydantic(a: AnyUrl, b: SecretStr, c: Callable[[int], str] | None = None) -> AnyUrl:
    return a


def list_(n: int) -> list[str]:
    return []


async def later(tree: list[Tree]) -> bool:
    return True


class Account:
    def __call__(self, amount: Decimal) -> Decimal:
        """Pay in."""
        return amount

    def draw(self, amount: int = 1) -> int:
        return amount

    @classmethod
    def of(cls, amount: int) -> int:
        return amount

    @staticmethod
    def fee(amount: int) -> int:
        return amount


TOOL = Tool.from_source(
    "def tool(a: int, b: list[str], c: str = 'x', d: dict[str, float] | None = None) -> int:\n"
    "    'A tool.'\n    return a"
)
DEFERRED = HostFunction.deferred("approve", question=str, tree=Tree, returns=Colour, doc="Ask.")

FUNCTIONS: list[Any] = [
    *(every_kind, no_types, collections, unions, of_the_library, enumerations, by_fields, of_pydantic, later, TOOL),
    *(host_function(name="list")(list_), DEFERRED, Account(), Account().draw, Account.of, Account.fee),
]


BOX = Sandbox(functions=FUNCTIONS)


def functions_in(text: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name: node for node in ast.parse(text).body if isinstance(node, kinds)}


def test_stubs_define_each_name_that_they_use() -> None:
    tree = ast.parse(BOX.functions.stubs())
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    defined |= {name.asname or name.name for node in imports for name in node.names}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used - defined <= set(dir(builtins))
    for node in imports:
        assert all(hasattr(importlib.import_module(node.module or ""), name.name) for name in node.names)


@pytest.mark.long
def test_a_type_checker_takes_stubs(tmp_path: Path) -> None:
    for module, functions in {"all": FUNCTIONS, "few": [every_kind], "none": []}.items():
        (tmp_path / f"{module}.pyi").write_text(Sandbox(functions=functions).functions.stubs())
    (tmp_path / "guest.py").write_text(GUEST)
    told, errors, _ = mypy.api.run(
        ["--config-file=", "--cache-dir", str(tmp_path / "cache"), *map(str, tmp_path.glob("*.py*"))]
    )
    assert told.splitlines()[-1].startswith("Success"), told + errors


GUEST = """
from all import by_fields, every_kind, later, enumerations, list

found = by_fields
every_kind(1, "y", b"z", c=2.0, more=3)
every_kind(1)["k"] + 1
enumerations("red", 3, 0.5, 200)[0] == "blue"
list(5)[0].upper()

def use() -> str:
    from all import Tree
    def look(tree: Tree) -> str:
        return tree.name + tree["name"] + tree.below[0].name
    return ""
"""


def test_stubs_say_what_the_guest_has() -> None:
    def find(query: str, colour: Colour = Colour.RED, *, near: Point | None = None) -> list[Tree]:
        """Find trees.

        Near a point.
        """
        return []

    assert Sandbox(functions=[find]).functions.stubs() == STUBS
    assert Sandbox(functions=[]).functions.stubs() == ""


STUBS = '''\
from typing import Any, Literal

class Record:
    """Fields, read as attributes or as keys; as an argument, give a dict of them."""

    def __getitem__(self, field: str) -> Any: ...

class Point(Record):
    x: float
    y: float = ...
    tags: list[str] = ...

class Tree(Record):
    name: str
    below: list[Tree] = ...
    leaf: Leaf | None = ...
    title: str = ...  # as an argument "Title"
    items: list[int] = ...  # read it as ["items"]

class Leaf(Record):
    colour: Literal['red', 'blue'] = ...

def find(query: str, colour: Literal['red', 'blue'] = 'red', *, near: Point | None = None) -> list[Tree]:
    """Find trees.

    Near a point.
    """
'''


def test_a_docstring_is_that_of_the_function_whatever_is_in_it() -> None:
    found = functions_in(BOX.functions.stubs())
    assert ast.get_docstring(found["every_kind"]) == inspect.getdoc(every_kind)
    assert ast.get_docstring(found["Account"]) == "Pay in."
    for text in ('"', '""" \\" \\', "ends in a quote\n\n  'x\"", "\\", "é\N{SNOWMAN}"):
        stubs = Sandbox(functions=[HostFunction.deferred("f", doc=text)]).functions.stubs()
        assert ast.get_docstring(functions_in(stubs)["f"]) == inspect.cleandoc(text)


def test_a_name_that_means_something_else_is_imported_by_another_one() -> None:
    stubs = BOX.functions.stubs()
    assert "from builtins import list as list_" in stubs
    assert "def list(n: int) -> list_[str]: ..." in stubs
    assert "class Day(Record):\n    date: date_\n    before: date_ | None = ..." in stubs
    other = dataclasses.make_dataclass("Tree", [("other", int)])

    def both(a: Tree, b: other) -> None: ...  # type: ignore[valid-type]

    both.__annotations__ = {"a": Tree, "b": other, "return": None}
    assert "def both(a: Tree, b: Tree_) -> None: ..." in Sandbox(functions=[both]).functions.stubs()


def test_stubs_of_modules() -> None:
    functions = Sandbox(functions={"crm": [every_kind], "files": [later]}).functions
    assert "# from crm import every_kind\n" in functions.stubs()
    assert "every_kind" not in functions.stubs("files")
    assert "async def later(tree: list[Tree]) -> bool: ..." in functions.stubs("files")
    with pytest.raises(KeyError):
        functions.stubs("nowhere")


def test_schemas_are_json_schemas_of_the_arguments() -> None:
    with warnings.catch_warnings(action="error"):
        schemas = {
            schema["name"]: schema for schema in json.loads(json.dumps(BOX.functions.schemas(), allow_nan=False))
        }
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema["parameters"])
    every = schemas["every_kind"]
    assert every["description"] == inspect.getdoc(every_kind)
    assert every["parameters"]["properties"]["b"] == {"type": "string", "default": "x"}
    assert every["parameters"]["additionalProperties"] == {"type": "integer"}
    assert every["parameters"]["required"] == ["a"]
    assert "more" not in every["parameters"]["properties"]
    assert schemas["no_types"]["parameters"]["additionalProperties"] is True
    assert "default" not in schemas["of_the_library"]["parameters"]["properties"]["n"]
    assert schemas["tool"]["parameters"]["properties"]["b"]["items"] == {"type": "string"}
    assert schemas["approve"]["parameters"]["required"] == ["question", "tree"]


def test_a_type_may_be_named_in_the_text_of_another() -> None:
    def plant(trees: list[Tree], by: dict[str, Tree | None]) -> list[Tree]:
        return [*trees, *filter(None, by.values())]

    code = "[tree.name for tree in plant([{'name': 'a'}], {'x': {'name': 'b'}, 'y': None})]"
    assert run_code(code, functions=[plant]).value == ["a", "b"]
    part = host_function(name="plant")(functools.partial(plant))
    assert run_code(code, functions=[part]).value == ["a", "b"]

    def lost(trees: list[Nowhere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ValueError, match="host function 'lost': a type in its signature is not found"):
        Sandbox(functions=[lost])


def test_a_tool_has_the_types_of_its_own_schema() -> None:
    stubs = Sandbox(functions=[TOOL]).functions.stubs()
    assert "def tool(a: int, b: list[str], c: str = 'x', d: dict[str, float] | None = None):" in stubs
