"""Who acts in tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Actor:
    """A user of an organisation, or of none."""

    organization_id: str | None = None
