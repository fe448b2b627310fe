"""What the host reads of a tool (source, docstring, argument schema, JSON) costs it little, and never its life."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz_sources import load_all, schema_of, text_of
from tests.support.loop_meter import longest_gap
from wasm_sandbox import Tool, WasmToolSandbox
from wasm_sandbox.errors import ArgumentSchemaError, ToolSourceError
from wasm_sandbox.script.argument_models import MODELS, argument_models, generate_code
from wasm_sandbox.tool.bounds import MAX_CHARACTERS, MAX_TOKENS, TooCostly, cost_of
from wasm_sandbox.tool.own_stack import on_own_stack
from wasm_sandbox.tool.parsing import parse_module
from wasm_sandbox.tool.source import SOURCES, read_source

pytestmark = pytest.mark.long

MOST_SECONDS = 0.25
"""Of processor time: what is promised."""

SLACK = 3
"""The machines that run tests are slower, and busy: a reading that is not bounded takes tens of seconds."""

MOST_GAP = 5.0
"""Seconds; 0.02 are promised, of a machine that has a processor to spare. What is not bounded takes 20 seconds."""

LARGEST = MAX_CHARACTERS - 2_000
HEAD = "from typing import *\nfrom pydantic import BaseModel, Field, constr, conlist\nfrom enum import Enum, auto\n"


def filled(unit: str, before: str = "", after: str = "", size: int = LARGEST) -> str:
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def parameters(annotation: str, count: int, before: str = "") -> str:
    return f"{HEAD}{before}def f({', '.join(f'a{i}: {annotation}' for i in range(count))}): 0\n"


def documented(doc: str) -> str:
    return f"def f(a):\n    {doc!r}\n"


SCOPES = "def f():\n" + "".join(f" a{i} = 1\n" for i in range(1200)) + " return ["
TEXTS: dict[str, str] = {
    **{
        f"many {unit!r}": filled(unit)
        for unit in ("x;", "x\n", "f(x)\n", "x:y\n", "''\n", "ﬁ;", "lambda x:x\n", "a<b<c\n")
    },
    **{
        f"deep {unit!r}": filled(unit, "", "x")
        for unit in ("not ", "-", "lambda:", "await ", "a if b else ", "a**", "(", "[")
    },
    **{
        f"high {unit!r}": filled(unit, "x") for unit in ("()", ".a", "[a]", "+a", " and a", "<a", "(a)", " if a else b")
    },
    **{
        f"just below {unit!r}": filled(unit, "x", size=5_500)
        for unit in ("()", ".a", "[a]", "+a", "(a)", " if a else b")
    },
    "names times scopes": SCOPES + ",".join(f"lambda: a{i}" for i in range(900)) + "]\n",
    "nested functions": "".join(" " * i + f"def f{i}():\n" for i in range(95))
    + " " * 95
    + "; ".join(f"a{i}" for i in range(2500))
    + "  # async",
    "elif": filled("elif a: 0\n", "if a: 0\n"),
    "parts of an f-string": "x = f'" + "{a}" * 80_000 + "'",
    "a long f-string with parts": "x = f'" + "a" * 200_000 + "{a}" * 1_900 + "'",
    "futures": "from __future__ import annotations;" * 2_000,
    "blank lines": "\n" * LARGEST,
    "comments": filled("#\n"),
    "open string": filled("x;", "", "'"),
    "brackets in a docstring": documented("x\n\nArgs:\n    " + "(" * 2_000 + ": x"),
    "brackets in lines of a docstring": documented("x\n\nArgs:\n" + ("    " + "(" * 150 + ": x\n") * 100),
    "letters of an Epydoc docstring": documented("x\n\n@param " + "a " * 9_000),
    "entries of a docstring": documented("x\n\nArgs:\n" + "    a: b\n" * 3_000),
    "tabs of a docstring": documented("x\n\nArgs:\n  " + "\t" * 15_000 + "x: b"),
    "a literal, many times": parameters("A", 900, "A = Literal[" + ",".join(map(str, range(900))) + "]\n"),
    "an alias of aliases": parameters(
        "A40", 100, "A0 = int\n" + "".join(f"A{i + 1} = tuple[A{i}, A{i}]\n" for i in range(40))
    ),
    "a text alias": parameters("A", 900, "A = '" + "list[" * 40 + "int" + "]" * 40 + "'\n"),
    "an alias that is no type": parameters("A", 400, "A = " + "+a" * 2_000 + "\n"),
    "patterns": parameters(r"constr(pattern=r'(\w{100}){9}')", 400),
    "patterns in patterns": parameters(r"constr(pattern='((((a{50}){50}){50}){50}){50}')", 300),
    "patterns of a model": parameters(
        "M", 1, "class M(BaseModel):\n" + "".join(f" x{i}: constr(pattern=r'\\w{{{100 + i}}}')\n" for i in range(60))
    ),
    "a model, many times": parameters("M", 900, "class M(BaseModel):\n" + "".join(f" x{i}: int\n" for i in range(300))),
    "many models": parameters("M9", 9, "".join(f"class M{i}(BaseModel):\n x: int\n" for i in range(700))),
    "an enum": parameters("E", 9, "class E(Enum):\n" + "".join(f" x{i} = []\n" for i in range(900))),
    "built-in types": parameters("bytes", 2_000),
    "defaults": "def f(" + ", ".join(f"a{i}=[{i}]" for i in range(900)) + "): 0",
    "a deep default": "def f(a=" + "[" * 190 + "]" * 190 + "): 0",
}


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    load_all()


def took(work: Callable[[], object], *errors: type[Exception]) -> float:
    """Processor time of the whole process that work takes, whether it is done or refused."""
    began = time.process_time()
    with suppress(*errors):
        work()
    return time.process_time() - began


def is_soon_read(text: str) -> None:
    SOURCES.clear()
    assert took(lambda: read_source(text, "f")) < SLACK * MOST_SECONDS
    assert took(lambda: Tool.from_source(text), ToolSourceError) < SLACK * MOST_SECONDS


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_reading_any_source_costs_the_host_a_quarter_of_a_second_at_most(text: str) -> None:
    is_soon_read(text)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=40))
def test_reading_whatever_is_put_together_costs_little(data: bytes) -> None:
    is_soon_read(text_of(data))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=24))
def test_an_argument_schema_costs_little_whatever_it_is_put_together_of(data: bytes) -> None:
    schema = schema_of(data)
    MODELS.clear()
    assert took(lambda: argument_models(schema), ArgumentSchemaError) < SLACK * MOST_SECONDS


async def test_the_event_loop_stays_free_while_sources_and_schemas_are_read() -> None:
    """Not what a guest does counts, but what is read before: each tool is refused or fails at once."""
    schemas: list[dict[str, Any] | None] = [None, {"type": "object", "properties": {f"p{i}": {} for i in range(390)}}]
    for text in (*TEXTS.values(), "def f(): 0"):
        for schema in schemas if text == "def f(): 0" else schemas[:1]:
            SOURCES.clear()
            MODELS.clear()
            tool = Tool(name="f", source_code=text, args_json_schema=schema)
            sandbox = WasmToolSandbox("f", {}, None, None, tool_object=tool)
            with longest_gap() as meter:
                await sandbox.prepare_call()
                await asyncio.sleep(0.01)
            assert meter.longest < MOST_GAP, text[:80]
            with longest_gap() as meter:
                await asyncio.gather(asyncio.to_thread(Tool.from_source, text), return_exceptions=True)
            assert meter.longest < MOST_GAP, text[:80]


async def test_what_may_take_long_is_read_on_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            readers.append(threading.current_thread())
            return function(*args)

        return call

    monkeypatch.setattr("wasm_sandbox.tool.source.parse_module", noted(parse_module))
    monkeypatch.setattr("wasm_sandbox.script.argument_models.generate_code", noted(generate_code))
    text = "def f(agent_id, int: str): 0\n" + "x = 1\n" * 400
    schema = {"type": "object", "properties": {"x": {"title": "int", "type": "object", "properties": {"y": {}}}}}
    tool = Tool(name="f", source_code=text, args_json_schema={**schema, "required": ["agent_id", "x"]})
    SOURCES.clear()
    MODELS.clear()
    sandbox = WasmToolSandbox("f", {"x": {}}, None, None, tool_object=tool)
    await sandbox._init_async()
    SOURCES.clear()  # as if others had pushed it out meanwhile
    MODELS.clear()
    await sandbox.prepare_call()
    SOURCES.clear()
    await WasmToolSandbox("f", {}, None, None, tool_object=Tool(name="f", source_code=text)).prepare_call()
    assert len(readers) >= 3
    assert threading.main_thread() not in readers


def _longest_parse(text: str) -> float:
    """Most processor time that parsing one piece of a text takes, in seconds; 0 for a text that is refused."""
    longest = 0.0
    with suppress(TooCostly):
        for piece in cost_of(text).pieces:
            began = time.thread_time()
            with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                ast.parse(piece.text)
            longest = max(longest, time.thread_time() - began)
    return longest


def test_no_piece_that_is_parsed_at_once_holds_the_interpreter_lock_for_long() -> None:
    """A statement is bounded, and statements are parsed one after the other."""
    gc.disable()  # what else this process has to collect is no text's fault
    try:
        longest = on_own_stack(lambda: max(map(_longest_parse, TEXTS.values())))
    finally:
        gc.enable()
    assert longest < SLACK * 0.02
    cost = cost_of("x = [" + "f(a), " * 800 + "]\n" + "f(x)\n" * 1_500)
    assert cost.tokens <= MAX_TOKENS
    assert len(cost.pieces) > 1
    with pytest.raises(TooCostly, match=r"statement at line 2 .* 6,000 tokens"):
        cost_of("x\ny = [" + "1, " * 4_000 + "]\n")


CHILD = """
import json, sys, threading
sys.setrecursionlimit(10**6)
from wasm_sandbox import Tool, WasmToolSandbox
from wasm_sandbox.script.generate import generate_script
from wasm_sandbox.tool import read_json
texts, values, depth = json.load(open(sys.argv[1]))

