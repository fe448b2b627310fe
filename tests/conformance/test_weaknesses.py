"""semantics.md, section 14: weaknesses of the legacy sandbox that no other test names, in the real guest."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from wasm_sandbox import ErrorKind, Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.decode.frame import encode_frame
from wasm_sandbox.script.generate import generate_script

MARKER_HEX = "92c8e49843d35fb3919da69eb3e5c5c6"
FORGE = f"""
import hashlib, os, pickle, struct, sys
def frame(payload, length=None):
    size = struct.pack(">I", len(payload) if length is None else length)
    digest = hashlib.md5(payload).hexdigest().encode()
    sys.stdout.buffer.write(bytes.fromhex("{MARKER_HEX}") + size + digest + payload)
"""


def run(source: str, args: dict[str, Any] | None = None, **limits: Any) -> ToolExecutionResult:
    return run_tool(Tool.from_source(source), args or {}, limits=Limits(**limits))


def kind_of(result: ToolExecutionResult) -> ErrorKind:
    assert result.error is not None
    return result.error.kind


def test_bytes_of_the_guest_are_never_unpickled_by_python(tmp_path: Path) -> None:
    """W1."""
    target = tmp_path / "owned"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(target),)

    payload = pickle.dumps({"results": Attack(), "agent_state": None})
    result = run(FORGE + f"def f():\n    frame({payload!r})\n    os._exit(0)\n")
    assert kind_of(result) is ErrorKind.FORBIDDEN_RESULT
    assert not target.exists()


def test_of_several_frames_the_last_valid_one_counts_and_the_rest_stays_text() -> None:
    """W4, section 8."""
    source = (
        FORGE + "def f():\n    frame(pickle.dumps({'results': 'forged', 'agent_state': None}))\n    return 'real'\n"
    )
    result = run(source)
    assert result.func_return == "real"
    assert result.stdout is not None
    assert "forged" in result.stdout[0]


@pytest.mark.parametrize(
    ("statement", "name", "words"),
    [
        ("import sys; sys.exit(0)", None, "exit code 0"),
        ("import sys; sys.exit('why')", "SystemExit", "exit code 1"),
        ("import os; os._exit(7)", "SystemExit", "exit code 7"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise BaseException('b')", "BaseException", "b"),
        ("raise GeneratorExit", "GeneratorExit", ""),
    ],
)
def test_without_a_valid_frame_there_is_no_success_and_the_reason_is_named(
    statement: str, name: str | None, words: str
) -> None:
    """W17."""
    result = run(f"def f():\n    {statement}\n")
    assert result.status == "error"
    assert result.error is not None
    assert result.error.exception_name == name
    assert words in result.error.message


def test_asyncio_works_as_in_cpython_also_nested_runs_fail_alike() -> None:
    """W20."""
    source = """
import asyncio
async def f():
    async def value(n):
        await asyncio.sleep(0.001)
        return n
    done = await asyncio.gather(value(1), asyncio.wait_for(value(2), 5))
    coroutine = value(3)
    try:
        asyncio.run(coroutine)
    except RuntimeError as error:
        coroutine.close()
        return done, str(error)
