"""Answers to calls of deferred functions, which somebody gives later, perhaps in another process."""

from __future__ import annotations

import builtins
import inspect
import marshal
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wasm_sandbox.functions.catalogue import Functions
from wasm_sandbox.functions.declared import BadCall, HostFunction
from wasm_sandbox.request import Answer
from wasm_sandbox.results import Call
from wasm_sandbox.script.wire import MARSHAL_VERSION, Untravelled, encode

FAILED = 2
MAX_MESSAGE = 10_000


def answer_of(function: HostFunction, ident: int, value: Any) -> Answer:
    """Answer of a call.

    Args:
        function: the deferred function.
        ident: number of the call.
        value: value that the guest gets; or an exception, whose class and text it gets: of a builtin class as that,
            of any other as a ``HostFunctionError``.

    Raises:
        ValueError: if the value is not of the type that the function returns.
        TypeError: if the value cannot be handed to a guest.
    """
    if isinstance(value, BaseException):
        name = type(value).__name__
        known = getattr(builtins, name, None) is type(value) and not isinstance(value, MemoryError)
        text = (str(value) if known else f"{name}: {value}")[:MAX_MESSAGE]
        kind = name if known else "HostFunctionError"
        return Answer(FAILED, ident, marshal.dumps((kind, text), MARSHAL_VERSION))
    if function.returns not in (inspect.Signature.empty, Any):
        try:
            value = _adapter(function).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"the answer to {function.name} (call {ident}): {_said(error)}") from None
    try:
        kind_of_bytes, data = encode(value)
    except Untravelled as error:
        raise TypeError(f"the answer to {function.name} (call {ident}) is or holds {error}") from None
    return Answer(kind_of_bytes, ident, data)


@cache
def _adapter(function: HostFunction) -> TypeAdapter[Any]:
    return TypeAdapter(function.returns)


def _said(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return str(first["msg"])


def pending_call(functions: Functions, ident: int, name: str, arguments: bytes) -> tuple[HostFunction, Call]:
    """A call of a deferred function, out of a snapshot, whose bytes are hostile.

    Raises:
        ValueError: if there is no such deferred function, or the arguments do not fit it.
    """
    found = [function for function in functions.table if function.name == name and function.is_deferred]
    if not found:
        raise ValueError(f"the program waits for {name!r:.100}: declare it with HostFunction.deferred")
    try:
        args, kwargs = found[0].arguments(arguments)
    except BadCall as error:
        raise ValueError(f"the arguments of {name!r:.100} do not fit its declaration: {error}") from None
    return found[0], Call(id=ident, name=name, args=args, kwargs=kwargs, argument_bytes=len(arguments))
