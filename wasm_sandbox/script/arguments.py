"""What a caller hands to a tool, as Python source: argument literals, and the agent state as data."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import marshal
import math
import pathlib
import pickle
import reprlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from wasm_sandbox.errors import BadArguments
from wasm_sandbox.tool.parsing import read_json

MAX_DEPTH = 100
"""Deepest nesting of an argument; CPython's parser refuses source that nests 200 brackets."""

_DECIMAL_LIMIT = 10**4300
"""CPython reads no decimal literal with more digits; hexadecimal has no limit."""

_STATE_LEAVES = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, bytearray, uuid.UUID, decimal.Decimal),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
        *(pathlib.PurePosixPath, pathlib.PureWindowsPath),
    }
)


_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_STATE_DEPTH = 200
"""Deepest nesting of an agent state: what copies and pickles it recurses in C."""

_LONG_TEXT = 1024
_MANY_VALUES = 8
_QUICK_VALUES = 2_000
_EMPTY: tuple[()] = ()  # there is only one of it
# Every CPython since 3.4 reads both. The newer writes once what is the same object in several places, such as the
# keys of records: smaller, and the guest's memory holds it once. But equal values can then have different bytes.
_SHARING, _CANONICAL = 4, 2


class ValuesApart:
    """Takes big values out of a script: it fetches them from our own guest, which need not compile them.

    A value arrives as its literal would make it: equal, of the same types, and nobody else's. What is no plain
    data of exact types, and what has parts in two places, is left to the literal.

    Args:
        canonical: whether equal values are to have equal bytes, and cost the guest the same fuel.
    """

    def __init__(self, canonical: bool = False) -> None:
        self._version = _CANONICAL if canonical else _SHARING
        self.data: list[bytes] = []
        """The values, marshalled."""

    def source(self, value: Any) -> str | None:
        """What the script has in place of the value's literal; ``None`` for what is better spelled out."""
        if type(value) in (str, bytes):
            if len(value) < _LONG_TEXT:
                return None
        elif type(value) not in (list, tuple, dict) or not _is_big_and_plain(value):
            return None
        try:
            self.data.append(marshal.dumps(value, self._version))
        except ValueError:
            return None
        return f"__import__('_sandbox_guest').value({len(self.data) - 1})"


def _is_big_and_plain(value: Any) -> bool:
    """Whether a container holds many values or long ones, all plain, at most `MAX_DEPTH` deep, none of them shared."""
    count = size = depth = 0
    seen: set[int] = set()
    level = [value]
    while level:
        count += len(level)
        if count <= _MANY_VALUES:
            size += sum(len(item) for item in level if type(item) in (str, bytes))
        containers = [item for item in level if type(item) not in _PLAIN]
        depth += bool(containers)
        containers = [item for item in containers if item is not _EMPTY]
        found = set(map(id, containers))
        if depth > MAX_DEPTH or len(found) < len(containers) or not found.isdisjoint(seen):
            return False  # too deep, shared, or within itself
        seen |= found
        level = []
        for container in containers:
            if type(container) not in (list, tuple, dict):
                return False
            level += container
            if type(container) is dict:
                level += container.values()
    return count > _MANY_VALUES or size >= _LONG_TEXT


def is_quickly_written(*values: Any) -> bool:
    """Whether a script of values is written in so little time that an event loop can wait: they have few parts."""
    count, level = len(values), [*values]
    while level:
        held = [value for value in level if isinstance(value, dict | list | tuple | set | frozenset)]
        count += sum(map(len, held))
        if count > _QUICK_VALUES:
            return False
        level = [part for value in held for part in (value.values() if isinstance(value, dict) else value)]
    return True


def argument_literals(
    json_schema: Mapping[str, Any] | None,
    args: Mapping[str, Any],
    apart: ValuesApart | None = None,
    *,
    derived: bool = False,
) -> dict[str, str]:
    """Turn the arguments that the tool's JSON schema names into Python literals.

    Arguments that the schema does not name are dropped, as agent servers rely on.

    Args:
        json_schema: The tool's schema; its ``["parameters"]["properties"]`` says the types.
        args: Argument name to value.
        apart: Takes big values, which then have no literal.
        derived: Whether the schema is that of the tool's signature: then arguments that it does not name are passed to
            a tool that takes any, and those of optional types are converted as the type beside null.

    Returns:
        Name to source literal, in the order of ``args``.

    Raises:
        BadArguments: if there is no such schema, or a value does not fit its type.
    """
    if not args:
        return {}
    parameters: Any = (json_schema or {}).get("parameters")
    properties: Any = None
    required: Any = ()
    if isinstance(parameters, Mapping):
        properties, required = parameters.get("properties"), parameters.get("required") or ()
    if not isinstance(properties, Mapping):
        raise BadArguments(
            'the tool takes arguments but its json_schema has no ["parameters"]["properties"]; '
            "build the tool with Tool.from_function or Tool.from_source, or add them"
        )
    if not isinstance(required, list | tuple):
        raise BadArguments(
            f'the tool\'s json_schema["parameters"]["required"] must be a list of names, not {type(required).__name__}'
        )
    if not derived:
        return {
            name: argument_literal(properties[name], value, name, required=name in required, apart=apart)
            for name, value in args.items()
            if name in properties
        }
    definitions, others = parameters.get("$defs") or {}, parameters.get("additionalProperties", False)
    literals = {}
    for name, value in args.items():
        if name not in properties and not others:
            continue
        spec = properties.get(name, others)
        if choices := _choices(spec, definitions):
            literals[name] = argument_literal({}, _beside_null(choices, value, name), name, apart=apart)
        else:
            literals[name] = argument_literal(spec, value, name, required=name in required, apart=apart)
    return literals


