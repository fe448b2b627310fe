"""Arguments checked against their JSON schema on the host, as far as pydantic models cannot express it. Pure.

Models have no words for ``uniqueItems``, ``not``, ``if`` and many more, nor for a keyword of a type that the schema
does not name. A property whose schema says such a thing is checked by ``jsonschema``, before anything runs; so is what
the schema says of the arguments as a whole. The other properties are the models' alone.

Nobody trusts the schema, nor the arguments: all is done within a bound of processor time, on a thread of our own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wasm_sandbox.errors import ArgumentSchemaError, BadArguments, HostError, pass_on
from wasm_sandbox.script.schema_parts import CHECKS, MODEL_REFERENCE, OF_TYPES, definition, parts, texts
from wasm_sandbox.script.schema_validator import Validator, as_the_standard_has_it, first_error, load
from wasm_sandbox.script.schema_values import NoJson, Size, converted
from wasm_sandbox.tool.memo import SizedMemo, text_bytes
from wasm_sandbox.tool.own_stack import TooSlow, on_own_stack

MAX_SECONDS = 0.25
"""Processor time that one check may take, and making ready for it."""

_MEMO_BYTES = 16 << 20
_MAX_SAID = 500

_MODELLED = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
"""Those of them by which a model knows what a value may be."""


@dataclass(frozen=True)
class ArgumentCheck:
    """Check of arguments against one schema, as far as models do not make it.

    Attributes:
        properties: name -> schema of each property that is checked here.
    """

    properties: Mapping[str, Any]
    _schema: Mapping[str, Any]
    _validator: Validator | None

    def check(self, args: Mapping[str, Any], as_is: frozenset[str]) -> None:
        """Check arguments.

        Args:
            args: name -> value.
            as_is: what `as_is` says of them; of the rest it is left to the models to tell what they see themselves.

        Raises:
            BadArguments: if one does not fit, or they are too much to be checked.
            HostError: if the system gives no thread to check them on.
        """
        validator = self._validator
        if validator is None:
            return
        try:
            found = on_own_stack(lambda: first_error(validator.errors(self._seen(args, as_is)), as_is), MAX_SECONDS)
        except TooSlow:
            raise BadArguments(
                f"checking them against args_json_schema takes more than {MAX_SECONDS:g} seconds; simplify it"
            ) from None
        except (HostError, BadArguments):
            raise
        except RecursionError:
            raise BadArguments("they, or args_json_schema, are nested too deeply to be checked") from None
        except Exception as error:  # numbers that are none, for one: the library lets them through
            pass_on(error)
            raise BadArguments(f"they cannot be checked against args_json_schema: {error!r:.{_MAX_SAID}}") from None
        finally:
            validator.patterns.forget()
        if found is not None:
            argument, message = found
            raise BadArguments(message, argument)

    def _seen(self, args: Mapping[str, Any], as_is: frozenset[str]) -> dict[str, Any]:
        """The arguments as the schema sees them."""
        seen: dict[str, Any] = {}
        size = Size()
        for name, value in args.items():
            try:
                seen[name] = size.json(value) if self._looks_at(name) else None
            except NoJson:
                continue  # the models know more than JSON
            except BadArguments as error:
                raise BadArguments(str(error), name) from None
            if name in self.properties and name not in as_is:
                seen[name] = converted(self._schema, [self.properties[name]], seen[name])
        return seen

    def _looks_at(self, name: str) -> bool:
        """Whether more than the name of an argument counts."""
        return name in self.properties or name not in self._schema.get("properties", {})

    def as_is(self, args: Mapping[str, Any]) -> frozenset[str]:
        """Names of properties that are passed on as they were given: models might refuse what the schema allows."""
        return frozenset(
            name for name, schema in self.properties.items() if name in args and self._is_beyond(schema, args[name])
        )

    def _is_beyond(self, schema: Any, value: Any) -> bool:
        if isinstance(schema, Mapping) and not _MODELLED & schema.keys() and "properties" in schema:
            if not isinstance(value, Mapping):
                return True
            schema = {"type": "object", **schema}  # as models read it
        if _makes_a_set(schema, value):
            return True
        if isinstance(schema, Mapping) and isinstance(value, Mapping) and self._is_named_by_patterns(schema, value):
            schema = {"type": "object", "anyOf": [*schema["patternProperties"].values()]}
        assert self._validator is not None
        stands_alone = self._validator.is_draft_7
        return any(_is_beyond_models(one, stands_alone) for one in parts(self._schema, schema))

    def _is_named_by_patterns(self, schema: Mapping[str, Any], value: Mapping[Any, Any]) -> bool:
        """Whether models, which have a mapping for that, take all names of a value."""
        patterns = schema.get("patternProperties")
        if not isinstance(patterns, Mapping) or "properties" in schema or schema.get("type") != "object":
            return False
        assert self._validator is not None
        matches = self._validator.patterns.matches
        return all(isinstance(name, str) and any(matches(one, name) for one in patterns) for name in value)


def argument_check(schema_text: str) -> ArgumentCheck:
    """The check for a schema, as JSON text; memoised.

    Raises:
        ArgumentSchemaError: if it refers to anything outside of it, or its references or patterns cannot be followed.
    """
    found = _MEMO.get(schema_text)
    if found is None:
        try:
            found = _made(schema_text)
        except ArgumentSchemaError as error:
            found = str(error)
        except TooSlow:
            found = f"args_json_schema takes more than {MAX_SECONDS:g} seconds to be read; simplify it"
        except RecursionError:
            found = "args_json_schema is nested too deeply"
        _MEMO.put(schema_text, found, 20 * text_bytes(schema_text))
    if isinstance(found, str):
        raise ArgumentSchemaError(found)
    return found


_MEMO: SizedMemo[str, ArgumentCheck | str] = SizedMemo(_MEMO_BYTES)


def _made(schema_text: str) -> ArgumentCheck:
    schema: dict[str, Any] = json.loads(schema_text)
    checked, whole = on_own_stack(lambda: _to_check(schema), MAX_SECONDS)
    if whole is None:
        return ArgumentCheck({}, schema, None)
    load()
    return ArgumentCheck(checked, schema, on_own_stack(lambda: Validator(whole), MAX_SECONDS))


def _to_check(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Properties that models cannot check, and a schema that says what they cannot check; None if there is nothing."""
    top = _referred(schema)
    declared = top.get("properties")
    declared = declared if isinstance(declared, Mapping) else {}
    checked = {name: one for name, one in declared.items() if not all(map(_is_plain, parts(schema, one)))}
    # What the models do: missing and unknown arguments are refused by name.
    rest = {key: value for key, value in top.items() if key not in ("type", "required", "$ref")}
    if not isinstance(rest.get("additionalProperties"), Mapping):
        rest.pop("additionalProperties", None)
    if not checked and not (CHECKS & rest.keys()) - {"properties"}:
        return {}, None
    rest["properties"] = {name: checked.get(name, True) for name in declared}
    kept = {key: schema[key] for key in ("$schema", "$defs", "definitions") if key in schema}
    return checked, as_the_standard_has_it({**rest, **kept})


