"""What kind of module a guest is; without wasmtime, for those who only want to know."""

from __future__ import annotations

from enum import Enum


class StartKind(Enum):
    """What kind of module a guest is."""

    REACTOR = "reactor"
    """Our own: started when its image was made, and called for each script."""
    COMMAND = "command"
    """Any CPython for WASI: started anew for each script."""
