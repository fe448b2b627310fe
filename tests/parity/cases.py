# ruff: noqa: E501 - a tool a line, as data
"""Small tools that every executor must run alike; those that differ name the difference.

A case is a tool ``f``, its arguments, and what else the call has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel


class State(BaseModel):
    """An agent state."""

    id: str = "agent-1"
    memo: str = ""
    tags: list[str] = []
    nested: dict[str, Any] = {}


@dataclass(frozen=True)
class Case:
    """One call of one tool."""

    name: str
    source: str
    args: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    env: dict[str, str] = field(default_factory=dict)
    agent_id: str | None = None
    schema: dict[str, Any] | None = None
    """The tool's argument schema."""
    differs: str | None = None
    """The heading in docs/differences.md that says why the results differ."""


def returning(*expressions: str, before: str = "") -> Iterator[Case]:
    """Tools that just return a value."""
    for expression in expressions:
        yield Case(f"returns {expression}", f"{before}\ndef f():\n    return {expression}\n")


def doing(**bodies: str) -> Iterator[Case]:
    """Tools that are a body."""
    for name, body in bodies.items():
        lines = "\n    ".join(body.strip().splitlines())
        yield Case(name.replace("_", " "), f"def f():\n    {lines}\n")


MODELS = """
import dataclasses, enum, collections, typing
from pydantic import BaseModel, Field, RootModel, SecretStr, computed_field, field_serializer, PrivateAttr

class Inner(BaseModel):
    x: int = Field(1, alias="ex")

class Outer(BaseModel):
    model_config = {"extra": "allow"}
    inner: Inner = Inner()
    hidden: int = Field(5, exclude=True)
    _private: int = PrivateAttr(6)

    @computed_field
    @property
    def twice(self) -> int:
        return 2 * self.inner.x

    @field_serializer("inner")
    def short(self, value):
        return ["inner", value.x]

class Many(RootModel[list[Inner]]):
    pass

class Odd(BaseModel):
    x: int = 1

    @field_serializer("x")
    def fail(self, value):
        raise ValueError("no serializing today")

@dataclasses.dataclass
class Point:
    x: int
    _y: int = 2
    init: dataclasses.InitVar[int] = 3

@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int

class Colour(enum.Enum):
    RED = "red"

class Level(enum.IntEnum):
    LOW = 1

class Mode(enum.StrEnum):
    FAST = "fast"

class Bits(enum.Flag):
    A = 1
    B = 2

class MyStr(str): pass
class MyInt(int): pass
class MyFloat(float): pass
class MyBytes(bytes): pass
class MyDict(dict): pass
class MyList(list): pass
class MyTuple(tuple): pass
class Plain:
    def __init__(self): self.x = 1
class Error(Exception): pass
Pair = collections.namedtuple("Pair", "a b")
"""

