"""One step of an image's preparation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One more script of the preparation, after the warm-up of the default image."""

    what: str
    """Names it in messages."""
    script: str
    stdin: bytes = b""
    """What it reads on standard input."""
    progress: bool = False
    """Whether it is slow enough to be told about."""
