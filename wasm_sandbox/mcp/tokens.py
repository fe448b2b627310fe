"""Bearer tokens: who may use a server that others can reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from wasm_sandbox.web import holder_of, read_tokens

OWNER = "wasm_sandbox.owner"
"""Where a request's scope says whose it is."""

NOBODY = ""
"""Owner of what comes without tokens."""

_SECRET = frozenset({"name", "token", "sha256"})

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Tokens:
    """Bearer tokens; compared in constant time, and kept as digests only.

    Args:
        owners: SHA-256 of each token -> name of its owner.
    """

    def __init__(self, owners: dict[bytes, str]) -> None:
        self._owners = owners

    @property
    def names(self) -> list[str]:
        """Names of all owners, each once."""
        return [*dict.fromkeys(self._owners.values())]

    @classmethod
    def read(cls, path: str | Path) -> Tokens:
        """Read a token file (docs/serve.md), whose entries have a name and a token.

        Raises:
            ValueError: if the file cannot be read, or an entry is wrong or has what only ``wasm-sandbox serve`` keeps.
        """
        entries = read_tokens(Path(path))
        for number, entry in enumerate(entries, 1):
            if more := sorted(entry.model_fields_set - _SECRET):
                raise ValueError(
                    f"{path}: tokens.{number}.{more[0]}: here a token has a name only, and all have the limits of the "
                    "command; wasm-sandbox serve has /mcp, too, and keeps what stands here"
                )
        return cls({entry.digest: entry.name for entry in entries})

    def owner(self, header: bytes | None) -> str | None:
        """Name of whoever sent an ``Authorization`` header; None if it holds no token of these."""
        scheme, _, token = (header or b"").decode("latin-1").partition(" ")
        found = holder_of(token.strip(), self._owners)
        return found if scheme.lower() == "bearer" else None


def owned(scope: Scope, owner: str) -> Scope:
    """Scope of a request whose owner is known: to us, and to the SDK, whose sessions are their owner's, too."""
    user = AuthenticatedUser(AccessToken(token="", client_id=owner, scopes=[]))
    return {**scope, OWNER: owner, "user": user}


def guarded(app: App, tokens: Tokens) -> App:
    """An ASGI application that only requests with a token reach; `OWNER` in their scope says whose."""

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        owner = tokens.owner(given[0]) if len(given) == 1 else None
        if owner is None:
            headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"a bearer token is needed"})
            return
        await app(owned(scope, owner), receive, send)

    return check
