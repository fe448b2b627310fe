"""Annotations of an untrusted source as real types: read from the syntax tree, never evaluated.

Only names on an allow-list and classes that the same source defines are understood. A class is rebuilt from
its fields; no code of it runs, so validators and computed fields do not show.
"""

from __future__ import annotations

import ast
import builtins
import datetime
import enum
import importlib
import typing
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import annotated_types
import pydantic
import typing_extensions
from pydantic import BaseModel

from wasm_sandbox.tool.bounds import pattern_steps
from wasm_sandbox.tool.parsing import parse_expression

_MODULES = {
    "builtins": "bool bytes dict float frozenset int list object set str tuple",
    "typing": "AbstractSet Any Annotated Collection DefaultDict Deque Dict FrozenSet Iterable List Literal "
    "Mapping MutableMapping MutableSequence MutableSet Optional OrderedDict Sequence Set Text Tuple Union",
    "typing_extensions": "NotRequired ReadOnly Required",
    "collections": "Counter OrderedDict defaultdict deque",
    "collections.abc": "Collection Iterable Mapping MutableMapping MutableSequence MutableSet Sequence Set",
    "datetime": "date datetime time timedelta",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "ipaddress": "IPv4Address IPv4Network IPv6Address IPv6Network",
    "pathlib": "Path PurePath PurePosixPath",
    "uuid": "UUID",
    "pydantic": "AnyHttpUrl AnyUrl AwareDatetime FutureDate FutureDatetime HttpUrl Json JsonValue "
    "NaiveDatetime NegativeFloat NegativeInt NonNegativeFloat NonNegativeInt NonPositiveFloat "
    "NonPositiveInt PastDate PastDatetime PositiveFloat PositiveInt StrictBool StrictFloat StrictInt "
    "StrictStr",
}
_CALLS = {
    "pydantic": "Field StringConstraints conbytes condecimal confloat conint conlist conset constr",
    "annotated_types": "Ge Gt Le Len Lt MaxLen MinLen MultipleOf",
}
_TYPES = {f"{module}.{name}": module for module, names in _MODULES.items() for name in names.split()}
_FACTORIES = {f"{module}.{name}" for module, names in _CALLS.items() for name in names.split()}
_ARRAY = list[Any]
_SCIENCE = {
    "pandas.DataFrame": list[dict[str, Any]],
    "pandas.Timestamp": datetime.datetime,
    "pandas.Timedelta": datetime.timedelta,
    "numpy.bool_": bool,
    "numpy.bool": bool,
    "numpy.str_": str,
    "numpy.datetime64": datetime.datetime,
    **dict.fromkeys(("numpy.ndarray", "numpy.typing.NDArray", "pandas.Series", "pandas.Index"), _ARRAY),
    **{f"numpy.{sign}int{bits}": int for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"numpy.float{bits}": float for bits in (16, 32, 64)},
}
"""What arguments of numpy's and pandas' classes are in JSON; `inside/_science` makes the objects of that."""

_EXTENDED = {"NotRequired", "ReadOnly", "Required"}
_CLASS_BASES = {
    "enum.Enum": enum.Enum,
    "enum.IntEnum": enum.IntEnum,
    "enum.StrEnum": enum.StrEnum,
    "builtins.str": str,
    "builtins.int": int,
}
_ENUM_BASES = {"enum.Enum", "enum.IntEnum", "enum.StrEnum"}
_RECORD_BASES = {"pydantic.BaseModel", "typing.TypedDict", "typing_extensions.TypedDict"}
_DATACLASS_DECORATORS = {"dataclasses.dataclass", "pydantic.dataclasses.dataclass"}
_MAX_DEPTH = 50
_MAX_NODES = 1000
"""Parts of types, literals and classes read for one source, as often as they are used: 0.1 seconds of processor time
for reading them and for pydantic's schemas of them."""

_CLASS_NODES = 15
"""What a class costs as much as."""

_MAX_PATTERN_STEPS = 3000
"""Size of all regular expressions of a source: pydantic compiles them, and holds the interpreter lock while it does:
6 microseconds for each part, as often as it is repeated. A class of characters is as large as ten."""


class UnknownAnnotation(ValueError):
    """An annotation is not one that can be understood without running the source."""


class Default(NamedTuple):
    """What a source gives as a default: the value if it is a literal."""

    is_literal: bool
    value: Any


