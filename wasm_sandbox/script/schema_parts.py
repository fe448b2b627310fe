"""Parts of a JSON schema: which keywords hold schemas, and where references lead. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
OF_TYPES: Mapping[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength", "pattern"}),
    "integer": NUMBERS,
    "number": NUMBERS,
    "boolean": frozenset(),
    "null": frozenset(),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
"""Type -> keywords of it that models check as the standard has it, if the schema names the type."""

CHECKS = frozenset(
    {
        *("additionalItems", "additionalProperties", "allOf", "anyOf", "const", "contains", "dependencies"),
        *("dependentRequired", "dependentSchemas", "else", "enum", "exclusiveMaximum", "exclusiveMinimum", "if"),
        *("items", "maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems"),
        *("minLength", "minProperties", "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties"),
        *("prefixItems", "properties", "propertyNames", "required", "then", "type", "unevaluatedItems"),
        *("unevaluatedProperties", "uniqueItems", "$ref", "$dynamicRef", "$recursiveRef"),
    }
)
"""Keywords of the standard that refuse values; all others describe."""

SCHEMA_KEYWORDS = frozenset(
    {
        *("additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)
LIST_KEYWORDS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
MAP_KEYWORDS = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"}
)
IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"})
"""Keywords whose schemas look at the same value again."""

NEEDS_EXTRA = (
    "a tool with an args_json_schema needs the extra 'schema', which is not installed: "
    "pip install 'wasm-sandbox[schema]'"
)

MODEL_REFERENCE = re.compile(r"#(?:/(\$defs|definitions)/([^/]*))?")
"""References that models follow: to the whole, and to a definition by its name."""


def definition(schema: Mapping[str, Any], reference: str) -> Any:
    """What a reference of the form that models follow leads to, ``False`` for another one."""
    match = MODEL_REFERENCE.fullmatch(reference)
    if match is None:
        return False
    if not match[1]:
        return schema
    definitions = schema.get(match[1])
    name = unquoted(match[2])
    return definitions.get(name, False) if isinstance(definitions, Mapping) else False


def inner(part: Mapping[str, Any]) -> Iterator[Any]:
    """Schemas that stand in one."""
    for keyword, value in part.items():
        if keyword in MAP_KEYWORDS and isinstance(value, Mapping):
            yield from (one for one in value.values() if not isinstance(one, list))
        elif keyword in LIST_KEYWORDS and isinstance(value, list):
            yield from value
        elif keyword in SCHEMA_KEYWORDS and not (keyword == "additionalProperties" and value is False):
            yield value


def rebuilt(
    part: dict[str, Any], of_inner: Callable[[Any], Any], of_named: Callable[[Any], Any] = lambda named: named
) -> dict[str, Any]:
    """A schema with each schema that stands in it replaced.

    Args:
        part: the schema.
        of_inner: makes what takes the place of one.
        of_named: is applied before that to those that stand under a name of their own.
    """
    result: dict[str, Any] = {}
    for keyword, value in part.items():
        if keyword in MAP_KEYWORDS and isinstance(value, dict):
            result[keyword] = {name: of_inner(of_named(one)) for name, one in value.items()}
        elif keyword in LIST_KEYWORDS and isinstance(value, list):
            result[keyword] = [of_inner(one) for one in value]
        elif keyword in SCHEMA_KEYWORDS:
            result[keyword] = of_inner(value)
        else:
            result[keyword] = value
    return result


def parts(schema: Mapping[str, Any], part: Any) -> Iterator[Any]:
    """A part of a schema, and all schemas in it and behind its references."""
    pending, seen = [part], set[str]()
    while pending:
        part = pending.pop()
        yield part
        if not isinstance(part, Mapping):
            continue
        pending += inner(part)
        reference = part.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            if MODEL_REFERENCE.fullmatch(reference):
                pending.append(definition(schema, reference))


def all_parts(schema: Any) -> Iterator[Any]:
    """A schema, and all schemas that stand in it."""
    pending = [schema]
    while pending:
        part = pending.pop()
        yield part
        if isinstance(part, Mapping):
            pending += inner(part)


def texts(value: Any) -> list[str]:
    """The texts of a list; none of anything else."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def unquoted(step: str) -> str:
    """A step of a JSON pointer in an address, as the name that it stands for."""
    return unquote(step).replace("~1", "/").replace("~0", "~")
