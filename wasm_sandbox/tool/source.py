"""What a tool's source says about its tool: read, never executed. Pure."""

from __future__ import annotations
import __future__ as future_features

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import Literal, NamedTuple

from wasm_sandbox.errors import pass_on
from wasm_sandbox.tool.bounds import cost_of
from wasm_sandbox.tool.memo import SizedMemo, text_bytes
from wasm_sandbox.tool.parsing import parse_expression, parse_module
from wasm_sandbox.tool.scopes import all_nodes, children, global_names

_BOM = "\ufeff"
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
_RESERVED = ("agent_state", "agent_id")
LINE_END = re.compile(r"\r\n|\r|\n")

_QUICK_CHARACTERS = 2_000
"""A source that is no longer is read in less than 20 milliseconds, whatever it is."""

_NAMESPACE_ACCESS = frozenset({"globals", "exec", "builtins", "__builtins__", "__main__"})
_NAMESPACE_ATTRIBUTES = frozenset({"modules", "f_globals", "f_builtins", "__globals__", "__builtins__"})
_ASYNC_WORDS = re.compile("async|await|coroutine")
_DEFINITION = re.compile(r"\bdef\s+(?=(\w+))")
_POSITIONAL = re.compile(r"(?:\s*\w+\s*(?::[^,=]+)?(?:=[^,]+)?,)+\s*")
_FUTURE = re.compile(r"^from __future__ import ([\w, ]+?)[ \t]*$", re.MULTILINE)
_FIRST_STATEMENT = re.compile(r"^(?:def|class|async|import|from[ \t]+(?!__future__)|@|type|if|try)\b", re.MULTILINE)
_JSON_NAMES = frozenset(
    {"Any", "Dict", "List", "Optional", "Union", "bool", "dict", "float", "int", "list", "object", "str"}
)
_MANY_NODES = 300
"""Of annotations: with more of them they are not looked into."""
_LOOP_RUNNERS = frozenset({"run", "run_until_complete"})
_ASYNCIO_MAKERS = frozenset(
    {"create_task", "ensure_future", "gather", "shield", "sleep", "to_thread", "wait", "wait_for"}
)

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class ToolSource(NamedTuple):
    """What a static look at a tool's source shows.

    Attributes:
        text: The source as the script contains it.
        futures: Names of the ``from __future__`` imports that were taken out of it.
        kind: Whether a call of the tool is surely not to be awaited (``sync``), surely so (``async``), or
            shows it only when it returns (``unknown``).
        injected: Which of the reserved parameters the tool has.
        positional_only: Its positional-only parameters.
        parameter_names: What `parse_function_arguments` lists; ``None`` if this Python cannot parse the source.
        has_async_definition: Whether there is an ``async def`` of the tool's name anywhere.
        binds: Global names that the source may bind or delete.
        rebinds: Those among them that are not just a module imported under its own name.
        reads: Global names that it may read.
        builds: Whether a parameter is annotated with more than JSON's own types.
        changes_globals: Whether it may bind or delete global names that cannot be seen.
        annotations: Its parameters' names -> the names in their annotations.
    """

    text: str
    futures: tuple[str, ...] = ()
    kind: Literal["sync", "async", "unknown"] = "unknown"
    injected: tuple[str, ...] = ()
    positional_only: tuple[str, ...] = ()
    parameter_names: tuple[str, ...] | None = None
    has_async_definition: bool = False
    binds: frozenset[str] = frozenset()
    rebinds: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    builds: bool = True
    changes_globals: bool = True
    annotations: Mapping[str, frozenset[str]] = MappingProxyType({})


_MEMO_BYTES = 32 << 20
_NAME_BYTES = 200
"""Of a name in the sets of a `ToolSource`, with its text."""

SOURCES: SizedMemo[tuple[str, str], ToolSource] = SizedMemo(_MEMO_BYTES)
"""What was read of sources, by source and name."""


def read_source(source_code: str, tool_name: str) -> ToolSource:
    """Look at a tool's source without running it; memoised by size.

    It takes 0.25 seconds of processor time at most, and holds the interpreter lock for 20 milliseconds at most.

    Args:
        source_code: The source; a leading byte order mark and trailing blanks are dropped.
        tool_name: The name by which the tool is called.

    Returns:
        What can be seen. Of a source that this Python cannot parse, or that would cost it too much
        (`wasm_sandbox.tool.bounds`), nothing is known, except a guess which reserved parameters the tool has.

    Raises:
        HostError: if the source nests deeply and the system gives no thread to read it on.
    """
    key = (source_code, tool_name)
    found = SOURCES.get(key)
    if found is None:
        found = _looked_at(source_code, tool_name)
        names = len(found.binds) + len(found.reads) + len(found.parameter_names or ())
        names += len(found.annotations) + sum(map(len, found.annotations.values()))
        SOURCES.put(key, found, text_bytes(source_code) + text_bytes(tool_name) + names * _NAME_BYTES)
    return found