"""
    assert run(source).func_return == ([1, 2], "asyncio.run() cannot be called from a running event loop")


def test_a_result_is_not_turned_into_text_because_pydantic_is_there() -> None:
    """W21: pydantic is in the default guest."""
    result = run("def f():\n    return 1\n")
    assert (result.func_return, result.stdout) == (1, [])


def test_a_state_changed_before_an_exception_is_lost_as_a_whole() -> None:
    """W24."""
    tool = Tool.from_source("def f(agent_state):\n    agent_state.memo = 'half'\n    raise ValueError('no')\n")
    state = {"id": "a", "memo": ""}
    result = run_tool(tool, {}, agent_state=state)
    assert (result.status, result.agent_state, state) == ("error", None, {"id": "a", "memo": ""})


def test_a_payload_past_its_limit_is_refused_before_it_is_sliced() -> None:
    """W27."""
    result = run("def f():\n    return 'x' * 50_000\n", result_bytes=10_000)
    assert kind_of(result) is ErrorKind.CORRUPTED_RESULT
    assert result.error is not None
    assert "10000" in result.error.message
    claims_more = run(FORGE + "def f():\n    frame(pickle.dumps(1), length=2**32 - 1)\n    os._exit(0)\n")
    assert kind_of(claims_more) is ErrorKind.CORRUPTED_RESULT


def test_a_broken_frame_has_a_kind_of_its_own_and_output_is_kept() -> None:
    """W28."""
    source = FORGE + "def f():\n    print('said', file=sys.stderr)\n    frame(b'x', length=500)\n    os._exit(0)\n"
    result = run(source)
    assert kind_of(result) is ErrorKind.CORRUPTED_RESULT
    assert result.stderr == ["said\n"]


@pytest.mark.parametrize(
    ("statement", "name", "message"),
    [
        (
            "raise ValueError",  # without a text of its own
            "ValueError",
            "ValueError was raised in f.py, line 4 without a message: see the traceback",
        ),
        ("raise ValueError('a\\nb\\nc\\nd')", "ValueError", "a\nb\nc\nd"),
        ("raise type('Boom', (Exception,), {})('b')", "Boom", "b"),
        ("raise ExceptionGroup('g', [ValueError(1)])", "ExceptionGroup", "g (1 sub-exception)"),
    ],
)
def test_the_exception_is_told_by_the_guest_and_not_read_from_stderr(statement: str, name: str, message: str) -> None:
    """W29."""
    error = run(f"def f():\n    import sys\n    sys.stderr.write('FakeError: not this')\n    {statement}\n").error
    assert error is not None
    assert (error.exception_name, error.message) == (name, message)
    assert error.traceback is not None
    assert 'File "f.py", line 4, in f' in error.traceback


def test_output_is_bounded_marked_and_never_blocks_the_guest() -> None:
    """W30."""
    result = run("def f():\n    for _ in range(300): print('x' * 99_999)\n    return 'done'\n", output_bytes=1000)
    assert (result.func_return, result.stdout) == ("done", ["x" * 1000])
    assert result.usage is not None
    assert result.usage.stdout_dropped_bytes == 300 * 100_000 - 1000


def test_a_timeout_keeps_what_was_printed_and_its_known_text() -> None:
    """W31."""
    result = run("def f():\n    print('so far')\n    import time; time.sleep(60)\n", timeout_seconds=0.3)
    assert (result.func_return, result.stdout) == ("Executing tool f timed out after 0.3 seconds.", ["so far\n"])


def test_no_file_survives_a_call() -> None:
    """W33."""
    source = "def f():\n    import os\n    open('x', 'w').close()\n    return os.listdir('.')\n"
    assert [run(source).func_return for _ in range(2)] == [["tmp", "x"]] * 2
    assert run("def f():\n    import sys\n    return sys.path\n").func_return == []


def test_no_virtual_environment_and_no_background_task_is_involved() -> None:
    """W36: does not arise; a failed preparation of a call leaves nothing running."""
    run("def f():\n    return 1\n")
    before = threading.active_count()
    for _ in range(5):
        assert kind_of(run("def f(n: int):\n    return n\n", {"n": "many"})) is ErrorKind.BAD_ARGUMENTS
    assert threading.active_count() == before


def test_prints_come_before_the_frame_and_a_replaced_stream_does_not_hide_it() -> None:
    """W37."""
    assert run("def f():\n    print('a', end='')\n    return 1\n").stdout == ["a"]
    result = run("import io, sys\ndef f():\n    sys.stdout = io.StringIO()\n    print('lost')\n    return 2\n")
    assert (result.func_return, result.stdout) == (2, [])


@pytest.mark.parametrize(
    "value",
    [
        "functools.reduce(lambda inner, _: [inner], range(150), 0)",
        "functools.reduce(lambda i, _: {'k': i}, range(150), 0)",
    ],
)
def test_deep_results_come_back(value: str) -> None:
    """W40."""
    assert run(f"import functools\ndef f():\n    return {value}\n").status == "success"


@pytest.mark.parametrize(
    "source",
    [
        "import functools\ndef f():\n    return functools.reduce(lambda inner, _: [inner], range(5000), 0)\n",
        "def f():\n    a = []\n    a.append(a)\n    return a\n",
        "def f():\n    a = {}\n    a['a'] = [a]\n    return a\n",
    ],
)
def test_results_too_deep_or_cyclic_are_an_error_in_words(source: str) -> None:
    """W40."""
    result = run(source)
    assert result.status == "error"
    assert kind_of(result) in (ErrorKind.FORBIDDEN_RESULT, ErrorKind.TOOL_EXCEPTION)
    assert result.error is not None
    assert result.error.message


def test_the_frame_is_as_specified() -> None:
    """Section 8: marker, big-endian length, lower-case MD5, payload; section 7: the reference pickle."""
    payload = bytes.fromhex("80049520000000000000007d94288c07726573756c7473944b018c0b6167656e745f7374617465944e752e")
    framed = encode_frame(payload)
    assert framed[:16].hex() == MARKER_HEX
    assert framed[16:20] == b"\0\0\0\x2b"
    assert framed[20:52].decode() == hashlib.md5(payload).hexdigest()
    assert framed[52:] == payload
    tool = Tool.from_source("def f() -> int:\n    return 1\n")
    from wasm_sandbox.engine.engine import process_engine
    from wasm_sandbox.engine.world.surroundings import LiveSurroundings
    from wasm_sandbox.request import ExecutionRequest

    request = ExecutionRequest(generate_script(tool, {}).text, {}, Limits())
    assert process_engine().start(request, LiveSurroundings()).result().stdout == framed
