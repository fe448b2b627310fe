"""Code of a user's own in a fresh guest: its inputs, its value, what it prints, shows and raises."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import pickle
import re
from decimal import Decimal
from ipaddress import ip_address, ip_network
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from wasm_sandbox import AsyncSandbox, CodeResult, ErrorKind, Limits, Sandbox, Tool, run_code
from wasm_sandbox.decode.frame import encode_frame


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    when: datetime.date = datetime.date(2024, 5, 6)


@dataclasses.dataclass
class Size:
    width: int
    unit: str = "cm"


def failed(result: CodeResult) -> ErrorKind:
    assert result.status == "error"
    assert result.error is not None
    return result.error.kind


@pytest.mark.parametrize(
    ("code", "value", "text"),
    [
        ("6 * 7", 42, "42"),
        ("x = 1\nx + 1", 2, "2"),
        ("'a' 'b'", "ab", "'ab'"),
        ("def f():\n    return 1\nf()", 1, "1"),
        ("x = 1", None, None),
        ("", None, None),
        ("None", None, "None"),
        ("for n in range(3):\n    n", None, None),
        ("if True:\n    5", None, None),
        ("import decimal\ndecimal.Decimal('1.50')", Decimal("1.50"), "Decimal('1.50')"),
        ("import datetime\ndatetime.date(2024, 1, 2)", datetime.date(2024, 1, 2), "datetime.date(2024, 1, 2)"),
        ("{1, 2}", {1, 2}, "{1, 2}"),
        ("(1, [2.5, b'x'])", (1, [2.5, b"x"]), "(1, [2.5, b'x'])"),
        ("lambda: 0", None, "<function <lambda> at "),
        ("import math\nmath", None, "<module 'math' "),
        ("class A:\n    pass\nA()", None, "<__main__.A object at "),
        ("from pydantic import BaseModel\nclass M(BaseModel):\n    a: int\nM(a=1)", {"a": 1}, "M(a=1)"),
        ("from __future__ import annotations\ndef f(x: Nowhere): pass\nf.__annotations__", {"x": "Nowhere"}, "{"),
        ("__name__", "__main__", "'__main__'"),
        ("await asyncio.sleep(0, 'slept')", None, None),
    ],
)
def test_the_value_of_the_last_expression_comes_back(code: str, value: Any, text: str | None) -> None:
    result = run_code(code)
    if "asyncio" in code:
        assert failed(result) is ErrorKind.TOOL_EXCEPTION  # nothing is imported that the code does not import
        return
    assert result.error is None
    assert (result.value, type(result.value)) == (value, type(value))
    if text is None or text.endswith(("'", "]", ")", "}")) or text.isdigit():
        assert result.text == text
    else:
        assert (result.text or "").startswith(text)


def test_await_at_the_top_level() -> None:
    code = "import asyncio\nparts = await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3)))\nsum(parts)"
    assert run_code(code).value == 3
    assert run_code("import asyncio\nawait asyncio.sleep(0, 'slept')").value == "slept"
    assert run_code("import asyncio\nasync def f():\n    return 5\nasyncio.run(f())").value == 5


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 2**70, 1.5, float("inf"), 2 + 1j, "é\0\ud800", b"\0", [1, [2]], (1, ()), {1, 2}, frozenset({1})),
        *({"a": {1: None}}, bytearray(b"x"), Decimal("1.50"), UUID(int=5), PurePosixPath("/a/b")),
        *(datetime.date(2024, 1, 2), datetime.time(1, 2, 3), datetime.timedelta(days=-1, microseconds=5)),
        datetime.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        *(ip_address("::1"), ip_network("10.0.0.0/8"), [datetime.date(2024, 1, 2), (Decimal(1),)]),
    ],
    ids=repr,
)
def test_an_input_is_a_variable_of_its_type(value: Any) -> None:
    result = run_code("(value, type(value).__name__)", {"value": value})
    assert result.error is None
    assert result.value == (value, type(value).__name__)


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (Point(x=1), {"x": 1, "when": datetime.date(2024, 5, 6)}),
        (Size(3), {"width": 3, "unit": "cm"}),
    ],
)
def test_a_model_or_dataclass_is_a_record_of_its_fields(value: Any, fields: dict[str, Any]) -> None:
    assert run_code("value", {"value": value}).value == fields
    name = next(iter(fields))
    assert run_code(f"value.{name} == value[{name!r}]", {"value": value}).value is True
    assert run_code("value", {"value": Colour.RED}).value == "red"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
@settings(max_examples=40)
def test_any_plain_value_goes_in_and_comes_back(value: Any) -> None:
    assert run_code("value", {"value": value}).value == value


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"no name": 1}, "'no name' is no name"),
        ({"class": 1}, "'class' is no name"),
        ({"f": len}, "argument 'f': .*builtin_function"),
        ({"f": [object()]}, "argument 'f': .*type object"),
    ],
)
def test_an_input_that_cannot_be_handed_over_is_bad_arguments(inputs: dict[str, Any], words: str) -> None:
    result = run_code("1", inputs)
    assert failed(result) is ErrorKind.BAD_ARGUMENTS
    assert result.error is not None
    assert re.search(words, result.error.message)


def test_an_input_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert failed(run_code("1", {"loop": loop})) is ErrorKind.BAD_ARGUMENTS


def test_what_is_no_code_or_no_inputs_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="code must be text"):
        run_code(b"1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="inputs must map names"):
        run_code("1", [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="there is no option limit "):
        run_code("1", limit=Limits())  # type: ignore[call-arg]


def test_a_traceback_shows_the_lines_of_the_code_and_nothing_of_the_sandbox() -> None:
    result = run_code("def f(x):\n    return 1 / x\n\nf(0)\n")
    assert result.error is not None
    assert (result.error.kind, result.error.exception_name) == (ErrorKind.TOOL_EXCEPTION, "ZeroDivisionError")
    shown = (
        'Traceback (most recent call last):\n  File "<code>", line 4, in <module>\n    f(0)\n    ~^^^\n'
        '  File "<code>", line 2, in f\n    return 1 / x\n           ~~^~~\nZeroDivisionError: division by zero\n'
    )
    assert result.error.traceback == shown
    assert result.stderr == [shown]
    asynchronous = run_code("import asyncio\nasync def g():\n    raise KeyError('k')\nawait g()")
    assert asynchronous.error is not None
    assert "_sandbox" not in (asynchronous.error.traceback or "")


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        ("def f(:", ErrorKind.SYNTAX_ERROR, "SyntaxError"),
        ("if True:\nx", ErrorKind.SYNTAX_ERROR, "IndentationError"),
        ("x = '\0'", ErrorKind.SYNTAX_ERROR, "SyntaxError"),
        ("compile('(', '', 'exec')", ErrorKind.TOOL_EXCEPTION, "SyntaxError"),
        ("raise SystemExit(3)", ErrorKind.TOOL_EXCEPTION, "SystemExit"),
        ("raise KeyboardInterrupt", ErrorKind.TOOL_EXCEPTION, "KeyboardInterrupt"),
        ("class E(Exception): pass\nraise E", ErrorKind.TOOL_EXCEPTION, "E"),
        ("x = bytearray(1 << 30)", ErrorKind.OUT_OF_MEMORY, "MemoryError"),
    ],
)
def test_what_ends_the_code_is_an_error_of_its_kind(code: str, kind: ErrorKind, name: str) -> None:
    result = run_code(code)
    assert failed(result) is kind
    assert result.error is not None
    assert result.error.exception_name == name
    assert (result.value, result.text) == (None, None)


@pytest.mark.parametrize(
    ("code", "limits", "kind"),
    [
        ("while True: pass", {"timeout_seconds": 0.3}, ErrorKind.TIMEOUT),
        ("while True: pass", {"fuel": 5_000_000}, ErrorKind.OUT_OF_FUEL),
        ("x = 'x' * 3000\nx", {"result_bytes": 1000}, ErrorKind.CORRUPTED_RESULT),
        ("import os\nos._exit(0)", {}, ErrorKind.NO_RESULT),
    ],
)
def test_every_limit_holds(code: str, limits: dict[str, Any], kind: ErrorKind) -> None:
    result = run_code(f"print('first')\n{code}", limits=limits)
    assert failed(result) is kind
    assert (result.stdout or [""])[0].startswith("first\n")


def test_output_files_and_variables_are_those_of_a_tool_call() -> None:
    code = "import os, sys\nprint('out'); print('err', file=sys.stderr)\nopen('/a', 'w').write('x')\nos.environ['KEY']"
    result = Sandbox(env={"KEY": "value"}).run_code(code, files={})
    assert (result.value, result.stdout, result.stderr) == ("value", ["out\n"], ["err\n"])
    assert result.files == {"/a": b"x"}
    assert result.usage is not None
    assert result.usage.fuel
    assert run_code("1").files is None


@pytest.mark.parametrize(
    "payload", [b"", b"x", pickle.dumps(5), pickle.dumps((1, 2, 3, False)), pickle.dumps((None, None, None, True))]
)
def test_a_frame_of_the_codes_own_is_output_and_a_payload_of_its_own_no_result(payload: bytes) -> None:
    frame = encode_frame(payload)
    result = run_code(f"import os\nos.write(1, {frame!r})\nos._exit(0)")
    assert failed(result) is ErrorKind.NO_RESULT
    assert result.stdout == [frame.decode("utf-8", "replace")]
    forged = f"import _sandbox_live as live\nlive._payload = lambda *_: {payload!r}"
    assert failed(run_code(forged)) is ErrorKind.CORRUPTED_RESULT


def test_displays_are_bundles_by_mime_type() -> None:
    code = """