def _referred(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the arguments, once references to it are followed; what is wrong with them is told elsewhere."""
    top, seen = schema, set[str]()
    while isinstance(top, Mapping) and isinstance(reference := top.get("$ref"), str) and reference not in seen:
        seen.add(reference)
        top = definition(schema, reference)
    return top if isinstance(top, Mapping) else {}


def _is_plain(part: Any) -> bool:
    """Whether models check just what one schema, without those in it, says."""
    if not isinstance(part, Mapping):
        return part is True
    keywords = CHECKS & part.keys()
    if keywords == {"$ref"}:
        return isinstance(part["$ref"], str) and MODEL_REFERENCE.fullmatch(part["$ref"]) is not None
    if not keywords or (keywords == {"anyOf"} and isinstance(part["anyOf"], list)):
        return True
    if "enum" in keywords or "const" in keywords:
        values = part.get("enum", [part.get("const")])
        return keywords <= {"type", "enum", "const"} and isinstance(values, list) and {*map(type, values)} == {str}
    types = part.get("type")
    types = [types] if isinstance(types, str) else texts(types)
    if len([kind for kind in types if kind != "null"]) != 1:
        return False
    if keywords - {"type"} - frozenset[str]().union(*(OF_TYPES.get(kind, frozenset()) for kind in types)):
        return False
    properties = part.get("properties", {})
    return isinstance(properties, Mapping) and {*texts(part.get("required"))} <= properties.keys()


def _is_beyond_models(part: Any, stands_alone: bool) -> bool:
    """Whether models may refuse what one schema, by itself, allows.

    Args:
        part: the schema.
        stands_alone: whether nothing counts that is beside a reference.
    """
    if not isinstance(part, Mapping):
        return part is False
    reference = part.get("$ref")
    if reference is not None and not (isinstance(reference, str) and MODEL_REFERENCE.fullmatch(reference)):
        return True
    if reference is not None and stands_alone and len(CHECKS & part.keys()) > 1:
        return True
    if "patternProperties" in part or "$dynamicRef" in part or "$recursiveRef" in part:
        return True
    of_types = frozenset[str]().union(*OF_TYPES.values()) | {"prefixItems", "uniqueItems", "format"}
    return bool(of_types & part.keys()) and not _MODELLED & part.keys()


def _makes_a_set(schema: Any, value: Any) -> bool:
    """Whether models make a set of items that cannot be in one."""
    if not isinstance(schema, Mapping) or schema.get("uniqueItems") is not True or not isinstance(value, list | tuple):
        return False
    return any(isinstance(one, list | tuple | set | Mapping) for one in value) or len({*map(type, value)}) > 1
