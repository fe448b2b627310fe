"""Inputs that fuzzing kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def replayed(directory: Path, check: Callable[[bytes], None]) -> int:
    """Check every kept input of a directory once; how many there are."""
    inputs = sorted(directory.iterdir())
    for path in inputs:
        check(path.read_bytes())
    return len(inputs)
