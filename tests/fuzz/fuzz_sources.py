"""Fuzzing of what the host reads of a tool: its source and its argument schema.

    python tests/fuzz/fuzz_sources.py source tests/fuzz/sources -max_len=64 -max_total_time=600
    python tests/fuzz/fuzz_sources.py schema tests/fuzz/schemas -max_len=64 -max_total_time=600
    python tests/fuzz/fuzz_sources.py --replay     every kept input once, without atheris

Each two bytes of an input are a piece of text or of a schema, and how often it is repeated, so that few bytes make
large and deep texts. Whatever they are: only our own errors, and bounded processor time.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.kept import replayed

SOURCES = Path(__file__).parent / "sources"
SCHEMAS = Path(__file__).parent / "schemas"
MOST_SECONDS = 0.75
"""Of processor time: three times what is promised, as the fuzzer's instruments take time, too."""

PIECES = [
    "a",
    " ",
    "\n",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ";",
    "=",
    "+",
    ".",
    "'",
    '"',
    '"""',
    "f'{",
    "}'",
    "\\",
    "#",
    "@a\n",
    "1",
    "0x1",
    "not ",
    "lambda:",
    "lambda x:",
    " if a else ",
    "if a:\n",
    "elif a:\n",
    "else:\n",
    "    ",
    "\n    ",
    "\t",
    "\r",
    "def f(",
    "):\n",
    "def f(a: int): ",
    "async def f(): ",
    "class A:\n",
    "class A(BaseModel):\n",
    "    x: int\n",
    "x: A\n",
    "from pydantic import BaseModel, Field, constr\n",
    "from typing import *\n",
    "from enum import Enum\n",
    "from __future__ import annotations\n",
    "global a\n",
    "import a\n",
    "await ",
    "yield ",
    "[a for a in ",
    "match a:\n case ",
    "Annotated[",
    "Literal[",
    "Union[",
    "dict[str,",
    "list[",
    "'list[int]'",
    'constr(pattern=r"\\w{99}")',
    "A = ",
    "|",
    "a=1",
    "Args:\n    a (int): b\n",
    ":param a: b\n",
    "@param a: b\n",
    "Parameters\n----------\n",
    "None",
    "...",
    "*",
    "**",
    "/",
    "\0",
    "\ud800",
    "é",
    "ﬁ",
    "\x0c",
    "return ",
    "a:=1",
]
LEAVES: list[dict[str, Any]] = [
    {},
    {"type": "string"},
    {"type": "integer", "minimum": 1},
    {"$ref": "#"},
    {"$ref": "#/$defs/D0"},
    {"$ref": "#/$defs/D1"},
    {"enum": ["a", "b"]},
    {"enum": [1, None, "x", [2]]},
    {"const": "x"},
    {"type": ["string", "null"]},
    {"type": "x"},
    {"type": "string", "pattern": "(a|b)*", "format": "date-time"},
    {"default": {"a": [1]}},
    {"description": "x\n'''\"\"\""},
    {"title": "class"},
    {"type": "string", "minLength": "x"},
    {"type": "array"},
    {"type": "object"},
]


def text_of(data: bytes) -> str:
    """The source that an input stands for."""
    pairs = zip(data[::2], data[1::2], strict=False)
    return "".join(PIECES[piece % len(PIECES)] * min(1 << (times % 16), 40_000) for piece, times in pairs)[: 300 << 10]


def schema_of(data: bytes) -> dict[str, Any]:
    """The argument schema that an input stands for."""
    stack: list[Any] = []
    for kind, times in zip(data[::2], data[1::2], strict=False):
        count = 1 << (times % 11)
        inner = stack.pop() if stack else LEAVES[times % len(LEAVES)]
        match kind % 8:
            case 0 | 1:
                stack += [inner, LEAVES[times % len(LEAVES)]]
            case 2:
                stack.append({"type": "object", "properties": {f"p{i}": inner for i in range(count)}})
            case 3:
                stack.append({("anyOf", "oneOf", "allOf")[times % 3]: [inner] * count})
            case 4:
                stack.append({"type": "array", "items": inner})
            case 5:
                stack.append({"enum": [f"v{i}" for i in range(count)]})
            case 6:
                stack.append({"type": "array", "prefixItems": [inner] * min(count, 128)})
            case _:
                stack.append({"type": "string", "description": "x " * count * 16, "patternProperties": {"a": inner}})
    names = {f"{'A' * (i % 3)}p{i}": part for i, part in enumerate(stack)}
    return {"type": "object", "properties": names, "$defs": {f"D{i}": part for i, part in enumerate(stack[:3])}}


def check_source(data: bytes) -> None:
    """Read a source in every way; raises if that is not as it should be."""
    from wasm_sandbox import Tool
    from wasm_sandbox.errors import ToolSourceError
    from wasm_sandbox.tool.source import SOURCES as MEMO
    from wasm_sandbox.tool.source import read_source

    text = text_of(data)
    MEMO.clear()
    _within(lambda: read_source(text, "f"))
    _within(lambda: Tool.from_source(text), ToolSourceError)


def check_schema(data: bytes) -> None:
    """Generate the models of a schema; raises if that is not as it should be."""
    from wasm_sandbox.errors import ArgumentSchemaError
    from wasm_sandbox.script.argument_models import MODELS, argument_models

    schema = schema_of(data)
    MODELS.clear()
    _within(lambda: argument_models(schema), ArgumentSchemaError)


def _within(work: Callable[[], object], *errors: type[Exception]) -> None:
    began = time.process_time()
    with contextlib.suppress(*errors):
        work()
    took = time.process_time() - began
    assert took < MOST_SECONDS, f"{took:.2f} s"


def load_all() -> None:
    """Load what is loaded at a first use, which is no input's fault."""
    from wasm_sandbox import Tool
    from wasm_sandbox.script.argument_models import argument_models

    Tool.from_source("def f(a: bytes):\n    '''x'''")
    argument_models({"type": "object", "properties": {"x": {}}})


def replay() -> int:
    """Check every kept input; how many there are."""
    load_all()
    return replayed(SOURCES, check_source) + replayed(SCHEMAS, check_schema)


def main() -> None:
    if "--replay" in sys.argv:
        print(f"{replay()} inputs held")
        return
    import atheris

    check = {"source": check_source, "schema": check_schema}[sys.argv.pop(1)]
    with atheris.instrument_imports(include=["wasm_sandbox.tool", "wasm_sandbox.script"]):
        load_all()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