def is_quickly_read(source_code: str, tool_name: str) -> bool:
    """Whether `read_source` takes so little time that an event loop can wait: it has been read, or is small."""
    return len(source_code) <= _QUICK_CHARACTERS or (source_code, tool_name) in SOURCES


def _looked_at(source_code: str, tool_name: str) -> ToolSource:
    text = source_code.removeprefix(_BOM).rstrip()
    try:
        tree = _parse(text)
    except _UNPARSABLE as error:
        pass_on(error)
        futures, without = _guessed_futures(text)
        header = _guessed_header(text, tool_name)
        return ToolSource(
            without, futures, injected=_guessed_reserved(header), positional_only=_guessed_positional(header)
        )
    nodes = all_nodes(tree)
    everywhere = _functions_named(tool_name, nodes)
    listed = tuple(_listed_parameters(everywhere))
    in_module = [*_module_scope(tree)]
    definitions = _functions_named(tool_name, in_module)
    parameters = definitions[-1].args if definitions else None
    names: Iterable[str] = listed
    if parameters is not None:
        names = [p.arg for p in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)]
    imported, renamed, has_star_import = _imports(nodes)
    assigned, reads = global_names(tree)
    future_names, text_without = _without_futures(tree, text)
    return ToolSource(
        text=text_without,
        futures=future_names,
        kind=_kind(tree, nodes, in_module, text, tool_name, definitions, assigned | imported),
        injected=tuple(name for name in _RESERVED if name in names),
        positional_only=tuple(p.arg for p in parameters.posonlyargs) if parameters else (),
        parameter_names=listed,
        has_async_definition=any(isinstance(node, ast.AsyncFunctionDef) for node in everywhere),
        binds=assigned | imported,
        rebinds=assigned | renamed,
        reads=reads,
        builds=parameters is not None and _is_beyond_json(parameters, tree),
        changes_globals=has_star_import or any(map(_reaches_namespaces, nodes)),
        annotations=_annotations(parameters) if parameters else {},
    )


def _annotations(parameters: ast.arguments) -> dict[str, frozenset[str]]:
    """Names in the annotation of each parameter, in texts inside of it, too."""
    found = {}
    for parameter in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs):
        names: set[str] = set()
        for node in ast.walk(parameter.annotation) if parameter.annotation else ():
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    names.add(name)
                case ast.Constant(value=str() as text):
                    names.update(re.findall(r"[^\W\d]\w*", text))
        if names:
            found[parameter.arg] = frozenset(names)
    return found


def parse_function_arguments(source_code: str, tool_name: str) -> list[str]:
    """List the parameter names of every function of that name in a source, nested ones and methods too.

    Positional-only, keyword-only, ``*`` and ``**`` parameters are not listed. The result is a statement
    about the text; what the script injects is decided by `ToolSource.injected`.

    Args:
        source_code: The tool's source; a leading byte order mark is ignored.
        tool_name: The function's name.

    Returns:
        The names, all definitions concatenated; empty if there is no such function.

    Raises:
        SyntaxError: if this Python cannot parse the source (``ValueError`` for characters that no source
            may contain, ``TypeError`` if it is no text).
    """
    names = read_source(source_code, tool_name).parameter_names if isinstance(source_code, str) else None
    if names is None:  # parsed again for the exception
        tree = _parse(source_code.removeprefix(_BOM)) if isinstance(source_code, str) else ast.parse(source_code)
        return _listed_parameters(_functions_named(tool_name, ast.walk(tree)))
    return [*names]


def detect_async(source_code: str, tool_name: str) -> bool:
    """Tell whether a source has an ``async def`` of that name anywhere.

    This is advice: whether a result is awaited is decided by the call (see ``ToolSource.kind``).

    Args:
        source_code: The tool's source.
        tool_name: The function's name.

    Returns:
        True if there is one; False if not, or if this Python cannot parse the source.
    """
    return read_source(source_code, tool_name).has_async_definition


def _functions_named(name: str, nodes: Iterable[ast.AST]) -> list[_Function]:
    return [node for node in nodes if isinstance(node, _Function) and node.name == name]


def _listed_parameters(functions: list[_Function]) -> list[str]:
    return [parameter.arg for function in functions for parameter in function.args.args]


def _guessed_header(text: str, tool_name: str) -> str:
    """Text of a function's parameters, or a little more."""
    ends = (found.end(1) for found in _DEFINITION.finditer(text) if found[1] == tool_name)
    end = next(ends, None)
    return "" if end is None else re.split(r"\)\s*(?:->|:)", text[end : end + 2000], maxsplit=1)[0]


