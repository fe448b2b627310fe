"""The execution script: one Python source text that calls a tool and prints its framed result.

Two shapes exist. The *plain* one is the text that agent servers have always run. The *guarded* one is for
tools that it cannot serve: those that rebind or delete a name which the script needs, those with
positional-only parameters, and those of which only the call shows whether to await their result.
"""

from __future__ import annotations
import __future__ as future_features

import ast
import builtins
import keyword
import re
import symtable
import typing
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from textwrap import indent
from typing import Any, Literal, Protocol

from wasm_sandbox.arguments import BadArguments, argument_literals, pickled_agent_state
from wasm_sandbox.frame import MARKER

RESULT_VAR_NAME = "result_ZQqiequkcFwRwwGQMqkt"

_ARGUMENTS = f"{RESULT_VAR_NAME}_arguments"
_DELIVER = f"{RESULT_VAR_NAME}_deliver"
_GUARD = f"{RESULT_VAR_NAME}_guard"


class UnsupportedToolError(ValueError):
    """No script can be written for the tool, whatever its arguments are."""


class ToolDefinition(Protocol):
    """What the script needs to know of a tool; ``wasm_sandbox.Tool`` has it."""

    @property
    def name(self) -> str: ...
    @property
    def source_code(self) -> str: ...
    @property
    def json_schema(self) -> dict[str, Any] | None: ...
    @property
    def args_json_schema(self) -> dict[str, Any] | None: ...


@dataclass(frozen=True)
class ExecutionScript:
    """A script, and where the tool's own source stands in it.

    Attributes:
        text: The whole source; it can be encoded as UTF-8.
        tool_first_line: The line of ``text``, counted from 1, at which the tool's source starts.
        tool_line_count: How many lines the tool's source takes. Its line n is line
            ``tool_first_line + n - 1`` of ``text``, which may differ from the tool's only by a moved
            ``from __future__`` import.
        injects_agent_state: Whether the tool has a parameter ``agent_state``. If it has not, what the
            envelope says about the agent state means nothing.
    """

    text: str
    tool_first_line: int
    tool_line_count: int
    injects_agent_state: bool


def generate_script(
    tool: ToolDefinition,
    args: Mapping[str, Any],
    *,
    agent_state: Any = None,
    agent_id: str | None = None,
    markers: bool = True,
    top_level_await: bool = False,
    marker: bytes = MARKER,
) -> ExecutionScript:
    """Write the script that runs one tool call.

    A source that this Python cannot parse is passed on as it is: the guest's Python may be newer, and if
    that cannot parse it either, the guest reports the error with the tool's own line.

    Args:
        tool: The tool; its source is only read, never executed.
        args: Argument name to value. Names that the tool's JSON schema lacks are dropped.
        agent_state: A pydantic model, a dataclass, a mapping or ``None``; shipped only to a tool that has a
            parameter of that name.
        agent_id: What a parameter ``agent_id`` receives if the agent state has no ``id``.
        markers: Whether the script writes the framed result to stdout. If not, its last line is an
            expression: the pickled envelope in base64.
        top_level_await: Whether the script may await at module level, as in a notebook.
        marker: The 16 bytes that open the frame.

    Returns:
        The script.

    Raises:
        BadArguments: if an argument or the agent state cannot be handed to the tool.
        UnsupportedToolError: if the tool's name is no Python name, its source is no text, or it has an
            argument schema.
    """
    if len(marker) != len(MARKER):
        raise ValueError(f"a marker has {len(MARKER)} bytes, not {len(marker)}")
    _check_tool(tool)
    source = read_source(tool.source_code, tool.name)
    literals = argument_literals(tool.json_schema, args)
    for name in source.injected:
        literals.pop(name, None)  # the injected value wins over an argument of that name
    _check_distinct(literals)
    state = pickled_agent_state(agent_state) if "agent_state" in source.injected else None
    call = _Call(tool.name, source, literals, state is not None, markers, top_level_await, marker)

    before = [f"from __future__ import {', '.join(source.futures)}"] if source.futures else []
    before.append(_IMPORTS)
    if source.kind != "sync":
        before.append("import asyncio")
    before += [_CLIENT_IMPORT, *_agent_state_blocks(source, state), _CLIENT]
    if "agent_id" in source.injected:
        before.append(f"agent_id = {_agent_id(agent_state, agent_id)!r}")
    if call.needs_guard:
        before.append(_guard(call))
        after = [f"{'await ' if top_level_await else ''}{_DELIVER}({tool.name})"]
    else:
        arguments, after = _plain_call(call)
        before += arguments
    blocks = [*before, *([source.text] if source.text else []), *after]
    first_line = sum(_line_count(block) for block in before) + 1
    return ExecutionScript(
        "\n".join(blocks) + "\n", first_line, _line_count(source.text), "agent_state" in source.injected
    )


