"""A model or a date arrives as dict or text (letta 2615, strands 4383, pydantic-ai 2682), against the annotation.

Of a tool whose schema we derived, the guest validates and builds what the annotations say, by pydantic's
``validate_call``; what does not fit is ``bad_arguments``. Other tools keep their script to the byte.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, Tool, run_tool
from wasm_sandbox.script.blocks import BIND
from wasm_sandbox.script.generate import generate_script

HEAD = """
import collections, dataclasses, datetime, decimal, enum, fractions, ipaddress, pathlib, typing, uuid
from typing import *
from pydantic import BaseModel, Field, HttpUrl, SecretStr, PositiveInt
class Spot(BaseModel):
    town: str
    zoom: int = 3
class Trip(BaseModel):
    stops: list[Spot]
    day: datetime.date
@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2
class Pair(NamedTuple):
    a: int
    b: str
class Options(TypedDict):
    n: int
"""

FIT: dict[str, tuple[Any, str, Any]] = {
    "Spot": ({"town": "Ulm"}, "Spot(town='Ulm', zoom=3)", {"zoom": 1}),
    "Trip": (
        {"stops": [{"town": "Ulm"}], "day": "2026-11-30"},
        "Trip(stops=[Spot(town='Ulm', zoom=3)], day=datetime.date(2026, 11, 30))",
        {"stops": [1], "day": "2026-11-30"},
    ),
    "Point": ({"x": 1}, "Point(x=1, y=0.5)", {"y": 2}),
    "Color": ("red", "<Color.RED: 'red'>", "green"),
    "Level": (2, "<Level.HIGH: 2>", 3),
    "Pair": ([1, "b"], "Pair(a=1, b='b')", [1]),
    "Options": ({"n": "5"}, "{'n': 5}", {}),
    "datetime.date": ("2026-11-30", "datetime.date(2026, 11, 30)", "soon"),
    "datetime.datetime": ("2026-11-30T01:02:03", "datetime.datetime(2026, 11, 30, 1, 2, 3)", "soon"),
    "datetime.time": ("01:02", "datetime.time(1, 2)", "soon"),
    "datetime.timedelta": ("PT5S", "datetime.timedelta(seconds=5)", "soon"),
    "decimal.Decimal": ("1.50", "Decimal('1.50')", "many"),
    "fractions.Fraction": ("1/3", "Fraction(1, 3)", "many"),
    "uuid.UUID": (
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "UUID('6ba7b810-9dad-11d1-80b4-00c04fd430c8')",
        "x",
    ),
    "set[int]": ([1, 1, 2], "{1, 2}", ["x"]),
    "frozenset[int]": ([1, 1], "frozenset({1})", ["x"]),
    "tuple[int, str]": ([1, "a"], "(1, 'a')", [1]),
    "tuple[int, ...]": ([1, 2], "(1, 2)", ["x"]),
    "collections.deque[int]": ([1], "deque([1])", ["x"]),
    "pathlib.Path": ("a/b", "PosixPath('a/b')", None),
    "bytes": ("ab", "b'ab'", None),
    "ipaddress.IPv4Address": ("10.0.0.1", "IPv4Address('10.0.0.1')", "x"),
    "HttpUrl": ("https://a.b", "HttpUrl('https://a.b/')", "x"),
    "SecretStr": ("s", "SecretStr('**********')", None),
    "PositiveInt": (3, "3", -1),
    "Annotated[int, Field(ge=2)]": (3, "3", 1),
}
CONTAINERS: dict[str, tuple[Any, str]] = {
    "{}": (lambda value: value, "{}"),
    "Optional[{}]": (lambda value: value, "{}"),
    "{} | None": (lambda value: value, "{}"),
    "list[{}]": (lambda value: [value, value], "[{0}, {0}]"),
    "dict[str, {}]": (lambda value: {"k": value}, "{{'k': {}}}"),
    "Optional[list[{}]]": (lambda value: [value], "[{}]"),
    "Union[bool, {}]": (lambda value: value, "{}"),
    "'{}'": (lambda value: value, "{}"),
}


def called(kind: str, value: Any, keyword: str = "def") -> Any:
    return run_tool(Tool.from_source(f"{HEAD}\n{keyword} f(v: {kind}):\n    return repr(v)\n"), {"v": value})


@pytest.mark.parametrize("kind", FIT)
def test_what_fits_is_built_and_what_does_not_is_refused(kind: str) -> None:
    value, shown, wrong = FIT[kind]
    result = called(kind, value)
    assert (result.error, result.func_return) == (None, shown)
    result = called(kind, [[wrong]] if wrong is None else wrong)
    assert result.error is not None
    assert result.error.kind is ErrorKind.BAD_ARGUMENTS
    assert "\nv" in result.error.message or "argument 'v'" in result.error.message


@given(kind=st.sampled_from(sorted(FIT)), container=st.sampled_from(sorted(CONTAINERS)), data=st.data())
@settings(max_examples=40)
def test_in_any_container_and_as_json_text(kind: str, container: str, data: st.DataObject) -> None:
    value, shown, _ = FIT[kind]
    wrap, pattern = CONTAINERS[container]
    wrapped = wrap(value)
    if isinstance(wrapped, dict | list) and "Union" not in container and data.draw(st.booleans()):
        wrapped = json.dumps(wrapped)
    result = called(container.format(kind), wrapped, data.draw(st.sampled_from(["def", "async def"])))
    assert (result.error, result.func_return) == (None, pattern.format(shown))


def test_every_kind_of_parameter_is_built() -> None:
    source = f"{HEAD}\ndef f(a: Spot, /, b: Color, *, c: Point, d: set[int] = frozenset(), **e: datetime.date):\n"
    source += "    return [type(v).__name__ for v in (a, b, c, d, *e.values())]\n"
    args = {"a": {"town": "Ulm"}, "b": "red", "c": {"x": 1}, "e": "2026-11-30", "f": "2026-11-30"}
    result = run_tool(Tool.from_source(source), args)
    assert (result.error, result.func_return) == (None, ["Spot", "Color", "Point", "frozenset", "date", "date"])


def test_a_decorated_tool_is_built_for_too() -> None:
    source = f"{HEAD}\nimport functools\ndef deco(g):\n    @functools.wraps(g)\n    def h(*a, **k):\n"
    source += "        return g(*a, **k)\n    return h\n@deco\ndef f(v: Spot):\n    return v.town\n"
    assert run_tool(Tool.from_source(source), {"v": {"town": "Ulm"}}).func_return == "Ulm"


def test_a_validation_error_of_the_tools_own_is_the_tools_exception() -> None:
    result = run_tool(Tool.from_source(f"{HEAD}\ndef f(v: Spot):\n    return Spot()\n"), {"v": {"town": "Ulm"}})
    assert result.error is not None
    assert (result.error.kind, result.error.exception_name) == (ErrorKind.TOOL_EXCEPTION, "ValidationError")


def test_a_type_that_pydantic_knows_nothing_of_gets_the_value_as_it_is() -> None:
    source = "class Own:\n    pass\ndef f(v: Own, w: 'Nowhere', x: set[int]):\n    return [v, w, sorted(x)]\n"
    assert run_tool(Tool.from_source(source), {"v": {"a": 1}, "w": "b", "x": [2, 1]}).func_return == [
        {"a": 1},
        "b",
        [1, 2],
    ]


def test_the_agent_state_is_left_alone() -> None:
    source = f"{HEAD}\ndef f(v: Spot, agent_state: 'AgentState', agent_id: uuid.UUID):\n"
    source += "    return [v.town, agent_state.id]\n"
    result = run_tool(Tool.from_source(source), {"v": {"town": "Ulm"}}, agent_state={"id": "agent-1"})
    assert (result.error, result.func_return) == (None, ["Ulm", "agent-1"])


JSON_ONLY = [
    "int", "str", "Any", "list", "dict", "list[int]", "dict[str, list[float]]", "Optional[bool]", "int | None",
    "Union[int, str, None]", "Literal['a', 1]", "typing.Optional[int]", "'list[str]'", "Annotated[Any, 'text']",
    "Alias", "List[Dict[str, int]]", "object", "None",
]  # fmt: skip


@pytest.mark.parametrize("kind", JSON_ONLY)
def test_tools_of_json_and_tools_given_by_hand_keep_their_script(kind: str) -> None:
    source = f"import typing\nAlias = list[int]\ndef f(v: {kind}): return v\n"
    tool = Tool.from_source(source)
    by_hand = Tool(name="f", source_code=source, json_schema=tool.json_schema)
    assert generate_script(tool, {"v": None if kind != "int" else 5}) == generate_script(
        by_hand, {"v": None if kind != "int" else 5}
    )
    spot = f"{HEAD}\ndef f(v: Spot): return v\n"
    schema = Tool.from_source(spot).json_schema
    assert BIND not in generate_script(Tool(name="f", source_code=spot, json_schema=schema), {"v": {}}).text
    assert BIND in generate_script(Tool.from_source(spot), {"v": {}}).text
