"""semantics.md, sections 7 and 10: what becomes of a tool's value, and of tools that end oddly, in the real guest."""

from __future__ import annotations

import collections
import datetime
import ipaddress
import math
import pathlib
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Any

import pytest

from wasm_sandbox import ErrorKind, Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.decode.frame import split_frames
from wasm_sandbox.decode.pickle_decoder import decode_envelope
from wasm_sandbox.script.generate import generate_script

HEAD = """
import collections, dataclasses, datetime, decimal, enum, fractions, http, ipaddress, pathlib, uuid
from pydantic import BaseModel, Field, HttpUrl, PrivateAttr, RootModel, SecretStr, computed_field, field_serializer

class Inner(BaseModel):
    x: int = Field(1, alias="ex")

class Model(BaseModel):
    model_config = {"extra": "allow"}
    inner: Inner = Inner()
    url: HttpUrl = HttpUrl("https://a.b/c")
    hidden: int = Field(5, exclude=True)
    _private: int = PrivateAttr(6)

    @computed_field
    @property
    def twice(self) -> int:
        return 2 * self.inner.x

    @field_serializer("inner")
    def short(self, value):
        return ["inner", value.x]

class Many(RootModel[list[Inner]]): pass

@dataclasses.dataclass
class Point:
    x: object
    _y: int = 2
    init: dataclasses.InitVar[int] = 3

@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int

class Colour(enum.Enum):
    RED = "red"

class MyStr(str): pass
class MyDict(dict): pass
class MyList(list): pass
Pair = collections.namedtuple("Pair", "a b")

def with_more(value):
    value.more = 1
    return value
"""


def returned(expression: str, head: str = HEAD) -> ToolExecutionResult:
    tool = Tool(name="f", source_code=f"{head}\ndef f():\n    return {expression}\n")
    return run_tool(tool)


def refused(result: ToolExecutionResult) -> tuple[ErrorKind, str | None, str]:
    assert result.status == "error"
    assert result.error is not None
    assert result.agent_state is None
    assert result.func_return.startswith("Error executing function f: ")
    return result.error.kind, result.error.exception_name, result.error.message


TABLE: list[tuple[str, Any]] = [
    # BaseModel: by field name, without excluded and private fields, with extras and computed ones, serialized
    ("Model(more=[Inner()])", {"inner": ["inner", 1], "url": "https://a.b/c", "more": [{"x": 1}], "twice": 2}),
    ("Inner(ex=5)", {"x": 5}),
    ("Many([Inner(), Inner(ex=2)])", [{"x": 1}, {"x": 2}]),
    ("SecretStr('s3cret')", "**********"),
    # dataclass: its fields, also private ones; neither other attributes nor InitVars; nested alike
    ("with_more(Point(Point(Inner())))", {"x": {"x": {"x": 1}, "_y": 2}, "_y": 2}),
    ("Frozen(1)", {"x": 1}),
    # dict and subclasses: a plain dict; values converted
    ("{'a': Inner(), 1: Point(2), None: ()}", {"a": {"x": 1}, 1: {"x": 2, "_y": 2}, None: ()}),
    # the guest's pydantic keeps these two, which equal the plain dict
    ("collections.OrderedDict(b=1, a=Inner())", collections.OrderedDict(b=1, a={"x": 1})),
    ("collections.Counter('abca')", collections.Counter("abca")),
    ("collections.defaultdict(list, a=[Inner()])", {"a": [{"x": 1}]}),
    ("MyDict(a=Inner())", {"a": {"x": 1}}),
    # list, tuple, set, frozenset, their subclasses, namedtuple: plain; items converted
    ("[Inner(), (Point(1),), MyList([Frozen(1)])]", [{"x": 1}, ({"x": 1, "_y": 2},), [{"x": 1}]]),
    ("Pair(Inner(), 2)", ({"x": 1}, 2)),
    ("{1, 'a', (2, None)}", {1, "a", (2, None)}),
    ("frozenset({b'a', 1.5})", frozenset({b"a", 1.5})),
    # what a model or a dataclass becomes is no member of a set and no key: fallback 2
    ("{Frozen(1)}", "{Frozen(x=1)}"),
    ("{Frozen(1): 2}", "{Frozen(x=1): 2}"),
    # the same object; what only the tool knows arrives as what it is underneath
    ("[Colour.RED, {Colour.RED: MyStr('s')}]", ["red", {"red": "s"}]),
    ("collections.deque([1, Inner()], 3)", collections.deque([1, {"x": 1}], 3)),
    ("http.HTTPStatus.NOT_FOUND", 404),
    *[(text, eval(text)) for text in ("None", "True", "-5", "10**60", "1.5", "-0.0", "'é\\ud800'", "b'\\xff'", "1j")],
    *[(text, eval(text)) for text in ("bytearray(b'ab')", "range(1, 9, 2)", "slice(1, None, 2)")],
    ("float('inf')", math.inf),
    ("datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.UTC)", datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.UTC)),
    ("datetime.date(2024, 2, 29)", datetime.date(2024, 2, 29)),
    ("datetime.time(1, 2, 3, 4)", datetime.time(1, 2, 3, 4)),
    ("datetime.timedelta(days=-1, seconds=2)", datetime.timedelta(days=-1, seconds=2)),
    ("decimal.Decimal('1.10')", Decimal("1.10")),
    ("fractions.Fraction(1, 3)", "1/3"),
    ("uuid.UUID(int=5)", uuid.UUID(int=5)),
    ("pathlib.Path('/a/b')", pathlib.PurePosixPath("/a/b")),
    ("ipaddress.ip_address('10.0.0.1')", ipaddress.ip_address("10.0.0.1")),
    ("ipaddress.ip_network('fe80::/10')", ipaddress.ip_network("fe80::/10")),
    ("ValueError('x', 1).args", ("x", 1)),
]


