"""The documents for users, README and docs/: their blocks, their tables, and how a block is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"(?<!\\)\|")


class Block(NamedTuple):
    """A fenced block. Its language says what happens to it: ``python``, ``sh`` and ``console`` are run."""

    document: str
    number: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """What a test of it is called."""
        return f"{self.document}-{self.number}"

    @property
    def needs_the_network(self) -> bool:
        """Whether it downloads packages, or talks to an API: others run it where that can be had.

        `tests/images/test_real_packages.py` and `tests/network/test_readme_tools.py`.
        """
        return self.text.startswith("$ pip install ") or "examples/network/" in self.text


def blocks(*languages: str) -> list[Block]:
    """The blocks of these languages, of all documents."""
    found = [
        Block(document.stem, number, *match.groups())
        for document in DOCUMENTS
        for number, match in enumerate(_BLOCK.finditer(document.read_text(encoding="utf-8")), 1)
    ]
    return [block for block in found if block.language in languages]


def commands(console: str) -> list[tuple[str, str]]:
    """The commands of a ``console`` block, each with what it prints."""
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)


def rows(document: Path, first_column: str) -> list[list[str]]:
    """The rows of a document's table whose first column has this title."""
    lines = document.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in _COLUMN.split(line.strip("|"))] for line in lines[start + 2 : end]]


def names(text: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


class Shell:
    """Runs commands as a reader does: in a directory with the examples, ``wasm-sandbox`` on the path.

    Stored tools, variables and images are kept below that directory, and nothing of the machine's own is seen.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "reader"
        self._directory.mkdir()
        (self._directory / "examples").symlink_to(ROOT / "examples")
        programs = directory / "bin"
        programs.mkdir()
        for name, arguments in (("wasm-sandbox", " -m wasm_sandbox"), ("python", "")):
            command = programs / name
            command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
            command.chmod(0o700)
        self._environment = {
            **environment(),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "WASM_SANDBOX_DATA_DIR": str(directory / "data"),
        }

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run one line."""
        return subprocess.run(
            ["sh", "-c", line],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._directory,
            env=self._environment,
        )


def environment() -> dict[str, str]:
    """An environment in which this checkout is found without being installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
