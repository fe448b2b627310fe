"""JSON schemas that nobody trusts, for ``jsonschema``: nothing is fetched, patterns take linear time. Pure."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from wasm_sandbox.errors import ArgumentSchemaError, BadArguments, pass_on
from wasm_sandbox.script.schema_parts import (
    CHECKS,
    IN_PLACE,
    NEEDS_EXTRA,
    NUMBERS,
    OF_TYPES,
    all_parts,
    inner,
    rebuilt,
    unquoted,
)
from wasm_sandbox.tool.bounds import pattern_steps
from wasm_sandbox.tool.own_stack import TooSlow

MAX_PATTERN_STEPS = 3000
"""Size of all patterns of a schema: compiling keeps the interpreter lock, for 6 microseconds a part."""
MAX_MATCHING_STEPS = 20_000_000
"""Size of a text times that of its pattern: matching keeps the interpreter lock, at some nanoseconds a step."""

MAX_NAMES_CHARACTERS = 256 << 10
"""Of the names of properties where a schema has patterns for them."""

MAX_CHECK_SECONDS = 0.2
"""Processor time of a check, looked at between two keywords: what ends a thread from outside may meet any code."""

MAX_KEPT_ERRORS = 200
"""Errors inside of choices that are kept, to find the one that says most. Of more the collector of cyclic garbage would
look at hundreds of thousands of objects, with the interpreter lock."""
_MOST_OF_A_BRANCH = 10

_LONG_CHARACTERS = 4096
_MAX_SAID = 500
_ONLY_IN_7 = frozenset({"dependencies", "additionalItems"})
_DRAFT_7 = re.compile(r"https?://json-schema\.org/draft-07/schema#?")


@cache
def load() -> None:
    """Have the library load what it loads at its first use, which is no schema's fault.

    Raises:
        ArgumentSchemaError: if it is not installed.
    """
    try:
        from jsonschema import Draft7Validator, Draft202012Validator  # lazy: an extra
    except ImportError as error:
        pass_on(error)
        raise ArgumentSchemaError(NEEDS_EXTRA) from None
    for kind in (Draft7Validator, Draft202012Validator):
        kind.check_schema({})


class Validator:
    """Validator of a schema.

    Args:
        schema: what is checked.

    Raises:
        ArgumentSchemaError: as `argument_check`.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        from jsonschema import Draft7Validator, Draft202012Validator, validators  # lazy: an extra

        self.is_draft_7 = _is_draft_7(schema)
        """Where a reference stands alone, whatever is beside it."""
        base = Draft7Validator if self.is_draft_7 else Draft202012Validator
        self._schema = _as_far_as_it_is_valid(schema, base)
        _check_references(self._schema)
        self.patterns = _Patterns(self._schema)
        own = {"pattern": self.patterns.check, "anyOf": self._any_of, "oneOf": self._one_of}
        watched = {keyword: self._watched(check) for keyword, check in {**base.VALIDATORS, **own}.items()}
        self._kind = validators.extend(base, watched)  # type: ignore[no-untyped-call]
        self._check = _Check()

    def errors(self, instance: Any) -> Iterator[Any]:
        """What is wrong with an instance."""
        from referencing import Registry  # lazy: an extra

        self._check.began, self._check.kept = time.thread_time(), 0
        schema = self.patterns.applied(self._schema, instance)
        return self._kind(schema, registry=Registry()).iter_errors(instance)  # type: ignore[no-any-return]

    def _watched(self, check: Callable[..., Any]) -> Callable[..., Any]:
        """A keyword that ends in time, and whose messages hold no whole value, which may take megabytes."""

        def watched(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            if time.thread_time() - self._check.began > MAX_CHECK_SECONDS:
                raise TooSlow
            for error in check(validator, value, instance, schema) or ():
                error.message = error.message[: _MAX_SAID + 1]
                error.args = (error.message, *error.args[1:])
                yield error

        return watched

    def _any_of(self, validator: Any, branches: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        """The keyword ``anyOf``, which keeps few of its errors."""
        errors: list[Any] = []
        if self._first_valid(validator, branches, instance, errors) is None:
            yield _in_no_branch(instance, errors)

    def _one_of(self, validator: Any, branches: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        """The keyword ``oneOf``, which keeps few of its errors."""
        errors: list[Any] = []
        first = self._first_valid(validator, branches, instance, errors)
        if first is None:
            yield _in_no_branch(instance, errors)
        elif any(validator.evolve(schema=branch).is_valid(instance) for branch in branches[first + 1 :]):
            from jsonschema import ValidationError  # lazy: an extra

            yield ValidationError(f"{instance!r:.100} is valid under more than one of the given schemas")

    def _first_valid(self, validator: Any, branches: Any, instance: Any, errors: list[Any]) -> int | None:
        """Index of the first branch that an instance is valid under; the errors of those before it are added."""
        for index, branch in enumerate(branches):
            room = MAX_KEPT_ERRORS - self._check.kept
            found = validator.descend(instance, branch, schema_path=index)
            kept = [*itertools.islice(found, max(1, min(room, _MOST_OF_A_BRANCH)))]
            if not kept:
                return index
            if room > 0:
                self._check.kept += len(kept)
                errors += kept
        return None


# Locks: none: each thread has its own.
class _Check(threading.local):
    """Check of a schema that is under way on a thread."""

    began = 0.0
    """Processor time of the thread at its beginning."""
    kept = 0
    """Number of errors inside of choices that were kept."""


def _in_no_branch(instance: Any, errors: list[Any]) -> Any:
    from jsonschema import ValidationError  # lazy: an extra

    return ValidationError(f"{instance!r:.100} is not valid under any of the given schemas", context=errors)


def _is_draft_7(schema: Mapping[str, Any]) -> bool:
    """Whether it is to be read as draft 7: it says so, or says nothing and uses what only that has."""
    declared = schema.get("$schema")
    if isinstance(declared, str):
        return _DRAFT_7.fullmatch(declared) is not None
    return any(
        isinstance(part, Mapping) and (_ONLY_IN_7 & part.keys() or isinstance(part.get("items"), list))
        for part in all_parts(schema)
    )


def as_the_standard_has_it(part: Any) -> Any:
    """A schema without addresses, with OpenAPI 3.0's ``nullable`` and its exclusive borders in JSON Schema's words."""
    if not isinstance(part, dict):
        return part
    # The library tells no place of what is just false.
    result = rebuilt(part, as_the_standard_has_it, lambda named: {"not": {}} if named is False else named)
    result.pop("$id", None)  # a reference leads where it does for models, whatever part has an address of its own
    for exclusive, border in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(result.get(exclusive), bool):
            is_exclusive = result.pop(exclusive)
            if is_exclusive and border in result:
                result[exclusive] = result.pop(border)
    if result.pop("nullable", False) is True:
        return {"anyOf": [result, {"type": "null"}]}
    return result


def _as_far_as_it_is_valid(schema: dict[str, Any], base: Any) -> dict[str, Any]:
    """The schema without keywords whose values the standard does not know: models ignore them, too."""
    meta = base(base.META_SCHEMA)
    for error in list(itertools.islice(meta.iter_errors(schema), 1000)):
        place: Any = schema
        holder, key = None, None
        for step in error.absolute_path:
            if isinstance(place, dict) and step in place:
                holder, key = place, step
            elif not isinstance(place, list):
                break
            place = place[step]
        if holder is not None:
            holder.pop(key, None)
    return schema


def _check_references(schema: Mapping[str, Any]) -> None:
    """Refuse references that lead out of the schema or nowhere, and schemas that are made of themselves.

    Raises:
        ArgumentSchemaError: if there is one.
    """
    anchors = {part["$anchor"]: part for part in all_parts(schema) if isinstance(part, Mapping) and "$anchor" in part}
    done: set[int] = set()

    def target(reference: Any) -> Any:
        is_anchor = isinstance(reference, str) and reference[1:] in anchors
        if not is_anchor and not (isinstance(reference, str) and re.match(r"#(/|\Z)", reference)):
            raise ArgumentSchemaError(
                f"args_json_schema refers to {str(reference)[:200]!r}; only references into itself are followed, "
                "nothing is fetched: put the definition under $defs"
            )
        if is_anchor:
            return anchors[reference[1:]]
        place: Any = schema
        for step in reference[1:].split("/")[1:] if len(reference) > 1 else ():
            name = unquoted(step)
            if isinstance(place, Mapping) and name in place:
                place = place[name]
            elif isinstance(place, list) and name.isdecimal() and int(name) < len(place):
                place = place[int(name)]
            else:
                raise ArgumentSchemaError(f"args_json_schema refers to {reference[:200]!r}, which is not there")
        return place

    def visit(part: Any, inside: frozenset[int]) -> None:
        if not isinstance(part, Mapping) or id(part) in done:
            return
        if id(part) in inside:
            raise ArgumentSchemaError("args_json_schema: a definition is made of itself")
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in part:
                raise ArgumentSchemaError(f"args_json_schema has a {keyword}, which is not followed: use $ref")
        again = [*_in_place(part)] + ([target(part["$ref"])] if "$ref" in part else [])
        for one in again:
            visit(one, inside | {id(part)})
        done.add(id(part))

    for part in [*all_parts(schema)]:
        visit(part, frozenset())


def _in_place(part: Mapping[str, Any]) -> Iterator[Any]:
    return inner({keyword: value for keyword, value in part.items() if keyword in IN_PLACE})


class _Patterns:
    """Patterns of a schema, matched in linear time by pydantic's engine, which is Rust's.

    Raises:
        ArgumentSchemaError: if one is not known to it, or they are too large.
    """

    def __init__(self, schema: Any) -> None:
        self._left = MAX_PATTERN_STEPS
        self._matchers: dict[str, Any] = {}
        self._has_names = False
        self._characters = 0
        for part in all_parts(schema):
            if isinstance(part, Mapping):
                if isinstance(part.get("pattern"), str):
                    self._add(part["pattern"])
                names = part.get("patternProperties")
                if isinstance(names, Mapping):
                    self._has_names = True
                    for pattern in names:
                        self._add(pattern)

    def _add(self, pattern: str) -> None:
        from pydantic_core import SchemaError, SchemaValidator, core_schema  # lazy: it takes milliseconds

        if pattern in self._matchers:
            return
        self._left -= pattern_steps(pattern)
        if self._left < 0:
            raise ArgumentSchemaError("the patterns of args_json_schema are too large; simplify them")
        try:
            self._matchers[pattern] = SchemaValidator(core_schema.str_schema(pattern=pattern))
        except SchemaError:
            raise ArgumentSchemaError(
                f"args_json_schema has a pattern that takes no linear time to match: {pattern[:200]!r}; "
                "leave out look-around and references back"
            ) from None

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a pattern is found in a text.

        Raises:
            BadArguments: if that would take long.
        """
        if len(text) * pattern_steps(pattern) > MAX_MATCHING_STEPS:
            raise BadArguments(f"a text of {len(text)} characters is too long for the pattern {pattern[:200]!r}")
        try:
            return bool(self._matchers[pattern].isinstance_python(text))
        except UnicodeError:  # a lone surrogate
            return False

    def check(self, _validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
        """The keyword ``pattern``."""
        if isinstance(instance, str) and not self.matches(pattern, instance):
            from jsonschema import ValidationError  # lazy: an extra

            yield ValidationError(f"{instance[:100]!r} does not match {pattern[:200]!r}")

    def applied(self, schema: dict[str, Any], instance: Any) -> dict[str, Any]:
        """The schema with its patterns for names replaced by the names that there are: the library would match them."""
        if not self._has_names:
            return schema
        names = [*dict.fromkeys(_names(instance))]
        self._characters = sum(map(len, names))
        if self._characters > MAX_NAMES_CHARACTERS:
            raise BadArguments(
                f"the names of their properties take {self._characters:,} characters; where args_json_schema has "
                f"patterns for them, at most {MAX_NAMES_CHARACTERS:,} are checked"
            )
        alternatives: dict[str, str] = {}
        for number, pattern in enumerate(self._matchers):
            found = "|".join(re.escape(name) for name in names if self.matches(pattern, name))
            alternatives[pattern] = rf"(?#{number})\A(?:{found})\Z" if found else f"(?#{number})(?!)"
        replaced = _with_names(schema, alternatives)
        assert isinstance(replaced, dict)
        return replaced

    def forget(self) -> None:
        """Have `re`, which keeps what it has compiled, keep no long list of names."""
        if self._characters > _LONG_CHARACTERS:
            re.purge()


def _names(instance: Any) -> Iterator[str]:
    pending = [instance]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _with_names(part: Any, alternatives: Mapping[str, str]) -> Any:
    if not isinstance(part, dict):
        return part
    result = rebuilt(part, lambda one: _with_names(one, alternatives))
    if isinstance(patterns := result.get("patternProperties"), dict):
        result["patternProperties"] = {alternatives[name]: one for name, one in patterns.items()}
    return result


_TOLD_BY_MODELS = frozenset({*NUMBERS, *OF_TYPES["string"], *OF_TYPES["array"], *OF_TYPES["object"], "type"})


def _is_told_by_models(error: Any) -> bool:
    """Whether models refuse the same, and say so in words of their own."""
    way = {step for step in error.absolute_schema_path if isinstance(step, str)}
    if not way.isdisjoint(CHECKS - _TOLD_BY_MODELS - {"$ref", "anyOf", "oneOf", "prefixItems", "enum", "const"}):
        return False
    if error.validator in ("enum", "const"):
        return not isinstance(error.instance, bool | int | float | None)
    if error.validator in ("anyOf", "oneOf"):
        return bool(error.context) and all(map(_is_told_by_models, error.context))
    return error.validator in _TOLD_BY_MODELS


def first_error(errors: Iterator[Any], as_is: frozenset[str]) -> tuple[str | None, str] | None:
    """Name of the argument and message of the error that says most, of the first ones."""
    from jsonschema.exceptions import best_match  # lazy: an extra

    def is_of_models(one: Any) -> bool:
        return bool(one.absolute_path) and one.absolute_path[0] not in as_is and _is_told_by_models(one)

    error = best_match(itertools.islice((one for one in errors if not is_of_models(one)), 10))
    if error is None:
        return None
    path = [*error.absolute_path]
    place = "".join(f"[{step!r:.100}]" for step in path[1:])
    message = "no value is allowed" if (error.validator, error.validator_value) == ("not", {}) else error.message
    said = f"{place}: {message}" if place else str(message)
    return str(path[0]) if path else None, said if len(said) <= _MAX_SAID else f"{said[:_MAX_SAID]}…"
