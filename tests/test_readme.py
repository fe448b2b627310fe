"""The README: its code runs, its commands work, its tables say what is so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wasm_sandbox import ErrorKind, Limits

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("source", PYTHON)
def test_the_python_example_prints_what_its_comments_say(source: str, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(source)
    done = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, check=False, cwd=ROOT, env=_path()
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    for comment in re.findall(r"print\(.*\)  # (.*)$", source, re.MULTILINE):
        assert comment in printed
    assert len(printed) == source.count("print(")


@pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works(line: str, tmp_path: Path) -> None:
    command = tmp_path / "wasm-sandbox"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m wasm_sandbox.cli.app "$@"\n')
    command.chmod(0o700)
    environment = {**_path(), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_it_shows_code_and_commands() -> None:
    assert PYTHON
    assert len(COMMANDS) >= 5


def test_the_table_of_errors_is_complete() -> None:
    shown = {row[0].strip("`") for row in ROWS if row[0].strip("`") in {*ErrorKind}}
    assert shown == {*ErrorKind}


def test_the_table_of_limits_names_every_limit_and_its_default() -> None:
    defaults = {row[0].strip("`"): row[2] for row in ROWS if row[0].strip("`") in Limits.model_fields}
    limits = Limits()
    assert defaults == {
        "fuel": f"{limits.fuel:,}",
        "memory_bytes": f"{limits.memory_bytes >> 20} MiB",
        "timeout_seconds": f"{limits.timeout_seconds:g} s",
        "output_bytes": f"{limits.output_bytes >> 20} MiB",
        "result_bytes": f"{limits.result_bytes >> 20} MiB",
        "files_bytes": f"{limits.files_bytes >> 20} MiB",
        "file_count": f"{limits.file_count}",
    }


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def _path() -> dict[str, str]:
    """An environment in which this checkout is found without being installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
