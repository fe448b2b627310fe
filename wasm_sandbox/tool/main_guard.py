"""What a source does only when it is run as a program: ``if __name__ == "__main__":``, found and taken out. Pure.

It imports nothing but the standard library: its text is also run in a guest.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_OTHER_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.JoinedStr)
"""Of other names, or without columns."""
_MAX_DEPTH = 20
_SAME = (ast.Eq, ast.Is, ast.In)
_OTHER = (ast.NotEq, ast.IsNot, ast.NotIn)
_RUNNERS = frozenset({"SystemExit", "exit", "quit", "_exit", "run", "run_until_complete"})
"""Functions to which a program's main function, or what it returns, is handed."""


def without_main_guard(module: ast.Module, text: str) -> tuple[str, frozenset[str]]:
    """Take out of a module what it does only as ``__main__``.

    Args:
        module: the parsed module; statements at its top level that are no definitions have the text's line numbers.
        text: its source.

    Returns:
        The source with that blanked, each line at its place; and the names of functions that are only the program's
        entry: they are called there for their effect, or one is called ``main``.
    """
    if "__main__" not in text or "__name__" not in text:
        return text, frozenset()
    edits = _Edits(text)
    edits.take_out(module)
    return "".join(edits.lines), frozenset(edits.entries)


class _Edits:
    """The lines of a text, and what is taken out of them."""

    def __init__(self, text: str) -> None:
        self.lines = _LINE.findall(text)
        self.entries: set[str] = set()
        self._constants: list[tuple[ast.expr, bool]] = []

    def take_out(self, module: ast.Module) -> None:
        pending: list[ast.AST] = [*module.body]
        while pending:
            node = pending.pop()
            if isinstance(node, _OTHER_SCOPES):
                continue
            truth = _truth(node.test) if isinstance(node, ast.If) else None
            if isinstance(node, ast.If) and truth is not None:
                self.entries.update(_entries(node.orelse if truth else node.body))
                self._take_branch(node, truth)
                pending += node.body if truth else node.orelse
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.BoolOp | ast.IfExp) and _asks(node.value):
                self.entries.update(_entries([ast.Expr(part) for part in _parts(node.value)]))
            if isinstance(node, ast.Compare) and (truth := _truth(node)) is not None:
                self._constants.append((node, truth))
            pending += ast.iter_child_nodes(node)
        for expression, truth in sorted(self._constants, key=lambda one: (one[0].lineno, one[0].col_offset))[::-1]:
            self._replace(expression, truth)

    def _take_branch(self, node: ast.If, truth: bool) -> None:
        first, after_body = node.lineno - 1, _last_line(node.body)
        header = self.lines[first]
        indent = header[: len(header) - len(header.lstrip())]
        if truth:  # what is run by an import is kept, without its alternatives
            self._constants.append((node.test, True))
            self._blank(after_body, node.end_lineno or after_body)
            return
        is_elif = header.lstrip().startswith("elif")
        self._blank(first, after_body)
        word = f"{'elif' if is_elif else 'if'} False: pass" if node.orelse or is_elif else "pass"
        self.lines[first] = f"{indent}{word}{self.lines[first]}"

    def _blank(self, start: int, end: int) -> None:
        for number in range(start, end):
            line = self.lines[number]
            self.lines[number] = line[len(line.rstrip("\r\n")) :]

    def _replace(self, node: ast.expr, truth: bool) -> None:
        """Put a constant in an expression's place."""
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        head = self.lines[first].encode()[: node.col_offset].decode()
        tail = self.lines[last].encode()[node.end_col_offset :].decode()
        if first == last:
            self.lines[first] = f"{head}{truth}{tail}"
            return
        # An expression goes on over a line's end inside of brackets, or behind a backslash.
        ends = [line[len(line.rstrip("\r\n")) :] for line in self.lines[first:last]]
        goes_on = ["\\" if line.rstrip("\r\n").endswith("\\") else "" for line in self.lines[first:last]]
        self.lines[first] = f"{head}{truth} {goes_on[0]}{ends[0]}"
        for number in range(first + 1, last):
            self.lines[number] = goes_on[number - first] + ends[number - first]
        self.lines[last] = tail


def _last_line(body: list[ast.stmt]) -> int:
    return body[-1].end_lineno or body[-1].lineno


def _truth(test: ast.expr, depth: int = _MAX_DEPTH) -> bool | None:
    """What a test comes to in a module that is not ``__main__``; None if that is not all that it asks."""
    if not depth:
        return None
    match test:
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if isinstance(operator, _SAME + _OTHER):
            names = [side for side in (left, right) if isinstance(side, ast.Name) and side.id == "__name__"]
            others = [side for side in (left, right) if _is_main(side)]
            return isinstance(operator, _OTHER) if len(names) == len(others) == 1 else None
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _truth(operand, depth - 1)
            return None if inner is None else not inner
        case ast.BoolOp(op=operator, values=values):
            absorbing = isinstance(operator, ast.Or)
            truths = [_truth(value, depth - 1) for value in values]
            if absorbing in truths:
                return absorbing
            return None if None in truths else not absorbing
        case _:
            return None


def _is_main(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value="__main__"):
            return True
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(isinstance(part, ast.Constant) and part.value == "__main__" for part in parts)
        case _:
            return False


def _parts(value: ast.expr) -> list[ast.expr]:
    match value:
        case ast.BoolOp(values=values):
            return values
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return [test, body, orelse]
        case _:
            return []


def _asks(value: ast.expr) -> bool:
    return any(_truth(part) is not None for part in _parts(value))


def _entries(body: list[ast.stmt]) -> Iterator[str]:
    """Functions that statements call for their effect only, or that are called ``main``."""
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "main":
                yield "main"
            value = node.value if isinstance(node, ast.Expr) else node.exc if isinstance(node, ast.Raise) else None
            yield from _called_for_effect(value)


def _called_for_effect(value: ast.expr | None) -> Iterator[str]:
    while isinstance(value, ast.Await):
        value = value.value
    if not isinstance(value, ast.Call):
        return
    match value.func:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _RUNNERS and value.args:
            yield from _called_for_effect(value.args[0])
        case ast.Name(id=name):
            yield name
        case _:
            pass
