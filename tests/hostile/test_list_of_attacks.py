"""The list of attacks names tests and scripts that there are, and every file of tests is in it."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = re.findall(r"`([^`]+)`", (HERE / "README.md").read_text())


def defined_in(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))


def test_every_test_that_is_named_exists_here() -> None:
    named = {name for name in NAMES if re.fullmatch(r"test_\w+", name)}
    assert len(named) > 80
    assert named - {test for path in HERE.glob("test_*.py") for test in defined_in(path)} == set()


def test_every_file_that_is_named_exists() -> None:
    files = {word for name in NAMES for word in name.split() if word.endswith(".py")}
    assert len(files) > 5
    assert [file for file in files if not (HERE / file).exists() and not (ROOT / file).exists()] == []


def test_every_file_of_hostile_tests_has_a_test_in_the_list() -> None:
    for path in HERE.glob("test_*.py"):
        assert defined_in(path) & set(NAMES) or path.name in NAMES, path.name