def _guessed_reserved(header: str) -> tuple[str, ...]:
    words = re.findall(r"\w+", header)
    return tuple(name for name in _RESERVED if name in words)


def _guessed_positional(header: str) -> tuple[str, ...]:
    before, slash, _ = header.partition("/")
    if not slash or not _POSITIONAL.fullmatch(before.rpartition("(")[2]):
        return ()
    return tuple(re.findall(r"(?:^|,)\s*(\w+)", before.rpartition("(")[2]))


def _guessed_futures(text: str) -> tuple[tuple[str, ...], str]:
    """The ``from __future__`` imports before the first statement that is none, and the text without them."""
    first = _FIRST_STATEMENT.search(text)
    head, rest = (text, "") if first is None else (text[: first.start()], text[first.start() :])
    names = [name.strip() for found in _FUTURE.finditer(head) for name in found[1].split(",")]
    known = tuple(dict.fromkeys(name for name in names if name in future_features.all_feature_names))
    return (known, _FUTURE.sub("pass", head) + rest) if known else ((), text)


def _parse(source_code: str) -> ast.Module:
    return parse_module(source_code, cost_of(source_code))


def _module_scope(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run in the module's own scope, in source order."""
    pending: list[ast.AST] = [*reversed(tree.body)]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _Function | ast.ClassDef | ast.Lambda):
            pending += reversed(children(node))


def _imports(nodes: Iterable[ast.AST]) -> tuple[frozenset[str], frozenset[str], bool]:
    """Names bound by imports; those bound to something else than the module so named; is there a star."""
    bound, renamed, has_star = set(), set(), False
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound.add(alias.asname or alias.name.partition(".")[0])
                if alias.asname not in (None, alias.name):
                    renamed.add(alias.asname or "")
        elif isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name for alias in node.names}
            has_star |= "*" in names and node.module != "typing"
            bound |= names
            renamed |= names
    return frozenset(bound), frozenset(renamed), has_star


def _reaches_namespaces(node: ast.AST) -> bool:
    """Whether a node may change global names, or standard output, behind the script's back."""
    match node:
        case ast.Name(id=name):
            return name in _NAMESPACE_ACCESS
        case ast.Import(names=aliases):
            return any(alias.name in _NAMESPACE_ACCESS for alias in aliases)
        case ast.ImportFrom(module=module):
            return module in _NAMESPACE_ACCESS
        case ast.Attribute(attr="stdout", ctx=ast.Store() | ast.Del()):
            return True
        case ast.Attribute(attr="close" | "detach", value=ast.Attribute(attr="stdout")):
            return True
        case ast.Attribute(attr=name):
            return name in _NAMESPACE_ATTRIBUTES
        case _:
            return False


def _is_beyond_json(parameters: ast.arguments, tree: ast.Module) -> bool:
    """Whether some annotation may mean something else than JSON values as they are."""
    aliases = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    }
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    rest = [one for one in (parameters.vararg, parameters.kwarg) if one is not None]
    every = [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs, *rest]
    pending = [one.annotation for one in every if one.annotation is not None and one.arg not in _RESERVED]
    left = _MANY_NODES
    while pending:
        node = pending.pop()
        left -= 1
        inner = _parts_of_json(node, classes) if left else None
        if isinstance(node, ast.Name) and node.id in aliases and left:
            inner = [aliases[node.id]]
        if inner is None:
            return True
        pending += inner
    return False


def _parts_of_json(node: ast.expr, classes: set[str]) -> list[ast.expr] | None:
    """Annotations within one that means a JSON value if they do; None for any other."""
    match node:
        case ast.Constant(value=None):
            return []
        case ast.Constant(value=str(text)):
            try:
                return [parse_expression(text)]
            except _UNPARSABLE as error:
                pass_on(error)
                return None
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="typing"), attr=name):
            return [] if name in _JSON_NAMES and name not in classes else None
        case ast.BinOp(left=one, op=ast.BitOr(), right=other):
            return [one, other]
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal")):
            return []
        case ast.Subscript(
            value=ast.Name(id="Annotated") | ast.Attribute(attr="Annotated"), slice=ast.Tuple(elts=[kind, *marks])
        ):
            return [kind] if all(isinstance(mark, ast.Constant) for mark in marks) else None
        case ast.Subscript(value=value, slice=part):
            return [value, *(part.elts if isinstance(part, ast.Tuple) else [part])]
        case _:
            return None


