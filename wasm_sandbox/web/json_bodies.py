"""Large bodies: JSON parsed beside an event loop, which goes on meanwhile.

The problem: pydantic's parser, and the standard library's in C, keep the interpreter lock until they are done, two
seconds for ten megabytes of empty lists, so that another thread alone is of no use. The standard library's scanner in
Python gives the lock up every five milliseconds; it takes three times as long. What may be any JSON is not looked at a
second time: whatever it gives is such. The rest, which has a fixed shape, is validated by pydantic as ever, without
what no valid body has, so that it is small but for its texts.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed does not know it
from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # nor this
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, to_json

Model = TypeVar("Model", bound=BaseModel)

MAX_ENTRIES = 1000
"""Most entries of a field whose shape is fixed."""
_WIDTHS = (MAX_ENTRIES + 1, 100)
"""Most entries that are looked at, of a field and of what is in it: what has more is none that a valid body has."""


def read_large(data: bytes, shape: type[Model], free: Collection[str]) -> Model:
    """Body of a request, as ``shape.model_validate_json(data, strict=True)`` gives it; to be called on a thread.

    Args:
        data: the body.
        shape: its shape, whose fields that are not free have at most `MAX_ENTRIES` entries.
        free: names of fields that hold any JSON, or an object of any.

    Raises:
        ValidationError: if it does not fit; a body that is no JSON has the one error ``json_invalid``.
    """
    fields = _parsed(data, shape)
    if not isinstance(fields, dict):
        return shape.model_validate_json(b"0", strict=True)  # raises: it is no object
    found = {name: fields[name] for name in free if name in fields and name in shape.model_fields}
    looked_at = {
        name: {} if name in found and isinstance(value, dict) else _cut(value, _WIDTHS)
        for name, value in [*fields.items()][: MAX_ENTRIES + 1]
    }
    made = shape.model_validate_json(to_json(looked_at, inf_nan_mode="constants"), strict=True)
    return made.model_copy(update=found)


def _parsed(data: bytes, shape: type[BaseModel]) -> Any:
    decoder: Any = json.JSONDecoder(object_pairs_hook=_object)
    decoder.parse_string = _text
    decoder.scan_once = py_make_scanner(decoder)
    try:
        return decoder.decode(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        what = f"{error.msg} at line {error.lineno} column {error.colno}"
    except RecursionError:
        what = "it is nested too deeply"
    except ValueError:  # its words may quote the body
        what = "a text is no Unicode, or a number has too many digits"
    fault = PydanticCustomError("json_invalid", "Invalid JSON: {what}", {"what": what})
    raise ValidationError.from_exception_data(shape.__name__, [InitErrorDetails(type=fault, input=None)], "json")


def _text(text: str, begin: int, strict: bool = True) -> tuple[str, int]:
    found, end = scanstring(text, begin, strict)
    _check(found)
    return found, end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, _ in pairs:
        _check(name)
    return dict(pairs)


def _check(text: str) -> None:
    """Refuse half of a surrogate pair, which no UTF-8 holds."""
    if not text.isascii():
        text.encode()


def _cut(value: Any, widths: tuple[int, ...]) -> Any:
    """What is looked at of a value whose shape is fixed."""
    if not isinstance(value, list | dict):
        return value
    if not widths:
        return None
    if isinstance(value, dict):
        return {name: _cut(value[name], widths[1:]) for name in [*value][: widths[0]]}
    return [_cut(part, widths[1:]) for part in value[: widths[0]]]