def nested(make):
    value = 1
    for _ in range(depth):
        value = make(value)
    return value

def call(work):
    try:
        work()
    except Exception as error:
        print(type(error).__name__)

SCHEMA = {"parameters": {"type": "object", "properties": {"x": {"type": "array"}}}}
def everything():
    for text in texts:
        call(lambda: Tool.from_source(text))
        call(lambda: generate_script(Tool(name="f", source_code=text), {}))
        tool = Tool(name="f", source_code=text + "\\ndef f(x): 0", json_schema=SCHEMA)
        call(lambda: generate_script(tool, {"x": text}))
    for text in values:
        call(lambda: read_json(text))
        call(lambda: generate_script(Tool(name="f", source_code="def f(x): 0", json_schema=SCHEMA), {"x": text}))
    for make in (lambda v: [v], lambda v: {"a": v}, lambda v: {"anyOf": [v]}, lambda v: (v,)):
        value = nested(make)
        call(lambda: generate_script(Tool(name="f", source_code="def f(x): 0", json_schema=SCHEMA), {"x": value}))
        call(lambda: generate_script(Tool(name="f", source_code="def f(agent_state): 0"), {}, agent_state={"a": value}))
        schema = {"type": "object", "properties": {"x": value}}
        tool = Tool.model_construct(name="f", source_code="def f(x): 0", args_json_schema=schema, json_schema=None)
        call(lambda: generate_script(tool, {}))

