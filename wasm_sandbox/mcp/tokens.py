"""Bearer tokens: who may use a server that others can reach."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

MIN_CHARACTERS = 16
MAX_FILE_BYTES = 1 << 20

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Tokens:
    """Bearer tokens; compared in constant time, and kept as hashes only.

    Args:
        tokens: the tokens, of at least 16 characters each.

    Raises:
        ValueError: if there is none, or one is short or holds what no header can.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            if len(token) < MIN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(
                    f"a token needs at least {MIN_CHARACTERS} printable ASCII characters without blanks: make one "
                    'with python -c "import secrets; print(secrets.token_urlsafe())"'
                )
        if not tokens:
            raise ValueError("there is no token: write one a line")
        self._hashes = [_hash(token.encode()) for token in tokens]

    @classmethod
    def read(cls, path: str) -> Tokens:
        """Read a file of tokens, one a line; empty lines and those that begin with ``#`` do not count.

        Raises:
            ValueError: if the file cannot be read, or as of the class.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
        lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
        try:
            return cls([line for line in lines if line and not line.startswith("#")])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def owner(self, header: bytes | None) -> str | None:
        """Name for whoever sent an ``Authorization`` header; None if it holds no token of these."""
        scheme, _, token = (header or b"").partition(b" ")
        given = _hash(token.strip())
        found = None
        for number, kept in enumerate(self._hashes, 1):  # all of them, so that no time tells which is right
            if hmac.compare_digest(kept, given):
                found = f"token {number}"
        return found if scheme.lower() == b"bearer" else None


def guarded(app: App, tokens: Tokens) -> App:
    """An ASGI application that only requests with a token reach; ``wasm_sandbox.owner`` in their scope says whose."""

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
        await app({**scope, "wasm_sandbox.owner": owner}, receive, send)

    return check


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
