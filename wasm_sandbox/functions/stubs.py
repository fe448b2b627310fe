"""Text of host functions: the Python that a guest runs to have them, and stubs (``.pyi``) for a prompt."""

from __future__ import annotations

import ast
import builtins
import enum
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from wasm_sandbox.functions.declared import HostFunction, Parameter
from wasm_sandbox.functions.spelling import Spelling

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
    parameters = _parameters(function)
    passed = ", ".join(f"{p.name!r}: {p.name}" for p in function.parameters)
    word, call = ("async def", "await _acall(") if function.is_async else ("def", "_call(")
    if function.is_deferred:
        word, call = "def", f"_deferred({function.name!r}, "
    returns = f" -> {_annotation(function.returns)}" if _is_said(function.returns) else ""
    doc = f"    {function.doc!r}\n" if function.doc else ""
    return f"{word} {function.name}({parameters}){returns}:\n{doc}    return {call}{number}, {{{passed}}})\n"


def stubs(modules: Mapping[str, Iterable[HostFunction]], has_heads: bool) -> str:
    """Text of a ``.pyi``: imports, classes of what functions take and return, and the functions with their docstrings.

    Args:
        modules: name of a module -> its functions.
        has_heads: whether each module's functions stand below a line that imports them.
    """
    functions = [function for members in modules.values() for function in members]
    taken = {function.name for function in functions}
    first = Spelling(taken)
    _text(modules, has_heads, first)
    first.head()
    spelling = Spelling(taken | first.field_names)  # a field of the name of a type hides that in its class
    text = _text(modules, has_heads, spelling)
    return "\n".join(part for part in (spelling.head(), text) if part)


def _text(modules: Mapping[str, Iterable[HostFunction]], has_heads: bool, spelling: Spelling) -> str:
    parts = []
    for module, functions in modules.items():
        if has_heads:
            parts.append(f"# from {module} import {', '.join(function.name for function in functions)}\n")
        parts += [_stub(function, spelling) for function in functions]
    return "\n".join(parts)


def _stub(function: HostFunction, spelling: Spelling) -> str:
    word = "async def" if function.is_async else "def"
    parameters = _parameters(function, spelling)
    returns = f" -> {spelling.of(function.returns)}" if _is_said(function.returns) else ""
    head = f"{word} {function.name}({parameters}){returns}:"
    if not function.doc:
        return f"{head} ...\n"
    lines = function.doc.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').rstrip().splitlines()
    if lines[-1].endswith('"'):
        lines[-1] = lines[-1][:-1] + '\\"'
    doc = "\n".join([lines[0], *(f"    {line}".rstrip() for line in lines[1:])])
    end = '\n    """' if len(lines) > 1 else '"""'
    return f'{head}\n    """{doc}{end}\n'


def _parameters(function: HostFunction, spelling: Spelling | None = None) -> str:
    """Parameters of a function as source, with ``/`` and ``*`` where they belong; for the guest without a spelling."""
    kinds = inspect.Parameter
    parts: list[str] = []
    before = None
    for parameter in function.parameters:
        if before is kinds.POSITIONAL_ONLY and parameter.kind is not kinds.POSITIONAL_ONLY:
            parts.append("/")
        if parameter.kind is kinds.KEYWORD_ONLY and before not in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL):
            parts.append("*")
        schema = (function.own_schema or {}).get("properties", {}).get(parameter.name, {})
        parts.append(_in_guest(parameter) if spelling is None else _in_stub(parameter, schema, spelling))
        before = parameter.kind
    if before is kinds.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def _in_guest(parameter: Parameter) -> str:
    text = _STARS.get(parameter.kind, "") + parameter.name
    if parameter.is_annotated:
        text += f": {_annotation(parameter.annotation)}"
    return _with_default(text, parameter, _default(parameter.default) or "_UNSET")


def _in_stub(parameter: Parameter, schema: Mapping[str, Any], spelling: Spelling) -> str:
    text = _STARS.get(parameter.kind, "") + parameter.name
    if parameter.is_annotated:
        text += f": {spelling.of(parameter.annotation)}"
    elif schema:
        text += f": {spelling.of_schema(schema)}"
    value = schema.get("default", parameter.default)
    return _with_default(text, parameter, _default(value.value if isinstance(value, enum.Enum) else value) or "...")


def _with_default(text: str, parameter: Parameter, default: str) -> str:
    if not parameter.has_default:
        return text
    return f"{text} = {default}" if ":" in text else f"{text}={default}"


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
    name = Spelling().of(annotation)
    names = {node.id for node in ast.walk(ast.parse(name, mode="eval")) if isinstance(node, ast.Name)}
    return name if names <= _KNOWN_NAMES else repr(name)