class Chart:
    def __repr__(self): return "chart"
    def _repr_html_(self): return "<b>chart</b>"
    def _repr_png_(self): return b"\\x89PNG"
class Whole:
    def __repr__(self): return "whole"
    def _repr_mimebundle_(self, **kw): return {"text/latex": "$x$"}, {}
class Broken:
    def __repr__(self): raise ValueError
    def _repr_html_(self): raise ValueError
display(Chart(), "plain")
display({"text/plain": "raw"}, raw=True)
display(Broken())
Whole()
"""
    result = run_code(code)
    assert result.error is None
    assert result.displays == [
        {"text/plain": "chart", "text/html": "<b>chart</b>", "image/png": b"\x89PNG"},
        {"text/plain": "'plain'"},
        {"text/plain": "raw"},
        {"text/plain": "<Broken: its repr raised ValueError>"},
        {"text/plain": "whole", "text/latex": "$x$"},
    ]
    assert result.text == "whole"
    assert '"image/png":"iVBORw=="' in result.model_dump_json()


def test_displays_are_bounded_and_kept_when_a_limit_ends_the_run() -> None:
    result = run_code("display('shown')\nwhile True: pass", limits={"timeout_seconds": 0.4})
    assert failed(result) is ErrorKind.TIMEOUT
    assert result.displays == [{"text/plain": "'shown'"}]
    result = run_code("for n in range(9): display('x' * 300)", limits={"result_bytes": 2000})
    assert result.error is not None
    assert "Limits.result_bytes" in result.error.message
    assert len(result.displays) == 3
    result = run_code("display({'image/png': b'x' * (9 << 20)}, raw=True)")
    assert str(result.displays[0]["text/plain"]).startswith("<a display of 9")


def test_a_value_whose_looks_cannot_be_shown_has_its_text() -> None:
    big = "class Big:\n    def __repr__(self): return 'big'\n    def _repr_html_(self): return 'x' * 1500\n"
    result = run_code(f"{big}display(Big())\nBig()", limits={"result_bytes": 2000})
    assert (result.error, result.text, len(result.displays)) == (None, "big", 1)
    result = run_code("from unittest.mock import MagicMock\nMagicMock(name='m')")
    assert (result.error, result.displays) == (None, [])
    assert (result.text or "").startswith("<MagicMock name='m'")
    nothing = "class Nothing:\n    def __getattr__(self, name): return lambda *_, **__: None\n"
    assert run_code(f"{nothing}Nothing()").displays == []
    odd = "class Odd:\n    def _repr_json_(self): return object()\n    def _repr_html_(self): return '<b/>'\n"
    assert [set(shown) for shown in run_code(f"{odd}Odd()").displays] == [{"text/plain", "text/html"}]
    many = "class Many:\n    def _repr_mimebundle_(self): return {f'a/{n}': 'x' for n in range(100)}\n"
    assert run_code(f"{many}Many()").error is None


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("5", "TypeError: display(raw=True) takes a dict, MIME type -> text or bytes, not int"),
        ("{'a/b': 5}", "TypeError: a display maps MIME types to text or bytes, not str -> int: 'a/b'"),
        ("{5: 'x'}", "TypeError: a display maps MIME types to text or bytes, not int -> str: 5"),
        ("{f'a/{n}': 'x' for n in range(100)}", "ValueError: a display has 100 forms, 64 at most: leave some out"),
    ],
)
def test_what_is_no_display_is_said(shown: str, words: str) -> None:
    error = run_code(f"display({shown}, raw=True)").error
    assert error is not None
    assert f"{error.exception_name}: {error.message}" == words


def test_a_tool_may_display_where_nobody_looks() -> None:
    tool = Tool.from_source("def f():\n    display(5)\n    progress(1, 2, 'x')\n")
    assert Sandbox().run_tool(tool).stdout == ["5\n"]


def test_a_sandbox_is_immutable_and_its_overrides_are_for_one_run() -> None:
    box = Sandbox(limits={"timeout_seconds": 5.0}, env={"A": "1"})
    with pytest.raises(AttributeError, match="immutable"):
        box.limits = None
    assert box.run_code("import os\nos.environ['A']", env={"A": "2"}).value == "2"
    assert box.run_code("import os\nos.environ['A']").value == "1"
    twin = pickle.loads(pickle.dumps(box))
    assert twin.options["limits"] == box.options["limits"]
    assert twin.run_code("import os\nos.environ['A']").value == "1"


def test_an_async_sandbox_leaves_the_loop_free_and_cancelling_stops_the_guest() -> None:
    async def main() -> None:
        box = AsyncSandbox()
        ran = asyncio.create_task(box.run_code("import time\ntime.sleep(0.2)\n'done'"))
        ticks = 0
        while not ran.done():
            ticks += 1
            await asyncio.sleep(0.01)
        assert ticks > 5
        assert (await ran).value == "done"
        tool = Tool.from_source("def f(x: int) -> int:\n    return x + 1")
        assert (await box.run_tool(tool, {"x": 1})).func_return == 2
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box.run_code("while True: pass"), 0.2)

    asyncio.run(main())


def test_worker_processes_run_code_too() -> None:
    result = run_code("x + 1", {"x": 41}, isolation="process")
    assert (result.error, result.value, result.text) == (None, 42, "42")


@pytest.mark.parametrize("megabytes", [64, 65, 70, 100])
def test_code_that_leaves_no_memory_to_tell_of_its_error_is_out_of_memory(megabytes: int) -> None:
    """A chain of a million lists: while each is let go, nothing that was taken is free yet."""
    box = Sandbox(limits=Limits(memory_bytes=megabytes << 20))
    code = "n = 2\nchain = []\nwhile True: chain = [chain]"
    assert error_of(box.run_code(code)) is ErrorKind.OUT_OF_MEMORY
    with box.session() as session:
        session.run_code("n = 1")
        assert error_of(session.run_code(code)) is ErrorKind.OUT_OF_MEMORY


def error_of(result: CodeResult) -> ErrorKind | None:
    return None if result.error is None else result.error.kind
