"""Report: what a command prints as JSON is no JSON, or no UTF-8, in a terminal of another encoding.

The kind: every document that a verb prints with ``--json``, in every text encoding that Python has. It is JSON in
UTF-8. What is printed as text raises in none of them.
"""

from __future__ import annotations

import io
import json
import os
import pkgutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from encodings import __path__ as encodings_path
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import ErrorKind, ToolError, ToolExecutionResult
from wasm_sandbox.cli import display
from wasm_sandbox.sandbox import Output

pytestmark = pytest.mark.long


def is_for_text(name: str) -> bool:
    """Whether Python takes it for a stream; ``undefined`` raises for whatever is written."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
    except LookupError:
        return False
    return name != "undefined"


ENCODINGS = sorted(name for _, name, _ in pkgutil.iter_modules(encodings_path) if is_for_text(name))


class Stream(io.TextIOWrapper):
    """A standard stream of an encoding, perhaps a terminal."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        self.kept = io.BytesIO()
        self.terminal = terminal
        super().__init__(self.kept, encoding=encoding)

    def isatty(self) -> bool:
        return self.terminal


def show(value: object, encoding: str, terminal: bool, as_json: bool) -> bytes:
    out, err = Stream(encoding, terminal), Stream(encoding, terminal)
    results = [ToolExecutionResult(status="success", func_return=value)]
    if not as_json:
        error = ToolError(kind=ErrorKind.TOOL_EXCEPTION, message=str(value), exception_name="ValueError")
        results.append(ToolExecutionResult(status="error", error=error))
    with redirect_stdout(out), redirect_stderr(err):
        for result in results:
            display.show(Output(result, repr(value).encode(errors="replace"), b"\xff"), "tool", as_json=as_json)
    return out.kept.getvalue()


def check(encoding: str, terminal: bool, value: object) -> None:
    document = json.loads(show(value, encoding, terminal, as_json=True).decode("utf-8"))
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a pair of surrogates is in no JSON document: its repr is
        assert document["func_return"] == repr(value)
    else:
        assert document["func_return"] == value
    show(value, encoding, terminal, as_json=False)


def test_json_is_utf8_json_in_every_encoding() -> None:
    assert len(ENCODINGS) > 90
    for encoding in ENCODINGS:
        for terminal in (False, True):
            check(encoding, terminal, {"ü€": ["\U0001f600", "\u202e", "\ud800" if terminal else ""]})


@settings(max_examples=50)
@given(st.sampled_from(ENCODINGS), st.booleans(), st.text() | st.lists(st.text()))
def test_any_text_is_utf8_json_in_any_encoding(encoding: str, terminal: bool, value: object) -> None:
    check(encoding, terminal, value)


TOOL = "def f():\n    print('ü€')\n    return 'ü\U0001f600'\n\ndef g():\n    raise ValueError('ü€')\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_each_verb_prints_json_in_utf8_and_text_without_raising(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text(TOOL, encoding="utf-8")
    (tmp_path / "script.py").write_text("print('ü€')\n", encoding="utf-8")

    def command(*arguments: str) -> tuple[int, bytes, bytes]:
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "WASM_SANDBOX_DATA_DIR": str(tmp_path / "data")}
        words = [sys.executable, "-m", "wasm_sandbox", *arguments]
        done = subprocess.run(words, capture_output=True, env=environment, cwd=tmp_path, check=False, timeout=100)
        assert b"a defect" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    result = json.loads(command("run", "tool.py", "--tool", "f", "--json")[1].decode("utf-8"))
    assert (result["func_return"], result["stdout"]) == ("ü\U0001f600", ["ü€\n"])
    assert json.loads(command("exec", "script.py", "--json")[1].decode("utf-8"))["stdout"] == ["ü€\n"]
    assert command("run", "tool.py", "--tool", "g")[0] == 1
    assert command("run", "tool.py", "--tool", "f")[0] == 0
    compile(command("script", "tool.py", "--tool", "f")[1].decode("utf-8"), "script.py", "exec")
    assert command("--help")[0] == 0
    for verb in (["tool", "list"], ["env", "list"], ["image", "list"]):
        json.loads(command(*verb, "--json")[1].decode("utf-8"))
