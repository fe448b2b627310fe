"""The guest's environment variables: what may be in them. Pure; values are never put into messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wasm_sandbox.errors import InvalidEnvironment

MAX_ENVIRONMENT_BYTES = 4 << 20


def merge_environment(*layers: Mapping[str, Any] | None) -> dict[str, str]:
    """Merge layers of variables, a later one winning; a final value of ``None`` drops its name.

    Raises:
        InvalidEnvironment: a name is no string, is empty or holds ``=`` or NUL; a value is no string or
            holds NUL or a lone surrogate; or all of it is too large.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer or {})
    merged = {name: value for name, value in merged.items() if value is not None}
    for name, value in merged.items():
        _check(name, value)
    size = sum(len(name.encode()) + len(value.encode()) + 2 for name, value in merged.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise InvalidEnvironment(f"the environment variables take {size} bytes, at most {MAX_ENVIRONMENT_BYTES} fit")
    return merged


def _check(name: object, value: object) -> None:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name or not _encodable(name):
        raise InvalidEnvironment(f"{name!r} cannot be the name of an environment variable")
    if not isinstance(value, str):
        raise InvalidEnvironment(f"the environment variable {name} must be a string, not {type(value).__name__}")
    if "\0" in value or not _encodable(value):
        raise InvalidEnvironment(f"the environment variable {name} holds a NUL or a lone surrogate")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
