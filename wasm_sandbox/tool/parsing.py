"""Parsing Python source text on the host, safe among threads."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_TRIES = 10

T = TypeVar("T")


def parse_module(source: str) -> ast.Module:
    """`ast.parse`, tried again where another thread's parsing disturbed it.

    In CPython up to 3.12 the depth that a conversion has reached is one counter for all threads: when one is
    interrupted by another, which a garbage collection can bring about, it ends with SystemError ("AST constructor
    recursion depth mismatch").

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    return _undisturbed(lambda: ast.parse(source))


def parse_expression(source: str) -> ast.expr:
    """The same for one expression."""
    return _undisturbed(lambda: ast.parse(source, mode="eval")).body


def _undisturbed(parse: Callable[[], T]) -> T:
    for _ in range(_TRIES):
        with suppress(SystemError):
            return parse()
    return parse()
