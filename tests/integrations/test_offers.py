"""Tools of frameworks as host functions, results as text, sessions by key: what all adapters stand on."""

from __future__ import annotations

import ast
import asyncio
import threading
import time
from typing import Any

import pytest

from tests.support.documents import ROOT, Block, blocks, names, rows
from wasm_sandbox import AsyncSandbox, HostFunction, Sandbox, run_code
from wasm_sandbox.integrations.offers import (
    MAX_CHARACTERS,
    KeptSessions,
    described,
    offered,
    python_name,
    renamed,
    telling,
    text_of,
)


def echo(**arguments: Any) -> dict[str, Any]:
    return arguments


def echoing(schema: dict[str, Any], name: str = "echo") -> HostFunction:
    return offered(name, echo, "Give the arguments back.", schema)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("search", "search"),
        ("web-search", "web_search"),
        ("mcp.web/search", "mcp_web_search"),
        ("2nd", "tool_2nd"),
        ("class", "class_"),
        ("display", "display_"),
        ("", "_"),
        ("größe", "größe"),
    ],
)
def test_any_name_of_a_tool_has_one_for_python(given: str, name: str) -> None:
    assert python_name(given) == name
    assert run_code(f"{name}()", functions=[echoing({}, given)]).value == {}


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("echo('x')", {"text": "x"}),
        ("echo(text='x', count=2)", {"text": "x", "count": 2}),
        ("echo('x', 2, [1], {'a': None})", {"text": "x", "count": 2, "rows": [1], "more": {"a": None}}),
        ("echo('x', None)", {"text": "x"}),
        ("echo('x', limit=3)", {"text": "x", "limit": 3}),
    ],
)
def test_arguments_reach_a_tool_as_they_were_given(call: str, arguments: dict[str, Any]) -> None:
    """What is left out stays left out, so that the tool's own default counts; a default of the schema is said."""
    properties = {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "rows": {"type": "array"},
        "more": {"type": "object"},
        "limit": {"type": "integer", "default": 10},
    }
    function = echoing({"properties": properties, "required": ["text"]})
    found = run_code(call, functions=[function]).value
    assert {**found, "limit": found.get("limit", 10)} == {"limit": 10, **arguments}


@pytest.mark.parametrize(
    "call", ["echo()", "echo(5)", "echo('x', count='many')", "echo('x', what=1)", "echo('x', 1, 2)"]
)
def test_arguments_that_do_not_fit_are_refused_in_the_code(call: str) -> None:
    properties = {"text": {"type": "string"}, "count": {"type": "integer"}}
    result = run_code(call, functions=[echoing({"properties": properties, "required": ["text"]})])
    assert result.error is not None
    assert result.error.exception_name in ("TypeError", "HostArgumentsError")


def test_a_strict_schema_requires_what_has_a_default_and_the_code_need_not_give_it() -> None:
    schema = {"properties": {"a": {"type": "integer", "default": 7}}, "required": ["a"]}
    assert run_code("echo()", functions=[echoing(schema)]).value in ({}, {"a": 7})


def test_names_that_no_signature_can_have_are_given_by_keyword() -> None:
    function = echoing({"properties": {"from": {"type": "string"}, "a-b": {}}, "required": ["from"]})
    assert run_code("echo(**{'from': 'x', 'a-b': 1})", functions=[function]).value == {"from": "x", "a-b": 1}


@pytest.mark.parametrize("schema", [{}, {"properties": None}, {"type": "object"}, {"properties": {"a": True}}])
def test_a_schema_that_says_little_is_enough(schema: dict[str, Any]) -> None:
    assert run_code("echo()", functions=[echoing(schema)]).value == {}


@pytest.mark.parametrize("is_async", [True, False])
def test_only_what_is_meant_for_a_model_reaches_the_code(is_async: bool) -> None:
    class ForModels(Exception):
        pass

    def call(kind: str) -> None:
        raise ForModels("ask again") if kind == "ours" else type("Secret", (Exception,), {})("a password")

    async def call_later(kind: str) -> None:
        call(kind)

    function = renamed("call", telling(call_later if is_async else call, ForModels))
    for kind, words, is_told in (("ours", "ask again", True), ("theirs", "a password", False)):
        code = f"await call({kind!r})" if is_async else f"call({kind!r})"
        assert (words in text_of(run_code(code, functions=[function]))) == is_told


