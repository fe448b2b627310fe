"""Merging and checking of the guest's environment variables. Pure; no message holds a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wasm_sandbox.errors import InvalidEnvironment

MAX_ENVIRONMENT_BYTES = 4 << 20


def merge_environment(*layers: Mapping[str, Any] | None) -> dict[str, str]:
    """Merge layers of variables, a later one winning; a final value of ``None`` drops its name.

    Raises:
        InvalidEnvironment: if a layer is no mapping; a name is no string, is empty or holds ``=`` or NUL; a value is
            no string or holds NUL or a lone surrogate; or all of it is too large.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer is not None and not isinstance(layer, Mapping):
            raise InvalidEnvironment(f"environment variables must be a mapping, not {type(layer).__name__}")
        merged.update(layer or {})
    merged = {name: value for name, value in merged.items() if value is not None}
    for name, value in merged.items():
        check_variable(name, value)
    size = sum(len(name.encode()) + len(value.encode()) + 2 for name, value in merged.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise InvalidEnvironment(f"the environment variables take {size} bytes, at most {MAX_ENVIRONMENT_BYTES} fit")
    return merged


def check_variable(name: object, value: object) -> None:
    """Refuse a variable that no environment can hold.

    Raises:
        InvalidEnvironment: if it is one; the message names the variable, never its value.
    """
    if not isinstance(name, str) or not name or "=" in name or "\0" in name or not _encodable(name):
        raise InvalidEnvironment(f"{name!r} cannot be the name of an environment variable")
    if not isinstance(value, str):
        raise InvalidEnvironment(f"the environment variable {name} must be a string, not {type(value).__name__}")
    if "\0" in value or not _encodable(value):
        raise InvalidEnvironment(f"the environment variable {name} holds a NUL or a lone surrogate")


def agent_variables(agent_state: Any) -> dict[Any, Any]:
    """Variables of the agent.

    They come from the state's method ``get_agent_env_vars_as_dict``, else from its ``secrets``: a mapping, or a
    list of items with ``key`` and ``value``. A state, and an item, may be an object or a mapping.

    Raises:
        InvalidEnvironment: if the secrets are neither, or an item has no key; the message quotes nothing of them.
    """
    gather = _member(agent_state, "get_agent_env_vars_as_dict")
    secrets = gather() if callable(gather) else _member(agent_state, "secrets")
    if secrets is None:
        return {}
    if isinstance(secrets, Mapping):
        return dict(secrets)
    if not isinstance(secrets, list | tuple):
        raise InvalidEnvironment(
            f"the agent's secrets must be a mapping or a list of items with key and value, not {type(secrets).__name__}"
        )
    variables = {}
    for number, item in enumerate(secrets):
        key = _member(item, "key")
        if not isinstance(key, str):
            raise InvalidEnvironment(f"item {number} of the agent's secrets has no key; give it key and value")
        variables[key] = _member(item, "value")
    return variables


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
