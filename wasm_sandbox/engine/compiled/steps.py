"""`Step` of an image's preparation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Script of an image's preparation, run in the scratch instance."""

    what: str
    """Name of the step in messages."""
    script: str
    """Python source."""
    stdin: bytes = b""
    """Standard input."""
    progress: bool = False
    """Whether the step is slow enough to be reported."""
