"""Results of runs as tool results: what a model reads, what a program reads, and what no client could read."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from mcp_types import CallToolResult
from mcp_types.jsonrpc import JSONRPCResponse, jsonrpc_message_adapter

from tests.mcp.conversations import text_of
from wasm_sandbox import CodeResult, ErrorKind, ToolError, run_code
from wasm_sandbox.mcp.answers import MAX_BYTES, answer, is_quick

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def answered(code: str) -> CallToolResult:
    return answer(run_code(code))


def over_the_wire(result: CallToolResult) -> Any:
    """What a client gets of a result, by way of the SDK's own JSON."""
    fields = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    line = JSONRPCResponse(jsonrpc="2.0", id=1, result=fields).model_dump_json(by_alias=True).encode()
    return jsonrpc_message_adapter.validate_json(line)


def test_a_reader_sees_output_displays_and_value_in_order() -> None:
    result = answered("print('one')\ndisplay('two', raw=False)\n'three'")
    assert text_of(result) == "one\n\n'two'\n'three'"
    assert not result.is_error


def test_an_error_is_read_as_its_traceback_and_once() -> None:
    result = answered("print('begin')\n1 / 0")
    assert result.is_error
    assert text_of(result).count("ZeroDivisionError") == 1
    assert result.structured_content["error"]["kind"] == "tool_exception"
    assert result.structured_content["stdout"] == "begin\n"


def test_nothing_to_say_is_said() -> None:
    assert text_of(answered("x = 1")) == "(no output)"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("image/png", PNG),
        ("image/jpeg", b"\xff\xd8\xff\xe0rest"),
        ("image/gif", b"GIF89a rest"),
        ("image/webp", b"RIFF\x00\x00\x00\x00WEBP"),
    ],
)
def test_a_picture_is_a_picture(kind: str, data: bytes) -> None:
    result = answered(f"display({{{kind!r}: {data!r}, 'text/plain': 'a picture'}}, raw=True)")
    (picture,) = [part for part in result.content if part.type == "image"]
    assert (picture.mime_type, base64.b64decode(picture.data)) == (kind, data)
    assert text_of(result) == "a picture"
    assert result.structured_content["displays"] == [{"text/plain": "a picture"}]


def test_a_picture_may_be_text_as_in_notebooks() -> None:
    result = answered(f"display({{'image/png': {base64.b64encode(PNG).decode()!r}}}, raw=True)")
    assert [part.type for part in result.content] == ["text", "image"]


@pytest.mark.parametrize("data", [b"no picture", b"", "%%%", "", b"RIFF but for a png"])
def test_what_is_no_picture_is_not_sent_as_one(data: bytes | str) -> None:
    """A model that is sent a picture that it cannot read refuses the conversation, for good."""
    result = answered(f"display({{'image/png': {data!r}, 'text/plain': 'shown'}}, raw=True)")
    assert [part.type for part in result.content] == ["text"]
    assert text_of(result) == "shown"


@pytest.mark.parametrize(
    "code",
    [
        "'\\ud800'",
        "{'\\udfff': ['\\ud800']}",
        "print('x' * 3, chr(0xD800).encode('utf-8', 'surrogatepass'))\nraise ValueError('\\ud800')",
        "display({'text/plain': '\\ud800', '\\udc00': 'x'}, raw=True)",
        "float('nan'), float('inf'), {1: 2, None: 3, (1, 2): 4}, b'\\xff', {1, 2}",
        "10 ** 5000",
        "import decimal, datetime\n[decimal.Decimal('1.10'), datetime.date(2026, 1, 2), 1j, 2 ** 80]",
        "x = []\nfor _ in range(300): x = [x]\nx",
        "x = {}\nfor _ in range(12): x = {'a': x, 'b': [x]}\n[x, 1]",
        "[*range(300_000)]",
        "x = []\nx.append(x)\nx",
        "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe\\n')",
        "'\\0\\x1b[2J\\u202e'",
    ],
)
def test_whatever_a_guest_says_a_client_can_read(code: str) -> None:
    result = answered(code)
    assert over_the_wire(result).result["structuredContent"]["status"] in ("success", "error")
    json.dumps(result.structured_content, allow_nan=False)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def of_value(value: Any) -> Any:
    return answer(CodeResult(status="success", value=value, text="it")).structured_content


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1.5, None, True]}, nested(10), nested(60), [[1]] * 40_000])
def test_a_value_goes_as_it_is(value: Any) -> None:
    assert (of_value(value)["value"], of_value(value)["value_is_text"]) == (value, False)


def test_a_value_that_is_too_deep_is_text() -> None:
    assert (of_value(nested(61))["value"], of_value(nested(61))["value_is_text"]) == (repr(nested(61)), True)


def test_a_value_that_is_too_large_is_text_and_its_beginning() -> None:
    found = of_value([*range(400_000)])
    assert found["value_is_text"]
    assert found["value"].startswith("[0, 1, 2, ")
    assert found["value"].endswith(" characters more)")


def test_shared_parts_are_counted_each_time() -> None:
    value: Any = [1]
    for _ in range(18):
        value = [value, value]
    assert of_value(value)["value_is_text"]
    assert not is_quick(CodeResult(status="success", value=value))


def test_a_large_result_is_read_off_the_event_loop() -> None:
    large = ("[*range(5000)]", "'x' * 300_000", "print('x' * 300_000)", "display({'a/b': 'x' * 300_000}, raw=True)")
    for code in large:
        assert not is_quick(run_code(code)), code
    assert is_quick(run_code("print('x')\n{'a': [*range(1000)]}"))


@pytest.mark.parametrize("letter", ["x", "\0", "\u20ac", "\U0001f600", "\ud800", '"'])
def test_no_result_is_larger_than_a_client_takes(letter: str) -> None:
    """As JSON in ASCII, where a character takes up to twelve bytes."""
    text = letter * 900_000
    error = ToolError(kind=ErrorKind.TOOL_EXCEPTION, message=text, exception_name=text, traceback=text)
    pictures: list[Any] = [
        {"image/png": PNG + bytes(n), "text/html": text, letter: text} for n in (10, 100_000, 900_000)
    ]
    for status, given in (("success", None), ("error", error)):
        result = CodeResult(
            status=status, value={"a": text}, text=text, stdout=[text], stderr=[text], displays=pictures, error=given
        )
        made = answer(result, session="s", is_new=True)
        size = len(json.dumps(made.model_dump(by_alias=True, mode="json", exclude_none=True)))
        assert size < MAX_BYTES + 10_000
        assert "characters more)" in text_of(made)
        assert "(The session s began with this call.)" in text_of(made)


def test_a_picture_that_is_too_large_is_told_of() -> None:
    shown: Any = [{"image/png": PNG + bytes(900_000), "text/plain": "a picture"}]
    result = answer(CodeResult(status="success", displays=shown))
    assert text_of(result) == "(image/png of 900,028 bytes, too large to be sent)"


def test_long_text_is_cut_for_a_reader_and_the_value_is_whole() -> None:
    result = answer(CodeResult(status="success", value="x" * 200_000, text=repr("x" * 200_000)))
    assert text_of(result).endswith("(100,002 characters more)")
    assert result.structured_content["value"] == "x" * 200_000
