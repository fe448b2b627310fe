"""Stored tools and variables on the command line; no value of a variable is ever printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

TOOLS = '''
import os

def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    It does no more.
    """
    return a + b

def variables() -> dict:
    """Show the environment."""
    return {name: os.environ[name] for name in sorted(os.environ)}
'''
SECRET = "s3cret-value"


class Command:
    """``wasm-sandbox`` with a store of its own, in a process of its own, as users run it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ: dict[str, str] = {}
        self.printed = ""

    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """What it prints on stdout, or on stderr if it is to fail."""
        done = self.run(arguments, stdin)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    def run(self, arguments: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "WASM_SANDBOX_DATA_DIR": str(self.directory / "data"), **self.environ}
        command = [sys.executable, "-m", "wasm_sandbox", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environ, check=False)
        self.printed += done.stdout + done.stderr
        return done


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "tools.py"
    path.write_text(TOOLS)
    return str(path)


def test_a_tool_is_added_listed_shown_run_and_removed(command: Command, file: str) -> None:
    assert command("tool", "list") == ""
    assert command("tool", "add", file, "--tool", "add") == "add: stored\n"
    assert command("tool", "add", file) == "variables: stored\n"
    assert command("tool", "add", file, "--tool", "add") == "add: replaced\n"
    assert command("tool", "list") == "add        Add two numbers.\nvariables  Show the environment.\n"
    assert [tool["name"] for tool in json.loads(command("tool", "list", "--json"))] == ["add", "variables"]
    assert command("tool", "show", "add") == TOOLS.rstrip() + "\n"
    shown = json.loads(command("tool", "show", "add", "--json"))
    assert shown["json_schema"]["parameters"]["required"] == ["a"]
    assert command("run", "add", "--args", '{"a": 40}') == "42\n"
    assert "a = 40" in command("script", "add", "--args", '{"a": 40}')
    assert command("tool", "remove", "add", "variables") == "add: removed\nvariables: removed\n"
    assert command("tool", "list") == ""


def test_variables_are_set_listed_given_to_stored_tools_and_unset(command: Command, file: str) -> None:
    command("tool", "add", file)
    assert command("env", "list") == ""
    assert command("env", "set", "A=1", f"TOKEN={SECRET}") == "A: set, not encrypted\nTOKEN: set, not encrypted\n"
    listed = command("env", "list")
    assert re.fullmatch(r"A      \S+T\S+\+00:00  not encrypted\nTOKEN  \S+T\S+\+00:00  not encrypted\n", listed)
    assert SECRET not in command.printed
    result = json.loads(command("run", "variables", "--env", "A=2"))
    assert result.pop("LETTA_TOOL_ID").startswith("tool-")
    assert result == {"A": "2", "TOKEN": SECRET}
    assert command("env", "unset", "A") == "A: removed\n"
    assert [v["name"] for v in json.loads(command("env", "list", "--json"))] == ["TOKEN"]


def test_a_tool_in_a_file_is_given_no_stored_variables(command: Command, file: str) -> None:
    command("env", "set", f"TOKEN={SECRET}")
    assert command("run", file) == "{}\n"


def test_a_value_may_come_from_stdin_so_that_no_shell_keeps_it(command: Command, file: str) -> None:
    command("tool", "add", file)
    command("env", "set", "TOKEN", stdin=f" {SECRET}=\n\n")
    assert json.loads(command("run", "variables"))["TOKEN"] == f" {SECRET}=\n"
    assert "one variable" in command("env", "set", "A", "B", stdin="x", code=2)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("typed", [SECRET, " a=b\u00e9 "])
def test_on_a_terminal_a_value_is_asked_for_and_not_shown(command: Command, file: str, typed: str) -> None:
    command("tool", "add", file)
    environ = {**os.environ, "WASM_SANDBOX_DATA_DIR": str(command.directory / "data"), "PYTHONUTF8": "1"}
    terminal = (
        "import pty, sys; sys.exit(pty.spawn([sys.executable, '-m', 'wasm_sandbox', 'env', 'set', 'TOKEN']) >> 8)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", terminal], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        while b"TOKEN: " not in shown:  # only then is the echo off
            shown += (chunk := os.read(process.stdout.fileno(), 1000))
            assert chunk, shown
        process.stdin.write(typed.encode() + b"\n")
        process.stdin.flush()
        shown += process.stdout.read()
        process.stdin.close()
    assert process.returncode == 0
    assert shown.replace(b"\r", b"") == b"TOKEN: \nTOKEN: set, not encrypted\n"
    assert json.loads(command("run", "variables"))["TOKEN"] == typed


def test_with_a_key_values_are_encrypted_and_need_it(command: Command, file: str) -> None:
    command.environ["WASM_SANDBOX_ENCRYPTION_KEY"] = Fernet.generate_key().decode()
    command("tool", "add", file)
    assert command("env", "set", f"TOKEN={SECRET}") == "TOKEN: set, encrypted\n"
    assert SECRET.encode() not in (command.directory / "data" / "store.sqlite3").read_bytes()
    assert json.loads(command("run", "variables"))["TOKEN"] == SECRET
    command.environ.clear()
    assert "TOKEN is encrypted: give its key in WASM_SANDBOX_ENCRYPTION_KEY" in command("run", "variables", code=2)
    assert "TOKEN" in command("env", "list")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing"], "nothing: there is neither a file nor a stored tool of that name"),
        (["run", "nothing.py"], "nothing.py: there is no such file"),
        (["tool", "show", "nothing"], "wasm-sandbox tool list"),
        (["tool", "remove", "nothing"], "wasm-sandbox tool list"),
        (["tool", "add", "nothing.py"], "there is no such file"),
        (["env", "unset", "NOTHING"], "NOTHING: there is no such variable"),
        (["env", "unset", "A=B"], "cannot be the name of an environment variable"),
        (["env", "set", f"={SECRET}"], "cannot be the name of an environment variable"),
        (["env", "set"], "Missing argument"),
        (["tool", "rename"], "No such command"),
    ],
)
def test_what_is_not_there_or_wrong_is_one_line_that_says_so(
    command: Command, arguments: list[str], words: str
) -> None:
    told = command(*arguments, code=2)
    assert words in told
    assert told.startswith("wasm-sandbox: ")
    assert told.count("\n") == 1
    assert SECRET not in told


def test_a_file_wins_over_a_stored_tool_and_an_option_of_files_is_refused_for_tools(
    command: Command, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("tool", "add", file, "--tool", "add")
    assert "--tool chooses a function of a FILE" in command("run", "add", "--tool", "add", code=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    Path("add").write_text("def f():\n    return 'the file'\n")
    assert command("run", "add") == "the file\n"


def test_a_damaged_store_is_one_line(command: Command) -> None:
    (command.directory / "data").mkdir()
    (command.directory / "data" / "store.sqlite3").write_bytes(b"no database" * 1000)
    for arguments in (["tool", "list"], ["env", "set", f"A={SECRET}"], ["run", "add"]):
        told = command(*arguments, code=2)
        assert "is damaged" in told
        assert told.count("\n") == 1
        assert SECRET not in told


def test_listing_makes_no_store(command: Command) -> None:
    command("tool", "list")
    command("env", "list")
    assert not (command.directory / "data").exists()