def _choices(spec: Any, definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Schemas of which a value is to fit one; none if there is no choice."""
    choices = spec.get("anyOf") if isinstance(spec, Mapping) else None
    if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
        return []
    return [definitions.get(str(choice.get("$ref", "")).rpartition("/")[2], choice) for choice in choices]


def _beside_null(choices: list[Mapping[str, Any]], value: Any, name: str) -> Any:
    """A value converted as the type beside null; of several, as the first that it fits, unless it may be text."""
    others = [choice for choice in choices if choice.get("type") != "null"]
    takes_text = any(choice.get("type", "string") == "string" for choice in others)
    if value is None and len(others) < len(choices):
        return None
    if isinstance(value, str) and not takes_text and len(others) < len(choices) and value.strip() == "null":
        return None
    if len(others) == 1:
        return _converted(others[0].get("type"), value, name)
    if isinstance(value, str) and not takes_text:
        for choice in others:
            with contextlib.suppress(BadArguments):
                return _converted(choice.get("type"), value, name)
    return value


def argument_literal(
    spec: Mapping[str, Any] | bool,
    value: Any,
    argument: str | None = None,
    *,
    required: bool = True,
    apart: ValuesApart | None = None,
) -> str:
    """Write a value as the Python literal that evaluates, in the guest, to what the tool receives.

    The declared type decides. ``integer`` takes what ``int()`` takes (``"5"`` and ``5.9`` become 5, ``True``
    becomes 1). ``boolean`` takes a bool, 0, 1, or the words true and false. A string for ``number``,
    ``array`` or ``object`` is read as JSON. Everything else, and every value without a declared single
    type, passes through unchanged: a number given for ``string`` stays a number.

    Args:
        spec: The property's JSON schema.
        value: The value that the caller passed.
        argument: The argument's name, for the error.
        required: Whether the argument must be given; if not, ``None`` fits every type.
        apart: Takes the value if it is big: what stands for it is returned.

    Returns:
        A one-line literal without any name in it, so nothing that the tool defines can change it.

    Raises:
        BadArguments: if the value does not fit the type or cannot be written as a literal.
    """
    spec = spec if isinstance(spec, Mapping) else {}
    declared = spec.get("type")
    if declared is None and isinstance(nested := spec.get("parameters"), Mapping):
        declared = nested.get("type")
    if declared in ("integer", "boolean") and value is None and (not required or _is_nullable(spec)):
        return "None"
    value = _converted(declared, value, argument)
    try:
        return (apart.source(value) if apart else None) or _literal(value, ())
    except BadArguments as error:
        raise BadArguments(str(error), argument) from None


def _converted(declared: Any, value: Any, argument: str | None) -> Any:
    try:
        match declared:
            case "integer":
                return _as_integer(value)
            case "boolean":
                return _as_boolean(value)
            case "number" | "array" | "object" if isinstance(value, str):
                return _from_json(value, declared)
            case _:
                return value
    except BadArguments as error:
        raise BadArguments(str(error), argument) from None


def _is_nullable(spec: Mapping[str, Any]) -> bool:
    choices = spec.get("enum")
    return (
        spec.get("nullable") is True
        or ("default" in spec and spec["default"] is None)
        or (isinstance(choices, Sequence) and None in choices)
    )


def _as_integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise BadArguments(f"expected a whole number, got {_shown(value)}") from None


def _as_boolean(value: Any) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise BadArguments(f"expected true or false, got {_shown(value)}")


def _from_json(text: str, declared: str) -> Any:
    """Read a string given for a number, an array or an object; it is data, never source."""
    kinds: dict[str, tuple[type, ...]] = {"number": (int, float), "array": (list,), "object": (dict,)}
    try:
        value = read_json(text)
    except (ValueError, RecursionError):
        value = text
    if value is None or (isinstance(value, kinds[declared]) and not isinstance(value, bool)):
        return value
    article = "a" if declared == "number" else "an"
    raise BadArguments(f"expected {article} {declared} or its JSON text, got the string {reprlib.repr(text)}")


def _shown(value: Any) -> str:
    """A short text for messages; other types than these may be large or have an unsafe repr."""
    if isinstance(value, str | float | bool | None):
        return f"{reprlib.repr(value)} ({type(value).__name__})"
    return f"a value of type {type(value).__name__}"


def _literal(value: Any, parents: tuple[int, ...]) -> str:
    """Write plain data the way ``repr`` does, except where ``repr`` would not evaluate to the value."""
    match value:
        case None | bool():
            return repr(value)
        case str():
            return str.__repr__(value)
        case int():
            return _integer_literal(int.__int__(value))
        case float():
            return _float_literal(float.__float__(value))
        case bytes():
            return bytes.__repr__(value)
        case list() | tuple() | dict() | set():
            return _container_literal(value, parents)
        case _:
            raise BadArguments(
                f"a value of type {type(value).__name__} cannot be passed to a tool; "
                "pass JSON data (a date or a decimal as text, a model as its dict)"
            )


def _container_literal(value: list[Any] | tuple[Any, ...] | dict[Any, Any] | set[Any], parents: tuple[int, ...]) -> str:
    if id(value) in parents:
        raise BadArguments("the value contains itself")
    if len(parents) == MAX_DEPTH:
        raise BadArguments(f"the value is nested more than {MAX_DEPTH} levels deep; flatten it")
    parents = (*parents, id(value))
    if isinstance(value, dict):
        pairs = (f"{_literal(key, parents)}: {_literal(item, parents)}" for key, item in dict.items(value))
        return "{" + ", ".join(pairs) + "}"
    items = ", ".join([_literal(item, parents) for item in value])
    if isinstance(value, list):
        return f"[{items}]"
    if isinstance(value, set):
        return f"{{{items or '*()'}}}"
    return f"({items},)" if len(value) == 1 else f"({items})"


def _integer_literal(value: int) -> str:
    if abs(value) >= _DECIMAL_LIMIT:
        return hex(value)
    try:
        return str(value)
    except ValueError:  # this process has a lower limit than the default
        return hex(value)


def _float_literal(value: float) -> str:
    if math.isnan(value):
        return "(1e999-1e999)"  # the words nan and inf are no literals, and a tool may rebind float
    return {float("inf"): "1e999", float("-inf"): "-1e999"}.get(value) or repr(value)


def pickled_agent_state(state: Any) -> bytes | None:
    """Pickle the agent state as plain data: no class but those of the standard library is named in it.

    Args:
        state: ``None``, a pydantic model, a dataclass or a mapping.

    Returns:
        A pickle (protocol 4) of a dict, or ``None`` for ``None``.

    Raises:
        BadArguments: if the state is something else, or holds what is not data.
    """
    if state is None:
        return None
    try:
        data = _state_data(state, "agent_state")
        if isinstance(data, dict):
            return pickle.dumps(data, protocol=4)
    except RecursionError:
        raise BadArguments("it is nested too deeply or contains itself", "agent_state") from None
    raise BadArguments(
        f"expected a pydantic model, a dataclass or a mapping, got {type(state).__name__}", "agent_state"
    )


def _state_data(value: Any, path: str, depth: int = _STATE_DEPTH) -> Any:
    if depth == 0:
        raise BadArguments("it is nested too deeply or contains itself", "agent_state")
    depth -= 1
    kind = type(value)
    if kind in _STATE_LEAVES:
        return value
    if isinstance(value, enum.Enum):
        return _state_data(value.value, path, depth)
    if hasattr(kind, "model_dump"):
        return _state_data(value.model_dump(mode="python"), path, depth)
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _state_data(getattr(value, field.name), f"{path}.{field.name}", depth) for field in fields}
    if isinstance(value, Mapping):
        return {_state_data(key, path, depth): _state_data(item, f"{path}.{key}", depth) for key, item in value.items()}
    for container in (list, tuple, set, frozenset):
        if isinstance(value, container):
            return container(_state_data(item, f"{path}[{index}]", depth) for index, item in enumerate(value))
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, pathlib.PurePath):
        return pathlib.PurePosixPath(value.as_posix())
    if kind.__module__.partition(".")[0] == "pydantic":  # urls, and secrets, which stay masked
        return str(value)
    raise BadArguments(f"{path} is of type {kind.__name__}, which is not data", "agent_state")
