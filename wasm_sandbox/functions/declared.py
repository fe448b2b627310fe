"""`HostFunction`: a function of the caller as a guest sees it, with its name, parameters, types and bounds."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import keyword
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar, cast, overload

from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError

from wasm_sandbox.functions.requests import MAX_VALUES, has_few_values
from wasm_sandbox.functions.spelling import QuietSchema

F = TypeVar("F", bound=Callable[..., Any])

_DECLARED = "__wasm_sandbox_host_function__"

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_RESERVED = frozenset({"display", "progress"})


SMALL_BYTES = 16 << 10
"""Size of arguments that cannot hold many values."""

MANY_FIELDS = 100
MAX_SHOWN_ERRORS = 10
MAX_KEPT_ERRORS = 100


class BadCall(Exception):
    """The arguments of a call do not fit; the message is for the guest, the cause for the host."""


@dataclass(frozen=True)
class Parameter:
    """Parameter of a host function.

    Attributes:
        name: its name.
        kind: kind of `inspect.Parameter`.
        annotation: type that its argument must have; ``Any`` if none is said.
        has_default: whether it may be left out.
        default: value of the function's own if it is left out.
        is_annotated: whether a type is said.
    """

    name: str
    kind: Any
    annotation: Any
    has_default: bool
    default: Any
    is_annotated: bool


@dataclass(frozen=True, eq=False)
class HostFunction:
    """Function of the host that a guest may call.

    `host_function` and the option ``functions`` make it of a function; `deferred` declares one that is
    answered later.

    Attributes:
        name: name under which the guest calls it.
        call: function that is called, plain or async; None for one that is deferred.
        doc: docstring.
        parameters: its parameters, in order.
        returns: annotation of what it returns; ``inspect.Signature.empty`` if none is said.
        is_async: whether the guest awaits it.
        timeout: longest time of one call in seconds; None for no bound of its own.
        max_calls: most calls in one run; None for no bound of its own.
        concurrency: most calls of one run that are under way at the same time; None for no bound of its own.
        own_schema: JSON schema of its arguments, where it has another one than its parameters say: of a tool.
    """

    name: str
    call: Callable[..., Any] | None
    doc: str
    parameters: tuple[Parameter, ...]
    returns: Any
    is_async: bool
    timeout: float | None = None
    max_calls: int | None = None
    concurrency: int | None = None
    own_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    model: Any = field(init=False, repr=False)
    """Model of pydantic that checks the arguments: fields ``p0``, ``p1``, ... with the parameters' names as aliases."""

    _names: tuple[tuple[str, str], ...] | None = field(init=False, repr=False)
    """Field of `model` and name of each parameter, if all can be passed by name."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or keyword.iskeyword(self.name) or self.name in _RESERVED:
            raise ValueError(f"a host function cannot be called {self.name!r}: name it with @host_function(name=...)")
        for bound in ("max_calls", "concurrency"):
            value = getattr(self, bound)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{bound} of host function {self.name!r} must be a whole number from 1, not {value!r}")
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout of host function {self.name!r} must be seconds above 0, not {self.timeout!r}")
        object.__setattr__(self, "model", _model(self))
        by_name = all(p.kind in _BY_NAME for p in self.parameters)
        names = tuple((f"p{number}", p.name) for number, p in enumerate(self.parameters)) if by_name else None
        object.__setattr__(self, "_names", names)

    def __reduce__(self) -> Any:
        """Parts of a pickle: what it was made of; the model is made again."""
        given = tuple(getattr(self, part.name) for part in fields(self) if part.init)
        return type(self), given

    @property
    def is_deferred(self) -> bool:
        """Whether its calls are answered later, by whoever resumes the paused program."""
        return self.call is None

    @classmethod
    def of(cls, function: Any) -> HostFunction:
        """Make a host function of a function, a bound method or another callable.

        Raises:
            TypeError: if it is not callable, or its parameters are not to be found out.
            ValueError: if it has no usable name, or a type of a parameter cannot be checked.
        """
        if isinstance(function, HostFunction):
            return function
        if not callable(function):
            raise TypeError(f"a host function must be callable, and {type(function).__name__} is not")
        bounds = cast(Mapping[str, Any], getattr(function, _DECLARED, {}))
        name = bounds.get("name") or getattr(function, "__name__", None) or type(function).__name__
        parameters, returns = _signature(name, function)
        body = function if inspect.isroutine(function) else type(function).__call__
        return cls(
            name=name,
            call=function,
            doc=_doc(function),
            parameters=parameters,
            returns=returns,
            is_async=inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(body),
            timeout=bounds.get("timeout"),
            max_calls=bounds.get("max_calls"),
            concurrency=bounds.get("concurrency"),
        )

    @classmethod
    def deferred(cls, name: str, /, *, returns: Any = Any, doc: str = "", **parameters: Any) -> HostFunction:
        """Declare a function that is answered later: a guest that awaits it is paused (`Session.start`).

        Args:
            name: name under which the guest calls it.
            returns: type of the answer; what is given for it is checked.
            doc: docstring for the guest.
            parameters: name of a parameter -> its type.

        Raises:
            ValueError: if the name is no name, or a type cannot be checked.
        """
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        made = tuple(
            Parameter(parameter, kind, annotation, False, None, True) for parameter, annotation in parameters.items()
        )
        return cls(name, None, doc, made, returns, is_async=True)

    @cached_property
    def _largest(self) -> int:
        """Number of fields of the largest object that it takes: so many things can be wrong with an empty one."""
        try:
            schema = self.model.model_json_schema(by_alias=True, schema_generator=QuietSchema)
        except PydanticUserError:
            return MANY_FIELDS
        objects = [schema, *schema.get("$defs", {}).values()]
        return max(len(found.get("properties", ())) for found in objects)

    def arguments(self, sent: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check the arguments of a call.

        Args:
            sent: JSON of the guest, hostile: nothing but the model decodes it.

        Returns:
            The arguments by position and by name.

        Raises:
            BadCall: if they do not fit.
            Exception: what a validator of the caller's own raises.
        """
        if len(sent) > SMALL_BYTES and not has_few_values(sent, self._largest):
            raise BadCall(f"its arguments hold too many values: {MAX_VALUES} at most, hand over less at a time")
        try:
            validated = self.model.__pydantic_validator__.validate_json(sent)
        except ValidationError as error:
            is_short = error.error_count() <= MAX_KEPT_ERRORS
            cause = error if is_short else ValueError(f"{error.error_count()} things do not fit")
            raise BadCall(_validation_message(error) if is_short else str(cause)) from cause
        return self._bound(validated)

    def _bound(self, validated: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by position and by name, from an instance of `model`."""
        given, values = validated.model_fields_set, validated.__dict__
        if self._names is not None:
            return (), {name: values[key] for key, name in self._names if key in given}
        positional: list[Any] = []
        named: dict[str, Any] = {}
        rest = any(
            parameter.kind is inspect.Parameter.VAR_POSITIONAL and getattr(validated, f"p{number}")
            for number, parameter in enumerate(self.parameters)
        )
        for number, parameter in enumerate(self.parameters):
            key = f"p{number}"
            if key not in given and not (rest and parameter.kind is not inspect.Parameter.KEYWORD_ONLY):
                continue
            value = getattr(validated, key)
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                positional += value
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            elif parameter.kind in _BY_POSITION and (rest or parameter.kind is inspect.Parameter.POSITIONAL_ONLY):
                positional.append(value)
            else:
                named[parameter.name] = value
        return tuple(positional), named

    def schema(self) -> dict[str, Any]:
        """JSON schema of the function: name, description, and parameters, as models of language take it."""
        return {"name": self.name, "description": self.doc, "parameters": self._parameters_schema()}

    def _parameters_schema(self) -> dict[str, Any]:
        if self.own_schema is not None:
            return copy.deepcopy(dict(self.own_schema))
        parameters: dict[str, Any] = self.model.model_json_schema(by_alias=True, schema_generator=QuietSchema)
        parameters.pop("title", None)
        properties = parameters.get("properties", {})
        for spec in properties.values():
            spec.pop("title", None)
        for parameter in self.parameters:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:  # each is an argument of its own name
                more = properties.pop(parameter.name)
                parameters["additionalProperties"] = more.get("additionalProperties", True)
        _drop_defaults_beyond_json(parameters)
        return parameters


def _drop_defaults_beyond_json(schema: Any) -> None:
    """Leave out the defaults that JSON does not have: infinities, and what is no number."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _drop_defaults_beyond_json(part)
    if isinstance(schema, dict) and "default" in schema:
        try:
            json.dumps(schema["default"], allow_nan=False)
        except (TypeError, ValueError):
            del schema["default"]


@overload
def host_function(function: F, /) -> F: ...


@overload
def host_function(
    *,
    name: str | None = None,
    timeout: float | None = None,
    max_calls: int | None = None,
    concurrency: int | None = None,
) -> Callable[[F], F]: ...


def host_function(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    max_calls: int | None = None,
    concurrency: int | None = None,
) -> F | Callable[[F], F]:
    """Say more about a function that guests may call; the function itself stays what it is.

    Args:
        function: the function, where the decorator is used without arguments.
        name: name under which the guest calls it; by default its own.
        timeout: longest time of one call in seconds; then the guest gets ``TimeoutError``.
        max_calls: most calls in one run.
        concurrency: most calls of one run that are under way at the same time; others wait.

    Raises:
        TypeError: as `HostFunction.of`.
        ValueError: if the name is no name, or a bound is out of range.
    """

    def declare(function: F) -> F:
        bounds = {"name": name, "timeout": timeout, "max_calls": max_calls, "concurrency": concurrency}
        setattr(function, _DECLARED, bounds)
        HostFunction.of(function)  # to hear of mistakes here, and not at the first run
        return function

    return declare if function is None else declare(function)


def _doc(function: Any) -> str:
    """Docstring of a function; of another callable that of its class, or of what is called."""
    if inspect.isroutine(function):
        return inspect.getdoc(function) or ""
    kind = type(function)
    return (kind.__dict__.get("__doc__") and inspect.getdoc(kind)) or inspect.getdoc(kind.__call__) or ""


def _signature(name: str, function: Any) -> tuple[tuple[Parameter, ...], Any]:
    try:
        signature = inspect.signature(function, eval_str=True)
        hints = _hints(function)
    except NameError as error:
        raise ValueError(
            f"host function {name!r}: a type in its signature is not found where it is defined ({error})"
        ) from None
    except (TypeError, ValueError) as error:
        raise TypeError(f"host function {name!r}: its parameters cannot be found out ({error})") from None
    signature = signature.replace(
        parameters=[p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()],
        return_annotation=hints.get("return", signature.return_annotation),
    )
    unresolved = [p.name for p in signature.parameters.values() if isinstance(p.annotation, str)]
    if unresolved:
        raise ValueError(f"host function {name!r}: the type of {unresolved[0]!r} is text: write the type itself")
    empty = inspect.Parameter.empty
    parameters = tuple(
        Parameter(
            found.name,
            found.kind,
            Any if found.annotation is empty else found.annotation,
            found.default is not empty,
            None if found.default is empty else found.default,
            found.annotation is not empty,
        )
        for found in signature.parameters.values()
    )
    return parameters, signature.return_annotation


def _hints(function: Any) -> dict[str, Any]:
    """Types of a function whose parts may be text, as in ``list["Item"]``; empty for what has no annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    body = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(body, include_extras=True)
    except TypeError:  # a builtin
        return {}


def _model(function: HostFunction) -> Any:
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(function.parameters):
        annotation: Any = parameter.annotation
        default: Any = ...
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            annotation, default = list.__class_getitem__(annotation), []
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            annotation, default = dict.__class_getitem__((str, annotation)), {}
        elif parameter.has_default:
            default = parameter.default
        fields[f"p{number}"] = (annotation, Field(default, alias=parameter.name))
    config = ConfigDict(extra="forbid", val_json_bytes="base64", arbitrary_types_allowed=False)
    try:
        return create_model(function.name, __config__=config, **fields)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"host function {function.name!r}: the types of its parameters: {said}") from None


def _validation_message(error: ValidationError) -> str:
    """What does not fit, without the values: the guest has them, and they may be long."""
    try:
        parts = [
            f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_SHOWN_ERRORS]
        ]
    except Exception:
        return "its arguments do not fit"
    return "; ".join(parts)