RESULTS = [
    # Section 7's table, row by row.
    *returning(
        "Outer(extra=1)",
        "Many([Inner(), Inner(ex=2)])",
        "[Outer(), {'k': Inner(ex=7)}]",
        "Inner",
        "Odd()",
        "Point(1)",
        "{'p': [Point(1), Frozen(2)]}",
        "{Frozen(1): 2}",
        "{Frozen(1)}",
        "SecretStr('x')",
        "Colour.RED",
        "[Level.LOW, Mode.FAST, {'c': Colour.RED}]",
        "Bits.A | Bits.B",
        "MyStr('s'), MyInt(3), MyFloat(1.5), MyBytes(b'b')",
        "MyDict(a=1), MyList([1]), MyTuple((1,))",
        "Pair(1, 2)",
        "Plain()",
        "[Plain()]",
        before=MODELS,
    ),
    *returning(
        "HttpUrl('https://a.b/c')",
        "Site(url='https://é.example/x?y', base='postgres://u:p@h1,h2/db')",
        "[AnyUrl('x://y'), Url('http://x'), MultiHostUrl('a://b')]",
        "{SecretStr('s'): SecretBytes(b's'), 'none': SecretStr('')}",
        "TypeAdapter(ByteSize).validate_python('1KB')",
        "Secret(5)",
        before="""
from pydantic import AnyUrl, BaseModel, ByteSize, HttpUrl, PostgresDsn, Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import MultiHostUrl, Url
class Site(BaseModel):
    url: HttpUrl
    base: PostgresDsn
""",
    ),
    *returning(
        "None",
        "True",
        "0",
        "-1",
        "10**60",
        "1.5",
        "float('nan')",
        "float('inf')",
        "-0.0",
        "'text é \\U0001f600'",
        "'\\ud800'",
        "''",
        "b'\\x00\\xff'",
        "bytearray(b'ab')",
        "1+2j",
        "[]",
        "()",
        "{}",
        "set()",
        "[1, 'a', None, [2, [3]]]",
        "(1, (2, 3))",
        "{1, 2, 3}",
        "frozenset({'a'})",
        "{'a': {'b': [1, {'c': ()}]}}",
        "{1: 'a', None: 'b', (1, 2): 'c', 1.5: 'd', b'e': 'f'}",
        "range(1, 10, 2)",
        "...",
        "NotImplemented",
        "slice(1, 2)",
        "(x for x in [1])",
        "iter([1])",
        "map(str, [1])",
        "zip([1], [2])",
        "memoryview(b'ab')",
        "{'a': 1}.keys()",
        "print",
        "int",
        "object()",
        "ValueError('x')",
        "__import__('json')",
    ),
    *returning(
        "datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)",
        "datetime.date(2024, 2, 29), datetime.time(1, 2, 3), datetime.timedelta(days=1, seconds=2)",
        "datetime.timezone(datetime.timedelta(hours=2))",
        "decimal.Decimal('1.10')",
        "fractions.Fraction(1, 3)",
        "uuid.UUID(int=5)",
        "pathlib.PurePosixPath('/a/b')",
        "ipaddress.ip_address('10.0.0.1'), ipaddress.ip_network('10.0.0.0/8')",
        "collections.OrderedDict(a=1, b=[2])",
        "collections.Counter('abca')",
        "collections.defaultdict(list, a=[1])",
        "collections.deque([1, 2])",
        "http.HTTPStatus.OK",
        "re.compile('a+')",
        before="import collections, datetime, decimal, fractions, http, ipaddress, pathlib, re, uuid",
    ),
    *doing(
        returns_nothing="pass",
        cyclic_list="x = []\nx.append(x)\nreturn x",
        cyclic_dict="x = {}\nx['x'] = x\nreturn x",
        deep_list="x = []\nfor _ in range(90): x = [x]\nreturn x",
        shared_items="x = [1]\nreturn [x, x, {'x': x}]",
        large_list="return list(range(10_000))",
        large_text="return 'é' * 100_000",
        large_bytes="return bytes(range(256)) * 100",
        never_awaited="async def g(): pass\nc = g()\nc.close()\nreturn 1",
    ),
]

MISBEHAVING = [
    *returning(
        "R()",
        before="class R:\n    def __repr__(self): raise ValueError('no repr')\n    __str__ = __repr__",
    ),
    Case(
        "bad eq",
        "class K:\n    def __hash__(self): return 1\n    def __eq__(self, o): raise ValueError\ndef f():\n    return {K(): 1}\n",
    ),
    Case(
        "str fails in the fallback",
        "class U:\n    __hash__ = None\n    def __repr__(self): raise KeyError('u')\nimport pydantic\nclass M(pydantic.BaseModel):\n    x: int = 1\n    @pydantic.field_serializer('x')\n    def s(self, v): raise ValueError('s')\n    def __str__(self): raise KeyError('str')\ndef f():\n    return M()\n",
    ),
]

