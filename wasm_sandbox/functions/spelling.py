"""`Spelling`: types of the host as source that a guest's author reads, with the imports and classes that it needs."""

from __future__ import annotations

import dataclasses
import enum
import keyword
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

MAX_LITERALS = 30
"""Most members of an enumeration that are listed."""

MAX_DEPTH = 20

_LITERALS = (type(None), bool, int, str, bytes)
_QUALIFIERS = frozenset({"Required", "NotRequired", "ReadOnly", "ClassVar", "Final", "InitVar"})
_OF_SCHEMAS = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
_DICT_NAMES = frozenset(dir(dict))

_RECORD = '''\
class {name}:
    """Fields, read as attributes or as keys; as an argument, give a dict of them."""

    def __getitem__(self, field: {text}) -> {any}: ...
'''


class QuietSchema(GenerateJsonSchema):
    """Pydantic's generator: what JSON schemas do not have is any value, and no default."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as in the base

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


class Spelling:
    """Names of types in one text, each of which means one thing there.

    Args:
        taken: names that mean something else in the text.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._names: dict[Any, str] = {}
        self._imports: dict[str, set[str]] = {}
        self._records: list[type] = []
        self._base = ""
        self._depth = 0

    def of(self, annotation: Any) -> str:
        """A type as one writes it in a signature: as the guest has it, an enumeration as its values."""
        self._depth += 1
        try:
            return self._of(annotation) if self._depth < MAX_DEPTH else self._known("typing", "Any")
        finally:
            self._depth -= 1

    def _of(self, annotation: Any) -> str:
        if annotation is None or annotation is type(None):
            return "None"
        if annotation is ...:
            return "..."
        if isinstance(annotation, list):
            return f"[{', '.join(map(self.of, annotation))}]"
        if (meant := getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)) is not None:
            return self.of(meant)  # a NewType, or an alias
        if isinstance(annotation, typing.TypeVar):
            return self.of(annotation.__bound__ or Any)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is not None:
            return self._generic(annotation, origin, arguments)
        if isinstance(annotation, type) and annotation is not Any:
            return self._class(annotation)
        name = getattr(annotation, "__name__", None) or getattr(annotation, "_name", None)
        return self._known("typing", name if name in typing.__all__ else "Any")

    def _generic(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> str:
        if origin is typing.Annotated or getattr(origin, "__name__", None) in _QUALIFIERS:
            return self.of(arguments[0])
        if origin is typing.Literal:
            return self._literal(arguments)
        if origin in (typing.Union, types.UnionType):
            return " | ".join(dict.fromkeys(map(self.of, arguments)))
        if fields_of(origin) is not None or not isinstance(origin, type):
            return self.of(origin)
        if not arguments:
            return f"{self.of(origin)}[()]" if isinstance(annotation, types.GenericAlias) else self.of(origin)
        return f"{self.of(origin)}[{', '.join(map(self.of, arguments))}]"

    def _literal(self, values: Iterable[Any]) -> str:
        plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
        if plain and len(plain) <= MAX_LITERALS and all(type(value) in _LITERALS for value in plain):
            return f"{self._known('typing', 'Literal')}[{', '.join(map(repr, plain))}]"
        return " | ".join(dict.fromkeys(self.of(type(value)) for value in plain)) or self.of(Any)

    def _class(self, kind: type) -> str:
        if issubclass(kind, enum.Flag):
            return self.of(int)
        if issubclass(kind, enum.Enum):
            return self._literal(kind)
        if fields_of(kind) is not None:
            return self._record(kind)
        root = kind.__module__.partition(".")[0]
        if root in sys.stdlib_module_names:
            for module in root, kind.__module__:
                if getattr(sys.modules.get(module), kind.__name__, None) is kind:
                    return self._known(module, kind.__name__)
            return self.of(Any)
        return self._of_schema(_schema(kind))

    def _of_schema(self, schema: Mapping[str, Any]) -> str:
        """What JSON of a schema is: of a type that only the host has, or of a tool's parameter."""
        if isinstance(values := schema.get("enum"), list):
            return self._literal(values)
        if (known := _OF_SCHEMAS.get(str(schema.get("type")))) is not None:
            return self.of(known)
        if isinstance(choices := schema.get("anyOf", schema.get("oneOf")), list) and choices:
            return " | ".join(dict.fromkeys(map(self.of_schema, choices)))
        if schema.get("type") == "array":
            return f"{self.of(list)}[{self.of_schema(schema.get('items'))}]"
        if schema.get("type") == "object":
            return f"{self.of(dict)}[{self.of(str)}, {self.of_schema(schema.get('additionalProperties'))}]"
        return self.of(Any)

    def of_schema(self, schema: Any) -> str:
        """Type of values of a JSON schema."""
        self._depth += 1
        try:
            is_read = isinstance(schema, Mapping) and self._depth < MAX_DEPTH
            return self._of_schema(schema) if is_read else self.of(Any)
        finally:
            self._depth -= 1

    def _known(self, module: str, name: str) -> str:
        """Name of a class of the standard library, which is imported by another name where its own is taken."""
        if (module, name) not in self._names:
            self._names[module, name] = here = self._free(name)
            if module != "builtins" or here != name:
                self._imports.setdefault(module, set()).add(name if here == name else f"{name} as {here}")
        return self._names[module, name]

    def _record(self, kind: type) -> str:
        if kind not in self._names:
            self._names[kind] = self._free(re.sub(r"\W+", "_", kind.__name__).strip("_") or "Record")
            self._records.append(kind)
        return self._names[kind]

    def _free(self, name: str) -> str:
        while name in self._taken or keyword.iskeyword(name):
            name += "_"
        self._taken.add(name)
        return name

    @property
    def field_names(self) -> set[str]:
        """Names of the fields of all classes that were spelled so far."""
        return {field.name for kind in self._records for field in fields_of(kind) or ()}

    def head(self) -> str:
        """Imports and classes of what was spelled so far."""
        classes, done = [], 0
        while done < len(self._records):  # a class may name further ones
            classes.append(self._stub(self._records[done]))
            done += 1
        if self._base:
            classes.insert(0, _RECORD.format(name=self._base, text=self.of(str), any=self.of(Any)))
        modules = sorted(self._imports)
        lines = [f"from {module} import {', '.join(sorted(self._imports[module]))}" for module in modules]
        return "\n".join([*lines, *[""] * bool(lines), *classes])

    def _stub(self, kind: type) -> str:
        is_dict = _is_typed_dict(kind)
        if not is_dict and not self._base:
            self._base = self._free("Record")
        base = self._known("typing", "TypedDict") if is_dict else self._base
        found = fields_of(kind) or []
        lines = [f"    {self._field(field, is_dict)}" for field in found] or ["    pass"]
        return "\n".join([f"class {self._names[kind]}({base}):", *lines, ""])

    def _field(self, field: Field, is_dict: bool) -> str:
        spelled = self.of(field.annotation)
        if is_dict:
            may_lack = self._known("typing", "NotRequired") if not field.is_required else ""
            return f"{field.name}: {may_lack}[{spelled}]" if may_lack else f"{field.name}: {spelled}"
        text = f"{field.name}: {spelled}" if field.is_required else f"{field.name}: {spelled} = ..."
        said = [f'as an argument "{field.alias}"'] if field.alias != field.name else []
        if field.name in _DICT_NAMES:
            said.append(f'read it as ["{field.name}"]')
        return f"{text}  # {', '.join(said)}" if said else text


@dataclasses.dataclass(frozen=True)
class Field:
    """Field of a model, a dataclass, a named tuple or a typed dict.

    Attributes:
        name: its name, under which it is read.
        annotation: its type.
        is_required: whether an argument must have it.
        alias: its name in an argument.
    """

    name: str
    annotation: Any
    is_required: bool
    alias: str


def fields_of(kind: Any) -> list[Field] | None:
    """Fields of what travels by its fields; None for anything else."""
    if not isinstance(kind, type):
        return None
    if isinstance(found := getattr(kind, "model_fields", None), Mapping):
        return [
            Field(name, info.annotation, info.is_required(), _alias(info.validation_alias or info.alias, name))
            for name, info in found.items()
        ]
    if dataclasses.is_dataclass(kind):
        return list(_typed(kind, [(field.name, _is_required(field)) for field in dataclasses.fields(kind)]))
    if _is_typed_dict(kind):
        required = getattr(kind, "__required_keys__", ())
        return list(_typed(kind, [(name, name in required) for name in kind.__annotations__]))
    if issubclass(kind, tuple) and isinstance(names := getattr(kind, "_fields", None), tuple):
        return list(_typed(kind, [(name, name not in getattr(kind, "_field_defaults", ())) for name in names]))
    return None


def _is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict) and hasattr(kind, "__total__")  # also that of typing_extensions


def _alias(alias: Any, name: str) -> str:
    return alias if isinstance(alias, str) else name


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def _typed(kind: type, names: Iterable[tuple[str, bool]]) -> Iterator[Field]:
    try:
        hints = typing.get_type_hints(kind)
    except Exception:  # a name that is not there where the class was made
        hints = {}
    for name, is_required in names:
        yield Field(name, hints.get(name, Any), is_required, name)


def _schema(kind: type) -> dict[str, Any]:
    try:
        return TypeAdapter(kind).json_schema(schema_generator=QuietSchema)
    except Exception:  # pydantic runs hooks of the type, which may raise anything
        return {}
