"""Every section and every weakness of the specification (semantics.md) is named by the docstring of a test.

Docstrings say "Section 4", "Sections 3, 4 and 7 to 9" or "W6"; a module's docstring counts for its sections only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("README.md")

_SECTIONS = re.compile(r"\bsections?\s+(\d+(?:(?:,\s*|\s+and\s+|,\s*and\s+|\s+to\s+)\d+)*)", re.IGNORECASE)
_RANGE = re.compile(r"(\d+)\s+to\s+(\d+)")
_WEAKNESS = re.compile(r"\bW(\d+)\b")


def sections_named(text: str) -> set[int]:
    """The sections that a docstring names."""
    named: set[int] = set()
    for match in _SECTIONS.finditer(text):
        for first, last in _RANGE.findall(match[1]):
            named |= {*range(int(first), int(last) + 1)}
        named |= {int(number) for number in re.findall(r"\d+", match[1])}
    return named


@cache
def docstrings() -> list[tuple[Path, bool, str]]:
    """Of all test modules and of the tests in them: file, whether it is a test's, text."""
    return [*_docstrings()]


def _docstrings() -> Iterator[tuple[Path, bool, str]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            match node:
                case ast.Module():
                    yield path, False, ast.get_docstring(node) or ""
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                    yield path, True, ast.get_docstring(node) or ""
                case ast.ClassDef(name=name) if name.startswith("Test"):
                    yield path, True, ast.get_docstring(node) or ""


def files_of_sections() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for path, _, text in docstrings():
        if path != Path(__file__):
            for section in sections_named(text):
                found.setdefault(section, set()).add(path.relative_to(TESTS).as_posix())
    return found


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("Section 4, W6.", {4}),
        ("semantics.md, section 0, W23.", {0}),
        ("Sections 3, 4 and 7 to 9: text", {3, 4, 7, 8, 9}),
        ("Sections 3 to 5, and 11", {3, 4, 5, 11}),
        ("Nothing of 14 sections", set()),
    ],
)
def test_sections_are_read_as_they_are_written(text: str, sections: set[int]) -> None:
    assert sections_named(text) == sections


@pytest.mark.parametrize("section", range(14))
def test_a_test_names_the_section(section: int) -> None:
    assert any(section in sections_named(text) for _, is_test, text in docstrings() if is_test)


@pytest.mark.parametrize("number", range(1, 41))
def test_a_test_names_the_weakness(number: int) -> None:
    assert any(str(number) in _WEAKNESS.findall(text) for _, is_test, text in docstrings() if is_test)


def test_no_test_names_what_the_specification_lacks() -> None:
    assert files_of_sections().keys() <= {*range(15)}
    assert {int(n) for _, _, text in docstrings() for n in _WEAKNESS.findall(text)} <= {*range(1, 41)}


def test_the_table_has_every_section_and_its_files_have_tests_of_it() -> None:
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (.*) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == [*range(15)]
    found = files_of_sections()
    for number, files in rows:
        listed = {*re.findall(r"`([^`]+)`", files)}
        assert listed
        assert listed <= found[int(number)]
