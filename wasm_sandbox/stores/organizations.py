"""Organisation of an actor, which scopes every look-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LocalUser:
    """Actor where there are no organisations, as on the command line; its organisation is ``local``."""

    organization_id: str = "local"


def organization_of(actor: Any) -> str:
    """Organisation of an actor.

    Raises:
        ValueError: if the actor has no organisation.
    """
    organization = getattr(actor, "organization_id", None)
    if not organization:
        raise ValueError("the actor has no organisation: give a user with an organization_id")
    return str(organization)