OUTPUT = [
    *doing(
        prints="print('a')\nprint('b', end='')\nreturn 1",
        prints_much="for n in range(2000): print(n, 'x' * 20)\nreturn 1",
        prints_unicode="print('é \\U0001f600 \\u2028')\nreturn 1",
        writes_bytes="import sys\nsys.stdout.buffer.write(b'raw \\xff\\n')\nreturn 1",
        writes_to_stderr="import sys\nprint('err', file=sys.stderr)\nreturn 1",
        writes_a_marker="import sys\nsys.stdout.buffer.write(bytes.fromhex('92c8e49843d35fb3919da69eb3e5c5c6'))\nreturn 1",
        prints_in_a_partial_line="import sys\nsys.stdout.write('no newline')\nreturn 1",
        redirects="import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as s: print('x')\nreturn s.getvalue()",
        logs="import logging\nlogging.basicConfig()\nlogging.getLogger('t').warning('w')\nreturn 1",
    ),
    Case(
        "prints at top level and in main",
        "print('top')\ndef f():\n    print('in')\nif __name__ == '__main__':\n    print('main')\n",
    ),
]

ERRORS = [
    *doing(
        raises_value_error="raise ValueError('bad')",
        raises_without_message="raise ValueError",
        raises_own="class Boom(Exception): pass\nraise Boom('b', 2)",
        raises_multi_line="raise ValueError('one\\ntwo')",
        raises_key_error="return {}['missing']",
        divides_by_zero="return 1 / 0",
        index_error="return [][3]",
        attribute_error="return (5).nothing",
        assertion="assert 1 == 2, 'not equal'",
        chained="try:\n    1 / 0\nexcept Exception as e:\n    raise RuntimeError('wrapped') from e",
        in_finally="try:\n    raise ValueError('first')\nfinally:\n    print('tidy')",
        caught="try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    return str(e)",
        recursion="def g(n): return g(n + 1)\ntry:\n    g(0)\nexcept RecursionError as e:\n    return type(e).__name__",
        exits_0="import sys\nsys.exit(0)",
        exits_3="import sys\nsys.exit(3)",
        exits_with_text="import sys\nsys.exit('no luck')",
        exits_at_once="import os\nprint('lost or not', flush=True)\nos._exit(4)",
        exits_through_base="raise SystemExit(5)",
        import_error="import no_such_module_here",
        unicode_error="return b'\\xff'.decode()",
        json_error="import json\nreturn json.loads('{')",
        stop_iteration="return next(iter([]))",
        validation_error="from pydantic import TypeAdapter\ntry:\n    TypeAdapter(int).validate_python('x')\nexcept ValueError as e:\n    return e.error_count()",
    ),
    Case("does not compile", "def f():\n    return 1\n\nx = = 2\n"),
    Case("is indented wrongly", "def f():\n    x = 1\n  return x\n"),
    Case("fails at top level", "x = 1 / 0\ndef f():\n    return 1\n"),
    Case("has no such function", "def g():\n    return 1\n"),
    Case("lacks an argument", "def f(x):\n    return x\n"),
    Case("gets an argument of a wrong type", "def f(n: int):\n    return n\n", {"n": "many"}),
]

