"""Arguments as a JSON schema sees them: in JSON's words, counted, and with the conversions of models. Pure."""

from __future__ import annotations

import contextlib
import datetime
import enum
import ipaddress
import pathlib
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from wasm_sandbox.errors import BadArguments
from wasm_sandbox.script.schema_parts import OF_TYPES, definition, texts

MAX_VALUES = 100_000
MAX_TEXT_CHARACTERS = 4 << 20
MAX_DEPTH = 100
"""Of the arguments that are checked: how many values, how much text, how many levels."""

_MAX_DIGITS = 4300
_WRITTEN = (
    datetime.date, datetime.time, uuid.UUID, pathlib.PurePath,
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
)  # fmt: skip
"""Values that stand for their texts."""


class NoJson(Exception):
    """A value that JSON has no word for."""


class Size:
    """Arguments as JSON has them, counted."""

    def __init__(self) -> None:
        self._values, self._characters = MAX_VALUES, MAX_TEXT_CHARACTERS

    def json(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON would have it.

        Raises:
            NoJson: if there is no such.
            BadArguments: if there is too much of it.
        """
        if isinstance(value, enum.Enum):
            value = value.value
        characters = 0
        if isinstance(value, str):
            characters = len(value)
        elif isinstance(value, Mapping):
            characters = sum(len(name) for name in value if isinstance(name, str))
        self._values, self._characters = self._values - 1, self._characters - characters
        if self._values < 0 or self._characters < 0 or depth > MAX_DEPTH:
            raise BadArguments(
                f"it is too much to be checked against args_json_schema: at most {MAX_VALUES:,} values, "
                f"{MAX_TEXT_CHARACTERS >> 20} Mi characters and {MAX_DEPTH} levels are"
            )
        if isinstance(value, Mapping):
            if not all(isinstance(name, str) for name in value):
                raise NoJson
            return {str(name): self.json(one, depth + 1) for name, one in value.items()}
        if isinstance(value, list | tuple | set | frozenset | deque):
            return [self.json(one, depth + 1) for one in value]
        return _scalar(value)


def _scalar(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 1 << 63 else float(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, (str, *_WRITTEN)):
        return str(value)
    raise NoJson


_TRUE, _FALSE = frozenset({"true", "t", "yes", "y", "on", "1"}), frozenset({"false", "f", "no", "n", "off", "0"})
_ANY = frozenset(OF_TYPES)


def converted(schema: Mapping[str, Any], places: list[Any], value: Any) -> Any:
    """A value as models would have it: a text for a number, and the like.

    Args:
        schema: the whole.
        places: schemas that look at the value.
        value: as JSON has it.
    """
    places = [*_looking(schema, places)]
    if isinstance(value, dict):
        return {name: converted(schema, _of_property(places, name), one) for name, one in value.items()}
    if isinstance(value, list):
        return [converted(schema, _of_item(places, number), one) for number, one in enumerate(value)]
    types = frozenset[str]().union(*map(_types, places)) if places else _ANY
    return _as_models_read(value, types)


def _looking(schema: Mapping[str, Any], places: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Schemas that look at the same value as some do."""
    pending, seen = [*places], set[int]()
    while pending:
        place = pending.pop()
        if not isinstance(place, Mapping) or id(place) in seen:
            continue
        seen.add(id(place))
        inner = [one for keyword in ("anyOf", "oneOf", "allOf") for one in place.get(keyword) or ()]
        if isinstance(place.get("$ref"), str):
            inner.append(definition(schema, place["$ref"]))
        pending += inner
        if not inner or OF_TYPES.keys() & place.keys() or "type" in place or "properties" in place:
            yield place


def _types(place: Mapping[str, Any]) -> frozenset[str]:
    declared = place.get("type")
    if "enum" in place or "const" in place:
        return _ANY
    if isinstance(declared, str):
        return frozenset({declared})
    return frozenset(texts(declared)) or _ANY


def _of_property(places: list[Mapping[str, Any]], name: str) -> list[Any]:
    found = []
    for place in places:
        properties = place.get("properties")
        if isinstance(properties, Mapping) and name in properties:
            found.append(properties[name])
        elif isinstance(place.get("additionalProperties"), Mapping):
            found.append(place["additionalProperties"])
        if isinstance(place.get("patternProperties"), Mapping):
            found += place["patternProperties"].values()
    return found


def _of_item(places: list[Mapping[str, Any]], number: int) -> list[Any]:
    found = []
    for place in places:
        first = place.get("prefixItems", place.get("items"))
        if isinstance(first, list) and number < len(first):
            found.append(first[number])
        elif isinstance(place.get("items"), Mapping):
            found.append(place["items"])
    return found


def _as_models_read(value: Any, types: frozenset[str]) -> Any:
    if isinstance(value, str) and "string" not in types:
        text = value.strip().lower()
        if "boolean" in types and text in _TRUE | _FALSE:
            return text in _TRUE
        for kind, make in (("integer", int), ("number", float)):
            if kind in types and len(text) <= _MAX_DIGITS:
                with contextlib.suppress(ValueError):
                    return make(text)
    if isinstance(value, bool) and "boolean" not in types and {"integer", "number"} & types:
        return int(value)
    if not isinstance(value, bool) and value in (0, 1) and "boolean" in types and not {"integer", "number"} & types:
        return bool(value)
    return value
