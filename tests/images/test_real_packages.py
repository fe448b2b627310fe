"""Packages that tools use, from the index, in a guest: the compatibility table holds."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images.packages_table import DOCUMENT
from tests.images.real_packages import CASES, REFUSED, Case
from wasm_sandbox import ErrorKind, Image, Limits, Tool, run_tool

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("index", "images_directory"), pytest.mark.timeout(600)]

SMALL = [case for case in CASES if not case.is_big]
BIG = [case for case in CASES if case.is_big]


@pytest.fixture(scope="module")
def image(index: None, images_directory: Path) -> Image:
    """One image with all packages that are small: preparing each of its own would take minutes."""
    return Image.build([requirement for case in SMALL for requirement in case.requirements], name="small-packages")


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_a_tool_uses_a_package(image: Image, case: Case) -> None:
    result = run_tool(Tool.from_source(case.source), case.args, image="small-packages", files=case.files)
    assert result.status == "success", result.stderr
    assert result.func_return == case.expected


@pytest.mark.parametrize("case", BIG, ids=lambda case: case.name)
def test_a_tool_uses_a_big_package_and_too_little_memory_is_said(index: None, case: Case) -> None:
    image = Image.build(list(case.requirements))
    tool = Tool.from_source(case.source)
    result = run_tool(tool, case.args, image=image)
    assert result.status == "success", result.stderr
    assert result.func_return == case.expected
    cramped = run_tool(tool, case.args, image=image, limits=Limits(memory_bytes=64 << 20))
    assert cramped.error is not None
    assert cramped.error.kind is ErrorKind.OUT_OF_MEMORY
    needed = re.search(r"needs at least (\d+) MiB .* raise Limits.memory_bytes", cramped.error.message)
    assert needed is not None
    enough = run_tool(tool, case.args, image=image, limits=Limits(memory_bytes=int(needed[1]) << 20))
    assert enough.status == "success", enough.error


@pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")
def test_the_commands_of_the_readme_lead_from_nothing_to_a_tool_with_two_packages(image: Image, tmp_path: Path) -> None:
    block = re.search(r"^```console\n\$ pip install wasm-sandbox\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert block is not None
    command = tmp_path / "wasm-sandbox"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m wasm_sandbox.cli.app "$@"\n')
    command.chmod(0o700)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    lines = [line.removeprefix("$ ") for line in block[1].splitlines()]
    for line in lines:
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == ["h1       One", "h2       Two"]


def test_the_table_names_every_case() -> None:
    table = DOCUMENT.read_text(encoding="utf-8")
    for case in CASES:
        assert re.search(rf"^\| {re.escape(case.name)} \|.*\| yes \|", table, re.MULTILINE)
    for name, why in REFUSED:
        assert f"| {name} | {why} |" in table
