"""Rows of arguments for many calls of a tool, and what came of them."""

from __future__ import annotations

from typing import Any


def rows(count: int) -> list[dict[str, int]]:
    """Rows for a tool that takes ``a`` and ``b``."""
    return [{"a": number, "b": 1} for number in range(count)]


def values(results: Any) -> list[Any]:
    """Values of results, in their order."""
    return [result.func_return for result in results]
