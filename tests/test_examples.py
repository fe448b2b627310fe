"""The examples: each command in examples/README.md prints what stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)```$", (ROOT / "examples/README.md").read_text(), re.MULTILINE)


def run(command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command.replace("verdicts.jsonl", os.devnull))
    assert program in {"wasm-sandbox", "python"}
    return subprocess.run(
        [sys.executable, *(["-m", "wasm_sandbox"] if program == "wasm-sandbox" else []), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("command", "output"), [block for block in BLOCKS if block[1]])
def test_an_example_prints_what_its_readme_says(command: str, output: str) -> None:
    done = run(command)
    assert (done.returncode, done.stdout) == (0, output)


def test_an_order_that_does_not_fit_its_model_fails_as_the_readme_says() -> None:
    (command,) = [command for command, output in BLOCKS if not output]
    done = run(command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ValidationError" in done.stderr


def test_every_example_is_shown() -> None:
    tools = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert len(tools) >= 4
    assert tools == {re.findall(r"examples/(\w+\.py)", command)[0] for command, _ in BLOCKS}
