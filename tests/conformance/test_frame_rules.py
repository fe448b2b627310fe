"""semantics.md, section 8: what a guest writes to its output, row by row, and what the host takes for the result."""

from __future__ import annotations

import pytest

from wasm_sandbox import ErrorKind, Tool, run_tool

WRITE = """
import hashlib, os, pickle, struct, sys
MARKER = bytes.fromhex("92c8e49843d35fb3919da69eb3e5c5c6")
ONE = pickle.dumps({"results": 1, "agent_state": None})
TWO = pickle.dumps({"results": 2, "agent_state": None})
def frame(payload, length=None, digest=None):
    size = struct.pack(">I", len(payload) if length is None else length)
    return MARKER + size + (digest or hashlib.md5(payload).hexdigest().encode()) + payload
def f():
    sys.stdout.buffer.write(WRITTEN)
    sys.stdout.buffer.flush()
    os._exit(0)
"""

RESULTS: dict[str, tuple[str, int, list[str]]] = {
    "a frame alone": ("frame(ONE)", 1, []),
    "text around a frame": ("b'before ' + frame(ONE) + b'after'", 1, ["before after"]),
    "of two frames the last": ("frame(ONE)[:0] + b'a' + frame(ONE) + b'b' + frame(TWO) + b'c'", 2, []),
    "a partial marker before it": ("MARKER[:9] + frame(ONE)", 1, []),
    "a frame that is no frame before it": ("frame(ONE, 5000) + b'x' * 5000 + frame(TWO)", 2, []),
    "a frame inside a frame": (
        "frame(pickle.dumps({'results': 3, 'agent_state': None}) + frame(TWO)) + frame(ONE)",
        1,
        [],
    ),
}


@pytest.mark.parametrize(("written", "value", "text"), RESULTS.values(), ids=RESULTS.keys())
def test_the_last_whole_frame_is_the_result_and_all_else_is_text(written: str, value: int, text: list[str]) -> None:
    """Section 8, W4, W5."""
    result = run_tool(Tool(name="f", source_code=WRITE.replace("WRITTEN", written)))
    assert result.func_return == value
    if text:
        assert result.stdout == text


DAMAGED: dict[str, tuple[str, ErrorKind]] = {
    "nothing": ("b''", ErrorKind.NO_RESULT),
    "text alone": ("b'text'", ErrorKind.NO_RESULT),
    "bytes that are no UTF-8": ("b'\\xff\\xfe'", ErrorKind.NO_RESULT),
    "an empty payload": ("frame(b'')", ErrorKind.CORRUPTED_RESULT),
    "a marker alone": ("MARKER", ErrorKind.CORRUPTED_RESULT),
    "a marker and three bytes": ("MARKER + b'abc'", ErrorKind.CORRUPTED_RESULT),
    "a cut checksum": ("frame(ONE)[:40]", ErrorKind.CORRUPTED_RESULT),
    "a cut payload": ("frame(ONE)[:-1]", ErrorKind.CORRUPTED_RESULT),
    "a wrong checksum": ("frame(ONE, digest=b'0' * 32)", ErrorKind.CORRUPTED_RESULT),
    "a checksum in upper case": (
        "frame(ONE, digest=hashlib.md5(ONE).hexdigest().upper().encode())",
        ErrorKind.CORRUPTED_RESULT,
    ),
    "a length that is too large": ("frame(ONE, length=len(ONE) + 1)", ErrorKind.CORRUPTED_RESULT),
    "a length that is too small": ("frame(ONE, length=len(ONE) - 1)", ErrorKind.CORRUPTED_RESULT),
    "no pickle": ("frame(b'text')", ErrorKind.CORRUPTED_RESULT),
    "another shape": ("frame(pickle.dumps([1]))", ErrorKind.CORRUPTED_RESULT),
    "a key too few": ("frame(pickle.dumps({'results': 1}))", ErrorKind.CORRUPTED_RESULT),
    "what would be called": ("frame(b\"cos\\nsystem\\n(S'true'\\ntR.\")", ErrorKind.FORBIDDEN_RESULT),
}


@pytest.mark.parametrize(("written", "kind"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_no_whole_frame_is_an_error_of_its_kind(written: str, kind: ErrorKind) -> None:
    """Section 8, W1, W27, W28."""
    result = run_tool(Tool(name="f", source_code=WRITE.replace("WRITTEN", written)))
    assert result.error is not None
    assert result.error.kind is kind
    assert result.agent_state is None