def _kind(
    tree: ast.Module,
    nodes: Iterable[ast.AST],
    in_module: Iterable[ast.AST],
    text: str,
    tool_name: str,
    definitions: list[_Function],
    bound: frozenset[str],
) -> Literal["sync", "async", "unknown"]:
    if not _ASYNC_WORDS.search(text):
        return "sync"
    others = [
        node
        for node in nodes
        if (isinstance(node, ast.Global) and tool_name in node.names)
        or (isinstance(node, ast.alias) and tool_name == (node.asname or node.name))
    ] + [
        node
        for node in in_module
        if (isinstance(node, ast.Name) and node.id == tool_name and not isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.ClassDef) and node.name == tool_name)
    ]
    is_plain = definitions and not others and not any(node.decorator_list for node in definitions)
    if not is_plain and tool_name in bound:
        return "unknown"
    makers = _awaitable_makers(tree, nodes)
    if not any(isinstance(node, ast.AsyncFunctionDef) for node in definitions):
        return "unknown" if tool_name.rpartition(".")[2] in makers else "sync"
    is_async = all(isinstance(node, ast.AsyncFunctionDef) for node in definitions)
    returns_another = any(_returns_call_of(makers, node) for node in definitions)
    return "async" if is_async and not returns_another else "unknown"


def _returns_call_of(names: set[str], function: _Function) -> bool:
    return any(
        isinstance(node, ast.Return)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in names
        for node in all_nodes(function)
    )


def _awaitable_makers(tree: ast.Module, nodes: Iterable[ast.AST]) -> set[str]:
    """Names of functions whose call may give an awaitable: async ones, and those that hand one on."""
    makers = {"<asyncio>"}
    for node in nodes:
        if isinstance(node, ast.AsyncFunctionDef):
            makers.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            makers |= {alias.asname or alias.name for alias in node.names} - _LOOP_RUNNERS
    users, around = _users(tree)
    pending = [*makers]
    seen = {*makers}
    done: set[ast.FunctionDef] = set()
    while pending:
        for user in users.get(pending.pop(), ()):
            function: ast.FunctionDef | None = user
            while function is not None and function not in done:  # and so do all around it
                done.add(function)
                makers.add(function.name)
                if function.name not in seen:
                    seen.add(function.name)
                    pending.append(function.name)
                function = around[function]
    return makers


def _users(
    tree: ast.Module,
) -> tuple[dict[str, list[ast.FunctionDef]], dict[ast.FunctionDef, ast.FunctionDef | None]]:
    """Functions in whose bodies a name is used other than by running a coroutine to its end.

    Returns:
        Name to the innermost functions that use it; and each function to the one around it, if that one contains
        what this one uses.
    """
    users: dict[str, list[ast.FunctionDef]] = {}
    around: dict[ast.FunctionDef, ast.FunctionDef | None] = {}
    pending: list[tuple[ast.AST, ast.FunctionDef | None]] = [(tree, None)]
    while pending:
        node, function = pending.pop()
        name = None
        match node:
            case ast.AsyncFunctionDef():
                function = None
            case ast.FunctionDef():
                around[node] = function
                inner = {*node.body}
                pending += [(child, node if child in inner else function) for child in children(node)]
                continue
            case ast.Call(func=ast.Attribute(attr=runner) | ast.Name(id=runner)) if runner in _LOOP_RUNNERS:
                function = None
            case ast.Attribute(value=ast.Name(id="asyncio"), attr=attribute):
                name = "<asyncio>" if attribute in _ASYNCIO_MAKERS else attribute
                node = ast.Pass()  # `asyncio` itself is no use of a name
            case ast.Name(id=identifier):
                name = identifier
            case ast.Attribute(attr=attribute):
                name = attribute
            case _:
                pass
        if name is not None and function is not None:
            users.setdefault(name, []).append(function)
        pending += [(child, function) for child in children(node)]
    return users, around


def _without_futures(tree: ast.Module, text: str) -> tuple[tuple[str, ...], str]:
    """Take the ``from __future__`` imports, legal only on a script's first line, out of a source."""
    body = tree.body
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    futures: list[ast.ImportFrom] = []
    for node in body:
        if not isinstance(node, ast.ImportFrom) or node.module != "__future__" or node.level:
            break
        if any(alias.asname or alias.name not in future_features.all_feature_names for alias in node.names):
            break
        futures.append(node)
    if not futures:
        return (), text
    lines = [line.encode() for line in LINE_END.split(text)]  # the tree counts bytes
    starts = [*accumulate(map(len, lines), lambda start, length: start + length + 1, initial=0)]
    whole = b"\n".join(lines)
    kept, position = [], 0
    for node in futures:
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        kept += [whole[position : starts[first] + node.col_offset], b"\n" * (last - first), b"pass"]
        position = starts[last] + (node.end_col_offset or 0)
    names = dict.fromkeys(alias.name for node in futures for alias in node.names)
    return tuple(names), b"".join([*kept, whole[position:]]).decode()
