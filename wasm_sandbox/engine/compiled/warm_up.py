"""Warm-up of an image: modules to import and scripts to run before the snapshot.

All of it is part of the image's identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

from wasm_sandbox.script.cells import cell_script
from wasm_sandbox.script.generate import generate_script
from wasm_sandbox.tool.definition import Tool

PRELOAD = (
    "typing", "pickle", "sys", "base64", "struct", "hashlib", "os", "asyncio", "json", "re", "datetime", "decimal",
    "collections", "collections.abc", "dataclasses", "enum", "functools", "itertools", "math", "random", "statistics",
    "string", "textwrap", "time", "uuid", "fractions", "heapq", "bisect", "copy", "operator", "io", "csv", "traceback",
    "linecache", "contextlib", "contextvars", "inspect", "logging", "urllib.parse", "zoneinfo", "pathlib", "types",
    "warnings", "packaging.version", "pydantic", "pydantic.main", "pydantic.config", "pydantic.fields",
    "pydantic.types", "pydantic.functional_validators", "pydantic.functional_serializers", "pydantic.type_adapter",
    "pydantic.root_model", "pydantic.json_schema", "pydantic_core", "typing_extensions", "annotated_types",
)  # fmt: skip
"""Modules that scripts and common tools import. Anything else is imported on demand from the frozen library."""


def _tool(name: str, source_code: str) -> Tool:
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "object"}}}
    return Tool.model_construct(
        name=name, source_code=source_code, json_schema={"name": name, "parameters": parameters}
    )


_PLAIN_TOOL = _tool("add", "def add(x: int, y: dict) -> int:\n    return x + len(y)")
_ASYNC_TOOL = _tool(
    "gather",
    "async def gather(x: int, y: dict) -> list:\n"
    "    return await asyncio.gather(*(asyncio.sleep(0, n) for n in range(x)))",
)
_STATE_TOOL = _tool("remember", "def remember(x: int, y: dict, agent_state) -> int:\n    return x + len(agent_state)")
_OTHER_STATE_TOOL = _tool("tell", "def tell(agent_state, agent_id, y):\n    return y")
_FAILING_TOOL = _tool("fail", "def fail(x: int, y: dict):\n    raise ValueError('warm-up')")

_LIBRARIES = """
import asyncio, collections, dataclasses, datetime, decimal, enum, json, logging, random, re, uuid, zoneinfo
from typing import Annotated, Literal
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

class Colour(enum.Enum):
    RED = "red"

class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    price: decimal.Decimal = decimal.Decimal("1.5")
    colour: Colour = Colour.RED
    when: datetime.datetime | None = None
    kind: Literal["a", "b"] = "a"
    tags: list[str] = []

    @field_validator("name")
    @classmethod
    def strip(cls, value):
        return value.strip()

class Order(BaseModel):
    items: Annotated[list[Item], Field(max_length=9)]

order = Order.model_validate({"items": [{"name": " x ", "price": "2", "when": "2024-01-02T03:04:05Z"}]})
order.model_dump(), order.model_dump_json(), Order.model_json_schema()
Order.model_validate_json(order.model_dump_json())
TypeAdapter(dict[str, int | None]).validate_python({"a": "1"})
try:
    Order(items="no")
except ValidationError as error:
    str(error)

@dataclasses.dataclass
class Point:
    x: int
    y: int = 0

dataclasses.asdict(Point(1))
json.loads(json.dumps({"a": [1, 2.5, None, True, "é"]}, indent=1))
re.sub(r"(\\w+)@(\\w+)", r"\\2", "a@b")
collections.Counter("abca").most_common(1), collections.defaultdict(list)["x"], sorted({3, 1, 2}, key=lambda n: -n)
decimal.Decimal("9.90").quantize(decimal.Decimal("0.1"))
datetime.datetime.now(datetime.timezone.utc).isoformat(), str(uuid.uuid4()), random.random()
f"{3.14159:.2f} {'x':>5} {10**20:,}"
"""


def _constant_lines(first: str, second: str) -> tuple[str, str]:
    """Lines that two scripts have in common at their start and at their end."""
    a, b = first.splitlines(keepends=True), second.splitlines(keepends=True)
    opening = takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    closing = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(a), reversed(b), strict=False))
    return "".join(line for line, _ in opening), "".join([line for line, _ in closing][::-1])


@cache
def templates() -> tuple[tuple[str, str], ...]:
    """Opening and closing of each shape of generated scripts, in the order in which the guest looks for them."""
    other = _tool("other", "def other(y):\n    return y")
    plain = (generate_script(_PLAIN_TOOL, {"x": 1, "y": {}}).text, generate_script(other, {"y": {"b": 2}}).text)
    stateful = (
        generate_script(_STATE_TOOL, {"x": 1, "y": {}}, agent_state={"id": "a"}).text,
        generate_script(_OTHER_STATE_TOOL, {"y": {"b": 2}}, agent_state={"name": "b"}, agent_id="c").text,
    )
    return _constant_lines(*plain), _constant_lines(*stateful)


def _template_registration() -> str:
    """Script that prepares the guest for the shapes of generated scripts (see ``_sandbox_guest``)."""
    return "import _sandbox_guest\n" + "".join(_registration(*template) for template in templates())


def _registration(opening: str, closing: str) -> str:
    class_block = closing.partition("try:\n")[2].partition("    _wrapped")[0]
    return f"_sandbox_guest.register_template({opening!r}, {closing!r}, {class_block!r})\n"


def closing_scripts() -> list[str]:
    """Last scripts in an image with packages: importing them may have undone some of the warm-up."""
    plain = generate_script(_PLAIN_TOOL, {"x": 2, "y": {"a": 1}}).text
    return [plain, plain]


@cache
def live_script() -> str:
    """Script that gives a guest its side of code of a user's own, of host functions and of displays."""
    return _installation("_sandbox_live")


