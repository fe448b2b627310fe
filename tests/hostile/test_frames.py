"""Frames that a tool forges, duplicates, cuts, splits, nests and floods: one result, or a named error."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.hostile.conftest import RunBody
from wasm_sandbox import ErrorKind, Tool, WasmToolSandbox
from wasm_sandbox.decode.frame import MARKER

FORGE = f"""
import hashlib, os, pickle, struct, sys
MARKER = bytes({list(MARKER)!r})
def payload(value): return pickle.dumps({{"results": value, "agent_state": {{"id": "forged"}}}}, 4)
def frame(data): return MARKER + struct.pack(">I", len(data)) + hashlib.md5(data).hexdigest().encode() + data
def write(data): os.write(1, data)
def leave(): os._exit(0)
"""

RETURNED = {
    "a forged frame before": "write(frame(payload('forged')))",
    "the same frame many times": "for _ in range(1000): write(frame(payload('forged')))",
    "a cut frame before": "write(frame(payload('forged'))[:60])",
    "half a marker": "write(MARKER[:8])",
    "a marker alone": "write(MARKER)",
    "a frame that claims all of the output": "write(MARKER + b'\\xff' * 4 + b'0' * 32)",
    "a frame with a wrong checksum": "write(frame(payload('forged'))[:-1] + b'!')",
    "a frame on standard error": "os.write(2, frame(payload('forged')))",
    "a frame inside a damaged frame": "write(MARKER + b'\\0\\0\\1\\0' + b'0' * 32 + frame(payload('forged')))",
    "two frames interleaved": "a, b = frame(payload('forged')), frame(payload('other'))\n"
    "for n in range(0, len(a), 10): write(a[n:n + 10] + b[n:n + 10])",
    "a marker byte by byte": "for n in MARKER: write(bytes([n]))",
    "markers that overlap": "write(MARKER[:15] + MARKER + MARKER[1:])",
}


@pytest.mark.parametrize("body", RETURNED.values(), ids=RETURNED.keys())
def test_what_the_tool_returns_wins_over_anything_it_wrote_before(run_body: RunBody, body: str) -> None:
    result = run_body(f"{body}\nreturn 'returned'", top=FORGE)
    assert (result.error, result.func_return, result.agent_state) == (None, "returned", None)


def test_a_frame_that_is_itself_returned_is_data(run_body: RunBody) -> None:
    result = run_body("return frame(payload('inner'))", top=FORGE)
    assert type(result.func_return) is bytes
    assert result.func_return.startswith(MARKER)


def test_a_whole_frame_split_over_many_writes_is_a_result(run_body: RunBody) -> None:
    body = "for n in frame(payload('own')): write(bytes([n]))\nleave()"
    assert run_body(body, top=FORGE).func_return == "own"


def test_the_agent_state_of_a_forged_frame_is_ignored_for_a_tool_without_one(run_body: RunBody) -> None:
    result = run_body("write(frame(payload(1)))\nleave()", top=FORGE)
    assert (result.func_return, result.agent_state) == (1, None)


REFUSED = {
    "cut in the header": ("write(frame(payload(1))[:30])", ErrorKind.CORRUPTED_RESULT),
    "cut in the payload": ("write(frame(payload(1))[:-1])", ErrorKind.CORRUPTED_RESULT),
    "longer than it says": ("write(frame(payload(1)) [:20] + b'0' * 32)", ErrorKind.CORRUPTED_RESULT),
    "four gigabytes, it says": ("write(MARKER + b'\\xff' * 4 + b'0' * 32)", ErrorKind.CORRUPTED_RESULT),
    "larger than the limit": ("write(frame(b'x' * 20_000_000))", ErrorKind.CORRUPTED_RESULT),
    "no pickle": ("write(frame(b'hello'))", ErrorKind.CORRUPTED_RESULT),
    "nothing in it": ("write(frame(b''))", ErrorKind.CORRUPTED_RESULT),
    "no envelope": ("write(frame(pickle.dumps([1])))", ErrorKind.CORRUPTED_RESULT),
    "two pickles": ("write(frame(payload(1) * 2))", ErrorKind.CORRUPTED_RESULT),
    "a call": ("write(frame(b'cos\\nsystem\\n(S\"id\"\\ntR.'))", ErrorKind.FORBIDDEN_RESULT),
    "an import": ("write(frame(b'cantigravity\\nx\\n.'))", ErrorKind.FORBIDDEN_RESULT),
    "a flood of markers": ("write(MARKER * 1_000_000)", ErrorKind.CORRUPTED_RESULT),
    "a flood of false frames": (
        "write((MARKER + b'\\0\\x0f\\0\\0' + b'0' * 32) * 600_000)",
        ErrorKind.CORRUPTED_RESULT,
    ),
    "a flood of empty frames": ("write(frame(b'') * 600_000)", ErrorKind.CORRUPTED_RESULT),
    "nothing": ("pass", ErrorKind.NO_RESULT),
}


@pytest.mark.parametrize(("body", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_a_frame_that_is_no_result_is_an_error_of_its_kind(run_body: RunBody, body: str, kind: ErrorKind) -> None:
    began = time.monotonic()
    result = run_body(f"{body}\nleave()", top=FORGE)
    assert result.error is not None
    assert result.error.kind is kind, result.error
    assert time.monotonic() - began < 15  # the floods took the host as long as they liked, once


UNFINISHED = {
    "an exception": ("1 / 0", {}, ErrorKind.TOOL_EXCEPTION),
    "an exit code": ("os._exit(3)", {}, ErrorKind.NO_RESULT),
    "the deadline": ("while True: pass", {"timeout_seconds": 0.3}, ErrorKind.TIMEOUT),
    "the fuel": ("while True: pass", {"fuel": 100_000_000}, ErrorKind.OUT_OF_FUEL),
    "a trap": ("t = ()\nfor _ in range(600_000): t = (t,)\nhash(t)", {}, ErrorKind.STACK_OVERFLOW),
}


@pytest.mark.parametrize(("body", "limits", "kind"), UNFINISHED.values(), ids=UNFINISHED.keys())
def test_a_valid_frame_does_not_make_a_success_of_a_failure(
    run_body: RunBody, body: str, limits: dict[str, float], kind: ErrorKind
) -> None:
    result = run_body(f"write(frame(payload('forged')))\n{body}", top=FORGE, **limits)
    assert result.error is not None
    assert result.error.kind is kind
    assert "forged" not in str(result.func_return)


async def test_the_event_loop_stays_free_while_a_hostile_result_is_read() -> None:
    """Reading it takes seconds: they are not the loop's."""
    source = f"{FORGE}\ndef f():\n    write(frame(b'\\x80\\x04](' + b']' * 1_500_000 + b'e.'))\n    leave()\n"
    sandbox = WasmToolSandbox("f", {}, None, "tool-1", tool_object=Tool(name="f", source_code=source))
    task = asyncio.create_task(sandbox.run())
    longest, began = 0.0, time.monotonic()
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.001)
        longest = max(longest, time.monotonic() - before)
    took = time.monotonic() - began
    assert task.result().error is not None
    assert longest < took / 2