def test_a_result_is_read_as_output_and_value_or_error() -> None:
    assert text_of(run_code("print('a')\ndisplay('b')\n'c'")) == "a\n'b'\n'c'"
    assert text_of(run_code("x = 1")) == "(no output)"
    assert text_of(run_code("print('a')\n1 / 0")).startswith("a\nTraceback")
    assert text_of(run_code("print('a')\n1 / 0")).count("ZeroDivisionError") == 1
    assert "timeout: " in text_of(run_code("while True: pass", limits={"timeout_seconds": 0.2}))


def test_a_long_result_is_cut_in_the_middle() -> None:
    text = text_of(run_code("print('begin', 'x' * 100_000, 'end')"))
    assert len(text) < MAX_CHARACTERS + 100
    assert text.startswith("begin")
    assert text.endswith("end")


def test_a_description_has_the_functions() -> None:
    stubs = Sandbox(functions=[echoing({"properties": {"a": {"type": "string"}}})]).functions.stubs()
    text = described(stubs, keeps_state=True)
    assert "Give the arguments back." in text
    assert "kept from call to call" in text


def test_the_documents_table_names_every_adapter_and_what_each_cannot_do() -> None:
    shown = {names(row[1])[0].partition(".")[0] for row in rows(ROOT / "docs" / "integrations.md", "framework")}
    files = sorted((ROOT / "wasm_sandbox" / "integrations").glob("[a-z]*.py"))
    assert shown == {file.stem for file in files} - {"offers"}
    for file in files:
        assert file.stem == "offers" or "What it cannot do:" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "block", [block for block in blocks("py") if block.document == "integrations"], ids=lambda block: block.name
)
def test_what_the_document_shows_names_what_there_is(block: Block) -> None:
    """Each is run with its framework by the tests of its own file; here its names and options are looked at."""
    tree = ast.parse(block.text)
    (found,) = [node for node in tree.body if isinstance(node, ast.ImportFrom) and "wasm_sandbox" in str(node.module)]
    source = (ROOT / f"{str(found.module).replace('.', '/')}.py").read_text(encoding="utf-8")
    defined = {node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert {alias.name for alias in found.names} <= defined


# --- Sessions by key ------------------------------------------------------------------------------------


def test_a_key_has_its_session_and_the_most_bounds_them() -> None:
    sessions = KeptSessions(Sandbox(), 2, 900.0)
    first = sessions.get("a")
    first.run_code("x = 1")
    assert sessions.get("a").run_code("x").value == 1
    assert sessions.get("b").run_code("x").error is not None
    sessions.get("a")
    other = sessions.get("b")
    sessions.get("a")
    sessions.get("c")
    deadline = time.monotonic() + 10
    while not other.is_closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (first.is_closed, other.is_closed) == (False, True)
    sessions.close()
    assert first.is_closed


def test_a_session_that_is_over_is_made_anew() -> None:
    sessions = KeptSessions(Sandbox(), 2, 900.0)
    sessions.get("a").close()
    assert sessions.get("a").run_code("1").value == 1
    sessions.close()


def test_threads_that_ask_for_a_key_together_get_one_session() -> None:
    sessions = KeptSessions(Sandbox(), 4, 900.0)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(sessions.get("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(session) for session in found}) == 1
    sessions.close()


def test_a_session_that_is_put_out_ends_its_call_first() -> None:
    sessions = KeptSessions(Sandbox(), 1, 900.0)
    session = sessions.get("a")
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(session.run_code("import time\ntime.sleep(0.5)\n1").value))
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    sessions.get("b")
    assert time.monotonic() - began < 0.4
    thread.join()
    assert results == [1]
    sessions.close()


def test_async_tools_run_on_the_callers_loop() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()

        async def call(**_: Any) -> bool:
            return asyncio.get_running_loop() is loop

        box = AsyncSandbox(functions=[offered("same", call, None, {})])
        return (await box.run_code("await same()")).value

    assert asyncio.run(main()) is True