if int(sys.argv[2]):
    threading.stack_size(int(sys.argv[2]))
    thread = threading.Thread(target=everything)
    thread.start()
    thread.join()
else:
    everything()
print("alive")
"""


@pytest.mark.parametrize("stack_bytes", [0, 256 << 10])
def test_no_text_ends_the_process_whatever_the_recursion_limit_and_the_stack(stack_bytes: int, tmp_path: Any) -> None:
    texts = [text for name, text in TEXTS.items() if name.startswith(("deep", "high", "just", "a deep", "elif"))]
    texts += [opened * 90 + "x" + closed * 90 for opened, closed in ("()", "[]", "{}", ("f(", ")"), ("{1:", "}"))]
    texts += [text.replace("x", "x = ", 1) for text in texts[:4]]
    values = [unit * 100_000 for unit in ("[", '{"a":', '[{"a":', "[[]")] + ["[" * 10_000 + "]" * 10_000]
    path = tmp_path / "texts.json"
    path.write_text(json.dumps([texts, values, 20_000]))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(stack_bytes)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.endswith("alive\n")
    named = {"ToolSourceError", "BadArguments", "ArgumentSchemaError", "ValueError", "UnsupportedToolError"}
    assert {*child.stdout.split()} <= {*named, "alive"}


def test_what_is_kept_of_sources_and_schemas_is_bounded_by_size() -> None:
    SOURCES.clear()
    for number in range(40):
        read_source(f"{number}  # {'é' * 250_000}", "f")
    read_source("".join(f"v{i} = 1\n" for i in range(3_000)), "f")
    assert 0.9 * SOURCES.most_bytes < SOURCES.kept_bytes <= SOURCES.most_bytes
    assert MODELS.most_bytes == SOURCES.most_bytes == 32 << 20