def parse_function_arguments(source_code: str, tool_name: str) -> list[str]:
    """List the parameter names of every function of that name in a source, nested ones and methods too.

    Positional-only, keyword-only, ``*`` and ``**`` parameters are not listed. The result is a statement
    about the text; ``generate_script`` looks closer.

    Args:
        source_code: The tool's source; a leading byte order mark is ignored.
        tool_name: The function's name.

    Returns:
        The names, all definitions concatenated; empty if there is no such function.

    Raises:
        SyntaxError: if this Python cannot parse the source (``ValueError`` for characters that no source
            may contain).
    """
    return [
        parameter.arg
        for function in ast.walk(_parse(source_code.removeprefix(_BOM)))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name == tool_name
        for parameter in function.args.args
    ]


def detect_async(source_code: str, tool_name: str) -> bool:
    """Tell whether a source has an ``async def`` of that name anywhere.

    This is advice: whether a result is awaited is decided by the call (see ``ToolSource.kind``).

    Args:
        source_code: The tool's source.
        tool_name: The function's name.

    Returns:
        True if there is one; False if not, or if this Python cannot parse the source.
    """
    try:
        tree = _parse(source_code.removeprefix(_BOM))
    except _UNPARSABLE:
        return False
    return any(isinstance(node, ast.AsyncFunctionDef) and node.name == tool_name for node in ast.walk(tree))


# --- What a source says about its tool ----------------------------------------------------------------

_BOM = "\ufeff"
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
_RESERVED = ("agent_state", "agent_id")
_LINE_END = re.compile(r"\r\n|\r|\n")

_NAMESPACE_ACCESS = frozenset({"globals", "exec", "builtins", "__builtins__", "__main__"})
_NAMESPACE_ATTRIBUTES = frozenset({"modules", "f_globals", "f_builtins", "__globals__", "__builtins__"})
_ASYNC_WORDS = re.compile("async|await|coroutine")
_LOOP_RUNNERS = frozenset({"run", "run_until_complete"})
_ASYNCIO_MAKERS = frozenset(
    {"create_task", "ensure_future", "gather", "shield", "sleep", "to_thread", "wait", "wait_for"}
)

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class ToolSource:
    """What a static look at a tool's source shows.

    Attributes:
        text: The source as the script contains it.
        futures: Names of the ``from __future__`` imports that were taken out of it.
        kind: Whether a call of the tool is surely not to be awaited (``sync``), surely so (``async``), or
            shows it only when it returns (``unknown``).
        injected: Which of the reserved parameters the tool has.
        positional_only: Its positional-only parameters.
        binds: Global names that the source may bind or delete.
        rebinds: Those among them that are not just a module imported under its own name.
        reads: Global names that it may read.
        changes_globals: Whether it may bind or delete global names that cannot be seen.
    """

    text: str
    futures: tuple[str, ...] = ()
    kind: Literal["sync", "async", "unknown"] = "unknown"
    injected: tuple[str, ...] = ()
    positional_only: tuple[str, ...] = ()
    binds: frozenset[str] = frozenset()
    rebinds: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    changes_globals: bool = True


