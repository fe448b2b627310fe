"""The execution script: its exact text, and that it runs whatever tools and arguments look like."""

from __future__ import annotations

import ast
import base64
import builtins
import dataclasses
import datetime
import enum
import hashlib
import io
import pickle
import struct
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasm_sandbox import Limits
from wasm_sandbox.decode.frame import MARKER, split_frames
from wasm_sandbox.decode.pickle_decoder import decode_envelope
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.errors import BadArguments, UnsupportedToolError
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.generate import (
    RESULT_VAR_NAME,
    ExecutionScript,
    detect_async,
    generate_script,
    parse_function_arguments,
)
from wasm_sandbox.tool.definition import Tool
from wasm_sandbox.tool.source import SOURCES, read_source

UNTYPED = {"type": "object", "properties": {}}


def make_tool(source: str, name: str = "tool", properties: dict[str, Any] | None = None) -> Tool:
    return Tool(name=name, source_code=source, json_schema={"parameters": {"properties": properties or {}}})


def script_for(source: str, args: dict[str, Any] | None = None, *, name: str = "tool", **options: Any) -> str:
    """The script of a tool whose schema names every argument, without types."""
    args = args or {}
    return generate_script(make_tool(source, name, {key: {} for key in args}), args, **options).text


@dataclass
class Ran:
    envelope: dict[str, Any]
    printed: str

    @property
    def result(self) -> Any:
        return self.envelope["results"]


RunTool = Callable[..., Ran]
"""`run(source, args, **options)`"""


def unframed(stdout: bytes, marker: bytes = MARKER) -> Ran:
    before, _, rest = stdout.partition(marker)
    (length,) = struct.unpack(">I", rest[:4])
    checksum, payload, after = rest[4:36], rest[36 : 36 + length], rest[36 + length :]
    assert hashlib.md5(payload).hexdigest().encode() == checksum
    return Ran(pickle.loads(payload), (before + after).decode())


def execute(script: str, monkeypatch: pytest.MonkeyPatch, marker: bytes = MARKER) -> Ran:
    """Run a script in this process, as a fresh ``__main__`` with its own standard output."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    written = stdout.buffer
    main = types.ModuleType("__main__")
    with monkeypatch.context() as patch, warnings.catch_warnings():
        patch.setitem(sys.modules, "__main__", main)
        patch.setattr(sys, "stdout", stdout)
        patch.delattr(builtins, f"{RESULT_VAR_NAME}_deliver", raising=False)
        warnings.simplefilter("ignore")  # a tool's invalid escapes warn, here as in the guest
        exec(compile(script, "<script>", "exec"), vars(main))
        return unframed(written.getvalue(), marker)


def execute_in_subprocess(script: str) -> Ran:
    done = subprocess.run([sys.executable, "-"], input=script.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return unframed(done.stdout)


def execute_in_guest(script: str, marker: bytes = MARKER) -> Ran:
    outcome = process_engine().start(ExecutionRequest(script, {}, Limits()), LiveSurroundings()).result()
    output = split_frames(outcome.stdout, max_payload=1 << 24, marker=marker)
    assert output.payload is not None, outcome.stderr.decode()
    return Ran(decode_envelope(output.payload)._asdict(), output.text.decode())


@pytest.fixture(params=["this Python", "guest"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RunTool:
    """Run the script of a tool, once in a Python like any other and once in the guest."""

    def run(source: str, args: dict[str, Any] | None = None, **options: Any) -> Ran:
        script = script_for(source, args, **options)
        marker = options.get("marker", MARKER)
        return execute_in_guest(script, marker) if request.param == "guest" else execute(script, monkeypatch, marker)

    return run


def is_guarded(script: str) -> bool:
    return f"{RESULT_VAR_NAME}_guard" in script


# --- The text -----------------------------------------------------------------------------------------

ADD = make_tool(
    "def add(x: int, y: int) -> int:\n    return x + y\n",
    "add",
    {"x": {"type": "integer"}, "y": {"type": "integer"}},
)
FETCH = make_tool("async def fetch(url: str):\n    return url.upper()\n", "fetch", {"url": {"type": "string"}})


def test_the_script_of_a_sync_tool_is_the_reference_text() -> None:
    """Section 3, example A."""
    script = generate_script(ADD, {"x": 2, "y": 3})
    digest = "15e8fb9fe4651fa68f2e2d551414d1923e6646105546ac70126c0ea39c6542a2"
    assert hashlib.sha256(script.text.encode()).hexdigest() == digest


def test_the_script_of_an_async_tool_is_the_reference_text() -> None:
    """Section 3, example B."""
    script = generate_script(FETCH, {"url": "it's"})
    digest = "ab8a304abfbbc2012514a2d44f5e5b0b87eeb80c768740963da2d233ede2699f"
    assert hashlib.sha256(script.text.encode()).hexdigest() == digest


def test_without_markers_the_script_ends_with_the_base64_expression() -> None:
    """Section 3, block 14."""
    with_markers = generate_script(ADD, {"x": 2, "y": 3}).text
    without = generate_script(ADD, {"x": 2, "y": 3}, markers=False).text
    body, _, _ = with_markers.partition("data_checksum = ")
    assert without == body + f"base64.b64encode({RESULT_VAR_NAME}_pkl).decode('utf-8')\n"


def test_top_level_await_replaces_only_the_line_that_runs_the_loop() -> None:
    """Section 3."""
    plain = generate_script(FETCH, {"url": "a"}).text
    awaiting = generate_script(FETCH, {"url": "a"}, top_level_await=True).text
    assert awaiting == plain.replace("= asyncio.run(_async_wrapper())", "= await _async_wrapper()")
    assert generate_script(ADD, {}, top_level_await=True) == generate_script(ADD, {})


def test_the_marker_can_be_set_per_run(run: RunTool) -> None:
    """W4."""
    assert run("def tool():\n    return 1", marker=bytes(range(16))).result == 1
    with pytest.raises(ValueError, match="16 bytes"):
        generate_script(ADD, {}, marker=b"short")


def test_a_tool_without_arguments_needs_no_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 6."""
    script = generate_script(Tool(name="tool", source_code="def tool(): return 1"), {})
    assert "_function_result = tool()\n" in script.text
    assert execute(script.text, monkeypatch).result == 1


