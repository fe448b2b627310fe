"""Global names that a module binds and reads, from its tree: what `symtable` says, in time linear in the tree. Pure.

`symtable` copies the names in reach for every scope, which takes names times scopes, and it recurses in C.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_MARKS = (ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below one, in source order, without marks such as ``Load`` and ``Add``."""
    found: list[ast.AST] = []
    for value in vars(node).values():
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST) and not isinstance(item, _MARKS)]
        elif isinstance(value, ast.AST) and not isinstance(value, _MARKS):
            found.append(value)
    return found


def all_nodes(tree: ast.AST) -> list[ast.AST]:
    """What `ast.walk` gives, in its order, without marks."""
    nodes = [tree]
    for node in nodes:
        nodes += children(node)
    return nodes


class GlobalNames(NamedTuple):
    """Global names of a module.

    Attributes:
        binds: those that it assigns, deletes or declares ``global``, in whatever scope; an import is no assignment.
        reads: those that it may read.
    """

    binds: frozenset[str]
    reads: frozenset[str]


class _Scope:
    """A block of the module: what it says of names.

    Args:
        kind: ``module``, ``class``, ``function`` or ``comprehension``.
        parent: the block that it stands in.
        class_name: name of the innermost class around it, by which private names are mangled.
    """

    def __init__(self, kind: str, parent: _Scope | None = None, class_name: str = "") -> None:
        self.kind, self.parent = kind, parent
        self.class_name: str = class_name or (parent.class_name if parent else "")
        self.inner: list[_Scope] = []
        self.assigned: set[str] = set()
        self.imported: set[str] = set()  # and parameters: bound, and not assigned
        self.used: set[str] = set()
        self.declared_global: set[str] = set()
        self.declared_nonlocal: set[str] = set()
        if parent is not None:
            parent.inner.append(self)

    def mangled(self, name: str) -> str:
        stem = self.class_name.lstrip("_")
        if not stem or not name.startswith("__") or name.endswith("__") or "." in name:
            return name
        return f"_{stem}{name}"


def global_names(module: ast.Module) -> GlobalNames:
    """Find the global names of a module that compiles; of another one the answer means nothing."""
    collector = _Collector(module)
    return _resolved(collector.module)


class _Collector:
    def __init__(self, tree: ast.Module) -> None:
        self.module = _Scope("module")
        self.has_text_annotations = _has_text_annotations(tree)
        self.pending: list[tuple[ast.AST, _Scope]] = [(node, self.module) for node in tree.body]
        while self.pending:
            node, scope = self.pending.pop()
            if (visit := _VISITS.get(type(node))) is not None:
                visit(self, node, scope)
            else:
                self.add_children(node, scope)

    def add_children(self, node: ast.AST, scope: _Scope) -> None:
        self.pending += [(child, scope) for child in children(node)]

    def add(self, nodes: Iterable[ast.AST | None], scope: _Scope) -> None:
        self.pending += [(node, scope) for node in nodes if isinstance(node, ast.AST)]

    def add_annotation(self, node: ast.AST | None, scope: _Scope) -> None:
        if not self.has_text_annotations:
            self.add([node], scope)

    def visit_name(self, node: ast.Name, scope: _Scope) -> None:
        name = scope.mangled(node.id)
        (scope.used if isinstance(node.ctx, ast.Load) else scope.assigned).add(name)

    def visit_global(self, node: ast.Global, scope: _Scope) -> None:
        scope.declared_global.update(map(scope.mangled, node.names))

    def visit_nonlocal(self, node: ast.Nonlocal, scope: _Scope) -> None:
        scope.declared_nonlocal.update(map(scope.mangled, node.names))

    def visit_import(self, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            if name != "*":
                scope.imported.add(scope.mangled(name))

    def visit_handler(self, node: ast.ExceptHandler, scope: _Scope) -> None:
        if node.name:
            scope.assigned.add(scope.mangled(node.name))
        self.add_children(node, scope)

    def visit_pattern(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping, scope: _Scope) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            scope.assigned.add(scope.mangled(name))
        self.add_children(node, scope)

    def visit_annotated(self, node: ast.AnnAssign, scope: _Scope) -> None:
        if isinstance(node.target, ast.Name):
            if node.simple or node.value is not None:
                scope.assigned.add(scope.mangled(node.target.id))
        else:
            self.add([node.target], scope)
        self.add_annotation(node.annotation, scope)
        self.add([node.value], scope)

    def visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope) -> None:
        scope.assigned.add(scope.mangled(node.name))
        self.add(node.decorator_list, scope)
        self.add([*node.args.defaults, *node.args.kw_defaults], scope)
        scope = self.type_scope(node, scope)
        for parameter in _parameters(node.args):
            self.add_annotation(parameter.annotation, scope)
        self.add_annotation(node.returns, scope)
        self.add(node.body, self.function_scope(node.args, scope))

    def visit_lambda(self, node: ast.Lambda, scope: _Scope) -> None:
        self.add([*node.args.defaults, *node.args.kw_defaults], scope)
        self.add([node.body], self.function_scope(node.args, scope))

    def function_scope(self, parameters: ast.arguments, scope: _Scope) -> _Scope:
        inner = _Scope("function", scope)
        inner.imported.update(inner.mangled(parameter.arg) for parameter in _parameters(parameters))
        return inner

    def visit_class(self, node: ast.ClassDef, scope: _Scope) -> None:
        scope.assigned.add(scope.mangled(node.name))
        self.add(node.decorator_list, scope)
        scope = self.type_scope(node, scope)
        self.add([*node.bases, *node.keywords], scope)
        self.add(node.body, _Scope("class", scope, node.name))

    def type_scope(self, node: ast.AST, scope: _Scope) -> _Scope:
        """The scope of ``[T]`` behind a name, from Python 3.12 on; without it the scope around."""
        parameters = getattr(node, "type_params", None)
        if not parameters:
            return scope
        inner = _Scope("function", scope)
        inner.imported.update(inner.mangled(parameter.name) for parameter in parameters)
        for parameter in parameters:
            self.add_children(parameter, _Scope("function", inner))
        return inner

    def visit_type_alias(self, node: ast.AST, scope: _Scope) -> None:
        name, value = node.name, node.value  # type: ignore[attr-defined]  # ast.TypeAlias, from Python 3.12 on
        scope.assigned.add(scope.mangled(name.id))
        self.add([value], _Scope("function", self.type_scope(node, scope)))

    def visit_comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, scope: _Scope
    ) -> None:
        inner = _Scope("comprehension", scope)
        first = node.generators[0]
        self.add([first.iter], scope)
        self.add([first.target, *first.ifs, *node.generators[1:]], inner)
        self.add([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt], inner)

    def visit_walrus(self, node: ast.NamedExpr, scope: _Scope) -> None:
        """It binds in the scope around all comprehensions."""
        self.add([node.value], scope)
        holder = scope
        while holder.kind == "comprehension" and holder.parent is not None:
            holder = holder.parent
        holder.assigned.add(holder.mangled(node.target.id))


