"""Text of host functions: the Python that a guest runs to have them, and stubs (``.pyi``) for a prompt."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any

from wasm_sandbox.functions.declared import HostFunction, Parameter

_KNOWN_NAMES = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and not name.startswith("_")
)
_DEFAULTS = (type(None), bool, int, float, str, bytes)
_MAX_DEFAULT = 200


def guest_source(number: int, function: HostFunction) -> str:
    """Source of a function that calls the host, for the guest.

    Args:
        number: its number in the run.
        function: the function.
    """
    parameters = _parameters(function, in_guest=True)
    passed = ", ".join(f"{p.name!r}: {p.name}" for p in function.parameters)
    word, call = ("async def", "await _acall(") if function.is_async else ("def", "_call(")
    if function.is_deferred:
        word, call = "def", f"_deferred({function.name!r}, "
    returns = f" -> {_annotation(function.returns)}" if _is_said(function.returns) else ""
    doc = f"    {function.doc!r}\n" if function.doc else ""
    return f"{word} {function.name}({parameters}){returns}:\n{doc}    return {call}{number}, {{{passed}}})\n"


def stub(function: HostFunction) -> str:
    """Stub of a function, with its docstring."""
    word = "async def" if function.is_async else "def"
    returns = f" -> {type_name(function.returns)}" if _is_said(function.returns) else ""
    head = f"{word} {function.name}({_parameters(function, in_guest=False)}){returns}:"
    if not function.doc:
        return f"{head} ...\n"
    lines = function.doc.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').splitlines()
    doc = "\n    ".join(line for line in lines).rstrip()
    end = '\n    """' if len(lines) > 1 else '"""'
    return f'{head}\n    """{doc}{end}\n'


def record_stubs(functions: Iterable[HostFunction]) -> str:
    """Stubs of the models and dataclasses that appear in signatures: what the guest gets has their fields."""
    found: dict[str, list[str]] = {}
    for function in functions:
        for annotation in [*(p.annotation for p in function.parameters), function.returns]:
            _collect(annotation, found)
    return "\n".join(f"class {name}:\n" + "".join(f"    {line}\n" for line in lines) for name, lines in found.items())


def _collect(annotation: Any, found: dict[str, list[str]]) -> None:
    for argument in typing.get_args(annotation):
        _collect(argument, found)
    if not isinstance(annotation, type) or typing.get_origin(annotation) or annotation.__name__ in found:
        return
    if fields := _fields(annotation):
        found[annotation.__name__] = [f"{name}: {type_name(kind)}" for name, kind in fields.items()]
        for kind in fields.values():
            _collect(kind, found)


def _fields(kind: type) -> dict[str, Any]:
    if isinstance(fields := getattr(kind, "model_fields", None), dict):
        return {name: info.annotation for name, info in fields.items()}
    if dataclasses.is_dataclass(kind):
        return {field.name: field.type for field in dataclasses.fields(kind)}
    return {}


def _parameters(function: HostFunction, in_guest: bool) -> str:
    """Parameters of a function as source, with ``/`` and ``*`` where they belong."""
    kinds = inspect.Parameter
    parts: list[str] = []
    before = None
    for parameter in function.parameters:
        if before is kinds.POSITIONAL_ONLY and parameter.kind is not kinds.POSITIONAL_ONLY:
            parts.append("/")
        if parameter.kind is kinds.KEYWORD_ONLY and before not in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL):
            parts.append("*")
        parts.append(_parameter(parameter, in_guest))
        before = parameter.kind
    if before is kinds.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


def _parameter(parameter: Parameter, in_guest: bool) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.is_annotated:
        text += f": {_annotation(parameter.annotation) if in_guest else type_name(parameter.annotation)}"
    if not parameter.has_default:
        return text
    default = _default(parameter.default) or ("_UNSET" if in_guest else "...")
    return f"{text} = {default}" if parameter.is_annotated else f"{text}={default}"


def _default(value: Any) -> str | None:
    """Source of a default; None for one that only the host can make."""
    if type(value) not in _DEFAULTS or value in (float("inf"), float("-inf")) or value != value:  # noqa: PLR0124
        return None
    text = repr(value)
    return text if len(text) <= _MAX_DEFAULT else None


def _is_said(annotation: Any) -> bool:
    return annotation is not inspect.Signature.empty


def _annotation(annotation: Any) -> str:
    """Annotation in the guest: the type itself if it is made of builtins, else its name as text."""
    name = type_name(annotation)
    try:
        names = {node.id for node in ast.walk(ast.parse(name, mode="eval")) if isinstance(node, ast.Name)}
    except SyntaxError:
        return repr(name)
    plain = names <= _KNOWN_NAMES and "." not in name
    return name if plain else repr(name)


def type_name(annotation: Any) -> str:
    """Name of a type as one writes it in source, without modules."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is ...:
        return "..."
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, list):
        return f"[{', '.join(map(type_name, annotation))}]"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, arguments))
    if origin is not None:
        return f"{type_name(origin)}[{', '.join(map(type_name, arguments))}]"
    name = getattr(annotation, "__qualname__", None) or getattr(annotation, "__name__", None)
    return str(name or annotation).rpartition("<locals>.")[2].replace("typing.", "")
