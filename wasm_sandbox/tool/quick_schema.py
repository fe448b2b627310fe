"""JSON schemas of the types of most parameters, equal to pydantic's. Pure.

With these a process can make and run a tool without loading pydantic's generator of schemas and looking for its
plugins, which takes half as long as importing pydantic.
"""

from __future__ import annotations

import types
import typing
from typing import Any

_ATOMS = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}
_MAX_DEPTH = 20


def quick_schema(annotation: Any, depth: int = _MAX_DEPTH) -> dict[str, Any] | None:
    """Schema of a JSON value, a list, a dictionary with text keys, or an optional one; None for any other type."""
    if depth == 0:
        return None
    if annotation is Any or annotation is object:
        return {}
    if annotation is None:
        annotation = types.NoneType
    if isinstance(annotation, type) and annotation in _ATOMS:
        return {"type": _ATOMS[annotation]}
    arguments = typing.get_args(annotation)
    kind = typing.get_origin(annotation) or annotation
    if kind is list:
        items = quick_schema(arguments[0], depth - 1) if arguments else {}
        return None if items is None else {"items": items, "type": "array"}
    if kind is dict:
        key, value = arguments or (str, Any)
        values = quick_schema(value, depth - 1)
        return None if key is not str or values is None else {"additionalProperties": values or True, "type": "object"}
    if kind in (typing.Union, types.UnionType) and types.NoneType in arguments:
        return _optional([one for one in arguments if one is not types.NoneType], depth)
    return None


def _optional(others: list[Any], depth: int) -> dict[str, Any] | None:
    """The schema of something or None; a union of more has rules that are pydantic's to know."""
    schema = quick_schema(others[0], depth - 1) if len(others) == 1 else None
    return None if schema is None else {"anyOf": [schema, {"type": "null"}]}