@cache
def output_script() -> str:
    """Script that makes a guest write its output a line at a time."""
    return _installation("_sandbox_output")


@cache
def net_script() -> str:
    """Script that gives a guest its side of connections; it follows that of `live_script`."""
    return _installation("_sandbox_net")


@cache
def threads_script() -> str:
    """Script that gives a guest threads which run where they are started; it follows those above."""
    return _installation("_sandbox_threads") + _POOLS


@cache
def science_script() -> str:
    """Script that makes plain data of the values of numpy and pandas, in a guest that has both."""
    return _installation("_sandbox_science") + _TABLES


def _installation(name: str) -> str:
    """Script that makes a module of a text of ours, and installs it. It is not frozen: no build follows a change."""
    text = Path(__file__).parents[2] / "inside" / f"{name.removeprefix('_sandbox')}.py"
    source = text.read_text(encoding="utf-8")
    return (
        "import sys, types\n"
        f"_module = types.ModuleType({name!r})\n"
        f"sys.modules[{name!r}] = _module\n"
        f"exec(compile({source!r}, '{name}.py', 'exec'), _module.__dict__)\n"
        "_module.install()\n"
    )


_POOLS = """
import asyncio, itertools, threading
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2) as pool:
    list(pool.map(str, range(3)))
thread = threading.Thread(target=str)
thread.start(), thread.join()
asyncio.run(asyncio.to_thread(str))
threading._counter, ThreadPoolExecutor._counter = itertools.count(1).__next__, itertools.count().__next__
"""


_TABLES = """
import numpy, pandas
table = pandas.DataFrame({"key": list("abca"), "x": [1.5, 2.5, None, 4.0], "n": range(4)})
table.groupby("key")["x"].sum(), table.sort_values("n"), table[table.n > 1], table.merge(table, on="key")
table.describe(), numpy.linalg.solve(numpy.eye(2), numpy.ones(2))
table._repr_html_(), repr(table), table.dtypes
_sandbox_science = __import__("sys").modules["_sandbox_science"]
for value in (table, table["x"], table.index, table.to_numpy(), numpy.float64(1), pandas.Timestamp(0), pandas.NaT) * 2:
    _sandbox_science.plain_of(value)
"""


_CELLS = (
    "x = 6 * 7\n\ndef double(n):\n    return 2 * n\n\ndouble(x)",
    "import asyncio\nawait asyncio.sleep(0)\n[str(n) for n in range(3)]",
    "1 / 0",
)


def _cell(code: str) -> str:
    """A cell as a script: the scratch instance runs nothing else."""
    return f"__import__('_sandbox_live').answer({cell_script(code, {'a': 1, 'b': 'x'}).call!r}, True)\n"


def warm_up_scripts(preload: Sequence[str] = ()) -> list[str]:
    """Scripts that the scratch instance runs before the snapshot, in order.

    The generated shapes themselves run several times: CPython specialises code on the way.

    Args:
        preload: modules that a flavour imports beyond those of the plain guest.
    """
    args = {"x": 2, "y": {"a": 1}}
    plain, asynchronous = (generate_script(tool, args).text for tool in (_PLAIN_TOOL, _ASYNC_TOOL))
    stateful = generate_script(_STATE_TOOL, args, agent_state={"id": "agent-1", "tags": ["a"]}).text
    failing = generate_script(_FAILING_TOOL, args).text
    caught = (
        f"import traceback\ntry:\n    exec({failing!r})\n"
        "except ValueError as error:\n    traceback.format_exception(error)\n"
    )
    tools = [*[plain] * 4, *[asynchronous] * 3, *[stateful] * 3, caught]
    ours = [output_script(), live_script(), net_script(), threads_script()]
    if "pandas" in preload:
        ours.append(science_script())
    whole = [*ours, *map(_cell, _CELLS * 2), _LIBRARIES, *tools]
    return [*whole, _template_registration(), *[stateful] * 4, *[plain] * 16, _LIBRARIES, asynchronous, plain]
