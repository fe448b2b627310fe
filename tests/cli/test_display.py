"""What reaches a terminal is only shown by it; what reaches anything else are the bytes."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox import Tool, ToolExecutionResult
from wasm_sandbox.cli import display
from wasm_sandbox.cli.app import main
from wasm_sandbox.cli.display import for_terminal
from wasm_sandbox.results import ErrorKind, ToolError
from wasm_sandbox.sandbox import Output

JOINERS = "\u200c\u200d"
ATTACKS = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;owned\x07",
    "a clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "clearing": "\x1b[2J\x1b[H",
    "C1": "\x9b31m \x90q\x9c \x85",
    "an answer": "\x05\x1b[c\x1b[6n",
    "back over it": "yes\b\b\bno",
    "the line again": "removed\rkept",
    "delete": "a\x7f",
    "another direction": "\u202egnp.exe\u202c \u2066x\u2069 \u061c\u200e\u200f",
    "other lines": "a\u2028b\u2029c\x0bd\x0ce",
    "nothing to see": "a\u200b\u2060\ufeff\xad\U000e0041",
    "NUL": "\0",
    "half a pair": "\ud83d",
}


class Terminal(io.TextIOWrapper):
    """A stream that says that it is a terminal, and keeps what it gets."""

    def __init__(self) -> None:
        self.kept = io.BytesIO()
        super().__init__(self.kept, encoding="utf-8")

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        return self.kept.getvalue().decode()


def is_only_shown(text: str) -> bool:
    return all(c in "\n\t" + JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


@contextmanager
def on_terminals() -> Iterator[tuple[Terminal, Terminal]]:
    """Stdout and stderr are terminals inside of the block."""
    terminals = Terminal(), Terminal()
    with redirect_stdout(terminals[0]), redirect_stderr(terminals[1]):
        yield terminals


def test_every_character_that_a_terminal_obeys_is_spelled_out_and_no_other() -> None:
    """All of Unicode, as this Python knows it."""
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        shown = for_terminal(character)
        assert is_only_shown(shown), hex(number)
        if character in "\n\t" + JOINERS or unicodedata.category(character) not in (
            *("Cc", "Cf", "Cs", "Zl", "Zp"),
            "Cn",  # what a later Unicode makes a format
        ):
            assert shown == character


@given(st.text())
def test_any_text_is_only_shown_and_stays_json(text: str) -> None:
    assert is_only_shown(for_terminal(text))
    assert json.loads(for_terminal(json.dumps({"x": text}, ensure_ascii=False))) == {"x": text}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_result_of_any_kind_is_only_shown_on_a_terminal(attack: str) -> None:
    data = attack.encode("utf-8", "surrogatepass")
    results = [
        ToolExecutionResult(status="success", func_return=attack),
        ToolExecutionResult(status="success", func_return={attack: [attack]}),
        ToolExecutionResult(
            status="error",
            error=ToolError(kind=ErrorKind.TOOL_EXCEPTION, message=attack, exception_name=attack, traceback=attack),
        ),
    ]
    with on_terminals() as terminals:
        for result in results:
            for as_json in (False, True):
                display.show(Output(result, data, data), attack, as_json=as_json)
    for terminal in terminals:
        assert is_only_shown(terminal.shown())
    assert terminals[0].shown()
    assert terminals[1].shown()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_stored_tool_is_only_shown_on_a_terminal(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Tool.model_construct(
        name=f"a\n{attack}", id="tool-1", description=f"{attack}\n{attack}", source_code=f"# {attack}\n"
    )

    class Manager:
        def list_tools(self, *_: object) -> list[Tool]:
            return [tool]

        def get_tool_by_name(self, *_: object) -> Tool:
            return tool

    monkeypatch.setattr("wasm_sandbox.stores.ToolManager", Manager)
    with on_terminals() as terminals:
        for line in (["tool", "list"], ["tool", "show", "a"], ["tool", "remove", attack], ["tool", attack], [attack]):
            with pytest.raises(SystemExit):
                main(line)
    for terminal in terminals:
        assert is_only_shown(terminal.shown())
    assert terminals[0].shown().count("\n") == 2  # a row, and the source


def test_a_traceback_is_only_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("\x1b[31m\u202e")

    monkeypatch.setenv("WASM_SANDBOX_TRACEBACK", "1")
    monkeypatch.setattr("wasm_sandbox.cli.app.cli.main", fail)
    with on_terminals() as terminals, pytest.raises(SystemExit) as end:
        main(["run"])
    assert end.value.code == 1
    assert is_only_shown(terminals[1].shown())
    assert "RuntimeError: \\x1b[31m\\u202e" in terminals[1].shown()


WRITTEN = b"a\x1b[31m\x9b\xc2\x9b\x07\r\n\xff\t\xe2\x80\xae.\n"
SCRIPT = f"import sys\nfor s in sys.stdout, sys.stderr:\n    s.buffer.write({WRITTEN!r})\n"


def test_to_a_pipe_go_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "wasm_sandbox", "exec", str(tmp_path / "s.py")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100)
    assert done.stdout == WRITTEN
    assert done.stderr.endswith(WRITTEN)


@pytest.mark.skipif(os.name != "posix", reason="opens a terminal")
@pytest.mark.parametrize("stream", [1, 2])
def test_to_a_real_terminal_goes_what_it_shows(
    tmp_path: Path, stream: int, open_terminal: Callable[[], tuple[int, int]]
) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "wasm_sandbox", "exec", str(tmp_path / "s.py")]
    ours, theirs = open_terminal()
    out, err = (theirs, subprocess.DEVNULL) if stream == 1 else (subprocess.DEVNULL, theirs)
    environ = {**os.environ, "TERM": "dumb"}
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False, timeout=100, env=environ)
    shown = b""
    while select.select([ours], [], [], 0)[0]:
        shown += os.read(ours, 4096)
    assert b"a\\x1b[31m" in shown
    assert is_only_shown(shown.decode().replace("\r\n", "\n"))


@pytest.fixture
def open_terminal() -> Callable[[], tuple[int, int]]:
    import pty

    return pty.openpty