@lru_cache(maxsize=128)
def read_source(source_code: str, tool_name: str) -> ToolSource:
    """Look at a tool's source without running it.

    Args:
        source_code: The source; a leading byte order mark and trailing blanks are dropped.
        tool_name: The name by which the tool is called.

    Returns:
        What can be seen. Of a source that this Python cannot parse nothing is known, except a guess
        which reserved parameters the tool has.
    """
    text = source_code.removeprefix(_BOM).rstrip()
    try:
        tree, table = _parse(text), _symbols(text)
    except _UNPARSABLE:
        return ToolSource(text, injected=_guessed_reserved(text, tool_name))
    definitions = [node for node in _module_scope(tree) if isinstance(node, _Function) and node.name == tool_name]
    parameters = definitions[-1].args if definitions else None
    if parameters is None:
        names = parse_function_arguments(text, tool_name)
    else:
        names = [p.arg for p in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)]
    imported, renamed, has_star_import = _imports(tree)
    assigned, reads = _globals_used(table)
    future_names, text_without = _without_futures(tree, text)
    return ToolSource(
        text=text_without,
        futures=future_names,
        kind=_kind(tree, text, tool_name, definitions, assigned | imported),
        injected=tuple(name for name in _RESERVED if name in names),
        positional_only=tuple(p.arg for p in parameters.posonlyargs) if parameters else (),
        binds=assigned | imported,
        rebinds=assigned | renamed,
        reads=reads,
        changes_globals=has_star_import or any(_reaches_namespaces(node) for node in ast.walk(tree)),
    )


def _guessed_reserved(text: str, tool_name: str) -> tuple[str, ...]:
    definition = re.search(rf"\bdef\s+{re.escape(tool_name)}\b", text)
    if definition is None:
        return ()
    header = re.split(r"\)\s*(?:->|:)", text[definition.end() :][:2000], maxsplit=1)[0]
    words = re.findall(r"\w+", header)
    return tuple(name for name in _RESERVED if name in words)


def _parse(source_code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tool's invalid escapes are no business of the host's log
        return ast.parse(source_code)


def _symbols(source_code: str) -> symtable.SymbolTable:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return symtable.symtable(source_code, "<tool>", "exec")


def _module_scope(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run in the module's own scope, in source order."""
    pending: list[ast.AST] = [*reversed(tree.body)]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _Function | ast.ClassDef | ast.Lambda):
            pending += reversed([*ast.iter_child_nodes(node)])


def _imports(tree: ast.Module) -> tuple[frozenset[str], frozenset[str], bool]:
    """Names bound by imports; those bound to something else than the module so named; is there a star."""
    bound, renamed, has_star = set(), set(), False
    for node in ast.walk(tree):
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


def _globals_used(module: symtable.SymbolTable) -> tuple[frozenset[str], frozenset[str]]:
    """Global names that a module assigns or deletes, and those it reads, in whatever scope."""
    assigned = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned()}
    reads = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_referenced()}
    pending = module.get_children()
    while pending:
        scope = pending.pop()
        pending += scope.get_children()
        for symbol in scope.get_symbols():
            if symbol.is_declared_global() and symbol.is_assigned():
                assigned.add(symbol.get_name())
            if symbol.is_global() and symbol.is_referenced():
                reads.add(symbol.get_name())
    return frozenset(assigned), frozenset(reads)


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


def _kind(
    tree: ast.Module, text: str, tool_name: str, definitions: list[_Function], bound: frozenset[str]
) -> Literal["sync", "async", "unknown"]:
    if not _ASYNC_WORDS.search(text):
        return "sync"
    others = [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.Global) and tool_name in node.names)
        or (isinstance(node, ast.alias) and tool_name == (node.asname or node.name))
    ] + [
        node
        for node in _module_scope(tree)
        if (isinstance(node, ast.Name) and node.id == tool_name and not isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.ClassDef) and node.name == tool_name)
    ]
    is_plain = definitions and not others and not any(node.decorator_list for node in definitions)
    if not is_plain and tool_name in bound:
        return "unknown"
    makers = _awaitable_makers(tree)
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
        for node in ast.walk(function)
    )