class AnnotationReader:
    """Reads the annotations of one module.

    Args:
        module: The parsed source; only what stands at its top level is a known name.
    """

    def __init__(self, module: ast.Module) -> None:
        self._imports: dict[str, str] = {}
        self._definitions: dict[str, ast.stmt] = {}
        self._classes: dict[str, tuple[Any, int]] = {}  # and how many nodes it came to
        self._written: set[str] = set()  # classes that the annotation has
        self._in_progress: list[str] = []
        self._nodes_left = _MAX_NODES
        self._pattern_steps_left = _MAX_PATTERN_STEPS
        for statement in module.body:
            self._learn(statement)

    def type_of(self, annotation: ast.expr) -> Any:
        """The type that an annotation means; parts of it that cannot be understood become ``Any``.

        Raises:
            UnknownAnnotation: if the annotation as a whole cannot be understood.
        """
        self._written.clear()
        return self._read(annotation, _MAX_DEPTH)

    def default_of(self, expression: ast.expr) -> Default:
        """The default that an expression means; it is not evaluated unless it is a literal.

        One that has more parts than are read counts as none.
        """
        try:
            return Default(True, ast.literal_eval(expression))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return Default(False, None)

    def _learn(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import(names=aliases):
                for alias in aliases:
                    root = alias.name.partition(".")[0]
                    self._imports[alias.asname or root] = alias.name if alias.asname else root
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                for alias in aliases:
                    self._imports[alias.asname or alias.name] = f"{module}.{alias.name}"
            case ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                self._definitions[name] = statement
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                self._definitions[name] = statement
            case ast.If(body=body) | ast.Try(body=body):  # ``if TYPE_CHECKING``, ``try: import``
                for inner in body:
                    self._learn(inner)
            case _:
                pass

    def _qualified(self, node: ast.expr) -> str:
        """The dotted name that an expression refers to, by the source's imports; may be unknown."""
        match node:
            case ast.Name(id=name):
                if name in self._imports:
                    return self._imports[name]
                if f"typing.{name}" in _TYPES or hasattr(typing, name):
                    return f"typing.{name}"  # the execution script imports all of typing
                return f"builtins.{name}" if hasattr(builtins, name) else name
            case ast.Attribute(value=value, attr=name):
                return f"{self._qualified(value)}.{name}"
            case _:
                raise UnknownAnnotation(f"not a name but {type(node).__name__}")

    def _spend(self, nodes: int) -> None:
        self._nodes_left -= nodes
        if self._nodes_left <= 0:
            raise UnknownAnnotation("the source's types have too many parts")

    def _read(self, node: ast.expr, depth: int) -> Any:
        self._spend(1)
        if depth <= 0:
            raise UnknownAnnotation("nested too deeply")
        try:
            return self._meaning(node, depth)
        except UnknownAnnotation:
            raise
        except Exception as error:  # whatever typing, enum and pydantic say about nonsense such as int[str]
            raise UnknownAnnotation(str(error)) from error

    def _meaning(self, node: ast.expr, depth: int) -> Any:
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str(text)):
                self._spend(1 + len(text) // 100)
                return self._read(parse_expression(text), depth - 1)
            case ast.Name(id=name) if name in self._definitions:
                return self._defined(name, depth)
            case ast.Name() | ast.Attribute():
                return self._allowed(self._qualified(node))
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return typing.Union[self._part(left, depth), self._part(right, depth)]  # noqa: UP007 - not all parts have `|`
            case ast.Subscript(value=value, slice=parameters):
                return self._subscripted(value, parameters, depth)
            case ast.Call():
                return self._called(node, depth)
            case _:
                raise UnknownAnnotation(f"not understood: {type(node).__name__}")

    def _part(self, node: ast.expr, depth: int) -> Any:
        try:
            return self._read(node, depth - 1)
        except UnknownAnnotation:
            return Any

    def _allowed(self, qualified: str) -> Any:
        qualified = qualified.replace("typing_extensions.", "typing.")
        name = qualified.rpartition(".")[2]
        if name in _EXTENDED:
            qualified = f"typing_extensions.{name}"
        if qualified in _SCIENCE:
            return _SCIENCE[qualified]
        if qualified not in _TYPES:
            raise UnknownAnnotation(f"unknown name {qualified!r}")
        return getattr(importlib.import_module(_TYPES[qualified]), name)

    def _subscripted(self, value: ast.expr, parameters: ast.expr, depth: int) -> Any:
        parts = parameters.elts if isinstance(parameters, ast.Tuple) else [parameters]
        base = self._read(value, depth - 1)
        if base is _ARRAY:  # the guest checks what is in it
            return base
        if base is typing.Literal:
            self._spend(len(parts))
            return base[tuple(ast.literal_eval(part) for part in parts)]
        if base is typing.Annotated:
            metadata = [known for part in parts[1:] if (known := self._metadata(part, depth)) is not None]
            kind = self._part(parts[0], depth)
            return base[(kind, *metadata)] if metadata else kind
        types = [
            ... if isinstance(part, ast.Constant) and part.value is ... else self._part(part, depth) for part in parts
        ]
        return base[types[0]] if len(types) == 1 else base[tuple(types)]

    def _metadata(self, node: ast.expr, depth: int) -> Any:
        match node:
            case ast.Constant(value=str(description)):
                return pydantic.Field(description=description)
            case ast.Call():
                try:
                    return self._called(node, depth)
                except UnknownAnnotation:
                    return None
            case _:
                return None

    def _called(self, node: ast.Call, depth: int) -> Any:
        """Call one of a few pure functions, such as ``Field`` and ``conint``, with literal arguments."""
        qualified = self._qualified(node.func)
        if qualified not in _FACTORIES:
            raise UnknownAnnotation(f"unknown call {qualified!r}")
        self._spend(len(node.args) + len(node.keywords))
        module = annotated_types if qualified.startswith("annotated_types.") else pydantic
        name = qualified.rpartition(".")[2]
        takes_type = name in ("conlist", "conset")
        args: list[Any] = []
        for position, argument in enumerate(node.args):
            literal = self.default_of(argument)
            if takes_type and position == 0:
                args.append(self._part(argument, depth))
            elif literal.is_literal:
                args.append(literal.value)
            else:
                raise UnknownAnnotation(f"an argument of {name} is not a literal")
        keywords = {
            keyword.arg: literal.value
            for keyword in node.keywords
            if keyword.arg and (literal := self.default_of(keyword.value)).is_literal
        }
        for text in [*(args if name != "Field" else ()), keywords.get("pattern")]:
            if isinstance(text, str):
                self._pattern_steps_left -= pattern_steps(text)
        if self._pattern_steps_left < 0:
            raise UnknownAnnotation("the source's regular expressions are too large")
        if name == "Field":
            if args and args[0] is ...:
                args = []
            elif not args and "default" not in keywords and _has_keyword(node, "default", "default_factory"):
                keywords["default_factory"] = dict  # a schema shows only that there is a default
            keywords = {key: value for key, value in keywords.items() if key in _FIELD_KEYWORDS}
        return getattr(module, name)(*args, **keywords)

    def _defined(self, name: str, depth: int) -> Any:
        """The type that a class statement or an alias of the source defines."""
        if name in self._classes:
            kind, nodes = self._classes[name]
            self._spend(1 if name in self._written else nodes)  # once in the schema of each parameter
            self._written.add(name)
            return kind
        if name in self._in_progress:
            return Any  # recursion: the schema says nothing about the inner occurrence
        self._in_progress.append(name)
        try:
            match self._definitions[name]:
                case ast.ClassDef() as definition:
                    before = self._nodes_left
                    self._spend(_CLASS_NODES + len(definition.body))
                    kind = self._class(definition, depth - 1)
                    self._written.add(name)
                    return self._classes.setdefault(name, (kind, before - self._nodes_left))[0]
                case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                    # Read anew for every use: it is written out for every use, and so must be counted.
                    return self._read(value, depth - 1)
                case _:
                    raise UnknownAnnotation(f"{name} is not a type")
        finally:
            self._in_progress.remove(name)

    def _class(self, definition: ast.ClassDef, depth: int) -> Any:
        bases = [self._qualified(base) for base in definition.bases]
        marks = [node.func if isinstance(node, ast.Call) else node for node in definition.decorator_list]
        decorators = [self._qualified(mark) for mark in marks]
        parents = [self._defined(base, depth) for base in bases if base in self._definitions]
        if _ENUM_BASES & {*bases}:
            return self._enum(definition, bases)
        if bases == ["typing.NamedTuple"]:
            fields = [(field.name, field.annotation) for field in self._fields(definition, depth)]
            return typing.NamedTuple(definition.name, fields)
        models = [p for p in parents if isinstance(p, type) and issubclass(p, BaseModel)]
        if _RECORD_BASES & {*bases} or _DATACLASS_DECORATORS & {*decorators} or models:
            return self._record(definition, tuple(models), depth)
        raise UnknownAnnotation(f"class {definition.name} is no model, dataclass, TypedDict or enum")

    def _enum(self, definition: ast.ClassDef, bases: list[str]) -> Any:
        members: dict[str, Any] = {}
        for statement in definition.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    literal = self.default_of(value)
                    is_auto = isinstance(value, ast.Call) and self._qualified(value.func) == "enum.auto"
                    if not literal.is_literal and not is_auto:
                        raise UnknownAnnotation(f"{definition.name}.{name} is not a literal")
                    members[name] = enum.auto() if is_auto else literal.value
                case _:
                    pass
        kinds = [_CLASS_BASES[base] for base in bases if base in _CLASS_BASES]
        plain = next((kind for kind in kinds if kind in (str, int)), None)
        factory: Any = next(kind for kind in kinds if issubclass(kind, enum.Enum))
        return factory(definition.name, members, type=plain)

    def _record(self, definition: ast.ClassDef, models: tuple[type[pydantic.BaseModel], ...], depth: int) -> Any:
        """A model with the fields of a model, a dataclass or a TypedDict: their schemas are the same."""
        total = all(
            keyword.arg != "total" or self.default_of(keyword.value).value is not False
            for keyword in definition.keywords
        )
        fields: dict[str, Any] = {}
        for field in self._fields(definition, depth):
            annotation, required = _without_requirement(field.annotation, total)
            if field.default is not None:
                fields[field.name] = (annotation, field.default)
            else:
                fields[field.name] = (annotation, ... if required else pydantic.Field(default_factory=dict))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a field may be named like a method of the model
            return pydantic.create_model(
                definition.name,
                __base__=models or (BaseModel,),
                __doc__=ast.get_docstring(definition),
                **fields,
            )

    def _fields(self, definition: ast.ClassDef, depth: int) -> Iterator[_Field]:
        for statement in definition.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    is_constant = self._is_class_variable(annotation)
                    if not name.startswith("_") and name != "model_config" and not is_constant:
                        yield _Field(name, self._part(annotation, depth), self._field_default(value, depth))
                case _:
                    pass

    def _is_class_variable(self, annotation: ast.expr) -> bool:
        parts = [*ast.walk(annotation)]
        self._spend(len(parts) // 4)
        texts = [getattr(part, name, "") for part in parts for name in ("id", "attr", "value")]
        return any(isinstance(text, str) and "ClassVar" in text for text in texts)

    def _field_default(self, value: ast.expr | None, depth: int) -> Any:
        """A pydantic field that says what the class statement says; ``None`` if it says nothing."""
        if value is None:
            return None
        if isinstance(value, ast.Call) and self._qualified(value.func) == "pydantic.Field":
            return self._called(value, depth)
        if isinstance(value, ast.Call) and self._qualified(value.func) == "dataclasses.field":
            has_default = _has_keyword(value, "default", "default_factory")
            return pydantic.Field(default_factory=dict) if has_default else None
        literal = self.default_of(value)
        return pydantic.Field(literal.value) if literal.is_literal else pydantic.Field(default_factory=dict)


class _Field(NamedTuple):
    name: str
    annotation: Any
    default: Any


_FIELD_KEYWORDS = frozenset(
    {
        *("default", "default_factory", "description", "title", "examples", "pattern", "multiple_of"),
        *("gt", "ge", "lt", "le", "min_length", "max_length", "max_digits", "decimal_places"),
    }
)


def _has_keyword(node: ast.Call, *names: str) -> bool:
    return any(keyword.arg in names for keyword in node.keywords)


def _without_requirement(annotation: Any, required: bool) -> tuple[Any, bool]:
    """Unwrap ``Required[...]`` and ``NotRequired[...]``."""
    origin = typing.get_origin(annotation)
    if origin in (typing_extensions.Required, typing_extensions.NotRequired):
        return typing.get_args(annotation)[0], origin is typing_extensions.Required
    return annotation, required
