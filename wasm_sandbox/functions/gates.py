"""Gate in front of host functions: asked before each call, whatever it says is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from wasm_sandbox.results import Call


@dataclass(frozen=True)
class Deny:
    """Refusal of a call by a gate.

    Attributes:
        reason: sentence for the guest.
    """

    reason: str = "the call was denied"


Gate = Callable[[Call], "Deny | Awaitable[Deny | None] | None"]
"""Function that is asked before each call of a host function; ``None`` lets the call pass. It may be async. A gate that
raises, or returns anything else, denies."""