def test_arguments_that_the_schema_lacks_are_dropped() -> None:
    """Sections 4 and 6."""
    assert generate_script(ADD, {"x": 1, "request_heartbeat": True}) == generate_script(ADD, {"x": 1})


@pytest.mark.parametrize(
    "source",
    [
        "import sys, os.path, json\ndef tool(x):\n    x = x.strip()\n    return x",
        "def tool(x):\n    import pickle\n    len = 3\n    return len",
        "from pydantic import BaseModel\nclass A(BaseModel):\n    pass\ndef tool(x): return A()",
        "import asyncio\nasync def inner(): return 1\ndef tool(x):\n    return asyncio.run(inner())",
        "from functools import cache\n@cache\ndef tool(x): return x",
        "def tool(x):\n    return eval(x)",
        "def tool(x):\n    return id(x)",
        "tool = lambda x: x",
        "class Tools:\n    async def other(self): ...\ndef tool(x): return x",
    ],
)
def test_usual_tools_get_the_plain_text(source: str) -> None:
    """Section 0: the script is the same."""
    script = script_for(source, {"x": "1"})
    assert not is_guarded(script)
    assert f"\nx = '1'\n{source}\n_function_result = tool(x=x)\ntry:\n" in script


def test_an_argument_named_like_an_unused_builtin_is_assigned_as_ever() -> None:
    """Section 0: the script is the same."""
    assert "\nid = 5\ndef tool(id): return id\n_function_result = tool(id=id)\n" in script_for(
        "def tool(id): return id", {"id": 5}
    )


@pytest.mark.parametrize("ending", ["", "\n", " \n\t\n", "\r\n"])
def test_the_end_of_the_source_is_stripped_and_nothing_else(ending: str) -> None:
    """Section 3, block 11."""
    source = "\n\ndef tool():\r\n\treturn 'a\\\n  b'"
    script = generate_script(make_tool(source + ending), {})
    assert f"\n{source}\n_function_result" in script.text


def tool_lines(script: ExecutionScript) -> list[str]:
    lines = script.text.replace("\r\n", "\n").split("\n")
    return lines[script.tool_first_line - 1 :][: script.tool_line_count]