ARGUMENTS = [
    Case("string", "def f(x: str):\n    return x, type(x).__name__", {"x": 'it\'s "q" \\ \n\t é \0 {}\'\'\'"""'}),
    Case("surrogate", "def f(x: str):\n    return len(x)", {"x": "\ud800"}),
    Case("integer from text", "def f(x: int):\n    return x", {"x": " 5 "}),
    Case("integer from float", "def f(x: int):\n    return x", {"x": 5.9}),
    Case("boolean from text", "def f(x: bool):\n    return x", {"x": " TRUE "}),
    Case("number nan", "def f(x: float):\n    return x", {"x": float("nan")}),
    Case("number", "def f(x: float):\n    return x * 2", {"x": 1e300}),
    Case("array", "def f(x: list):\n    return x[::-1]", {"x": [1, None, True, "a", {"b": []}]}),
    Case("array from text", "def f(x: list):\n    return x", {"x": "[true, null]"}),
    Case("object", "def f(x: dict):\n    return sorted(x.items())", {"x": {"b": 1, "a": [None]}}),
    Case("untyped", "def f(x):\n    return [x]", {"x": {"a": 1}}),
    Case("optional none", "def f(x: int | None = 3):\n    return x", {"x": None}),
    Case("default kept", "def f(x: int, y: int = 7):\n    return x + y", {"x": 1}),
    Case("extra dropped", "def f(x: int):\n    return x", {"x": 1, "self": 2, "request_heartbeat": True}),
    Case("positional only", "def f(a, b=2, /, c=3):\n    return a, b, c", {"a": 1, "b": 5, "c": 6}),
    Case("keyword only", "def f(*, a, b=2):\n    return a, b", {"a": 1}),
    Case("star arguments", "def f(a, *rest, **more):\n    return a, rest, more", {"a": 1}),
    Case("mutable default", "def f(x: int, acc=[]):\n    acc.append(x)\n    return acc", {"x": 1}),
    Case("named like modules", "def f(sys, json, len):\n    return sys, json, len", {"sys": 1, "json": 2, "len": 3}),
    Case(
        "named like the script",
        "def f(client, pickle, e):\n    return client, pickle, e",
        {"client": 1, "pickle": 2, "e": 3},
    ),
    Case(
        "model",
        "from pydantic import BaseModel, validate_call\nclass M(BaseModel):\n    x: int\n@validate_call\ndef f(m: M):\n    return m",
        {"m": {"x": "5"}},
    ),
    Case("non-ASCII name", "def f(größe: int):\n    return größe", {"größe": 4}),
]

ORDER = {
    "title": "Order",
    "type": "object",
    "properties": {
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "minItems": 1},
        "note": {"anyOf": [{"type": "string", "description": 'it\'s "odd"\n'}, {"type": "null"}], "default": None},
        "class": {"enum": ["a", "b"]},
        "due": {"type": "string", "format": "date"},
        "site": {"type": "string", "format": "uri"},
    },
    "required": ["lines"],
    "$defs": {
        "Line": {
            "type": "object",
            "properties": {"sku": {"type": "string", "pattern": "^[A-Z]"}, "next": {"$ref": "#/$defs/Line"}},
            "required": ["sku"],
        }
    },
}
LINES: dict[str, Any] = {"lines": [{"sku": "A", "next": {"sku": "B"}}]}

SCHEMAS = [
    Case(
        f"schema: {name}",
        source.replace("BOOM", "import pydantic\n    pydantic.TypeAdapter(int).validate_python('x')"),
        args,
        schema=ORDER,
    )
    for name, source, args in [
        ("models", "def f(lines):\n    return lines, type(lines[0]).__name__, lines[0].next.sku\n", LINES),
        ("optional", "def f(lines, note='own', **more):\n    return note, more\n", LINES),
        ("keyword", "def f(lines, **more):\n    return more, more['class'] == 'a'\n", {**LINES, "class": "a"}),
        (
            "format",
            "def f(lines, due, site):\n    return due, site\n",
            {**LINES, "due": "2024-02-29", "site": "https://a.b"},
        ),
        ("asynchronous", "async def f(lines):\n    return lines[0].sku\n", LINES),
        ("guarded", "pickle = None\ndef f(lines, /):\n    return lines[0].sku\n", LINES),
        ("state", "def f(lines, agent_state=None):\n    return agent_state, len(lines)\n", LINES),
        ("own class of that name", "class Order: pass\ndef f(lines):\n    return Order.__mro__[1] is object\n", LINES),
        ("is missing", "print('never')\ndef f(lines):\n    return 1\n", {}),
        ("does not fit", "print('never')\ndef f(lines):\n    return 1\n", {"lines": [{"sku": "a"}]}),
        ("is empty", "def f(lines):\n    return 1\n", {"lines": []}),
        ("does not fit in many places", "def f(lines):\n    return 1\n", {"lines": [{"sku": 5}] * 50}),
        ("does not fit, asynchronous", "async def f(lines):\n    return 1\n", {"lines": 5}),
        ("does not fit, guarded", "pickle = None\ndef f(lines, /):\n    return 1\n", {"lines": None}),
        ("is unknown", "def f(lines):\n    return 1\n", {**LINES, "more": 1}),
        ("the tool's own validation fails", "def f(lines):\n    BOOM\n", LINES),
        ("the tool's own validation fails at its top", "if True:\n    BOOM\ndef f(lines):\n    return 1\n", LINES),
    ]
]