def _awaitable_makers(tree: ast.Module) -> set[str]:
    """Names of functions whose call may give an awaitable: async ones, and those that hand one on."""
    makers = {"<asyncio>"}
    users: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            makers.add(node.name)
        elif isinstance(node, ast.FunctionDef):
            for name in _names_handed_on(node):
                users.setdefault(name, []).append(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            makers |= {alias.asname or alias.name for alias in node.names} - _LOOP_RUNNERS
    pending = [*makers]
    while pending:
        found = {*users.get(pending.pop(), ())} - makers
        makers |= found
        pending += found
    return makers


def _names_handed_on(function: ast.FunctionDef) -> set[str]:
    """Names that a function uses other than by running a coroutine to its end."""
    names: set[str] = set()
    pending: list[ast.AST] = [*function.body]
    while pending:
        match pending.pop():
            case ast.AsyncFunctionDef():
                continue
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in _LOOP_RUNNERS:
                continue
            case ast.Attribute(value=ast.Name(id="asyncio"), attr=name):
                names.add("<asyncio>" if name in _ASYNCIO_MAKERS else name)
            case ast.Name(id=name):
                names.add(name)
            case node:
                names |= {node.attr} if isinstance(node, ast.Attribute) else set()
                pending += ast.iter_child_nodes(node)
    return names


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
    lines = [line.encode() for line in _LINE_END.split(text)]  # the tree counts bytes
    for node in reversed(futures):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        if first == last:
            lines[first] = head + b"pass" + tail
        else:
            lines[first : last + 1] = [head, *([b""] * (last - first - 1)), b"pass" + tail]
    names = dict.fromkeys(alias.name for node in futures for alias in node.names)
    return tuple(names), b"\n".join(lines).decode()


# --- How the tool is called ---------------------------------------------------------------------------

_PREDEFINED = frozenset({*dir(builtins), *typing.__all__, "os", "sys", "base64", "client", "Letta", "AgentState"})
"""Names that a tool may read without defining them."""

_WRAPPER_LOCALS = frozenset(
    {
        *("_async_wrapper", "_function_result", "_TempResultWrapper", "_wrapped", "_serialized_result"),
        *("BaseModel", "ConfigDict", "Any", "e"),
    }
)
"""What the plain text of an async call binds around the call."""


@dataclass(frozen=True)
class _Call:
    """One call of the tool: everything that its text depends on."""

    tool_name: str
    source: ToolSource
    literals: Mapping[str, str]
    has_agent_state: bool
    markers: bool
    top_level_await: bool
    marker: bytes

    @property
    def tool_root(self) -> str:
        return self.tool_name.partition(".")[0]

    @property
    def needs_guard(self) -> bool:
        source = self.source
        return (
            source.changes_globals
            or source.kind == "unknown"
            or bool(source.positional_only)
            or not source.rebinds.isdisjoint(self.names_read_after_the_tool)
            or (source.kind == "async" and self.tool_root in _WRAPPER_LOCALS)
        )

    @property
    def names_read_after_the_tool(self) -> frozenset[str]:
        names = {"Exception", "ImportError", "agent_state", "pickle", "print", "str"}
        names |= {"hashlib", "len", "struct", "sys"} if self.markers else {"base64"}
        names |= {"asyncio"} if self.source.kind == "async" else set()
        return frozenset(names | ({"_agent_state_as", "dict"} if self.has_agent_state else set()))

    def may_be_global(self, name: str) -> bool:
        """Whether an argument can be assigned to a global of its name without changing anything else."""
        canonical = unicodedata.normalize("NFKC", name)  # as Python reads it
        taken = self.names_read_after_the_tool | self.source.binds | {self.tool_root}
        if self.source.kind == "async":
            taken |= _WRAPPER_LOCALS
        return (
            _is_variable_name(name)
            and not canonical.startswith("__")
            and not canonical.startswith(RESULT_VAR_NAME)
            and canonical not in taken
            and not (canonical in _PREDEFINED and canonical in self.source.reads)
        )


def _check_tool(tool: ToolDefinition) -> None:
    if not all(_is_variable_name(part) for part in tool.name.split(".")):
        raise UnsupportedToolError(f"the tool's name {tool.name!r} is no Python name; give it the name of its function")
    if not isinstance(tool.source_code, str) or "\0" in tool.source_code:
        raise UnsupportedToolError(f"the source of tool {tool.name!r} is not Python text")
    try:
        tool.source_code.encode()
    except UnicodeEncodeError:
        raise UnsupportedToolError(
            f"the source of tool {tool.name!r} has a lone surrogate, which no file can hold; escape it"
        ) from None
    if tool.args_json_schema:
        raise UnsupportedToolError(
            f"tool {tool.name!r} has an args_json_schema; that needs the extra 'schema', which is not part "
            "of this version: describe the arguments in json_schema instead"
        )


def _is_variable_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(unicodedata.normalize("NFKC", name))


def _check_distinct(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name), name)
        if other != name:
            raise BadArguments(f"Python reads its name as that of {other!r}; rename one", name)


