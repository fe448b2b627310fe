"""Report: what a tool printed and its result are mixed up when the result is too large.

The kind: a framed result that is not accepted, because it is longer than ``Limits.result_bytes`` or a part of it was
dropped. Standard output is what the tool printed, nothing else, before the result and after it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox import CodeResult, ErrorKind, Limits, Sandbox, Tool, ToolExecutionResult, run_code, run_tool
from wasm_sandbox.decode.frame import encode_frame
from wasm_sandbox.decode.interpret import framed_output
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.options import Isolation
from wasm_sandbox.outcome import Ending, Outcome

LIMITS = Limits(result_bytes=10_000, output_bytes=2_000)

TOOL = """
import atexit

def shout(before: str, size: int, after: str, raw: bool):
    print(before, end="")
    atexit.register(print, after, end="")
    return b"\\xff" * size if raw else "x" * size
"""

CODE = """
import atexit
print(before, end="")
atexit.register(print, after, end="")
b"\\xff" * size if raw else "x" * size
"""


def by_tool(values: dict[str, object], isolation: Isolation) -> ToolExecutionResult:
    return run_tool(Tool.from_source(TOOL), values, limits=LIMITS, isolation=isolation)


def by_code(values: dict[str, object], isolation: Isolation) -> CodeResult:
    return run_code(CODE, values, limits=LIMITS, isolation=isolation)


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("run", [by_tool, by_code])
@pytest.mark.parametrize("size", [9_999, 20_000, 200_000, 3_000_000])
def test_output_beside_an_oversized_result_is_what_was_printed(
    run: Callable[[dict[str, object], Isolation], ToolExecutionResult | CodeResult], size: int, isolation: Isolation
) -> None:
    for before, after in [("", ""), ("hello\n", ""), ("ü" * 500, "bye"), ("", "x" * 300)]:
        result = run({"before": before, "size": size, "after": after, "raw": size % 2 == 0}, isolation)
        assert "".join(result.stdout or []) == before + after
        assert result.error is not None
        assert result.error.kind is ErrorKind.CORRUPTED_RESULT
        assert "at most 10000 are accepted: raise Limits.result_bytes" in result.error.message
        assert result.usage is not None
        assert result.usage.stdout_dropped_bytes == 0


def test_output_of_a_session_beside_an_oversized_value_is_what_was_printed() -> None:
    with Sandbox(limits=LIMITS).session() as session:
        result = session.run_code("print('hello')\n'x' * 20_000")
        assert result.stdout == ["hello\n"]
        assert result.error is not None
        assert result.error.kind is ErrorKind.CORRUPTED_RESULT
        assert session.run_code("print('again')\n1").stdout == ["again\n"]


@pytest.mark.parametrize("size", [5_000, 20_000])
def test_output_of_a_run_that_is_stopped_after_its_result_is_what_was_printed(size: int) -> None:
    endless = (
        "def f(size: int):\n    import atexit\n    atexit.register(spin)\n    print('hello')\n    return 'x' * size\n"
    )
    tool = Tool.from_source(f"def spin():\n    while True: pass\n\n{endless}", name="f")
    result = run_tool(tool, {"size": size}, limits=LIMITS.model_copy(update={"fuel": 200_000_000}))
    assert result.error is not None
    assert result.error.kind is ErrorKind.OUT_OF_FUEL
    assert result.stdout == ["hello\n"]


TEXTS = st.binary(max_size=40).filter(lambda data: b"\x92" not in data)


@given(before=TEXTS, payload=st.binary(min_size=31, max_size=600), after=TEXTS, nested=st.booleans())
def test_no_byte_of_a_refused_frame_is_text_however_much_of_it_was_kept(
    before: bytes, payload: bytes, after: bytes, nested: bool
) -> None:
    """The pipe keeps the begin and the end; a result may itself hold frames."""
    limits = Limits(result_bytes=30, output_bytes=50)
    frame = encode_frame(encode_frame(b"n") + payload if nested and not after else payload)
    pipe = OutputPipe(50 + 30 + 52, 30 + 52 + 40)
    data = ctypes.create_string_buffer(before + frame + after, len(before) + len(frame) + len(after))
    pipe.write_from(ctypes.addressof(data), len(data))
    outcome = Outcome(Ending.EXITED, stdout=pipe.contents(), stdout_dropped_bytes=pipe.dropped_bytes)
    found = framed_output(outcome, limits)
    assert (found.payload, found.text) == (None, before + after)
    assert found.declared_bytes == len(frame) - 52
    assert found.frame_dropped_bytes == pipe.dropped_bytes
