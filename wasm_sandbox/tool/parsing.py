"""Parsing hostile text on the host: bounded in time and depth, whatever stack the caller has, safe among threads."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from typing import Any, TypeVar

from wasm_sandbox.tool.bounds import Cost, Piece, cost_of
from wasm_sandbox.tool.own_stack import on_own_stack

MAX_JSON_DEPTH = 300
"""Brackets of JSON text in each other; each takes 130 bytes of the caller's stack."""

_TRIES = 10
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_JSON_TEXT_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_DEEPER = {"[": 1, "{": 1, "]": -1, "}": -1}

T = TypeVar("T")


def parse_module(source: str, cost: Cost | None = None) -> ast.Module:
    """`ast.parse` of a text that nobody trusts.

    Only statements at the top level have the line numbers of the whole text, and in a text with ``__main__`` what is
    inside of those that are no definitions.

    Args:
        source: the text.
        cost: what `cost_of` says of it.

    Raises:
        TooCostly: if it is too long or nested too deeply to be parsed on the host.
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
        HostError: if the system gives no thread.
    """
    cost = cost or cost_of(source)
    if cost.is_small:
        return _undisturbed(lambda: ast.parse(source))
    return on_own_stack(lambda: _parse_pieces(cost.pieces))


def parse_expression(source: str) -> ast.expr:
    """The same for one expression."""
    if cost_of(source).is_small:
        return _undisturbed(lambda: ast.parse(source, mode="eval")).body
    return on_own_stack(lambda: _undisturbed(lambda: ast.parse(source, mode="eval"))).body


def read_json(text: str | bytes) -> Any:
    """`json.loads` that never nests deeper than the caller's stack allows.

    Raises:
        ValueError: if it is no JSON, or nested more than `MAX_JSON_DEPTH` deep.
    """
    shown = text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
    if shown.count("[") + shown.count("{") > MAX_JSON_DEPTH:
        steps = (_DEEPER.get(found[0], 0) for found in _JSON_TEXT_OR_BRACKET.finditer(shown))
        if max(accumulate(steps)) > MAX_JSON_DEPTH:
            raise ValueError(f"it is nested more than {MAX_JSON_DEPTH} levels deep")
    return json.loads(shown)


def _parse_pieces(pieces: tuple[Piece, ...]) -> ast.Module:
    module = ast.Module(body=[], type_ignores=[])
    for piece in pieces:
        try:
            body = _undisturbed(lambda text=piece.text: ast.parse(text)).body  # type: ignore[misc]
        except SyntaxError as error:
            if error.lineno is not None:
                error.lineno += piece.line
            raise
        for statement in body:
            if not isinstance(statement, _DEFINITIONS) and "__main__" in piece.text:
                ast.increment_lineno(statement, piece.line)  # what is inside of it is looked for, too
                continue
            statement.lineno += piece.line
            statement.end_lineno = (statement.end_lineno or 0) + piece.line
        module.body += body
    return module


def _undisturbed(parse: Callable[[], T]) -> T:
    """Parse, and try again where another thread's parsing disturbed it.

    In CPython up to 3.12 the depth that a conversion has reached is one counter for all threads: when one is
    interrupted by another, which a garbage collection can bring about, it ends with SystemError ("AST constructor
    recursion depth mismatch").
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes and the like: no business of the host's log
        for _ in range(_TRIES):
            with suppress(SystemError):
                return parse()
        return parse()