def exact(value: Any) -> Any:
    """A value with the type of each of its parts; sets have no order."""
    match value:
        case dict():
            return type(value), [(exact(key), exact(item)) for key, item in value.items()]
        case list() | tuple():
            return type(value), [exact(item) for item in value]
        case set() | frozenset():
            return type(value), sorted(map(repr, map(exact, value)))
        case _:
            return type(value), repr(value)


@pytest.mark.parametrize(("expression", "value"), TABLE, ids=[row[0] for row in TABLE])
def test_a_value_becomes_what_the_table_says(expression: str, value: Any) -> None:
    """Section 7, W23, row by row."""
    result = returned(expression)
    assert result.error is None
    assert exact(result.func_return) == exact(value)


def test_an_exception_is_a_value_like_another() -> None:
    """Section 7."""
    value = returned("ValueError('x', 1)").func_return
    assert (type(value), value.args) == (ValueError, ("x", 1))


@pytest.mark.parametrize(
    ("expression", "kind", "words"),
    [
        ("(x for x in [1])", ErrorKind.TOOL_EXCEPTION, "SerializationIterator"),
        ("map(str, [1])", ErrorKind.TOOL_EXCEPTION, "SerializationIterator"),
        ("zip([1], [2])", ErrorKind.TOOL_EXCEPTION, "SerializationIterator"),
        ("[iter([1])]", ErrorKind.TOOL_EXCEPTION, "SerializationIterator"),
        ("memoryview(b'ab')", ErrorKind.TOOL_EXCEPTION, "memoryview"),
        ("{}.keys()", ErrorKind.TOOL_EXCEPTION, "dict_keys"),
        ("collections", ErrorKind.TOOL_EXCEPTION, "module"),
        ("lambda: 1", ErrorKind.TOOL_EXCEPTION, "lambda"),
        ("[c := f.__code__]", ErrorKind.TOOL_EXCEPTION, "code"),
        ("print", ErrorKind.FORBIDDEN_RESULT, "builtins.print"),
        ("int", ErrorKind.FORBIDDEN_RESULT, "builtins.int"),
        ("Inner", ErrorKind.FORBIDDEN_RESULT, "Inner"),
        ("f", ErrorKind.FORBIDDEN_RESULT, "f"),
        ("object()", ErrorKind.FORBIDDEN_RESULT, "object"),
        ("ValueError(Inner())", ErrorKind.FORBIDDEN_RESULT, "Inner"),
    ],
)
def test_what_is_no_data_is_an_error_that_names_it(expression: str, kind: ErrorKind, words: str) -> None:
    """Section 7, the rows that cannot be pickled or hold what only the tool knows; W23."""
    found, _, message = refused(returned(expression))
    assert found is kind
    assert words in message