@pytest.mark.parametrize(
    "source",
    [
        "def tool():\n    return 1",
        "def tool():\r\n    return '''\x0c\u2028 \x1c'''\r\n",
        "import pickle as sys\ndef tool(x, /):\n    return 1\n",
        "async def tool(agent_state, agent_id): ...",
    ],
)
def test_the_script_tells_where_the_source_stands(source: str) -> None:
    """W12: line numbers in tracebacks are the tool's own."""
    script = generate_script(make_tool(source, properties={"x": {}}), {"x": [1]}, agent_state={"id": "a"})
    assert tool_lines(script) == source.rstrip().replace("\r\n", "\n").split("\n")


def test_a_traceback_line_can_be_mapped_to_the_tool(run: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    """W12: line numbers in tracebacks are the tool's own."""
    source = "from __future__ import (\n    annotations,\n)\n\ndef tool():\n    raise KeyError('x')\n"
    script = generate_script(make_tool(source), {})
    with pytest.raises(KeyError) as caught:
        execute(script.text, monkeypatch)
    line = caught.traceback[-1].lineno + 1
    assert line - script.tool_first_line + 1 == 6


def test_each_block_stands_in_its_place_and_an_absent_one_leaves_no_blank_line() -> None:
    """Sections 3 and 6: the injected values follow the arguments, all of them keywords."""
    source = "def tool(x, agent_state, agent_id): ..."
    text = script_for(source, {"x": 1, "agent_id": 0}, agent_id="it's")
    assert text.startswith("from typing import *\nimport pickle\n")
    assert "\n    Letta = None\nclass AgentState(dict):\n" in text
    assert "\nagent_state = None\n# Initialize Letta client for tool execution\n" in text
    assert (
        '        )\nagent_id = "it\'s"\nx = 1\n'
        f"{source}\n_function_result = tool(x=x, agent_state=agent_state, agent_id=agent_id)\ntry:\n"
    ) in text
    assert "        )\n_function_result = tool()\n" in generate_script(make_tool(""), {}).text
    assert "import asyncio" not in text
    assert "\nimport hashlib\nimport asyncio\ntry:\n    from letta_client" in script_for("async def tool(): ...")


@pytest.mark.parametrize(("state", "expected"), [(None, "c"), ({"id": ""}, "c"), ({}, "c"), ({"id": "s"}, "s")])
def test_the_agent_id_is_the_states_or_else_the_constructors(state: Any, expected: str, run: RunTool) -> None:
    """Section 3, block 9; W16."""
    assert run("def tool(agent_id): return agent_id", agent_state=state, agent_id="c").result == expected
    assert run("def tool(agent_id): return agent_id", agent_state={"id": ""}).result is None


# --- The calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("markers", [True, False])
@pytest.mark.parametrize("source", ["def tool(x): return x", "import pickle as sys\ndef tool(x): return x"])
def test_the_envelope_is_the_same_with_and_without_markers(
    source: str, markers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 7."""
    script = script_for(source, {"x": [1, None]}, markers=markers)
    if markers:
        envelope = execute(script, monkeypatch).envelope
    else:
        *statements, last = ast.parse(script).body
        module: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(ast.Module(statements, []), "<script>", "exec"), module)
        assert isinstance(last, ast.Expr)
        envelope = pickle.loads(base64.b64decode(eval(compile(ast.Expression(last.value), "", "eval"), module)))
    assert envelope == {"results": [1, None], "agent_state": None}


@pytest.mark.parametrize(
    "source",
    [
        "async def tool(x): return x",
        "async def inner(x): return x\ntool = inner",
        "async def inner(x): return x\ndef tool(x): return inner(x)",
        "async def inner(x): return x\ndef middle(x):\n    c = inner(x)\n    return c\ndef tool(x): return middle(x)",
        "async def inner(x): return x\ntool = lambda x: inner(x)",
        "import asyncio\ndef tool(x): return asyncio.sleep(0, x)",
        "from asyncio import sleep as nap\ndef tool(x): return nap(0, x)",
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def g(**k): return f(**k)\n"
        "    return g\n@deco\nasync def tool(x): return x",
        "import asyncio\ndef sync(f):\n    return lambda **k: asyncio.run(f(**k))\n@sync\nasync def tool(x): return x",
        "async def tool(x): return 'old'\ndef tool(x): return x",
        "def tool(x):\n    async def tool(): return x\n    import asyncio\n    return asyncio.run(tool())",
        "class A:\n    async def tool(self): ...\ndef tool(x): return x",
        "class tool:\n    def __init__(self, x): self.x = x\n    def __await__(self):\n"
        "        yield from ()\n        return self.x\n# async",
        "async def inner(x): return x\nasync def outer(x): return inner(x)\ndef tool(x): return outer(x)",
        "async def inner(x): return x\nasync def tool(x): return inner(x)",
        "if True:\n    async def tool(x): return x\nelse:\n    def tool(x): return x",
        "class Tools:\n    @staticmethod\n    async def run(x): return x\ntool = Tools.run",
    ],
)
def test_whatever_the_call_returns_is_awaited_if_it_can_be(source: str, run: RunTool) -> None:
    """W18."""
    assert run(source, {"x": 5}).result == 5


def test_a_dotted_name_may_be_called(run: RunTool) -> None:
    """Section 2: callable names work."""
    source = "class Tools:\n    @staticmethod\n    def add(x): return x + 1"
    assert run(source, {"x": 1}, name="Tools.add").result == 2


def test_top_level_await_works_for_guarded_tools() -> None:
    """Section 3, W18."""
    script = script_for("async def f(x): return x\ntool = f", {"x": 1}, top_level_await=True, markers=False)
    assert script.endswith(f"\nawait {RESULT_VAR_NAME}_deliver(tool)\n")
    compile(script, "<script>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("prefix", ["", "async "])
def test_parameters_of_every_kind_are_bound(prefix: str, run: RunTool) -> None:
    """W14."""
    source = (
        f"{prefix}def tool(a, b=2, /, c=3, *rest, d, agent_id, **more):\n    return [a, b, c, rest, d, agent_id, more]"
    )
    ran = run(source, {"d": 4, "a": 1}, agent_id="agent-7")
    assert ran.result == [1, 2, 3, (), 4, "agent-7", {}]


def test_a_gap_among_positional_only_arguments_is_refused() -> None:
    """W14."""
    with pytest.raises(BadArguments, match=r"'b'.*'a' must be given too") as caught:
        script_for("def tool(a=1, b=2, /): ...", {"b": 5})
    assert caught.value.argument == "b"


# --- Names that collide -------------------------------------------------------------------------------

SCRIPT_NAMES = (
    "sys pickle struct hashlib base64 os asyncio client args_object agent_state agent_id Letta len "
    "str print type Exception ImportError _function_result _TempResultWrapper _wrapped e "
    "_serialized_result _async_wrapper BaseModel ConfigDict Any List json data_checksum positional "
    f"named tool __name__ __builtins__ __debug__ self {RESULT_VAR_NAME} {RESULT_VAR_NAME}_pkl "
    f"{RESULT_VAR_NAME}_arguments {RESULT_VAR_NAME}_deliver"
).split()


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_an_argument_may_have_any_name_of_the_script(name: str, prefix: str, run: RunTool) -> None:
    """W8."""
    source = (
        f"import json\n{prefix}def tool(**k):\n"
        "    assert __name__ == '__main__' and os.getenv and List[int] and type(len([])) is int\n"
        "    return k, sys.__name__, json.dumps(1)"
    )
    assert run(source, {name: "x", "other": 2}).result == ({name: "x", "other": 2}, "sys", "1")


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize("name", [n for n in SCRIPT_NAMES if not n.startswith("__")])
def test_a_tool_may_have_any_name_of_the_script(name: str, prefix: str, run: RunTool) -> None:
    """W8."""
    assert run(f"{prefix}def {name}(x): return x", {"x": 5}, name=name).result == 5


@pytest.mark.parametrize(
    "source",
    [
        "def tool(x): return x\ndel sys, pickle, struct, hashlib, base64, os",
        "def tool(x):\n    globals().clear()\n    return x",
        "def tool(x): return x\nfor name in list(globals()):\n    if name != 'tool': del globals()[name]",
        "pickle = sys = struct = hashlib = None\ndef tool(x): return x",
        "def tool(x):\n    global pickle, len\n    pickle = len = None\n    return x",
        "import json as pickle\ndef tool(x): return x",
        "from builtins import max as print, min as str\ndef tool(x): return x",
        "class Exception: pass\ndef tool(x): return x",
        "(len := 5)\ndef tool(x): return x",
        "[struct := 5 for _ in 'a']\ndef tool(x): return x",
        "match 5:\n    case hashlib: pass\ndef tool(x): return x",
        "for sys in range(3): pass\ndef tool(x): return x",
        "exec('sys = pickle = None')\ndef tool(x): return x",
        "from os import *\nfrom string import *\ndef tool(x): return x",
        "import sys\nsetattr(sys.modules['__main__'], 'pickle', None)\ndef tool(x): return x",
        "import sys, io\ndef tool(x):\n    sys.stdout = io.StringIO()\n    return x",
        "def tool(x):\n    sys.stdout.detach()\n    return x",
        "agent_state = object()\ndef tool(x): return x",
        "async def tool(x): return x\nasyncio = None",
        "x = 100\nimport json\ndef tool(x): return x",
    ],
)
def test_a_tool_may_rebind_or_delete_what_the_script_uses(source: str, run: RunTool) -> None:
    """W8."""
    assert run(source, {"x": 5}).envelope == {"results": 5, "agent_state": None}


@pytest.mark.parametrize("name", ["a-b", "class", "", "x y", "1", "a\nb", "x=1, **{}", "'", "\ud800", "None"])
def test_a_property_may_have_any_name(name: str, run: RunTool) -> None:
    """W7."""
    assert run("def tool(y, **k): return y, k", {name: 1, "y": 2}).result == (2, {name: 1})


def test_two_names_that_python_reads_alike_are_refused() -> None:
    """W7."""
    with pytest.raises(BadArguments, match="as that of 'fi'"):
        script_for("def tool(**k): ...", {"fi": 1, "\ufb01": 2})


@pytest.mark.parametrize("name", ["", "a b", "tool(", "x\ny", "class", "a.", "print(1) or tool", "a-b"])
def test_a_tool_name_that_is_no_name_is_refused(name: str) -> None:
    """W7."""
    with pytest.raises(UnsupportedToolError, match="no Python name"):
        script_for("def tool(): ...", name=name)


# --- Sources as found in the wild ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "from __future__ import annotations\n",
        "# comment\n\n'''Doc.'''\n\nfrom __future__ import annotations, division\n",
        "# -*- coding: latin-1 -*-\n'Dóc'; from __future__ import annotations; from __future__ import division\n",
        "from __future__ import (annotations,\n   division  # why\n); import json\n",
        "from __future__ import \\\n  annotations\nimport json\n",
        "\ufefffrom __future__ import annotations\r\n",
        "\ufeff# BOM only\n",
        "#!/usr/bin/env python3\n",
    ],
)
@pytest.mark.parametrize("prefix", ["", "async "])
def test_future_imports_cookies_and_byte_order_marks_are_legal(head: str, prefix: str, run: RunTool) -> None:
    """W12."""
    source = f"{head}{prefix}def tool(x: Undefined if {'__future__' in head} else int): return x\n"
    script = generate_script(make_tool(source, properties={"x": {}}), {"x": 5})
    assert script.tool_line_count == source.replace("\r\n", "\n").rstrip().count("\n") + 1
    assert run(source, {"x": 5}).result == 5


def test_a_future_import_in_a_wrong_place_stays_a_syntax_error_of_the_tool() -> None:
    """W12."""
    script = generate_script(make_tool("import json\nfrom __future__ import annotations\ndef tool(): ..."), {})
    with pytest.raises(SyntaxError) as caught:
        compile(script.text, "<script>", "exec")
    assert caught.value.lineno == script.tool_first_line + 1


@pytest.mark.parametrize(
    "source",
    [
        "def tool(x):\r\n    return x\r\n",
        "def tool(x):\n\treturn x\n\n\n",
        "print('loading')\nif __name__ == '__main__':\n    y = 1\ndef tool(x): return x",
        "def tool(x, seen=[]):\n    seen.append(x)\n    return seen[0]",
        "def other(): ...\n\ndef tool(x):\n    '''Doc \\d'''\n    def inner(): return x\n    return inner()",
        "def tool(x): return x  # no newline \\",
    ],
)
def test_usual_sources_run(source: str, run: RunTool) -> None:
    """Section 3: ``if __name__ == "__main__"`` runs, CRLF is kept."""
    assert run(source, {"x": 5}).result == 5


def test_a_source_that_does_not_parse_is_left_to_the_guest() -> None:
    """Section 0, W19."""
    script = generate_script(make_tool("x = (\ndef tool(agent_state, y): ..."), {})
    with pytest.raises(SyntaxError) as caught:
        compile(script.text, "<script>", "exec")
    assert caught.value.lineno == script.tool_first_line
    assert script.injects_agent_state


@pytest.mark.parametrize("source", ["def tool(): return '\ud800'", "def tool(): ...\0"])
def test_a_source_that_no_file_can_hold_is_refused(source: str) -> None:
    with pytest.raises(UnsupportedToolError):
        generate_script(make_tool(source), {})


# --- Agent state --------------------------------------------------------------------------------------


class Color(str, enum.Enum):  # noqa: UP042 - agent servers have such
    RED = "red"


class Block(pydantic.BaseModel):
    value: str
    items: list[int] = []


class State(pydantic.BaseModel):
    id: str = "agent-1"
    blocks: list[Block] = [Block(value="a", items=[1])]
    color: Color = Color.RED
    created: datetime.datetime = datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC)


@dataclass
class PlainState:
    id: str = "agent-1"
    blocks: list[Any] = dataclasses.field(default_factory=lambda: [Block(value="a", items=[1])])
    color: Color = Color.RED
    created: datetime.datetime = datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC)


USE_STATE = """
def tool(agent_state: AgentState, agent_id):
    first = agent_state.blocks[0]
    assert first.value == first["value"] == agent_state["blocks"][0]["value"]
    assert first.items == [1] and not hasattr(agent_state, "nothing")
    first.value += "!"
    agent_state.extra = {"k": (1,)}
    agent_state["n"] = 1
    del agent_state.color
    return agent_id, agent_state.created.year, agent_state.blocks
"""


@pytest.mark.parametrize("state", [State(), PlainState(), State().model_dump()], ids=["model", "dataclass", "dict"])
@pytest.mark.parametrize("ending", ["", "del sys", "async def other(): return tool\n", "globals"])
@pytest.mark.parametrize("prefix", ["", "async "])
def test_the_state_answers_attributes_and_items_and_comes_back_as_data(
    state: Any, ending: str, prefix: str, run: RunTool
) -> None:
    """W25."""
    ran = run(USE_STATE.replace("def tool", f"{prefix}def tool") + ending, agent_state=state)
    blocks = [{"value": "a!", "items": [1]}]
    assert ran.result == ("agent-1", 2025, blocks)
    created = datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC)
    assert ran.envelope["agent_state"] == {
        "id": "agent-1", "blocks": blocks, "created": created, "extra": {"k": (1,)}, "n": 1
    }  # fmt: skip
    assert type(ran.envelope["agent_state"]) is type(ran.envelope["agent_state"]["blocks"][0]) is dict


def test_a_missing_state_is_none(run: RunTool) -> None:
    """Section 3, blocks 7 and 9; W16."""
    ran = run("def tool(agent_state: AgentState = 1, agent_id=2): return agent_state, agent_id", agent_id="a")
    assert ran.envelope == {"results": (None, "a"), "agent_state": None}


def test_the_state_goes_only_to_tools_that_ask_for_it() -> None:
    """Section 3, block 7; W2."""
    script = generate_script(ADD, {"x": 1}, agent_state={"secret": "s3"})
    assert not script.injects_agent_state
    assert script == generate_script(ADD, {"x": 1})


def test_the_injected_value_wins_over_an_argument_of_that_name(run: RunTool) -> None:
    """W15."""
    source = "def tool(agent_state, agent_id): return agent_state.id, agent_id"
    ran = run(source, {"agent_state": 1, "agent_id": 2}, agent_state={"id": "a"}, agent_id="b")
    assert ran.result == ("a", "a")


@pytest.mark.parametrize("state", [5, "text", [1], {"a": object()}, {"a": {"b": [print]}}])
def test_a_state_that_is_not_data_is_refused(state: Any) -> None:
    """W25."""
    with pytest.raises(BadArguments, match="agent_state") as caught:
        script_for("def tool(agent_state): ...", agent_state=state)
    assert caught.value.argument == "agent_state"


def test_a_state_that_contains_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    with pytest.raises(BadArguments, match="contains itself"):
        script_for("def tool(agent_state): ...", agent_state=state)


def test_scripts_run_in_a_plain_interpreter() -> None:
    assert execute_in_subprocess(generate_script(ADD, {"x": 2, "y": 3}).text).result == 5
    assert execute_in_subprocess(generate_script(FETCH, {"url": "a\ud800é"}).text).result == "A\ud800É"
    source = USE_STATE + "    print('é')\nsys.stdout.close"
    source = source.replace("    first.value", "    print('é')\n    sys.stdout.close()\n    first.value")
    ran = execute_in_subprocess(script_for(source, agent_state=State()))
    assert ran.envelope["agent_state"]["n"] == 1
    assert ran.printed == "é\n"


# --- Nothing in the arguments changes the script ------------------------------------------------------

# The machine may be slow; no example's time says anything about the code.
unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def skeleton(script: str) -> tuple[int, str]:
    """The script's statements without the right-hand sides that hold argument values."""
    body = ast.parse(script).body
    for statement in body:
        if isinstance(statement, ast.Assign):
            statement.value = ast.Constant(0)
    return len(body), "\n".join(map(ast.dump, body))


@unhurried
@given(st.dictionaries(st.sampled_from(["x", "class", "sys", "a-b"]), json_values, min_size=4))
def test_no_value_changes_the_structure_and_every_value_arrives(args: dict[str, Any]) -> None:
    """W6."""
    source = "def tool(x, **more): return {'x': x, **more}"
    script = script_for(source, args)
    assert skeleton(script) == skeleton(script_for(source, dict.fromkeys(args, 0)))
    with pytest.MonkeyPatch.context() as patch:
        assert execute(script, patch).result == args
    assert execute_in_guest(script).result == args


@unhurried
@given(st.text(max_size=20), json_values)
def test_no_name_changes_the_structure(name: str, value: Any) -> None:
    """W7."""
    source = "def tool(**k): return k"
    script = script_for(source, {name: value})
    assert len(ast.parse(script).body) == len(ast.parse(script_for(source, {"class": 0})).body)
    assert script.count("\n") == script_for(source, {"class": 0}).count("\n")


# --- The static look ----------------------------------------------------------------------------------


def test_parameter_names_are_those_of_every_function_of_that_name() -> None:
    """Section 2."""
    methods = "class K:\n    def f(self, d): ...\n"
    source = f"def f(a, b=1, *rest, c, **more): ...\n{methods}async def f(p, /, e):\n    def g(h): ..."
    assert sorted(parse_function_arguments(source, "f")) == ["a", "b", "d", "e", "self"]
    assert parse_function_arguments(source, "missing") == []
    assert parse_function_arguments("\ufefff = lambda a: a", "f") == []
    with pytest.raises(SyntaxError):
        parse_function_arguments("def f(", "f")


def test_a_source_that_parses_but_does_not_compile_has_parameters_all_the_same() -> None:
    """Section 2."""
    assert parse_function_arguments("def f(a, a): ...", "f") == ["a", "a"]
    assert parse_function_arguments("async def f(a): ...\nreturn", "f") == ["a"]
    assert detect_async("async def f(a): ...\nreturn", "f")
    for broken in ("def f(:", " def f(): ...", "def f(): ...\0"):
        with pytest.raises((SyntaxError, ValueError)):
            parse_function_arguments(broken, "f")
    with pytest.raises(TypeError, match="must be a string, bytes or AST object"):
        parse_function_arguments(None, "f")  # type: ignore[arg-type]  # what is refused


def test_a_source_is_read_once() -> None:
    """A run asks for parameters, asyncness and the script: one look serves them all."""
    source = "async def once(agent_id): ..."
    SOURCES.clear()
    assert parse_function_arguments(source, "once") == ["agent_id"]
    assert detect_async(source, "once")
    generate_script(make_tool(source, "once"), {})
    assert (SOURCES.misses, SOURCES.hits) == (1, 2)


def test_the_look_at_a_source_takes_time_in_proportion_to_its_length() -> None:
    chain = "\n".join(f"def f{i}(): return f{i + 1}()" for i in range(3000))
    started = time.process_time()
    assert read_source(f"{chain}\nasync def f3000(): ...", "f0").kind == "unknown"
    assert read_source("def tool(" + ") ->" * 20_000, "tool").injected == ()
    assert time.process_time() - started < 5


def test_async_is_detected_by_any_definition_of_that_name() -> None:
    """Section 1; it is advice only."""
    assert detect_async("class K:\n    async def f(self): ...", "f")
    assert not detect_async("def f(): ...\nasync def g(): ...", "f")
    assert not detect_async("async def f(", "f")
    assert not detect_async("(" * 10_000, "f")
