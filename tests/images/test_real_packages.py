"""Packages that tools use, from the index, in a guest: the compatibility table holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.images.packages_table import DOCUMENT
from tests.images.real_packages import CASES, REFUSED, Case
from wasm_sandbox import ErrorKind, Image, Limits, Tool, run_tool

pytestmark = [pytest.mark.usefixtures("index", "images_directory"), pytest.mark.timeout(600)]

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


def test_the_table_names_every_case() -> None:
    table = DOCUMENT.read_text(encoding="utf-8")
    for case in CASES:
        assert re.search(rf"^\| {re.escape(case.name)} \|.*\| yes \|", table, re.MULTILINE)
    for name, why in REFUSED:
        assert f"| {name} | {why} |" in table