SOURCES = [
    Case("CRLF", "def f():\r\n    x = 1\r\n    return x\r\n"),
    Case("CR only in a string", "def f():\n    return 'a\\rb'\n"),
    Case("BOM", "\ufeffdef f():\n    return 'bom'\n"),
    Case("tabs", "def f():\n\tif True:\n\t\treturn 'tab'\n"),
    Case("encoding cookie", "# -*- coding: latin-1 -*-\ndef f():\n    return 'é'\n"),
    Case(
        "own future import",
        '"""Doc."""\nfrom __future__ import annotations\ndef f(x: Missing = 1):\n    return f.__annotations__["x"]\n',
    ),
    Case("docstring and comments", '# c\n"""Doc."""\n# d\ndef f():\n    """D."""\n    return f.__doc__\n'),
    Case(
        "decorator",
        "import functools\ndef twice(g):\n    @functools.wraps(g)\n    def w(*a, **k):\n        return g(*a, **k) * 2\n    return w\n@twice\ndef f(x: int):\n    return x\n",
        {"x": 4},
    ),
    Case("class with a call", "class F:\n    def __call__(self):\n        return 'called'\nf = F()\n"),
    Case("lambda", "f = lambda: 'lambda'\n"),
    Case("alias", "def g():\n    return 'alias'\nf = g\n"),
    Case("nested functions", "def f():\n    def g(n):\n        return n and n + g(n - 1)\n    return g(10)\n"),
    Case("redefined", "def f():\n    return 1\ndef f():\n    return 2\n"),
    Case("in an if", "if True:\n    def f():\n        return 'if'\n"),
    Case("helper and constant", "LIMIT = 3\ndef helper(x):\n    return x + LIMIT\ndef f():\n    return helper(1)\n"),
    Case("global counter", "count = 0\ndef f():\n    global count\n    count += 1\n    return count\n"),
    Case("main block", "def f():\n    return X\nX = 1\nif __name__ == '__main__':\n    X = 2\n"),
    Case("deletes what the script needs", "import sys, pickle\ndel sys, pickle\ndef f():\n    return 1\n"),
    Case("rebinds what the script needs", "struct = hashlib = None\ndef f():\n    return 1\n"),
    Case("clears its globals", "def f():\n    globals().clear()\n    return 1\n"),
    Case("uses typing without importing", "def f() -> Optional[List[int]]:\n    return [1]\n"),
    Case("uses modules without importing", "def f():\n    return os.sep, sys.byteorder, base64.b64encode(b'x')\n"),
    Case(
        "match and walrus",
        "def f(x: dict):\n    match x:\n        case {'a': [y, *_]} if (z := y + 1):\n            return z\n",
        {"x": {"a": [1, 2]}},
    ),
    Case("generator tool", "def f():\n    yield 1\n    yield 2\n"),
    Case("wide source", "def f():\n    return " + " + ".join(["1"] * 500) + "\n"),
]

