"""The document about files: its code runs and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "files.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("source", EXAMPLES)
def test_an_example_prints_what_its_comment_says(source: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(source)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in re.findall(r"\)  # (.*)$", source, re.MULTILINE)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2