def _dict_literal(literals: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {literal}" for name, literal in literals.items()) + "}"


def _plain_call(call: _Call) -> tuple[list[str], list[str]]:
    """The blocks before and after the tool's source."""
    assigned = {name: literal for name, literal in call.literals.items() if call.may_be_global(name)}
    kept = {name: literal for name, literal in call.literals.items() if name not in assigned}
    before = [f"{name} = {literal}" for name, literal in assigned.items()]
    if kept:
        before.append(f"{_ARGUMENTS} = {_dict_literal(kept)}")
    keywords = [f"{name}={name}" for name in (*assigned, *call.source.injected)]
    if kept:
        keywords.append(f"**{_ARGUMENTS}")
    expression = f"{call.tool_name}({', '.join(keywords)})"
    state = "_agent_state_as(dict, agent_state)" if call.has_agent_state else "agent_state"
    envelope = f'{{\n    "results": _serialized_result,\n    "agent_state": {state}\n}}'
    if call.source.kind == "async":
        body = f"_function_result = await {expression}\n{_SERIALIZE}\nreturn {envelope}"
        run = "await _async_wrapper()" if call.top_level_await else "asyncio.run(_async_wrapper())"
        result = f"async def _async_wrapper():\n{indent(body, '    ')}\n{RESULT_VAR_NAME} = {run}"
    else:
        result = f"_function_result = {expression}\n{_SERIALIZE}\n{RESULT_VAR_NAME} = {envelope}"
    output = _FRAME.format(RV=RESULT_VAR_NAME, marker=call.marker) if call.markers else _BASE64
    return before, [result, _PICKLE, output]


def _guard(call: _Call) -> str:
    """The block before the tool's source that holds everything the script will need after it."""
    positional, named = _bound_by_kind(call)
    settle = "await settled(value)" if call.top_level_await else "asyncio.run(settled(value))"
    state = "agent_state, _agent_state_as" if call.has_agent_state else "agent_state, None"
    return "\n".join(
        [
            _GUARD_HEAD,
            f"    {'async ' if call.top_level_await else ''}def deliver(tool):",
            "        value = tool(*positional, **named)",
            "        if inspect.isawaitable(value):",
            f"            value = {settle}",
            _GUARD_PICKLE,
            _GUARD_FRAME.format(marker=call.marker) if call.markers else _GUARD_BASE64,
            "",
            f"    builtins.{_DELIVER} = deliver",
            f"{_GUARD}([{', '.join(positional)}], {_dict_literal(named)}, {state})",
        ]
    )


def _bound_by_kind(call: _Call) -> tuple[list[str], dict[str, str]]:
    """Source of the values to pass by position, and of those to pass by name."""
    named = {**call.literals, **{name: name for name in call.source.injected}}
    positional: list[str] = []
    missing: str | None = None
    for name in call.source.positional_only:
        if name not in named:
            missing = missing or name
        elif missing is not None:
            raise BadArguments(f"it is positional-only, so {missing!r} must be given too", name)
        else:
            positional.append(named.pop(name))
    return positional, named


def _agent_state_blocks(source: ToolSource, state: bytes | None) -> list[str]:
    if "agent_state" not in source.injected:
        return ["agent_state = None"]
    value = "None" if state is None else f"_agent_state_as(AgentState, pickle.loads({state!r}))"
    return [_AGENT_STATE, f"agent_state = {value}"]


def _agent_id(agent_state: Any, agent_id: str | None) -> str | None:
    found = agent_state.get("id") if isinstance(agent_state, Mapping) else getattr(agent_state, "id", None)
    return str(found) if found else agent_id


def _line_count(text: str) -> int:
    return len(_LINE_END.findall(text)) + 1 if text else 0


# --- The text -----------------------------------------------------------------------------------------

_IMPORTS = """\
from typing import *
import pickle
import sys
import base64
import struct
import hashlib"""

_CLIENT_IMPORT = """\
try:
    from letta_client import Letta
except ImportError:
    Letta = None"""

