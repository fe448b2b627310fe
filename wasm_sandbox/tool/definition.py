"""`Tool`: source code and the JSON schema of its parameters."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from wasm_sandbox.doors import above
from wasm_sandbox.errors import ToolSourceError, pass_on
from wasm_sandbox.limits import DEFER_BUILD
from wasm_sandbox.tool.annotations import AnnotationReader, UnknownAnnotation
from wasm_sandbox.tool.bounds import Cost, TooCostly, cost_of
from wasm_sandbox.tool.docstrings import read_docstring
from wasm_sandbox.tool.main_guard import without_main_guard
from wasm_sandbox.tool.own_stack import TooSlow, on_own_stack
from wasm_sandbox.tool.parsing import parse_module
from wasm_sandbox.tool.quick_schema import quick_schema
from wasm_sandbox.tool.scopes import all_nodes, global_names

_RESERVED_PARAMETERS = frozenset({"agent_state", "agent_id", "self", "cls"})


class Tool(BaseModel):
    """Python function that an agent may call.

    Attributes:
        name: name of the function, which the script calls.
        source_code: source that defines the function.
        json_schema: ``{"name", "description", "parameters"}``; ``parameters`` is the JSON schema of an
            object with one property per parameter.
        args_json_schema: JSON schema by which the guest validates the arguments.
        description: description of the tool, for the agent.
        pip_requirements: packages that the tool needs.
        id: id under which a store keeps the tool.
        derived: whether ``json_schema`` was derived from the function, by ``from_function`` or ``from_source``: then
            arguments are held to the function's signature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=DEFER_BUILD)

    name: str
    source_code: str
    json_schema: dict[str, Any] | None = None
    args_json_schema: dict[str, Any] | None = None
    description: str | None = None
    pip_requirements: list[Any] | None = None
    id: str | None = None
    derived: bool = False

    @classmethod
    def from_function(cls, function: Callable[..., Any], functions: Collection[str] = ()) -> Tool:
        """Make a tool of a function that this program defines.

        Only the function's own source is taken, its decorators included: it must import or define everything else
        itself.

        Args:
            function: function, sync or async, defined in a file.
            functions: names of host functions, which the function may use, too.

        Returns:
            The tool; its JSON schema is derived from the signature and the docstring (Google, NumPy or
            reST style).

        Raises:
            ToolSourceError: if it is no named function, its source cannot be found, or it takes names from outside
                itself: variables of an enclosing function, global names of its module, a decorator; the message lists
                them.
        """
        inner = inspect.unwrap(function)
        if not inspect.isfunction(inner) or inner.__name__ == "<lambda>":
            raise ToolSourceError(
                f"{function!r} is not a function defined with def; pass the function that was decorated, if it was, "
                "or use Tool.from_source(text)"
            )
        if inner.__code__.co_freevars:
            names = ", ".join(inner.__code__.co_freevars)
            raise ToolSourceError(
                f"{inner.__name__} uses variables of an enclosing function ({names}), which do not go along; "
                "pass them as arguments"
            )
        try:
            source = inspect.getsource(inner)
        except (OSError, TypeError):
            raise ToolSourceError(
                f"the source of {inner.__name__} is not in a file; use Tool.from_source(text)"
            ) from None
        _check_names(inner.__name__, _dedented(source), functions)
        annotations = _annotations_of(inner)
        parameters = [
            _Parameter(name, annotations.get(name, _UNTYPED), parameter.default)
            for name, parameter in inspect.signature(inner).parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        extra = next(
            (
                _Parameter(f"**{name}", annotations.get(name, _UNTYPED), _NO_DEFAULT)
                for name, parameter in inspect.signature(inner).parameters.items()
                if parameter.kind is parameter.VAR_KEYWORD
            ),
            None,
        )
        return cls._described(inner.__name__, _dedented(source), inspect.getdoc(inner), parameters, extra)

    @classmethod
    def from_source(cls, text: str, name: str | None = None) -> Tool:
        """Make a tool of a source, read as hostile: it is parsed, never executed.

        An annotation counts if it can be understood without running anything: builtins, ``typing``,
        ``datetime`` and the like, constraints with literal values, and models, dataclasses, typed
        dictionaries and enums that the source itself defines. Any other parameter gets no type.

        What the source does under ``if __name__ == "__main__":`` is no part of the tool: it is blanked in
        ``source_code``, where all other lines stay as they are.

        Args:
            text: source of the tool.
            name: name of the tool's function; by default the last function at the source's top level, one
                without a leading underscore if there is any, and one that is not only the entry of the program
                under ``if __name__ == "__main__":``.

        Returns:
            The tool, its JSON schema derived as by ``from_function``.

        Raises:
            ToolSourceError: if the source is no text, does not parse (in the guest, whose Python may be newer), has no
                such function, or would take too long to read: it takes 0.25 seconds of processor time at most.
            HostError: if the source is more than plain and the system gives no thread to read it on.
        """
        if not isinstance(text, str):
            raise ToolSourceError(f"the source must be text, not {type(text).__name__}; decode it")
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        source, entries, known = text.removeprefix(mark), frozenset[str](), None
        try:
            cost = cost_of(source)
            try:
                module = parse_module(source, cost)
            except SyntaxError as error:
                pass_on(error)
                if sys.version_info >= GUEST_PYTHON or "\0" in source:
                    raise
                source, entries, known = _read_in_guest(source)
                cost = cost_of(known)
                module = parse_module(known, cost)
        except TooCostly as error:
            raise ToolSourceError(f"{error}; {_ADVICE}") from None
        except SyntaxError as error:
            pass_on(error)
            raise ToolSourceError(f"the source does not parse: {error.msg} (line {error.lineno})") from None
        except (ValueError, RecursionError, MemoryError) as error:
            pass_on(error)
            raise ToolSourceError(f"the source does not parse: {error}") from None
        if known is None:
            source, entries = without_main_guard(module, source)
        function = _chosen(module, name, entries)

        def described() -> Tool:
            reader = AnnotationReader(module)
            parameters = [*_static_parameters(function, reader)]
            keywords = function.args.kwarg
            extra = _static_parameter(keywords, reader, f"**{keywords.arg}") if keywords else None
            return cls._described(function.name, mark + source, ast.get_docstring(function), parameters, extra)

        if _is_plain(function, cost):
            return described()
        _load_pydantic()
        try:
            return on_own_stack(described, MAX_SECONDS)
        except TooSlow:
            raise ToolSourceError(
                f"the parameters of {function.name} take more than {MAX_SECONDS:g} seconds of processor time to "
                f"describe; {_ADVICE}"
            ) from None

    @classmethod
    def _described(
        cls, name: str, source: str, doc: str | None, parameters: list[_Parameter], extra: _Parameter | None
    ) -> Tool:
        description, described = read_docstring(doc) if doc else ("", {})
        shown = [parameter for parameter in parameters if parameter.name not in _RESERVED_PARAMETERS]
        # What is put together here needs no validation, and the first of a process is slow; a subclass may have rules.
        make = cls.model_construct if cls is Tool else cls
        return make(
            name=name,
            source_code=source,
            json_schema={
                "name": name,
                "description": description,
                "parameters": _parameters_schema(shown, described, extra),
            },
            description=description or None,
            derived=True,
        )


GUEST_PYTHON = 3, 13
"""Version of the guest's Python. On an older one here, the guest is asked to parse what does not parse here."""

_read_in_guest = above("sandbox.reading", "read_in_guest")

MAX_SECONDS = 0.15
"""Processor time that types, defaults and docstring of a source may take. What they are made of is counted, so that
they take less; this is for what is not known to be slow."""

_ADVICE = "shorten it, or make the Tool with a json_schema of your own"
_PLAIN_NAMES = frozenset({"Any", "None", "Optional", "bool", "dict", "float", "int", "list", "object", "str"})
_PLAIN_NODES = (ast.Name, ast.Load, ast.Subscript, ast.Tuple, ast.BinOp, ast.BitOr)
_MANY_NODES = 200

_UNTYPED: Any = inspect.Parameter.empty
_NO_DEFAULT: Any = inspect.Parameter.empty
_UNKNOWN_DEFAULT: Any = object()


class _Parameter(NamedTuple):
    name: str
    annotation: Any
    default: Any


_KNOWN_NAMES = frozenset(
    {*dir(builtins), *typing.__all__, "os", "pickle", "sys", "base64", "struct", "hashlib", "client", "Letta"}
    | {"asyncio", "__name__", "__file__", "__doc__", "AgentState"}
)
"""Names that a tool's function finds without an import."""


def _check_names(name: str, source: str, functions: Collection[str]) -> None:
    """Refuse a function that takes names from outside itself, which do not go along with its source."""
    try:
        module = parse_module(source)
    except (TooCostly, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        pass_on(error)
        return  # whoever calls it hears from the guest
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in module.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    names = global_names(module)
    foreign = names.reads - names.binds - imported - _KNOWN_NAMES - {*functions}
    if not foreign:
        return
    marks = {found.id for node in module.body for mark in getattr(node, "decorator_list", []) for found in _names(mark)}
    parts = []
    if plain := sorted(foreign - marks):
        parts.append(f"the names {', '.join(plain)}: import or define them inside the function, or pass them")
    if decorators := sorted(foreign & marks):
        parts.append(f"the decorator's {', '.join(decorators)}: pass the function without the decorator")
    raise ToolSourceError(
        f"{name} takes from outside itself {'; and '.join(parts)}; or use Tool.from_source with the text of the whole "
        "module"
    )


def _names(node: ast.AST) -> list[ast.Name]:
    return [found for found in all_nodes(node) if isinstance(found, ast.Name)]


def _dedented(source: str) -> str:
    """Source of a function at the left margin."""
    text = textwrap.dedent(source)
    # A string in the function whose lines start at the margin keeps the rest from moving there.
    return text if not text[:1].isspace() else f"if True:\n{text}"


def _annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluated annotations of a function; if one does not evaluate, those that are text are left out."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation is any expression, so it may raise anything
        return {
            name: annotation
            for name, annotation in inspect.get_annotations(function).items()
            if not isinstance(annotation, str)
        }


def _chosen(module: ast.Module, name: str | None, entries: frozenset[str]) -> ast.FunctionDef | ast.AsyncFunctionDef:
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if name is None:
        tools = [node for node in functions if node.name not in entries] or functions
        candidates = [node for node in tools if not node.name.startswith("_")] or tools
        missing = "the source defines no function at its top level"
    else:
        candidates = [node for node in functions if node.name == name]
        known = ", ".join(dict.fromkeys(node.name for node in functions)) or "none"
        missing = f"the source defines no function {name!r} at its top level (it defines: {known})"
    if not candidates:
        raise ToolSourceError(missing)
    return candidates[-1]


def _is_plain(function: ast.FunctionDef | ast.AsyncFunctionDef, cost: Cost) -> bool:
    """Whether the function's parameters are quickly described, on any stack: few, of a few built-in types."""
    arguments = function.args
    keywords = [arguments.kwarg] if arguments.kwarg else []
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *keywords)
    annotations = [one.annotation for one in every]
    nodes = [node for annotation in annotations if annotation is not None for node in ast.walk(annotation)]
    return (
        cost.is_small
        and len(nodes) + len(annotations) <= _MANY_NODES
        and all(
            isinstance(node, _PLAIN_NODES) or (isinstance(node, ast.Constant) and node.value is None) for node in nodes
        )
        and all(node.id in _PLAIN_NAMES for node in nodes if isinstance(node, ast.Name))
    )


@cache
def _load_pydantic() -> None:
    """Have pydantic load what it loads at its first use, which is no source's fault."""
    import docstring_parser  # noqa: F401  # lazy: not for a tool that is given its schema

    TypeAdapter(list[int]).json_schema(schema_generator=_QuietSchema)


def _static_parameters(
    function: ast.FunctionDef | ast.AsyncFunctionDef, reader: AnnotationReader
) -> Iterator[_Parameter]:
    positional = [*function.args.posonlyargs, *function.args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(function.args.defaults))
    pairs = [
        *zip(positional, [*defaults, *function.args.defaults], strict=True),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    for parameter, default in pairs:
        found = _static_parameter(parameter, reader, parameter.arg)
        if default is not None:
            literal = reader.default_of(default)
            found = found._replace(default=literal.value if literal.is_literal else _UNKNOWN_DEFAULT)
        yield found


def _static_parameter(parameter: ast.arg, reader: AnnotationReader, name: str) -> _Parameter:
    annotation = _UNTYPED
    if parameter.annotation is not None:
        with contextlib.suppress(UnknownAnnotation):
            annotation = reader.type_of(parameter.annotation)
    return _Parameter(name, annotation, _NO_DEFAULT)


def _parameters_schema(
    parameters: list[_Parameter], described: dict[str, str], extra: _Parameter | None
) -> dict[str, Any]:
    """JSON schema of an object with these parameters as properties; ``extra`` stands for all others."""
    if extra is not None:
        parameters = [*parameters, extra]
    quick = {parameter.name: quick_schema(parameter.annotation) for parameter in parameters}
    adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = [
        (parameter.name, "validation", adapter)
        for parameter in parameters
        if quick[parameter.name] is None and (adapter := _adapter(parameter.annotation)) is not None
    ]
    schemas, definitions = _schemas_of(adapters) if adapters else ({}, {})
    properties: dict[str, Any] = {}
    for parameter in parameters:
        found = dict(quick[parameter.name] or schemas.get(parameter.name, {}))
        if parameter.name in described:
            found.setdefault("description", described[parameter.name])
        reference = found.pop("$ref", None)
        if reference is not None:  # a property shows its type itself, so that arguments are read by it
            found = {**definitions[reference.rpartition("/")[2]], **found}
        if _is_json(parameter.default):
            found["default"] = parameter.default
        properties[parameter.name] = found
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": [p.name for p in parameters if p.default is _NO_DEFAULT and p is not extra],
    }
    others = properties.pop(extra.name) if extra is not None else None
    if others is not None:
        schema["additionalProperties"] = others or True
    if used := _referenced([properties, others], definitions):
        schema["$defs"] = used
    return schema


class _QuietSchema(GenerateJsonSchema):
    """Pydantic's generator without its warnings, for example of a default that JSON cannot hold."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as in the base


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Adapter that has a JSON schema; ``None`` for types that JSON cannot carry."""
    if annotation is _UNTYPED:
        return None
    if typing.get_origin(annotation) is Annotated and (text := _description_in(annotation)):
        annotation = Annotated[annotation, Field(description=text)]
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        adapter.json_schema(schema_generator=_QuietSchema)
    except Exception:  # pydantic runs hooks of the types, which may raise anything
        return None
    return adapter


def _schemas_of(
    adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]],
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Schema of each adapter by its name, and the definitions that they share."""
    schemas, shared = TypeAdapter.json_schemas(adapters, schema_generator=_QuietSchema)
    return {name: schema for (name, _), schema in schemas.items()}, shared.get("$defs", {})


def _description_in(annotation: Any) -> str | None:
    """Text in ``Annotated[int, "text"]``, a usual way to describe a parameter."""
    return next((item for item in typing.get_args(annotation)[1:] if isinstance(item, str)), None)


def _is_json(value: Any) -> bool:
    match value:
        case None | bool() | int() | str():
            return type(value) in (type(None), bool, int, str)
        case float():
            return value - value == 0
        case list():
            return all(_is_json(item) for item in value)
        case dict():
            return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
        case _:
            return False


def _referenced(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Definitions that a schema refers to, directly or through others."""
    used: dict[str, Any] = {}
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).rpartition("/")[2]
            if name in definitions and name not in used:
                used[name] = definitions[name]
                pending.append(definitions[name])
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return used
