"""Switches of a process: environment variables that choose another way of doing the same.

Those that name directories are in `directories`.
"""

from __future__ import annotations

import os

from wasm_sandbox.errors import HostError

ENGINE_VARIABLE = "WASM_SANDBOX_ENGINE"
"""``plain`` does without the mechanisms of the engine that have a plain twin: linear memory of ours, a signal handler
of ours and so the pausing of guests, and code of tools that is kept between runs. All else is the same, and slower."""

IMAGE_VARIABLE = "WASM_SANDBOX_IMAGE"
"""Names the directory of an exported image, which then is the default image of the process."""


def engine_is_plain() -> bool:
    """Whether ``$WASM_SANDBOX_ENGINE`` asks for the plain engine.

    Raises:
        HostError: if the variable has any other value.
    """
    configured = os.environ.get(ENGINE_VARIABLE, "")
    if configured not in ("", "plain"):
        raise HostError(f'{ENGINE_VARIABLE} is {configured!r}: set it to "plain", or leave it unset')
    return configured == "plain"


MAX_SESSIONS_VARIABLE = "WASM_SANDBOX_MAX_SESSIONS"
"""Most sessions that are open in a process at the same time; 1,000 if it is not set."""

_MAX_SESSIONS = 1000


def max_sessions() -> int:
    """Most open sessions of this process.

    Raises:
        HostError: if the variable is no whole number from 1.
    """
    configured = os.environ.get(MAX_SESSIONS_VARIABLE, "")
    if not configured:
        return _MAX_SESSIONS
    if not configured.isdecimal() or int(configured) < 1:
        raise HostError(f"{MAX_SESSIONS_VARIABLE} is {configured!r}: set it to a number from 1, or leave it unset")
    return int(configured)