@pytest.mark.parametrize(
    ("expression", "advice"),
    [
        ("(x for x in [1])", "the tool returned a generator or another iterator: return a list of its items"),
        ("memoryview(b'')", "return plain data, a dataclass or a pydantic model"),
        ("lambda: 1", "return plain data, a dataclass or a pydantic model"),
        ("print", "return plain data, a dataclass or a pydantic model"),
        ("Inner", "return plain data, a dataclass or a pydantic model"),
    ],
)
@pytest.mark.parametrize("ending", ["", "\npickle = None"], ids=["plain", "guarded"])
def test_a_refusal_says_what_to_return_instead(expression: str, advice: str, ending: str) -> None:
    """W23: a clear error for generators, coroutines and others."""
    source = f"{HEAD}\ndef f():\n    return {expression}{ending}\n"
    assert refused(run_tool(Tool(name="f", source_code=source)))[2].endswith(advice)


@pytest.mark.parametrize("name", ["f", "script"])
def test_what_a_tool_itself_cannot_pickle_is_its_own_affair(name: str) -> None:
    """W29: no advice about values where the tool's code raised."""
    source = f"import pickle\ndef {name}():\n    pickle.dumps(memoryview(b''))\n"
    error = run_tool(Tool(name=name, source_code=source)).error
    assert error is not None
    assert error.message == "cannot pickle memoryview objects"


@pytest.mark.parametrize("ending", ["", "\ndel sys, pickle"], ids=["plain", "guarded"])
def test_without_pydantic_a_result_is_its_text_with_a_notice(ending: str) -> None:
    """Section 7, fallback 1, in a Python without installed packages; W21: the guest has pydantic."""
    tool = Tool(name="f", source_code="def f():\n    return [1]" + ending)
    script = generate_script(tool, {}).text.encode()
    done = subprocess.run([sys.executable, "-I", "-S", "-"], input=script, capture_output=True, check=True)
    output = split_frames(done.stdout, max_payload=1000)
    assert output.payload is not None
    assert decode_envelope(output.payload).results == "[1]"
    assert output.text == b"Pydantic not available in sandbox environment, falling back to string conversion\n"


# -- values that misbehave ----------------------------------------------------------------------------------

MISBEHAVING = {
    "repr": "class C:\n    def __repr__(self): raise ValueError('no repr')\n    __str__ = __repr__",
    "endless repr": "class C:\n    def __repr__(self): return repr(self)\n    __str__ = __repr__",
    "str that exits": "class C:\n    def __str__(self): raise SystemExit(0)\n    __repr__ = __str__",
    "reduce": "class C:\n    def __reduce__(self): raise ValueError('no reduce')",
    "reduce to a call": "class C:\n    def __reduce__(self): return print, ('called',)",
    "reduce to no tuple": "class C:\n    def __reduce__(self): return 5",
    "reduce that exits": "import os\nclass C:\n    def __reduce__(self): os._exit(0)",
    "reduce_ex": "class C:\n    def __reduce_ex__(self, n): return eval, ('1',)",
    "getstate": "class C:\n    def __getstate__(self): return {'a': C()}",
    "eq": "class C:\n    def __eq__(self, other): raise ValueError('no eq')\n    __hash__ = None",
    "eq and hash": "class C:\n    def __eq__(self, other): raise KeyError\n    def __hash__(self): return 1",
    "getattribute": "class C:\n    def __getattribute__(self, name): raise AttributeError(name)",
    "getattr that never ends": "class C:\n    def __getattr__(self, name): return getattr(self, name)",
    "class that lies": "class C:\n    __class__ = int",
    "metaclass": "class M(type):\n    def __instancecheck__(c, i): raise ValueError\n    __repr__ = None\n"
    "class C(metaclass=M): pass",
    "name that breaks lines": "C = type('a\\nb', (), {})",
}