ASYNC = [
    Case("async", "async def f(x: int):\n    return x + 1\n", {"x": 1}),
    Case(
        "async gathers",
        "import asyncio\nasync def f():\n    async def g(n):\n        await asyncio.sleep(0.05 * (3 - n))\n        print(n)\n        return n\n    return await asyncio.gather(*map(g, range(3)))\n",
    ),
    Case(
        "async tasks",
        "import asyncio\nasync def f():\n    q = asyncio.Queue()\n    async def put():\n        for n in range(3): await q.put(n)\n    task = asyncio.create_task(put())\n    await task\n    return [q.get_nowait() for _ in range(3)]\n",
    ),
    Case(
        "async times out",
        "import asyncio\nasync def f():\n    try:\n        await asyncio.wait_for(asyncio.sleep(5), 0.01)\n    except asyncio.TimeoutError:\n        return 'late'\n",
    ),
    Case(
        "async task group",
        "import asyncio\nasync def f():\n    async with asyncio.TaskGroup() as g:\n        t = g.create_task(asyncio.sleep(0, 'done'))\n    return t.result()\n",
    ),
    Case("async raises", "async def f():\n    raise KeyError('k')\n"),
    Case(
        "async context and iteration",
        "async def f():\n    async def g():\n        for n in range(3): yield n\n    return [n async for n in g()]\n",
    ),
    Case(
        "runs a loop itself",
        "import asyncio\ndef f():\n    async def g():\n        await asyncio.sleep(0)\n        return 'ran'\n    return asyncio.run(g())\n",
    ),
    Case(
        "starts a thread",
        "import threading\ndef f():\n    t = threading.Thread(target=lambda: print(threading.current_thread().name))\n    t.start()\n    t.join()\n    return t.is_alive()\n",
    ),
    Case(
        "uses a thread",
        "import asyncio\nasync def f():\n    return await asyncio.to_thread(lambda: 1)\n",
    ),
    Case(
        "uses a thread pool",
        "from concurrent.futures import ThreadPoolExecutor\ndef f():\n    with ThreadPoolExecutor(1, 'name') as pool:\n        return list(pool.map(lambda n: 6 // n, [1, 2])), str(pool.submit(divmod, 1, 0).exception())\n",
    ),
    Case(
        "uses another thread pool",
        "from multiprocessing.pool import ThreadPool\ndef f():\n    with ThreadPool(2) as pool:\n        return pool.map(lambda n: n * n, range(5)), list(pool.imap(str, range(2)))\n",
    ),
    Case(
        "fails in a thread pool",
        "from concurrent.futures import ThreadPoolExecutor\ndef f():\n    with ThreadPoolExecutor() as pool:\n        return pool.submit(int, 'x').result()\n",
    ),
    Case(
        "has values of a thread's own",
        "import threading\nown = threading.local()\ndef f():\n    own.x = 1\n    found = []\n    t = threading.Thread(target=lambda: found.append(hasattr(own, 'x')))\n    t.start()\n    t.join()\n    return found, own.x\n",
    ),
    Case("returns an awaitable", "def f():\n    async def g():\n        return 'awaited'\n    return g()\n"),
    Case("async generator tool", "async def f():\n    yield 1\n"),
    Case(
        "async with a state",
        "async def f(agent_state):\n    agent_state.memo = 'a'\n    return agent_state.id\n",
        state=State(),
    ),
]

