"""A JSON schema that nobody trusts, reduced to the keywords, references and sizes that a generator may see. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from wasm_sandbox.errors import ArgumentSchemaError
from wasm_sandbox.script.schema_parts import MODEL_REFERENCE, unquoted

MAX_CHARACTERS = 64 << 10
MAX_DEPTH = 50
MAX_PARTS = 400
"""What a schema may come to: a property counts as 1; an object, an enumeration and a choice of a combination as 3; 16
enum values as 5. The generator takes up to half a millisecond for each."""
MAX_TUPLE_ITEMS = 100
MAX_MERGED_SCHEMAS = 1000
"""How many schemas all the ``allOf`` of a schema may come to when every reference in them is followed."""

_VALUE_KEYWORDS = frozenset(
    {
        *("title", "description", "type", "enum", "const", "default", "required", "format", "pattern"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    }
)
_SCHEMA_KEYWORDS = frozenset({"items", "additionalProperties"})
_LIST_KEYWORDS = frozenset({"prefixItems", "items", "anyOf", "oneOf", "allOf"})
_MAP_KEYWORDS = frozenset({"properties", "patternProperties"})
_MERGING = ("allOf", "anyOf", "oneOf")

# Others mean a plain string: of some of them (email) the guest lacks the library that checks them.
_FORMATS = frozenset(
    {
        *("date", "time", "date-time", "date-time-local", "time-local", "duration", "uuid", "uuid1", "uuid3", "uuid4"),
        *("uuid5", "uri", "hostname", "ipv4", "ipv6", "ipv4-network", "ipv6-network", "byte", "binary", "password"),
        *("decimal", "path", "int32", "int64", "float", "double", "time-delta"),
    }
)
_NUMBER_FORMATS = frozenset({"decimal", "int32", "int64", "float", "double", "time-delta"})

_CHOICE = re.compile(r"/(anyOf|oneOf|allOf)/\d+\Z")


OBJECTS = frozenset(
    {
        *("date", "datetime", "time", "timedelta", "UUID", "UUID1", "UUID3", "UUID4", "UUID5", "Decimal", "bytes"),
        *("AnyUrl", "AnyHttpUrl", "HttpUrl", "FileUrl", "Url", "IPv4Address", "IPv6Address", "IPv4Network"),
        *("IPv6Network", "Path", "PurePath", "PurePosixPath", "PosixPath", "SecretStr", "Base64Str", "Base64Bytes"),
        *("AwareDatetime", "NaiveDatetime", "PastDate", "FutureDate", "PastDatetime", "FutureDatetime"),
    }
)
"""Names in an annotation that ask for what pydantic makes of a format."""

TYPES_MODULE = "_sandbox_types"
"""Module that stands for the definitions of the types below, which the generated text would import them from."""

FORMAT_TYPES = {
    "date": "datetime.date", "time": "datetime.time", "time-local": "datetime.time",
    "date-time": "datetime.datetime", "date-time-local": "datetime.datetime", "duration": "datetime.timedelta",
    "uuid": "uuid.UUID", "uuid1": "pydantic.UUID1", "uuid3": "pydantic.UUID3", "uuid4": "pydantic.UUID4",
    "uuid5": "pydantic.UUID5", "uri": "pydantic.AnyUrl", "ipv4": "ipaddress.IPv4Address",
    "ipv6": "ipaddress.IPv6Address", "ipv4-network": "ipaddress.IPv4Network",
    "ipv6-network": "ipaddress.IPv6Network", "byte": "pydantic.Base64Str", "decimal": "decimal.Decimal",
    "binary": "str", "password": "str", "path": "str",
}  # fmt: skip
"""String format -> the type by which its values are checked; `hostname` is a pattern of the generator's."""