@pytest.mark.parametrize("definition", MISBEHAVING.values(), ids=MISBEHAVING.keys())
@pytest.mark.parametrize("form", ["C()", "[C(), C()]", "{'k': (C(),)}"])
def test_a_value_that_misbehaves_is_refused_and_nothing_of_it_runs_on_the_host(definition: str, form: str) -> None:
    """W1, W23, section 7: results whose __repr__, __str__, __reduce__ or __eq__ misbehave."""
    kind, _, message = refused(returned(form, definition))
    assert kind is ErrorKind.FORBIDDEN_RESULT
    assert "a class the tool defines" in message
    assert "\n" not in message


PLAIN_MISBEHAVING = {
    "str": ("class C(str):\n    def __str__(self): raise ValueError\n    __repr__ = __str__\nv = C('x')", "x"),
    "int": ("class C(int):\n    def __int__(self): return 6\n    __index__ = __repr__ = __int__\nv = C(5)", 5),
    "float": ("class C(float):\n    def __float__(self): raise ValueError\n    __repr__ = __float__\nv = C(1.5)", 1.5),
    "bytes": ("class C(bytes):\n    def __bytes__(self): return b'no'\n    __reduce__ = None\nv = C(b'x')", b"x"),
    "list": ("class C(list):\n    def __iter__(self): raise ValueError\n    __len__ = __iter__\nv = C([1])", [1]),
    "dict": (
        "class C(dict):\n    def items(self): 1 / 0\n    keys = __iter__ = items\nv = C(a=1)",
        {"a": 1},
    ),
    "enum": (
        "import enum\nclass C(enum.Enum):\n    A = 1\n    def __reduce_ex__(self, n): return eval, ('2',)\nv = C.A",
        1,
    ),
}


@pytest.mark.parametrize(("definition", "value"), PLAIN_MISBEHAVING.values(), ids=PLAIN_MISBEHAVING.keys())
def test_a_subclass_of_a_plain_type_is_the_plain_value_whatever_its_methods_say(definition: str, value: Any) -> None:
    """W23: or an error of its own; never anything else."""
    result = returned("v", definition)
    if result.error is None:
        assert exact(result.func_return) == exact(value)
    else:
        assert result.error.kind in (ErrorKind.TOOL_EXCEPTION, ErrorKind.FORBIDDEN_RESULT)


# -- tools that end oddly -----------------------------------------------------------------------------------