_VISITS: dict[type[ast.AST], Callable[[_Collector, Any, _Scope], None]] = {
    ast.Name: _Collector.visit_name,
    ast.Global: _Collector.visit_global,
    ast.Nonlocal: _Collector.visit_nonlocal,
    ast.Import: _Collector.visit_import,
    ast.ImportFrom: _Collector.visit_import,
    ast.ExceptHandler: _Collector.visit_handler,
    ast.MatchAs: _Collector.visit_pattern,
    ast.MatchStar: _Collector.visit_pattern,
    ast.MatchMapping: _Collector.visit_pattern,
    ast.AnnAssign: _Collector.visit_annotated,
    ast.FunctionDef: _Collector.visit_function,
    ast.AsyncFunctionDef: _Collector.visit_function,
    ast.Lambda: _Collector.visit_lambda,
    ast.ClassDef: _Collector.visit_class,
    ast.NamedExpr: _Collector.visit_walrus,
    **dict.fromkeys(_COMPREHENSIONS, _Collector.visit_comprehension),
}
if hasattr(ast, "TypeAlias"):
    _VISITS[ast.TypeAlias] = _Collector.visit_type_alias


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    rest = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *rest]


def _has_text_annotations(tree: ast.Module) -> bool:
    """Whether the module begins with ``from __future__ import annotations``: those are never evaluated then."""
    for position, node in enumerate(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__" and not node.level:
            if any(alias.name == "annotations" for alias in node.names):
                return True
        elif position or not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return False
    return False


def _resolved(module: _Scope) -> GlobalNames:
    """Follow every name from scope to scope, keeping what functions around bind in one table."""
    binds = module.assigned | module.declared_global
    reads = {*module.used}
    local: dict[str, bool] = {}
    pending: list[_Scope | list[tuple[str, bool]]] = [*module.inner]
    while pending:
        scope = pending.pop()
        if isinstance(scope, list):  # what a scope that is done had changed
            local.update(scope)
            continue
        binds |= scope.declared_global
        reads |= scope.declared_global & scope.used
        own = (scope.assigned | scope.imported) - scope.declared_global - scope.declared_nonlocal
        free = scope.used - own - scope.declared_global - scope.declared_nonlocal
        reads.update(name for name in free if not local.get(name))
        if scope.kind != "class":
            changed = [(name, local.get(name, False)) for name in own | scope.declared_global]
            pending.append(changed)
            local.update(dict.fromkeys(own, True))
            local.update(dict.fromkeys(scope.declared_global, False))
        pending += scope.inner
    return GlobalNames(frozenset(binds), frozenset(reads))
