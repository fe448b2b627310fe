"""Guests over HTTP: the server behind ``wasm-sandbox serve``, its clients' tokens, sessions, and the playground.

Needs the extra ``serve``.

May import: values, faces, images, mcp, web.
Imported by: cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.serve.app import make_app as make_app
    from wasm_sandbox.serve.server import serve as serve
    from wasm_sandbox.serve.settings import Settings as Settings
    from wasm_sandbox.serve.tokens import Tokens as Tokens

_HOMES = {
    "Settings": "settings",
    "Tokens": "tokens",
    "make_app": "app",
    "serve": "server",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
