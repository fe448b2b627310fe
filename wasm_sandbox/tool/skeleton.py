"""A module without what runs, in syntax that older Pythons parse: its imports, classes, aliases and signatures. Pure.

It imports nothing but the standard library: its text is run in a guest, whose Python may be newer than the host's.
"""

from __future__ import annotations

import ast

_RUNNING = (ast.JoinedStr, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr)


def skeleton_of(module: ast.Module) -> str:
    """Source of the module's skeleton: every function's body is its docstring."""
    return ast.unparse(ast.fix_missing_locations(ast.Module(_kept(module.body), [])))


def _kept(body: list[ast.stmt]) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for statement in body:
        match statement:
            case ast.Import() | ast.ImportFrom():
                kept.append(statement)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                kept.append(_function(statement))
            case ast.ClassDef():
                statement.body = [*_doc(statement), *_fields(statement.body)] or [ast.Pass()]
                statement.type_params = []  # type: ignore[attr-defined]  # of Python 3.12
                kept.append(statement)
            case ast.Assign(value=value) | ast.AnnAssign(value=value):
                if value is not None and not _runs(value):
                    kept.append(statement)
            case ast.If(body=inner) | ast.Try(body=inner):  # `if TYPE_CHECKING`, `try: import`
                kept += _kept([one for one in inner if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)])
            case _ if type(statement).__name__ == "TypeAlias":
                name = ast.Name(statement.name.id, ast.Store())  # type: ignore[attr-defined]
                kept.append(ast.Assign([name], statement.value))  # type: ignore[attr-defined]
            case _:
                pass
    return kept


def _fields(body: list[ast.stmt]) -> list[ast.stmt]:
    fields: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.AnnAssign):
            if statement.value is not None and _runs(statement.value):
                statement.value = ast.Name("_computed", ast.Load())
            fields.append(statement)
        elif isinstance(statement, ast.Assign) and not _runs(statement.value):
            fields.append(statement)
    return fields


def _function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    function.body = _doc(function) or [ast.Pass()]
    function.decorator_list = []
    function.type_params = []  # type: ignore[union-attr]  # of Python 3.12
    parameters = function.args
    parameters.defaults = [_plain(default) for default in parameters.defaults]
    parameters.kw_defaults = [default and _plain(default) for default in parameters.kw_defaults]
    return function


def _doc(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.stmt]:
    text = ast.get_docstring(node, clean=False)
    return [] if text is None else [ast.Expr(ast.Constant(text))]


def _plain(default: ast.expr) -> ast.expr:
    return ast.Name("_computed", ast.Load()) if _runs(default) else default


def _runs(value: ast.expr) -> bool:
    return any(isinstance(node, _RUNNING) for node in ast.walk(value))