STATE = [
    Case(
        "reads the state",
        "def f(agent_state):\n    return agent_state.id, agent_state['id'], agent_state.tags\n",
        state=State(tags=["x"]),
    ),
    Case(
        "changes the state",
        "def f(agent_state):\n    agent_state.memo = 'new'\n    agent_state.tags.append('t')\n    agent_state.nested['k'] = {'v': 1}\n",
        state=State(),
    ),
    Case(
        "state as a mapping",
        "def f(agent_state, x: int):\n    agent_state['n'] = x\n    return 'n' in agent_state\n",
        {"x": 3},
        state={"id": "a"},
    ),
    Case("no state given", "def f(agent_state=None):\n    return agent_state\n"),
    Case("state not taken", "def f():\n    return agent_state\n", state=State()),
    Case("state spoiled", "def f(agent_state):\n    agent_state.tags = 7\n", state=State()),
    Case(
        "state lost with an error",
        "def f(agent_state):\n    agent_state.memo = 'x'\n    raise ValueError('after')\n",
        state=State(),
    ),
    Case("keyword-only state", "def f(*, agent_state):\n    return agent_state.memo\n", state=State(memo="m")),
    Case(
        "agent id of the state",
        "def f(agent_id):\n    return agent_id\n",
        state=State(id="agent-7"),
        agent_id="agent-8",
    ),
    Case("agent id of the constructor", "def f(agent_id):\n    return agent_id\n", agent_id="agent-8"),
    Case(
        "secrets of the state",
        "import os\ndef f():\n    return os.environ['TOKEN']\n",
        state={"id": "a", "secrets": {"TOKEN": "t"}},
    ),
]

ENVIRONMENT = [
    Case("reads stdin", "def f():\n    return input()\n"),
    Case("has no arguments of a command", "import sys\ndef f():\n    return len(sys.argv)\n"),
    Case(
        "environment",
        "import os\ndef f():\n    return sorted(os.environ.items())\n",
        env={"A": "1", "B": "é \n="},
        agent_id="agent-1",
    ),
    Case("getenv", "def f():\n    return os.getenv('A'), os.getenv('HOME'), os.getenv('PATH')\n", env={"A": ""}),
    Case("sets a variable", "import os\ndef f():\n    os.environ['X'] = '1'\n    return os.getenv('X')\n"),
    Case("no client without a key", "def f():\n    return client, Letta\n"),
]

LIBRARY = [
    *doing(
        json_and_re="import json, re\nreturn json.loads(json.dumps({'a': re.findall('[a-c]', 'abcd')}))",
        hashes="import hashlib\nreturn hashlib.sha256(b'x').hexdigest(), hashlib.md5(b'x').hexdigest(), hashlib.blake2b(b'x').hexdigest()",
        compression="import bz2, gzip, lzma, zlib\nreturn [m.decompress(m.compress(b'x' * 99)) for m in (bz2, gzip, lzma, zlib)]",
        decimal_and_statistics="import decimal, statistics\nreturn decimal.Decimal(2).sqrt(), statistics.mean([1, 2, 4])",
        dates="import datetime, zoneinfo\nreturn datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Zurich')).isoformat()",
        seeded_random="import random\nrandom.seed(5)\nreturn random.random(), random.sample(range(100), 5)",
        sqlite="import sqlite3\nc = sqlite3.connect(':memory:')\nr = c.execute('select 1 + 1').fetchall()\nc.close()\nreturn r",
        csv_and_xml="import csv, io, xml.etree.ElementTree as E\nreturn list(csv.reader(io.StringIO('a,b'))), E.fromstring('<a b=\"1\"/>').attrib",
        itertools="import functools, itertools\nreturn list(itertools.permutations('abc', 2)), functools.reduce(lambda a, b: a * b, range(1, 30))",
        floats="import math\nreturn math.sin(1), math.pi ** 10, 0.1 + 0.2, round(2.675, 2), f'{1e22:.3f}'",
        formatting="return f'{3.14159:>10.2f}|{1234567:,}|{255:#x}', '%s %r' % ('a', 'b'), 'é'.encode('utf-16-le')",
        unicode="import unicodedata\nreturn unicodedata.normalize('NFD', 'é'), 'ß'.upper(), 'İ'.lower()",
        exec_and_eval="ns = {}\nexec('y = 2 + 3', ns)\nreturn ns['y'], eval('1 + 1')",
        weakref_and_gc="import gc, weakref\nclass C: pass\nc = C()\nr = weakref.ref(c)\ndel c\ngc.collect()\nreturn r() is None",
        monotonic_time="import time\na = time.monotonic()\ntime.sleep(0.002)\nreturn time.monotonic() - a >= 0.002",
        textwrap_and_difflib="import difflib, textwrap\nreturn textwrap.fill('a b c d', 3), difflib.get_close_matches('appl', ['apple'])",
    ),
]

