"""Visits: what is known of a request that is under way, for its handler; and the log."""

from __future__ import annotations

import asyncio
import secrets
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from pydantic_core import to_json
from starlette.requests import Request

from wasm_sandbox.serve.problems import Problem
from wasm_sandbox.serve.tokens import Client

KEY = "wasm_sandbox.visit"
"""Where a request's scope holds it."""


@dataclass
class Visit:
    """Request that is under way."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Name in the log, which the client is told, too."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server ends, and stops what is still under way."""
    who: Client | None = None
    """Client, once it is known."""
    operation: str | None = None
    """Name of what is asked for; none of the client's words."""
    outcome: str | None = None
    """How a call ended."""
    fuel: int | None = None
    """Fuel that it used."""
    problem: str | None = None
    """Problem that was the answer."""
    status: int | None = None
    """Status of the answer."""
    body_room: int = 0
    """Bytes that are reserved for its body."""
    has_unread_body: bool = False
    """Whether it has a body that was not read to its end."""
    bytes_in: int = 0
    """Size of its body."""
    bytes_out: int = 0
    """Size of the answer's body, as far as it was sent."""

    @property
    def client(self) -> Client:
        """Client.

        Raises:
            Problem: if it is not known.
        """
        if self.who is None:
            raise Problem(
                "unauthorized",
                "send a token of this server (Authorization: Bearer TOKEN)",
                headers={"WWW-Authenticate": 'Bearer realm="wasm-sandbox"'},
            )
        return self.who


def visit_of(request: Request) -> Visit:
    """Visit of a request."""
    return cast(Visit, request.scope[KEY])


class Log:
    """Log of requests: a line of JSON for each, without arguments, values, source, tokens or ids of sessions.

    Args:
        stream: where lines go; by default standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, event: str, **fields: Any) -> None:
        """Write a line.

        Args:
            event: what happened: a word of ours.
            fields: what is told of it; those that are None are left out.
        """
        told = {name: value for name, value in fields.items() if value is not None}
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = to_json({"at": at, "event": event, **told}, inf_nan_mode="strings", fallback=repr).decode()
        stream = self._stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):  # whoever read it is gone: no reason to end
            pass