def filtered_schema(
    schema: Mapping[str, Any],
    objects: Collection[str] = (),
    choices: dict[str, list[Any]] | None = None,
    as_is: Collection[str] = (),
) -> dict[str, Any]:
    """Filter an argument schema.

    What stays is the meaning of the keywords that models can express. Names of definitions become
    identifiers, definitions that nothing refers to are dropped, as are identifiers of the schema itself,
    vocabulary of other tools and every keyword not known here.

    Args:
        schema: A JSON schema whose top level describes an object by ``properties``, or refers to one that does.
        objects: Properties whose formats make objects, as pydantic has them.
        choices: Gets the values of enumerations that arrive as they are, by the name of their type.
        as_is: Properties of which nothing is said.

    Returns:
        A schema with the keys ``title`` (if there is one), ``type``, ``properties``, ``required``,
        ``additionalProperties`` (if there is one) and ``$defs``; all references are of the form
        ``#`` or ``#/$defs/name``.

    Raises:
        ArgumentSchemaError: if it is too large or too deep, refers to anything outside itself, or its top level
            does not describe an object.
    """
    return _Filter(schema, objects, {} if choices is None else choices).filtered(as_is)


class _Filter:
    def __init__(self, schema: Mapping[str, Any], objects: Collection[str], choices: dict[str, list[Any]]) -> None:
        self.schema, self.objects = schema, {f"/properties/{name}" for name in objects}
        self.choices = choices
        self.parts_left = float(MAX_PARTS)
        self.taken: dict[str, int] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.definitions: dict[str, dict[str, Any]] = {}
        self.merged: list[dict[str, Any]] = []
        self.sizes: dict[str, int] = {}

    def filtered(self, as_is: Collection[str]) -> dict[str, Any]:
        top = self.top_level()
        kept = {k: v for k, v in top.items() if k in ("properties", "required", "additionalProperties")}
        if as_is:
            kept["properties"] = {**kept["properties"], **dict.fromkeys(as_is, True)}
        result: dict[str, Any] = {}
        title = top.get("title")
        if isinstance(title, str) and re.sub(r"\W", "", title).isidentifier():  # else there is no class name in it
            result["title"] = title
        result |= {"type": "object", "properties": {}} | self.walk(kept, "", 0)
        pending = [*self.names]
        while pending:  # a definition may name further ones
            where, key = pending.pop(0)
            name = self.names[where, key]
            known = len(self.names)
            walked = self.walk(self.definition(where, key), f"/{where}/{key}", 1)
            # The generator forgets the items of an alias that is an array of itself, and not those of a choice.
            self.definitions[name] = {"anyOf": [walked]} if walked.get("type") == "array" else walked
            pending += [*self.names][known:]
        result["$defs"] = self.definitions
        self.check_merging()
        return result

    def top_level(self) -> Mapping[str, Any]:
        """The schema of the arguments, once a reference to it is followed."""
        top, seen = self.schema, set()
        while isinstance(reference := top.get("$ref"), str):
            if reference in seen or reference == "#":
                raise ArgumentSchemaError("args_json_schema refers to itself and nothing else")
            seen.add(reference)
            title = top.get("title")
            top = self.definition(*self.target(reference, ""))
            top = {"title": title or reference.rpartition("/")[2], **top}
        if top.get("type", "object") != "object" or any(key in top for key in _MERGING):
            raise ArgumentSchemaError(
                "args_json_schema must describe an object by 'properties' at its top level, one for each argument; "
                "it cannot be another type nor a combination (anyOf, oneOf, allOf)"
            )
        return top

    def target(self, reference: str, path: str) -> tuple[str, str]:
        """Where a reference points to: the keyword and the name of a definition."""
        match = MODEL_REFERENCE.fullmatch(reference)
        if match is None:
            raise ArgumentSchemaError(
                f"args_json_schema{path} refers to {reference[:200]!r}; only '#' and '#/$defs/NAME' are followed, "
                "nothing is fetched: put the definition under $defs"
            )
        return match[1] or "", unquoted(match[2] or "")

    def definition(self, where: str, key: str) -> Mapping[str, Any]:
        found = self.schema.get(where)
        if not isinstance(found, Mapping) or key not in found:
            raise ArgumentSchemaError(f"args_json_schema refers to {key!r} under {where}, which is not there")
        entry = found[key]
        if isinstance(entry, bool):
            return {}
        if not isinstance(entry, Mapping):
            raise ArgumentSchemaError(f"args_json_schema/{where}/{key} is no schema")
        return entry

    def reference(self, value: Any, path: str) -> str:
        """A reference as the filtered schema has it."""
        if not isinstance(value, str):
            raise ArgumentSchemaError(f"args_json_schema{path}: a reference is a text")
        target = self.target(value, path)
        if not target[0]:
            return "#"
        self.definition(*target)
        if target not in self.names:
            identifier = re.sub(r"\W+", "_", target[1], flags=re.ASCII).strip("_") or "Definition"
            name, number = identifier, self.taken.get(identifier, 1)
            while name in self.taken:
                number += 1
                name = f"{identifier}_{number}"
            self.taken[identifier] = number
            self.taken.setdefault(name, 1)
            self.names[target] = name
        return f"#/$defs/{self.names[target]}"

    def spend(self, parts: float) -> None:
        self.parts_left -= parts
        if self.parts_left < 0:
            raise ArgumentSchemaError(
                f"args_json_schema comes to more than {MAX_PARTS} parts (properties, three for an object, an "
                "enumeration or a choice, and enum values); describe less of it"
            )

    def walk(self, schema: Any, path: str, depth: int) -> dict[str, Any]:
        self.spend(1)
        if depth > MAX_DEPTH:
            raise ArgumentSchemaError(f"args_json_schema is nested more than {MAX_DEPTH} schemas deep; flatten it")
        if isinstance(schema, bool):
            return {}
        if not isinstance(schema, Mapping):
            raise ArgumentSchemaError(f"args_json_schema{path} is no schema but a {type(schema).__name__}")
        if schema.get("nullable") is True:  # of OpenAPI 3.0
            about = {key: schema[key] for key in ("title", "description", "default") if key in schema}
            rest = {key: value for key, value in schema.items() if key != "nullable" and key not in about}
            is_wider = rest and rest.get("type") != "null"
            schema = {**about, "anyOf": [rest, {"type": "null"}]} if is_wider else {**about, **rest}
        result: dict[str, Any] = {}
        for keyword, value in schema.items():
            inner = f"{path}/{keyword}"
            if keyword == "$ref":
                result[keyword] = self.reference(value, inner)
            elif keyword in _MAP_KEYWORDS and isinstance(value, Mapping):
                entries = {k: v for k, v in value.items() if v is not False}
                result[keyword] = {k: self.walk(v, f"{inner}/{k}", depth + 1) for k, v in entries.items()}
            elif keyword in _LIST_KEYWORDS and isinstance(value, list):
                result[keyword] = [self.walk(item, f"{inner}/{i}", depth + 1) for i, item in enumerate(value)]
            elif keyword in _SCHEMA_KEYWORDS:
                result[keyword] = value if isinstance(value, bool) else self.walk(value, inner, depth + 1)
            elif keyword == "discriminator" and isinstance(value, Mapping):
                result[keyword] = self.discriminator(value, inner)
            elif keyword in _VALUE_KEYWORDS:
                result[keyword] = value
        self.check_values(result, path)
        self.spend(2 * sum(len(result.get(keyword, ())) for keyword in _MERGING) + 2 * ("properties" in result))
        if "allOf" in result:
            self.merged.append(result)
        return result

    def discriminator(self, value: Mapping[str, Any], path: str) -> dict[str, Any]:
        mapping = value.get("mapping")
        result: dict[str, Any] = {"propertyName": value.get("propertyName")}
        if isinstance(mapping, Mapping):
            result["mapping"] = {key: self.reference(target, f"{path}/mapping") for key, target in mapping.items()}
        return result

    def check_values(self, schema: dict[str, Any], path: str) -> None:
        """Drop or refuse what would cost the generator, or the guest, more than it says."""
        if isinstance(schema.get("enum"), list):
            self.spend(2 + len(schema["enum"]) * 5 / 16)
            for kind, name in ((str, "string"), (int, "integer")):  # so that the members equal their values
                if schema["enum"] and all(type(value) is kind for value in schema["enum"]):
                    schema["type"] = name
                    break
            else:
                self.as_values(schema, schema.pop("enum"))
        # Of constants in a choice the generator makes an enumeration whose members equal nothing.
        if "const" in schema and (type(schema["const"]) not in (str, int, bool) or _CHOICE.search(path)):
            self.as_values(schema, [schema.pop("const")])
        if "prefixItems" in schema or isinstance(schema.get("items"), list):
            sizes = [schema.get(keyword) for keyword in ("minItems", "maxItems")]
            if any(isinstance(size, int | float) and size > MAX_TUPLE_ITEMS for size in sizes):
                raise ArgumentSchemaError(
                    f"args_json_schema{path} describes a tuple of more than {MAX_TUPLE_ITEMS} items; use a list"
                )
        if isinstance(schema.get("type"), list):
            self.spend(len(schema["type"]) / 2)
        is_number = schema.get("type") in ("integer", "number")
        declared = schema.get("format")
        if not isinstance(declared, str) or declared not in (_NUMBER_FORMATS if is_number else _FORMATS):
            schema.pop("format", None)
        if schema.get("format") == "hostname" and schema.get("type") != "string":
            del schema["format"]  # the generator's pattern fits nothing but text
        if schema.get("format") in FORMAT_TYPES and not is_number and not self.makes_objects(path):
            self.as_text(schema)

    def makes_objects(self, path: str) -> bool:
        """Whether a place is in a property whose formats make objects."""
        return any(path == place or path.startswith(f"{place}/") for place in self.objects)

    def as_values(self, schema: dict[str, Any], values: list[Any]) -> None:
        """Have values arrive as they are, if they are among some."""
        schema.pop("type", None)
        name = f"OneOf_{len(self.choices) + 1}"
        self.choices[name] = values
        schema["customTypePath"] = f"{TYPES_MODULE}.{name}"

    def as_text(self, schema: dict[str, Any]) -> None:
        """Have a text of a format arrive as it is, if it is one."""
        custom = {"customTypePath": f"{TYPES_MODULE}.Text_{schema.pop('format').replace('-', '_')}"}
        declared = schema.get("type")
        if isinstance(declared, list) and "string" in declared:
            text = {key: schema.pop(key) for key in ("pattern", "minLength", "maxLength") if key in schema}
            rest = [{"type": kind} for kind in schema.pop("type") if kind != "string"]
            schema["anyOf"] = [{"type": "string", **custom, **text}, *rest]
        elif declared == "string":
            schema.update(custom)

    def check_merging(self) -> None:
        """Refuse definitions that are made of themselves, and combinations that multiply like the billion laughs."""
        for name in self.definitions:
            self.size_of_definition(name)
        if sum(map(self.size_of, self.merged)) > MAX_MERGED_SCHEMAS:
            raise ArgumentSchemaError(
                f"the allOf in args_json_schema come to more than {MAX_MERGED_SCHEMAS} schemas; write them out"
            )

    def size_of(self, schema: dict[str, Any]) -> int:
        """How many schemas it comes to when what it is combined of is followed through all references."""
        parts = (part for keyword in _MERGING for part in schema.get(keyword, ()))
        name = schema.get("$ref", "#").removeprefix("#/$defs/")
        return 1 + sum(map(self.size_of, parts)) + (0 if name == "#" else self.size_of_definition(name))

    def size_of_definition(self, name: str) -> int:
        size = self.sizes.get(name, -1)
        if size == 0:
            raise ArgumentSchemaError(f"args_json_schema: the definition {name!r} is made of itself")
        if size < 0:
            self.sizes[name] = 0  # in progress
            size = self.sizes[name] = min(self.size_of(self.definitions[name]), 2 * MAX_MERGED_SCHEMAS)
        return size