ENDS: dict[str, tuple[str, ErrorKind, str | None, str]] = {
    "sys.exit(0)": ("import sys; sys.exit(0)", ErrorKind.NO_RESULT, None, "exit code 0"),
    "sys.exit()": ("import sys; sys.exit()", ErrorKind.NO_RESULT, None, "exit code 0"),
    "sys.exit(3)": ("import sys; sys.exit(3)", ErrorKind.NO_RESULT, "SystemExit", "exit code 3"),
    "sys.exit(text)": ("import sys; sys.exit('no luck')", ErrorKind.NO_RESULT, "SystemExit", "exit code 1"),
    "os._exit(0)": ("import os; os._exit(0)", ErrorKind.NO_RESULT, None, "exit code 0"),
    "os._exit(9)": ("import os; os._exit(9)", ErrorKind.NO_RESULT, "SystemExit", "exit code 9"),
    "os.abort()": ("import os; os.abort()", ErrorKind.GUEST_TRAP, None, ""),
    "KeyboardInterrupt": ("raise KeyboardInterrupt('k')", ErrorKind.TOOL_EXCEPTION, "KeyboardInterrupt", "k"),
    "BaseException": ("raise BaseException('b')", ErrorKind.TOOL_EXCEPTION, "BaseException", "b"),
    "own BaseException": (
        "raise type('Own', (BaseException,), {})('b')", ErrorKind.TOOL_EXCEPTION, "Own", "b",
    ),
    "GeneratorExit": ("raise GeneratorExit", ErrorKind.TOOL_EXCEPTION, "GeneratorExit", ""),
    "CancelledError": (
        "import asyncio; raise asyncio.CancelledError('c')", ErrorKind.TOOL_EXCEPTION, "CancelledError", "c",
    ),
    "StopIteration": ("return next(iter([]))", ErrorKind.TOOL_EXCEPTION, "StopIteration", ""),
    "exception without a text": (
        "class E(Exception):\n        def __str__(self): raise ValueError\n    raise E",
        ErrorKind.TOOL_EXCEPTION, "E", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "name", "words"), ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("prefix", ["", "async "])
def test_a_tool_that_ends_without_a_value_is_an_error_in_words(
    prefix: str, body: str, kind: ErrorKind, name: str | None, words: str
) -> None:
    """W17, W29, section 10; what was printed before is there."""
    if prefix and name == "StopIteration":
        name, words = "RuntimeError", "coroutine raised StopIteration"
    tool = Tool(name="f", source_code=f"{prefix}def f():\n    print('before')\n    {body}\n")
    result = run_tool(tool)
    found, found_name, message = refused(result)
    assert (found, found_name) == (kind, name)
    assert words in message
    assert result.stdout == ["before\n"]


def test_an_async_generator_is_an_error_that_names_it() -> None:
    """W18."""
    for source in ("async def f():\n    yield 1\n", "def f():\n    async def g():\n        yield 1\n    return g()\n"):
        kind, name, message = refused(run_tool(Tool(name="f", source_code=source)))
        assert (kind, name) == (ErrorKind.TOOL_EXCEPTION, "TypeError")
        assert message.endswith("the tool returned an async generator: return a list of its items")


def test_a_coroutine_that_is_never_awaited_changes_no_result() -> None:
    """W18: inside a value it is no data; dropped, it is dropped; nobody waits for a task that was left."""
    head = "import asyncio\nasync def g():\n    print('never')\n"
    for source in ("def f():\n    g()\n    return 1\n", "async def f():\n    g()\n    return 1\n"):
        result = run_tool(Tool(name="f", source_code=head + source))
        assert (result.func_return, result.stdout) == (1, [])
    kept = run_tool(Tool(name="f", source_code=head + "def f():\n    return [g()]\n"))
    assert refused(kept)[:2] == (ErrorKind.TOOL_EXCEPTION, "TypeError")
    assert refused(kept)[2].endswith("the tool returned a coroutine inside its value: await it")
    left = "async def f():\n    asyncio.create_task(asyncio.sleep(3600))\n    return 2\n"
    assert run_tool(Tool(name="f", source_code=head + left), limits=Limits(timeout_seconds=20)).func_return == 2


# -- texts --------------------------------------------------------------------------------------------------


def test_the_friendly_text_is_cut_at_a_thousand_characters_and_the_message_is_not() -> None:
    """Section 10."""
    result = run_tool(Tool(name="f", source_code="def f():\n    raise ValueError('x' * 5000)\n"))
    assert result.func_return == ("Error executing function f: ValueError: " + "x" * 5000)[:1000]
    assert result.error is not None
    assert result.error.message == "x" * 5000


def test_output_is_one_text_or_none_at_all() -> None:
    """Section 10: a list of one item, or an empty list."""
    source = "import sys\ndef f(n):\n    if n: print('a'); print('b', file=sys.stderr); print('c')\n"
    tool = Tool.from_source(source)
    result = run_tool(tool, {"n": 1})
    assert (result.stdout, result.stderr) == (["a\nc\n"], ["b\n"])
    result = run_tool(tool, {"n": 0})
    assert (result.stdout, result.stderr) == ([], [])
