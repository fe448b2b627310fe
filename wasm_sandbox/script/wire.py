"""Values on their way into a guest: bytes that `marshal` there turns into the value, types and all.

What `marshal` knows travels as it is. Anything else is spelled out as nodes (``_sandbox_live._typed`` reads them): a
value that stands for itself, or a tuple of the name of a kind and its parts.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import marshal
import pathlib
import uuid
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import Any

MARSHAL_VERSION = 4
"""Newest version that every supported CPython writes and the guest reads."""

PLAIN, TYPED = 0, 1
"""Kinds of bytes: what `marshal` makes of a value, and of nodes."""

_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
_ITEMS = frozenset({tuple, list, set, frozenset})
_CONTAINERS = _ITEMS | {dict}
_PLAIN_KINDS = _SCALARS | _CONTAINERS

MAX_PLAIN_DEPTH = 100


class Untravelled(TypeError):
    """A value cannot be handed to a guest; the message names its type and never the value."""


def encode(value: Any) -> tuple[int, bytes]:
    """Encode a value for a guest.

    Args:
        value: plain data of Python, dates and times, decimals, fractions, UUIDs, paths, addresses, enums (their
            values), models of pydantic, dataclasses and named tuples (records of their fields), in any nesting.

    Returns:
        ``PLAIN`` or ``TYPED``, and the bytes.

    Raises:
        Untravelled: if it is no such value, contains itself, or is nested too deeply.
    """
    if type(value) in _SCALARS or _is_plain(value):
        try:
            return PLAIN, marshal.dumps(value, MARSHAL_VERSION)
        except ValueError:  # a container that changed meanwhile
            pass
    return TYPED, marshal.dumps(node(value), MARSHAL_VERSION)


def _is_plain(value: Any) -> bool:
    """Whether a value is of nothing but what `marshal` gives back as it was.

    It would take more: code, with the paths of this host, and as bytes anything that has a buffer.
    """
    level: list[Collection[Any]] = [[value]]
    for _ in range(MAX_PLAIN_DEPTH):
        kinds = {*map(type, chain.from_iterable(level))}
        if kinds <= _SCALARS:
            return True
        if not kinds <= _PLAIN_KINDS:
            return False
        inner = [item for item in chain.from_iterable(level) if type(item) in _CONTAINERS]
        level = [*inner, *(item.values() for item in inner if type(item) is dict)]
    return False


def node(value: Any) -> Any:
    """Node of a value; see `encode`.

    Raises:
        Untravelled: as of `encode`.
    """
    try:
        return _node(value)
    except RecursionError:
        raise Untravelled(f"a {type(value).__name__} that contains itself or is nested too deeply") from None


def _node(value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind in _ITEMS:
        return kind.__name__, [_node(item) for item in value]
    if kind is dict:
        return "dict", _pairs(value)
    if isinstance(value, enum.Enum):
        return _node(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "record", [(field.name, _node(getattr(value, field.name))) for field in dataclasses.fields(value)]
    if (fields := getattr(kind, "model_fields", None)) is not None and isinstance(fields, Mapping):
        extra = getattr(value, "model_extra", None) or {}
        return "record", [(name, _node(getattr(value, name))) for name in [*fields, *extra]]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return "record", [(name, _node(item)) for name, item in zip(kind._fields, value, strict=True)]
    for known, write in _WRITERS.items():
        if isinstance(value, known):
            return write(value)
    if isinstance(value, Mapping):
        return "dict", _pairs(value)
    if kind.__module__.partition(".")[0] in ("pydantic", "pydantic_core"):  # URLs, and secrets, which stay masked
        return str(value)
    raise Untravelled(f"a value of type {kind.__qualname__}, which is no data")


def _pairs(value: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return [(_node(key), _node(item)) for key, item in value.items()]


_WRITERS: dict[type | tuple[type, ...], Callable[[Any], Any]] = {
    datetime.datetime: lambda value: ("datetime", (value.isoformat(), value.fold)),
    datetime.date: lambda value: ("date", value.isoformat()),
    datetime.time: lambda value: ("time", (value.isoformat(), value.fold)),
    datetime.timedelta: lambda value: ("timedelta", (value.days, value.seconds, value.microseconds)),
    decimal.Decimal: lambda value: ("Decimal", str(value)),
    fractions.Fraction: lambda value: ("Fraction", (value.numerator, value.denominator)),
    uuid.UUID: lambda value: ("UUID", value.int),
    pathlib.PurePath: lambda value: ("Path", value.as_posix()),
    (ipaddress.IPv4Address, ipaddress.IPv6Address): lambda value: ("address", str(value)),
    (ipaddress.IPv4Network, ipaddress.IPv6Network): lambda value: ("network", str(value)),
    (bytearray, memoryview): lambda value: ("bytearray", bytes(value)),
    bool: bool,
    int: int,
    float: float,
    str: str.__str__,
    bytes: bytes,
    list: lambda value: ("list", [_node(item) for item in value]),
    tuple: lambda value: ("tuple", [_node(item) for item in value]),
    (set, frozenset): lambda value: ("set", [_node(item) for item in value]),
}
"""Classes whose instances, and those of subclasses, are data; the first that fits decides."""
