"""Large bodies: the same as pydantic makes of them, and an event loop that goes on while they are parsed."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tests.support.loop_meter import longest_gap
from wasm_sandbox.web import MAX_ENTRIES, read_large


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fuel: int = 1


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, val_json_bytes="base64")

    code: str
    inputs: dict[str, JsonValue] | None = None
    state: JsonValue = None
    files: dict[str, bytes] | None = Field(None, max_length=MAX_ENTRIES)
    limits: Inner | None = None


def large(data: bytes) -> Any:
    return read_large(data, Shape, {"inputs", "state"})


def found(read: Any, data: bytes) -> Any:
    """What a reader makes of a body: its fields, or its faults with their places."""
    try:
        return repr(read(data).model_dump())
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        return [
            (fault["type"], fault["loc"], "" if fault["type"] == "json_invalid" else fault["msg"]) for fault in faults
        ]


def body(field: str) -> bytes:
    return b'{"code": "1", ' + field.encode("utf-8", "surrogatepass") + b"}"


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"1",
            b"null",
            b"[]",
            b"{",
            b"{}",
            b'{"code": 1}',
            b'{"code": "1"',
            b'{"code": "1"} x',
            b'{"code": "1",}',
        ),
        *(b"\xff", b'\xef\xbb\xbf{"code": "1"}', b'{"code": "a\nb"}', b"{'code': 1}", b'{"code": "\\ud800"}'),
        *(b'{"code": "1", "code": "2"}', b'{"code": "\\u00e9\\ud83d\\ude00 \\\\ud800"}', '{"code": "é"}'.encode()),
        *map(
            body,
            [
                '"inputs": {"a": [1, -0, 2.5, -0.0, 1E5, 1e999, null, true, "x", {"b": []}]}',
                '"inputs": {"a": NaN, "b": -Infinity}',
                '"inputs": null',
                '"inputs": [1]',
                '"inputs": 7',
                '"inputs": {"\\ud800": 1}',
                '"inputs": {"a": 1, "a": 2}',
                '"inputs": {"a": 01}',
                '"inputs": {"a": ' + "1" * 5000 + "}",
                '"inputs": {"a": ' + "1" * 4000 + "}",
                '"inputs": {"a": ' + "[" * 150 + "]" * 150 + "}",
                '"inputs": {"a": ' + "[" * 100_000 + "}",
                '"state": [1, {"a": 2}]',
                '"state": {"a": {"b": null}}',
                '"files": {"/a": "eA=="}',
                '"files": {"/a": "!"}',
                '"files": {"/a": [[1]]}',
                '"files": {' + ", ".join(f'"/{n}": ""' for n in range(MAX_ENTRIES)) + "}",
                '"files": {' + ", ".join(f'"/{n}": ""' for n in range(MAX_ENTRIES + 1)) + "}",
                '"limits": {"fuel": 5}',
                '"limits": {"fuel": "5"}',
                '"limits": {"fuel": 5, "x": 1}',
                '"more": [1, 2]',
            ],
        ),
    ],
)
def test_a_large_body_is_read_as_a_small_one(data: bytes) -> None:
    assert found(large, data) == found(lambda given: Shape.model_validate_json(given, strict=True), data)


@pytest.mark.parametrize("text", ["\\ud800hush", "hush" + "9" * 5000])
def test_what_is_said_of_a_body_holds_nothing_of_it(text: str) -> None:
    quoted = f'"{text}"' if "ud800" in text else "9" * 5000
    with pytest.raises(ValidationError) as caught:
        large(body(f'"inputs": {{"a": {quoted}}}'))
    (fault,) = caught.value.errors(include_url=False, include_input=False)
    assert "hush" not in fault["msg"]
    assert "99" not in fault["msg"]


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Collections look through no objects of other tests, whose number decides how long they hold the lock."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("part", ["[],", '{"a": "b"},', "1.5,", '"text",'])
async def test_an_event_loop_goes_on_meanwhile(part: str) -> None:
    data = body(f'"inputs": {{"a": [{part * (1_600_000 // len(part))} 1]}}')
    shares = []
    for _ in range(3):  # on a busy machine there are other gaps; a lock that is held is one of them every time
        began = time.perf_counter()
        with longest_gap() as meter:
            made = await asyncio.to_thread(large, data)
        assert made.inputs["a"][-1] == 1
        shares.append(meter.longest / (time.perf_counter() - began))
    assert min(shares) < 0.5