_CLIENT = """\
# Initialize Letta client for tool execution
import os
client = None
if Letta is not None and os.getenv('LETTA_API_KEY'):
    # Check letta_client version to use correct parameter name
    from packaging import version as pkg_version
    import letta_client as lc_module
    lc_version = pkg_version.parse(lc_module.__version__)
    if lc_version < pkg_version.parse('1.0.0'):
        client = Letta(
            token=os.getenv('LETTA_API_KEY')
        )
    else:
        client = Letta(
            api_key=os.getenv('LETTA_API_KEY')
        )"""

# Fields win over the methods of dict, as in the models that tools were written for. The names that are read
# after the tool has run are bound as defaults, where a tool cannot reach them by accident.
_AGENT_STATE = """\
class AgentState(dict):
    __slots__ = ()
    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__

    def __getattribute__(self, name, item=dict.__getitem__, other=dict.__getattribute__, missing=KeyError):
        if name[:2] != '__':
            try:
                return item(self, name)
            except missing:
                pass
        return other(self, name)

def _agent_state_as(mapping, value, is_a=isinstance, dict=dict, list=list, tuple=tuple, hasattr=hasattr):
    def rebuilt(value):
        if is_a(value, dict):
            return mapping({key: rebuilt(item) for key, item in dict.items(value)})
        if is_a(value, (list, tuple)):
            return (list if is_a(value, list) else tuple)([rebuilt(item) for item in value])
        return value.model_dump() if hasattr(value, 'model_dump') else value
    return rebuilt(value)"""

_SERIALIZE = """\
try:
    from pydantic import BaseModel, ConfigDict
    from typing import Any

    class _TempResultWrapper(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        result: Any

    _wrapped = _TempResultWrapper(result=_function_result)
    _serialized_result = _wrapped.model_dump()['result']
except ImportError:
    print("Pydantic not available in sandbox environment, falling back to string conversion")
    _serialized_result = str(_function_result)
except Exception as e:
    print(f"Failed to serialize result with Pydantic wrapper: {e}")
    _serialized_result = str(_function_result)
"""

_PICKLE = f"{RESULT_VAR_NAME}_pkl = pickle.dumps({RESULT_VAR_NAME})"

_BASE64 = f"base64.b64encode({RESULT_VAR_NAME}_pkl).decode('utf-8')"

_FRAME = """\
data_checksum = hashlib.md5({RV}_pkl).hexdigest().encode('ascii')
{RV}_msg = (
  {marker!r} +
  struct.pack('>I', len({RV}_pkl)) +
  data_checksum +
  {RV}_pkl
)
sys.stdout.buffer.write({RV}_msg)
sys.stdout.buffer.flush()"""

_GUARD_HEAD = f"""\
def {_GUARD}(positional, named, agent_state, agent_state_as):
    import asyncio
    import base64
    import builtins
    import hashlib
    import inspect
    import pickle
    import struct
    import sys
    from builtins import Exception, ImportError, dict, len, open, print, str
    try:
        from pydantic import BaseModel, ConfigDict
        from typing import Any

        class _TempResultWrapper(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            result: Any
    except ImportError:
        _TempResultWrapper = None
    stdout = sys.stdout.buffer

    async def settled(value):
        while inspect.isawaitable(value):
            value = await value
        return value

    def serialized(value):
        if _TempResultWrapper is None:
            print("Pydantic not available in sandbox environment, falling back to string conversion")
            return str(value)
        try:
            return _TempResultWrapper(result=value).model_dump()['result']
        except Exception as e:
            print(f"Failed to serialize result with Pydantic wrapper: {{e}}")
            return str(value)
"""

_GUARD_PICKLE = """\
        envelope = {
            "results": serialized(value),
            "agent_state": agent_state if agent_state_as is None else agent_state_as(dict, agent_state),
        }
        payload = pickle.dumps(envelope, protocol=4)"""

_GUARD_FRAME = """\
        checksum = hashlib.md5(payload, usedforsecurity=False).hexdigest().encode('ascii')
        try:
            sys.stdout.flush()
        except Exception:
            pass
        out = open(1, 'wb', closefd=False) if stdout.closed else stdout
        out.write({marker!r} + struct.pack('>I', len(payload)) + checksum + payload)
        out.flush()"""

_GUARD_BASE64 = """\
        return base64.b64encode(payload).decode('utf-8')"""