DIFFERENT = [
    Case(
        "bad reduce",
        "class R:\n    def __reduce__(self): raise ValueError('no reduce')\ndef f():\n    return R()\n",
        differs="Instances of the tool's own classes",
    ),
    Case(
        "hostile reduce",
        "class R:\n    def __reduce__(self): return print, ('x',)\ndef f():\n    return R()\n",
        differs="Instances of the tool's own classes",
    ),
    Case(
        "lies about its class",
        "class L:\n    __class__ = int\ndef f():\n    return L()\n",
        differs="Instances of the tool's own classes",
    ),
    Case(
        "own exception",
        "class Error(Exception):\n    pass\ndef f():\n    return Error('x')\n",
        differs="Instances of the tool's own classes",
    ),
    Case(
        "class made on the fly",
        "def f():\n    return type('T', (), {})()\n",
        differs="Instances of the tool's own classes",
    ),
    Case(
        "starts a thread that waits for the main one",
        "import threading\ndef f():\n    event = threading.Event()\n    t = threading.Thread(target=event.wait)\n    t.start()\n    event.set()\n    t.join()\n    return 1\n",
        differs="Threads and processes",
    ),
    Case(
        "waits for ever",
        "import threading\ndef f():\n    return threading.current_thread().join()\n",
        differs="Threads and processes",
    ),
    Case(
        "starts a process",
        "import subprocess, sys\ndef f():\n    return subprocess.run([sys.executable, '-c', ''], check=False).returncode\n",
        differs="Threads and processes",
    ),
    Case("runs a command", "import os\ndef f():\n    return os.system('true')\n", differs="Threads and processes"),
    Case(
        "writes a file",
        "import tempfile\ndef f():\n    with tempfile.TemporaryFile() as file:\n        return file.write(b'x')\n",
    ),
    Case("lists the root", "import os\ndef f():\n    return sorted(os.listdir('/'))\n", differs="Files"),
    Case(
        "makes a link",
        "import os, tempfile\ndef f():\n    with tempfile.TemporaryDirectory() as here:\n"
        "        try:\n            os.symlink('a', here + '/b')\n            return os.readlink(here + '/b')\n"
        "        except OSError as error:\n            return type(error).__name__\n",
        differs="Files",
    ),
    Case("listens", "import socket\ndef f():\n    socket.socket().listen()\n    return 1\n", differs="Network"),
    Case("asks for the platform", "import sys\ndef f():\n    return sys.platform\n", differs="Platform"),
    Case(
        "asks for the widest integer", "import struct\ndef f():\n    return struct.calcsize('P')\n", differs="Platform"
    ),
    Case("asks for the version", "import sys\ndef f():\n    return sys.version_info[:2]\n", differs="Python version"),
    Case("returns a lambda", "def f():\n    return lambda: 1\n", differs="Python version"),
    Case("asks for a hash", "def f():\n    return hash('text')\n", differs="String hashes"),
    Case("imports ctypes", "import ctypes\ndef f():\n    return 1\n", differs="Missing modules"),
    Case("imports grp", "import grp\ndef f():\n    return 1\n", differs="Missing modules"),
    Case("is interrupted by itself", "def f():\n    raise KeyboardInterrupt\n", differs="Signals"),
    Case("kills itself", "import os\ndef f():\n    os.kill(os.getpid(), 9)\n", differs="Signals"),
]

CASES = [
    *RESULTS,
    *MISBEHAVING,
    *OUTPUT,
    *ERRORS,
    *ARGUMENTS,
    *SCHEMAS,
    *SOURCES,
    *ASYNC,
    *STATE,
    *ENVIRONMENT,
    *LIBRARY,
    *DIFFERENT,
]
