"""Report: a failed run says "unreachable", or nothing at all.

The kind: every `ErrorKind`, by every way to it. Its message is a sentence with the limit or the cause, and the remedy.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from wasm_sandbox import ErrorKind, Image, ImageError, Limits, Sandbox, Tool, ToolError, run_code, run_tool
from wasm_sandbox.cli.display import MAX_LINE_CHARACTERS, explain
from wasm_sandbox.decode.frame import MARKER, encode_frame
from wasm_sandbox.decode.interpret import interpret
from wasm_sandbox.outcome import Ending, Outcome

ROOT = Path(__file__).parents[2]
SMALL = Limits(result_bytes=10_000)

CASES: list[tuple[ErrorKind, str, dict[str, Any], str, str]] = [
    (ErrorKind.TOOL_EXCEPTION, "raise ValueError", {}, r"ValueError was raised in .*, line \d", "see the traceback"),
    (ErrorKind.TOOL_EXCEPTION, "assert False", {}, r"AssertionError was raised in .*, line \d", "see the traceback"),
    (ErrorKind.TOOL_EXCEPTION, "raise ValueError('  ')", {}, "ValueError was raised in", "see the traceback"),
    (ErrorKind.TOOL_EXCEPTION, "raise KeyboardInterrupt", {}, "KeyboardInterrupt was raised", "see the traceback"),
    (ErrorKind.SYNTAX_ERROR, "x = (", {}, "was never closed", ""),
    (ErrorKind.SYNTAX_ERROR, "x = '\0'", {}, "NUL byte in line 2|null bytes", ""),
    (ErrorKind.OUT_OF_FUEL, "while True: pass", {"fuel": 10**8}, "fuel of 100000000", "raise Limits.fuel"),
    (ErrorKind.TIMEOUT, "while True: pass", {"timeout_seconds": 0.2}, "0.2 seconds", "Raise Limits.timeout_seconds"),
    (ErrorKind.OUT_OF_MEMORY, "len('x' * 10**9)", {}, "268435456 bytes of memory", "raise Limits.memory_bytes"),
    (
        ErrorKind.OUT_OF_MEMORY,
        "[[0] * 10**6 for _ in range(10**6)]",
        {},
        "bytes of memory",
        "raise Limits.memory_bytes",
    ),
    (ErrorKind.OUT_OF_MEMORY, "raise MemoryError", {}, "bytes of memory", "raise Limits.memory_bytes"),
    (
        ErrorKind.STACK_OVERFLOW,
        "t = ()\n    for _ in range(600_000): t = (t,)\n    hash(t)",
        {},
        "native stack",
        "use a loop",
    ),
    (ErrorKind.NO_RESULT, "import os; os._exit(0)", {}, "ended the interpreter", "let it return"),
    (ErrorKind.NO_RESULT, "import os; os._exit(7)", {}, "exit code 7", "let it return"),
    (
        ErrorKind.NO_RESULT,
        "import os, sys; sys.stdout.write('x' * 200_000); sys.stdout.flush(); os._exit(0)",
        {"output_bytes": 1000, "result_bytes": 1000},
        "bytes of which were dropped",
        "raise Limits.output_bytes",
    ),
    (
        ErrorKind.CORRUPTED_RESULT,
        "import os; os.write(1, FRAME); os._exit(0)".replace("FRAME", repr(encode_frame(b"x" * 20_000))),
        {"result_bytes": 10_000},
        "takes 20000 bytes, at most 10000",
        "raise Limits.result_bytes",
    ),
    *(
        (
            ErrorKind.CORRUPTED_RESULT,
            f"import os; os.write(1, {data}); os._exit(0)",
            {},
            cause,
            "leave it to the script",
        )
        for data, cause in [
            (repr(encode_frame(b"abc")[:-1]), "cut short"),
            (repr(encode_frame(b"abc")[:-1] + b"x"), "checksum"),
            (f"{MARKER!r} * 70_000", "false frames"),
            (repr(encode_frame(b"abc")), "pickle"),
        ]
    ),
    (ErrorKind.GUEST_TRAP, "import os; os.abort()", {}, r"aborted \(.*unreachable", "do without os.abort"),
]
"""Kind, statements, limits, what the message says of the cause, and of the remedy."""


def check(error: ToolError | None, kind: ErrorKind, cause: str, remedy: str) -> None:
    assert error is not None
    assert error.kind is kind, error
    assert re.search(cause, error.message), error.message
    assert remedy in error.message
    assert len(error.message.split()) > 3
    line = explain(error)  # in the command's terms: an option, and no name of the library
    assert "Limits." not in line


@pytest.mark.parametrize(("kind", "code", "limits", "cause", "remedy"), CASES)
def test_every_kind_says_the_cause_and_the_remedy(
    kind: ErrorKind, code: str, limits: dict[str, Any], cause: str, remedy: str
) -> None:
    tool = Tool(name="f", source_code=f"def f():\n    {code}")
    check(run_tool(tool, limits=Limits(**limits)).error, kind, cause, remedy)
    if kind is not ErrorKind.CORRUPTED_RESULT:  # of a frame, which code has none of
        check(run_code(code.replace("\n    ", "\n"), limits=Limits(**limits)).error, kind, cause, remedy)


_FORGE = "import _sandbox_live as live\nlive._payload = lambda *_: "
_NO_CELL = "does not hold the result of a cell"


@pytest.mark.parametrize(
    ("code", "cause", "remedy"),
    [
        ("'x' * 20_000", "bytes, at most 10000", "raise Limits.result_bytes"),
        (_FORGE + "bytes(20_000)", "takes 20000 bytes, at most 10000", "raise Limits.result_bytes"),
        (_FORGE + "b'junk'", "pickle", "leave it to the script"),
        (_FORGE + "b'\\1'", _NO_CELL, "leave it to the script"),
        (_FORGE + r"b'\1\2\0\0\0x'", _NO_CELL, "leave it to the script"),
        (_FORGE + r"b'\1\xff\xff\xff\xff'", _NO_CELL, "leave it to the script"),
        (_FORGE + r"b'\1\1\0\0\0\xff'", _NO_CELL, "leave it to the script"),
        (_FORGE + "__import__('pickle').dumps((1, 2, 3), 4)", _NO_CELL, "leave it to the script"),
    ],
)
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_an_answer_that_is_none_says_the_cause_and_the_remedy(
    code: str, cause: str, remedy: str, isolation: Any
) -> None:
    error = run_code(code, limits=Limits(result_bytes=10_000), isolation=isolation).error
    check(error, ErrorKind.CORRUPTED_RESULT, cause, remedy)
    with Sandbox(limits=Limits(result_bytes=10_000), isolation=isolation).session() as session:
        session.run_code("x = 1")
        check(session.run_code(code).error, ErrorKind.CORRUPTED_RESULT, cause, remedy)


def test_a_text_that_is_longer_than_its_answer_is_refused() -> None:
    error = run_code(_FORGE + r"b'\1\xff\xff\xff\xff'").error
    check(error, ErrorKind.CORRUPTED_RESULT, _NO_CELL, "leave it to the script")


def test_an_answer_that_is_longer_than_allowed_is_not_read() -> None:
    error = run_code("'x' * 20_000", limits=Limits(result_bytes=10_000)).error
    check(error, ErrorKind.CORRUPTED_RESULT, "bytes, at most 10000", "raise Limits.result_bytes")
    assert run_code("'x' * 9_000", limits=Limits(result_bytes=20_000)).value == "x" * 9_000


@pytest.mark.parametrize("code", ["live.answer = None", "live.answer = lambda data, is_new: 1", "live._SERVED.clear()"])
def test_a_guest_that_spoils_its_own_side_of_calls_harms_its_session_alone(code: str) -> None:
    with Sandbox().session() as session:
        session.run_code("x = 1")
        point = session.checkpoint()
        session.run_code("import _sandbox_live as live\n" + code)
        for _ in range(2):
            result = session.run_code("x")
            assert result.value == 1 or result.error is not None
        session.rollback(point)
        assert session.run_code("x").value == 1


def test_what_is_left_of_the_kinds_says_it_too() -> None:
    tool = Tool.from_source("def f(x: int): return print")
    check(run_tool(tool, {"x": 1}).error, ErrorKind.FORBIDDEN_RESULT, "builtins.print", "return plain data")
    check(run_tool(tool, {"x": "many"}).error, ErrorKind.BAD_ARGUMENTS, "expected a whole number", "got 'many'")
    outcome = Outcome(Ending.CANCELLED)
    check(interpret(outcome, SMALL, "f").error, ErrorKind.CANCELLED, "the caller stopped", "run it again")
    told = {case[0] for case in CASES}
    assert told | {ErrorKind.FORBIDDEN_RESULT, ErrorKind.BAD_ARGUMENTS, ErrorKind.CANCELLED} == set(ErrorKind)


@pytest.mark.parametrize("detail", ["", "wasm trap: integer divide by zero", "the worker process died"])
@pytest.mark.parametrize("stderr", [b"", b"Fatal Python error: Aborted\n\nCurrent thread\n"])
def test_a_trap_of_any_kind_is_a_sentence(detail: str, stderr: bytes) -> None:
    error = interpret(Outcome(Ending.TRAPPED, detail=detail, stderr=stderr), SMALL, "f").error
    is_workers_end = detail.startswith("the worker") and not stderr
    check(error, ErrorKind.GUEST_TRAP, detail or "aborted", "run it again" if is_workers_end else "do without os.abort")
    assert error is not None
    assert ("Fatal Python error: Aborted" in error.message) == bool(stderr)


def test_a_package_inside_an_archive_says_so(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (ROOT / "wasm_sandbox").rglob("*.py"):
            file.write(path, path.relative_to(ROOT))
    program = f"import sys; sys.path.insert(0, {str(archive)!r})\nfrom wasm_sandbox.engine.compiled.artifact import *\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{program}find_artifact()"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    last = done.stderr.splitlines()[-1]
    assert f"imported from inside the archive {archive}" in last
    assert "unpack the archive, or install" in last


def test_a_failed_import_while_an_image_is_built_begins_with_its_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASM_SANDBOX_DATA_DIR", str(tmp_path / "data"))
    functions = "".join(f"def f{n}():\n    f{n + 1}()\n" for n in range(60))
    (tmp_path / "deep.py").write_text(f"{functions}def f60():\n    raise ValueError('no such luck')\nf0()\n")
    with pytest.raises(ImageError) as caught:
        Image.build(packages=[tmp_path / "deep.py"])
    assert "ValueError: no such luck" in str(caught.value)[: MAX_LINE_CHARACTERS - 50]
