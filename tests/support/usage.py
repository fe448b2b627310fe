"""What a run used, where a test knows that it was counted."""

from __future__ import annotations


def counted(fuel: int | None) -> int:
    """The fuel of a run that counts it."""
    assert fuel is not None
    return fuel
