"""What servers over HTTP share: who may come, where they listen, what slow clients may hold, large bodies, their end.

May import: values, faces.
Imported by: cli, mcp, serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.web.addresses import address_of as address_of
    from wasm_sandbox.web.addresses import is_loopback as is_loopback
    from wasm_sandbox.web.addresses import listen as listen
    from wasm_sandbox.web.json_bodies import MAX_ENTRIES as MAX_ENTRIES
    from wasm_sandbox.web.json_bodies import read_large as read_large
    from wasm_sandbox.web.server import Bounds as Bounds
    from wasm_sandbox.web.server import Server as Server
    from wasm_sandbox.web.tokens import TokenEntry as TokenEntry
    from wasm_sandbox.web.tokens import holder_of as holder_of
    from wasm_sandbox.web.tokens import read_tokens as read_tokens

_HOMES = {
    "Bounds": "server",
    "MAX_ENTRIES": "json_bodies",
    "Server": "server",
    "TokenEntry": "tokens",
    "address_of": "addresses",
    "holder_of": "tokens",
    "is_loopback": "addresses",
    "listen": "addresses",
    "read_large": "json_bodies",
    "read_tokens": "tokens",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
