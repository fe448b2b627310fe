"""Whose things a call is about: every look-up is scoped by the actor's organisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LocalUser:
    """Who acts where there are no organisations, as on the command line; what it stores is under ``local``."""

    organization_id: str = "local"


def organization_of(actor: Any) -> str:
    """The organisation of an actor.

    Raises:
        ValueError: it has none.
    """
    organization = getattr(actor, "organization_id", None)
    if not organization:
        raise ValueError("the actor has no organisation: give a user with an organization_id")
    return str(organization)
